//! Streams a file once and cuts it at ends of records, keeping exact bounds and counts of each piece.

use std::sync::Arc;

use arrow::array::Array;
use arrow::compute::{max, min};
use futures::TryStreamExt;
use tidegate_common::spec::model::{Compression, OnError};
use tidegate_common::time::{Bounds, EventTime, Window};
use tidegate_proto::v1;

use super::decode::{BadRecord, Form};
use super::records::{MAX_RECORD, Records};
use super::sort::{Engine, Sorted};
use super::{Head, Shared};
use crate::source::FoundSplit;
use crate::source::bounds::KnownBounds;
use crate::source::error::{During, SourceError};
use crate::source::store::PinnedFile;

/// About how many bytes a unit holds.
pub(super) const UNIT_BYTES: u64 = 16 << 20;

/// A run of records.
struct Piece {
    position: u64,
    length: u64,
    rows: u64,
    known: KnownBounds,
}

impl Shared {
    /// The split of one file.
    pub(super) async fn find(&self, pin: v1::FilePin, window: Window) -> Result<FoundSplit, SourceError> {
        let file = self.store.open_pinned(&pin).await?;
        let promised = self.rule.promised(file.name()).transpose().map_err(|what| self.input(what))?;
        let head = self.head(&file).await?;
        let is_counted = promised.is_none() || self.rule.column().is_none();
        let pieces = if is_counted {
            self.pieces(&file, &head, promised).await?
        } else {
            let known = KnownBounds { bounds: promised, has_nulls: false };
            let length = file.size().saturating_sub(head.start);
            if length == 0 { Vec::new() } else { vec![Piece { position: head.start, length, rows: 0, known }] }
        };
        let some = pieces.iter().filter_map(|piece| piece.known.bounds).reduce(Bounds::union);
        let mut found = FoundSplit { split: v1::Split { file: Some(pin), ..Default::default() }, ..Default::default() };
        for piece in pieces {
            let Some(within) = piece.known.within(window, some) else {
                found.rows_pruned += piece.rows;
                found.bytes_pruned += piece.length;
                continue;
            };
            found.units.push(v1::UnitOfWork {
                split: 0,
                position: piece.position,
                length: piece.length,
                rows: piece.rows,
                bytes: piece.length,
                low: within.low().as_micros(),
                high: within.high().as_micros(),
            });
        }
        found.units.sort_by_key(|unit| (unit.low, unit.high, unit.position));
        Ok(found)
    }

    async fn pieces(
        &self,
        file: &PinnedFile,
        head: &Head,
        promised: Option<Bounds>,
    ) -> Result<Vec<Piece>, SourceError> {
        let read: Vec<usize> = match self.rule.column() {
            _ if self.is_inferred => (0..self.schema.fields().len()).collect(),
            column => vec![column.unwrap_or(0)],
        };
        let form = Arc::new(Form::new(&self.dialect, &self.schema, head, &read, self.is_inferred));
        let is_whole = self.compression_of(file.name()) != Compression::None;
        let mut cutter = Cutter {
            shared: self,
            file,
            form,
            records: self.dialect.records(),
            time: self.rule.column().and_then(|column| read.iter().position(|at| *at == column)),
            at: head.start,
            lines_before: self.lines_until(file, head.start).await?,
            is_whole,
            pieces: Vec::new(),
        };
        let mut text = self.bytes(file, head.start, None, During::Plan).await?;
        let mut open = cutter.open()?;
        while let Some(chunk) = text.try_next().await? {
            open = cutter.take(open, &chunk)?;
        }
        cutter.close(open)?;
        let mut pieces = cutter.pieces;
        for piece in &mut pieces {
            if promised.is_some() {
                piece.known = KnownBounds { bounds: promised, has_nulls: false };
            }
            if is_whole {
                piece.length = file.size();
            }
        }
        Ok(pieces)
    }

    /// The lines that end before byte `end` of the file.
    pub(super) async fn lines_until(&self, file: &PinnedFile, end: u64) -> Result<u64, SourceError> {
        let mut text = self.bytes(file, 0, Some(end), During::Plan).await?;
        let (mut lines, mut left) = (0, end);
        while left > 0 {
            let Some(chunk) = text.try_next().await? else { break };
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
            lines += super::records::line_ends(chunk.get(..now).unwrap_or_default());
            left -= now as u64;
        }
        Ok(lines)
    }

    /// The error of a record that does not decode.
    pub(super) fn bad_record(&self, file: &str, lines_before: u64, bad: BadRecord, during: During) -> SourceError {
        let place = format!("line {}", lines_before + bad.lines_before + 1);
        let hint = if self.is_inferred {
            " (the columns were inferred from the files' beginning: give them in `schema`)"
        } else {
            " (`on_error: dead_letter` of the source keeps such records and goes on)"
        };
        // The record was decoded alone: the decoder's own count of lines says nothing.
        let source = format!("{}{hint}", bad.error.to_string().replace(" at line 0", "")).into();
        SourceError::Corrupt { file: file.to_owned(), place, during, source }
    }
}

/// The piece under way.
struct Open {
    engine: Engine,
    piece: Piece,
}

/// Cuts one file.
struct Cutter<'a> {
    shared: &'a Shared,
    file: &'a PinnedFile,
    form: Arc<Form>,
    records: Records,
    /// The event-time column's place among those decoded.
    time: Option<usize>,
    at: u64,
    lines_before: u64,
    is_whole: bool,
    pieces: Vec<Piece>,
}

impl Cutter<'_> {
    fn open(&self) -> Result<Open, SourceError> {
        let known = KnownBounds { bounds: None, has_nulls: false };
        let engine = self.shared.engine(self.form.clone(), self.time, self.at).map_err(|bad| self.bad(bad))?;
        Ok(Open { engine, piece: Piece { position: self.at, length: 0, rows: 0, known } })
    }

    fn take(&mut self, mut open: Open, mut text: &[u8]) -> Result<Open, SourceError> {
        while !text.is_empty() {
            let room = if self.is_whole { u64::MAX } else { self.shared.unit_bytes.saturating_sub(open.piece.length) };
            let cut = self.records.end(text, usize::try_from(room).unwrap_or(usize::MAX));
            let (now, rest) = text.split_at(cut.unwrap_or(text.len()));
            self.check_length(now)?;
            self.feed(&mut open, now)?;
            text = rest;
            if cut.is_some() {
                self.close(open)?;
                open = self.open()?;
            }
        }
        Ok(open)
    }

    /// A record without an end would be held in memory whole.
    fn check_length(&self, text: &[u8]) -> Result<(), SourceError> {
        let length = self.records.length();
        if length <= MAX_RECORD || self.shared.on_error == OnError::DeadLetter {
            return Ok(());
        }
        Err(SourceError::Corrupt {
            file: self.file.name().to_owned(),
            place: format!("the record at byte {}", (self.at + text.len() as u64).saturating_sub(length)),
            during: During::Plan,
            source: format!("it is longer than {} MiB: is a quote not closed?", MAX_RECORD >> 20).into(),
        })
    }

    fn feed(&mut self, open: &mut Open, text: &[u8]) -> Result<(), SourceError> {
        let mut full = Vec::new();
        open.engine.feed(text, &mut full).map_err(|bad| self.bad(bad))?;
        self.at += text.len() as u64;
        open.piece.length += text.len() as u64;
        full.iter().for_each(|sorted| self.count(&mut open.piece, sorted));
        Ok(())
    }

    fn close(&mut self, mut open: Open) -> Result<(), SourceError> {
        let mut full = Vec::new();
        open.engine.finish(&mut full).map_err(|bad| self.bad(bad))?;
        full.iter().for_each(|sorted| self.count(&mut open.piece, sorted));
        self.lines_before += open.engine.lines();
        if open.piece.rows > 0 {
            self.pieces.push(open.piece);
        }
        Ok(())
    }

    fn count(&self, piece: &mut Piece, sorted: &Sorted) {
        piece.rows += sorted.records();
        piece.known.has_nulls |= !sorted.dead.is_empty();
        let batch = &sorted.rows;
        let Some(time) = self.time else { return };
        let times = self.shared.rule.of_column(batch.column(time));
        piece.known.has_nulls |= times.null_count() > 0;
        let here = min(&times).zip(max(&times));
        let here = here.and_then(|(low, high)| Bounds::new(EventTime::from_micros(low), EventTime::from_micros(high)));
        piece.known.bounds = piece.known.bounds.into_iter().chain(here).reduce(Bounds::union);
    }

    fn bad(&self, bad: BadRecord) -> SourceError {
        self.shared.bad_record(self.file.name(), self.lines_before, bad, During::Plan)
    }
}
