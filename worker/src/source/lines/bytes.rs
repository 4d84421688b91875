//! The bytes of a file, decompressed as they arrive.

use std::io::Read;

use bytes::{Buf, Bytes};
use futures::StreamExt;
use futures::stream::BoxStream;
use tidegate_common::spec::model::Compression;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::source::error::{During, SourceError};
use crate::source::store::PinnedFile;

/// Chunks that wait on either side of a decompressor.
const AHEAD: usize = 4;
/// Bytes of a decompressed chunk.
const CHUNK: usize = 256 << 10;

/// The compression that the spec gives, or the ending of `path`.
pub(super) fn compression_of(given: Option<Compression>, path: &str) -> Compression {
    let path = path.to_lowercase();
    given.unwrap_or(if path.ends_with(".gz") {
        Compression::Gzip
    } else if path.ends_with(".zst") {
        Compression::Zstd
    } else {
        Compression::None
    })
}

/// The whole of `file`, decompressed on a thread of its own; several members or frames are one text.
pub(super) async fn decompressed(
    file: &PinnedFile,
    compression: Compression,
    during: During,
) -> Result<BoxStream<'static, Result<Bytes, SourceError>>, SourceError> {
    if file.size() == 0 {
        return Ok(futures::stream::empty().boxed());
    }
    let mut raw = file.stream(0..file.size()).await?;
    let (to_read, input) = mpsc::channel(AHEAD);
    let (output, decompressed) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        while let Some(chunk) = raw.next().await {
            if to_read.send(chunk).await.is_err() {
                break;
            }
        }
    });
    let name = file.name().to_owned();
    tokio::task::spawn_blocking(move || {
        let mut input = Input { chunks: input, now: Bytes::new(), failed: None };
        let ended = match compression {
            Compression::Gzip => pump(flate2::read::MultiGzDecoder::new(&mut input), &output),
            Compression::Zstd => zstd::stream::read::Decoder::new(&mut input).and_then(|d| pump(d, &output)),
            Compression::None => pump(&mut input, &output),
        };
        if let Err(e) = ended {
            let corrupt = || SourceError::Corrupt { file: name, place: String::new(), during, source: Box::new(e) };
            let _gone = output.blocking_send(Err(input.failed.take().unwrap_or_else(corrupt)));
        }
    });
    Ok(ReceiverStream::new(decompressed).boxed())
}

/// `stream` without its first `skip` bytes.
pub(super) fn skip(
    stream: BoxStream<'static, Result<Bytes, SourceError>>,
    mut skip: u64,
) -> BoxStream<'static, Result<Bytes, SourceError>> {
    let rest = stream.map(move |chunk| {
        let mut chunk = chunk?;
        let now = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
        chunk.advance(now);
        skip -= now as u64;
        Ok(chunk)
    });
    rest.boxed()
}

fn pump(mut from: impl Read, to: &mpsc::Sender<Result<Bytes, SourceError>>) -> std::io::Result<()> {
    loop {
        let mut chunk = vec![0; CHUNK];
        let read = from.read(&mut chunk)?;
        chunk.truncate(read);
        if read == 0 || to.blocking_send(Ok(chunk.into())).is_err() {
            return Ok(());
        }
    }
}

/// The compressed bytes, for a decompressor that pulls.
struct Input {
    chunks: mpsc::Receiver<Result<Bytes, SourceError>>,
    now: Bytes,
    failed: Option<SourceError>,
}

impl Read for Input {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        while self.now.is_empty() {
            match self.chunks.blocking_recv() {
                None => return Ok(0),
                Some(Ok(chunk)) => self.now = chunk,
                Some(Err(e)) => {
                    self.failed = Some(e);
                    return Err(std::io::Error::other("the store failed"));
                }
            }
        }
        let count = into.len().min(self.now.len());
        self.now.split_to(count).copy_to_slice(into.get_mut(..count).unwrap_or_default());
        Ok(count)
    }
}
