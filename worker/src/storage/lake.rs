//! Where the files of a catalog's tables stand: this machine's disk, and buckets, as Iceberg's library wants them.
//!
//! A file is written once, under a name that is used once: where the store can, a write fails that would replace
//! one. Nothing is ever deleted. A bucket makes an object durable before it answers.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use iceberg::io::{
    FileIO, FileIOBuilder, FileMetadata, FileRead, FileWrite, InputFile, LocalFsStorage, OutputFile, Storage,
    StorageConfig, StorageFactory,
};
use iceberg::{Error, ErrorKind, Result};
use object_store::aws::AwsCredentialProvider;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, WriteMultipart};
use serde::{Deserialize, Serialize};

use super::disk::DiskFile;
use super::renew::{Keyring, Renew};
use super::s3::S3;
use super::{StoreError, Trouble};

/// Bytes of a part of a large object; the least that S3 takes. A file under way holds at most
/// three in memory, beside what it is being given.
pub(crate) const PART: usize = 5 << 20;
/// Parts of one object that are sent at a time, beside the one that is filled.
const PARTS_AT_A_TIME: usize = 2;

/// Where the files of a catalog's tables stand: this machine's disk, and buckets.
#[derive(Clone, Debug)]
pub struct Lake {
    io: FileIO,
    buckets: Arc<Buckets>,
}

impl Lake {
    /// This machine's disk alone.
    pub fn local() -> Self {
        Self::of(Buckets::default())
    }

    /// This machine's disk, and buckets that are reached as `s3` says.
    pub(crate) fn with_buckets(s3: S3) -> Self {
        Self::of(Buckets { s3: Some(s3), ..Buckets::default() })
    }

    /// As [`Lake::with_buckets`], with keys that `from` hands out anew before they end.
    pub(crate) fn with_renewed(s3: S3, from: Arc<dyn Renew>) -> Self {
        let keys = Keyring::of(&s3, from).map(Arc::new);
        Self::of(Buckets { s3: Some(s3), keys, ..Buckets::default() })
    }

    fn of(buckets: Buckets) -> Self {
        let buckets = Arc::new(buckets);
        let io = FileIOBuilder::new(Arc::new(LakeFactory { buckets: buckets.clone() })).build();
        Self { io, buckets }
    }

    /// The same, for Iceberg's library.
    pub fn io(&self) -> &FileIO {
        &self.io
    }

    /// The object at `url`, and its bucket; the error says why there can be none.
    pub(crate) fn object(&self, url: &str) -> std::result::Result<(Arc<dyn ObjectStore>, Path), String> {
        self.buckets.object(url)
    }

    /// Writes an object that must not be there yet.
    pub(crate) async fn put_new(&self, url: &str, content: Bytes) -> Result<()> {
        self.buckets.put_new(url, content).await
    }
}

/// Whether `location` is in a bucket.
fn is_bucket(location: &str) -> bool {
    location.contains("://") && !location.starts_with("file:")
}

/// The buckets that were asked for, each opened once.
#[derive(Debug, Default)]
struct Buckets {
    s3: Option<S3>,
    /// Keys that stand above those of the settings.
    keys: Option<Arc<Keyring>>,
    open: Mutex<BTreeMap<String, Arc<dyn ObjectStore>>>,
}

impl Buckets {
    fn object(&self, url: &str) -> std::result::Result<(Arc<dyn ObjectStore>, Path), String> {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if !matches!(scheme, "s3" | "s3a" | "s3n") {
            return Err(format!("{url}: tables are read and written on this machine's disk and on s3:// only"));
        }
        let key = Path::parse(key).map_err(|error| format!("{url}: {error}"))?;
        let s3 = self.s3.as_ref().ok_or_else(|| {
            format!("{url}: the catalog has no `storage` settings, and without them no bucket is reached")
        })?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = open.get(bucket) {
            return Ok((store.clone(), key));
        }
        let keys = self.keys.clone().map(|keys| keys as AwsCredentialProvider);
        let store: Arc<dyn ObjectStore> = Arc::new(s3.open(bucket, keys).map_err(|why| format!("{url}: {why}"))?);
        open.insert(bucket.to_owned(), store.clone());
        Ok((store, key))
    }

    fn place(&self, url: &str) -> Result<(Arc<dyn ObjectStore>, Path)> {
        self.object(url).map_err(|why| Error::new(ErrorKind::DataInvalid, why))
    }

    async fn put_new(&self, url: &str, content: Bytes) -> Result<()> {
        let (store, key) = self.place(url)?;
        put_new(&store, &key, content.into()).await.map_err(failed("write", url))
    }
}

async fn put_new(store: &Arc<dyn ObjectStore>, key: &Path, content: PutPayload) -> object_store::Result<()> {
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    store.put_opts(key, content, options).await.map(drop)
}

/// What a store's failure is to Iceberg's library, and to whoever reads its message.
fn failed(doing: &str, url: &str) -> impl FnOnce(object_store::Error) -> Error {
    let what = format!("cannot {doing} {url}");
    move |error| {
        let error = StoreError(error);
        let is_gone = error.trouble() == Trouble::Missing;
        let kind = if is_gone { ErrorKind::DataInvalid } else { ErrorKind::Unexpected };
        Error::new(kind, what).with_source(error)
    }
}

/// The seam to Iceberg's library. It never crosses a wire, so nothing of it is serialised.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct LakeFactory {
    #[serde(skip)]
    buckets: Arc<Buckets>,
}

#[typetag::serde(name = "tidegate")]
impl StorageFactory for LakeFactory {
    fn build(&self, _: &StorageConfig) -> Result<Arc<dyn Storage>> {
        Ok(Arc::new(LakeStorage { disk: LocalFsStorage::new(), buckets: self.buckets.clone() }))
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct LakeStorage {
    disk: LocalFsStorage,
    #[serde(skip)]
    buckets: Arc<Buckets>,
}

#[async_trait]
#[typetag::serde(name = "tidegate")]
impl Storage for LakeStorage {
    async fn exists(&self, path: &str) -> Result<bool> {
        if !is_bucket(path) {
            return self.disk.exists(path).await;
        }
        let (store, key) = self.buckets.place(path)?;
        match store.head(&key).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(failed("look for", path)(error)),
        }
    }

    async fn metadata(&self, path: &str) -> Result<FileMetadata> {
        if !is_bucket(path) {
            return self.disk.metadata(path).await;
        }
        let (store, key) = self.buckets.place(path)?;
        let meta = store.head(&key).await.map_err(failed("look at", path))?;
        Ok(FileMetadata { size: meta.size })
    }

    async fn read(&self, path: &str) -> Result<Bytes> {
        if !is_bucket(path) {
            return self.disk.read(path).await;
        }
        let (store, key) = self.buckets.place(path)?;
        let read = async || store.get(&key).await?.bytes().await;
        read().await.map_err(failed("read", path))
    }

    async fn reader(&self, path: &str) -> Result<Box<dyn FileRead>> {
        if !is_bucket(path) {
            return self.disk.reader(path).await;
        }
        let (store, key) = self.buckets.place(path)?;
        Ok(Box::new(Object { store, key, url: path.to_owned() }))
    }

    async fn write(&self, path: &str, content: Bytes) -> Result<()> {
        if !is_bucket(path) {
            return self.disk.write(path, content).await;
        }
        self.buckets.put_new(path, content).await
    }

    async fn writer(&self, path: &str) -> Result<Box<dyn FileWrite>> {
        if !is_bucket(path) {
            return Ok(Box::new(DiskFile::create(path)?));
        }
        let (store, key) = self.buckets.place(path)?;
        let object = Object { store, key, url: path.to_owned() };
        Ok(Box::new(Upload { object, held: Vec::new(), bytes: 0, parts: None, is_closed: false }))
    }

    async fn delete(&self, path: &str) -> Result<()> {
        Err(nothing_is_deleted(path))
    }

    async fn delete_prefix(&self, path: &str) -> Result<()> {
        Err(nothing_is_deleted(path))
    }

    async fn delete_stream(&self, _: BoxStream<'static, String>) -> Result<()> {
        Err(nothing_is_deleted("files"))
    }

    fn new_input(&self, path: &str) -> Result<InputFile> {
        Ok(InputFile::new(Arc::new(self.clone()), path.to_owned()))
    }

    fn new_output(&self, path: &str) -> Result<OutputFile> {
        Ok(OutputFile::new(Arc::new(self.clone()), path.to_owned()))
    }
}

fn nothing_is_deleted(path: &str) -> Error {
    Error::new(ErrorKind::FeatureUnsupported, format!("{path}: a worker deletes nothing"))
}

/// One object.
struct Object {
    store: Arc<dyn ObjectStore>,
    key: Path,
    url: String,
}

#[async_trait]
impl FileRead for Object {
    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        self.store.get_range(&self.key, range).await.map_err(failed("read", &self.url))
    }
}

/// An object while it is written: in one request where it is small, in parts where it is not.
struct Upload {
    object: Object,
    held: Vec<Bytes>,
    bytes: usize,
    parts: Option<WriteMultipart>,
    is_closed: bool,
}

impl Upload {
    /// Sends what is held as parts.
    async fn send(&mut self) -> Result<()> {
        let url = self.object.url.clone();
        let parts = match &mut self.parts {
            Some(parts) => parts,
            None => {
                let upload = self.object.store.put_multipart(&self.object.key).await.map_err(failed("write", &url))?;
                self.parts.insert(WriteMultipart::new_with_chunk_size(upload, PART))
            }
        };
        for bytes in self.held.drain(..) {
            // Copied part by part: what is left over would keep all of a row group in memory.
            for part in bytes.chunks(PART) {
                parts.write(part);
                parts.wait_for_capacity(PARTS_AT_A_TIME).await.map_err(failed("write", &url))?;
            }
        }
        self.bytes = 0;
        Ok(())
    }
}

#[async_trait]
impl FileWrite for Upload {
    async fn write(&mut self, content: Bytes) -> Result<()> {
        self.bytes += content.len();
        self.held.push(content);
        if self.parts.is_some() || self.bytes > PART { self.send().await } else { Ok(()) }
    }

    async fn close(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.is_closed, true) {
            return Err(Error::new(ErrorKind::DataInvalid, format!("{} is closed already", self.object.url)));
        }
        let url = self.object.url.clone();
        match self.parts.take() {
            Some(parts) => parts.finish().await.map(drop).map_err(failed("write", &url)),
            None => {
                let content: PutPayload = std::mem::take(&mut self.held).into_iter().collect();
                put_new(&self.object.store, &self.object.key, content).await.map_err(failed("write", &url))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use object_store::memory::InMemory;

    use super::*;

    /// A lake of one bucket, `b`, in memory.
    fn lake() -> Lake {
        let lake = Lake::with_buckets(S3::default());
        lake.buckets.open.lock().unwrap().insert("b".to_owned(), Arc::new(InMemory::new()));
        lake
    }

    fn content(bytes: usize) -> Bytes {
        (0..bytes).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect()
    }

    #[tokio::test]
    async fn an_object_is_what_was_written_in_one_request_or_in_parts() {
        let lake = lake();
        for bytes in [0, 1, PART - 1, PART, PART + 1, 2 * PART, 3 * PART + 12_345] {
            let (url, content) = (format!("s3://b/x/{bytes}"), content(bytes));
            let mut writer = lake.io().new_output(&url).unwrap().writer().await.unwrap();
            for piece in content.chunks(777_777) {
                writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
            }
            writer.close().await.unwrap();
            assert!(writer.close().await.is_err());
            let input = lake.io().new_input(&url).unwrap();
            assert_eq!(input.metadata().await.unwrap().size, bytes as u64);
            assert!(input.read().await.unwrap() == content, "{bytes}");
            if bytes > 9 {
                let piece = input.reader().await.unwrap().read(3..9).await.unwrap();
                assert_eq!(piece, content.slice(3..9));
            }
        }
    }

    #[tokio::test]
    async fn what_is_there_is_neither_replaced_nor_deleted() {
        let lake = lake();
        let output = || lake.io().new_output("s3://b/x").unwrap();
        output().write(Bytes::from_static(b"one")).await.unwrap();
        assert!(output().write(Bytes::from_static(b"two")).await.is_err());
        let mut writer = output().writer().await.unwrap();
        writer.write(Bytes::from_static(b"two")).await.unwrap();
        assert!(writer.close().await.is_err());
        assert!(lake.io().delete("s3://b/x").await.is_err());
        assert_eq!(lake.io().new_input("s3://b/x").unwrap().read().await.unwrap(), "one");
        assert!(!lake.io().exists("s3://b/y").await.unwrap());
        assert!(lake.io().new_input("s3://b/y").unwrap().read().await.is_err());
    }

    #[test]
    fn a_lake_without_settings_reaches_no_bucket_and_no_lake_reaches_another_scheme() {
        assert!(Lake::local().object("s3://b/x").unwrap_err().contains("`storage`"));
        assert!(lake().object("gs://b/x").unwrap_err().contains("s3://"));
        assert!(lake().object("s3://b/x").is_ok());
    }
}
