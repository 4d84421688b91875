//! Decodes around the records that do not decode: sound records become rows, the others dead letters.
//!
//! A record is a line of JSON, or of CSV outside quotes; an empty one is none. Each is exactly one row or one dead
//! letter, whichever columns are decoded, so that a count of a file does not depend on who counts. Text is held in
//! blocks of whole records: a file of nothing but bad ones takes no more memory than another.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch, is_not_null};
use arrow::error::ArrowError;
use bytes::{Bytes, BytesMut};

use super::decode::{BadRecord, Decoder, Decoding, Form, OPEN};
use super::records::{MAX_RECORD, Records, is_open, spans};
use crate::source::dead::{DeadRecord, MAX_RAW, NO_EVENT_TIME, RawAs};
use crate::source::event_time::EventTimeRule;

/// Bytes that are decoded at a time, unless one record is longer.
const BLOCK: usize = 256 << 10;
/// Parts into which records are cut of which some are bad, nobody knows which.
const PARTS: usize = 16;

/// Rows, and the records among them that are none.
#[derive(Debug)]
pub(super) struct Sorted {
    pub(super) rows: RecordBatch,
    pub(super) dead: Vec<DeadRecord>,
}

impl Sorted {
    /// Records in all.
    pub(super) fn records(&self) -> u64 {
        self.rows.num_rows() as u64 + self.dead.len() as u64
    }
}

/// Decodes a text: to its first bad record, or around every one.
pub(super) enum Engine {
    Strict(Box<Decoding>),
    Sorting(Box<Sorting>),
}

impl Engine {
    /// To the first bad record.
    pub(super) fn strict(form: Arc<Form>) -> Result<Self, BadRecord> {
        Ok(Self::Strict(Box::new(Decoding::new(form)?)))
    }

    /// Around every bad record of a text that begins at byte `at`. `time` is the event time's place among the decoded
    /// columns: a row without one is a bad record, too.
    pub(super) fn sorting(form: Arc<Form>, time: Option<(usize, EventTimeRule)>, at: u64) -> Self {
        Self::Sorting(Box::new(Sorting { blocks: Blocks::new(&form, at), form, time }))
    }

    /// The same, with records of up to `longest` bytes.
    #[cfg(test)]
    pub(super) fn with_longest(mut self, longest: u64) -> Self {
        if let Self::Sorting(sorting) = &mut self {
            sorting.blocks.longest = longest;
        }
        self
    }

    /// Takes more of the text and adds what it fills to `full`.
    pub(super) fn feed(&mut self, text: &[u8], full: &mut Vec<Sorted>) -> Result<(), BadRecord> {
        match self {
            Self::Strict(decoding) => sound(full, |rows| decoding.feed(text, rows)),
            Self::Sorting(sorting) => sorting.feed(text, full),
        }
    }

    /// Ends the text, which is at the end of a record or of the file, and adds what remains to `full`.
    pub(super) fn finish(&mut self, full: &mut Vec<Sorted>) -> Result<(), BadRecord> {
        match self {
            Self::Strict(decoding) => sound(full, |rows| decoding.finish(rows)),
            Self::Sorting(sorting) => sorting.finish(full),
        }
    }

    /// Lines that ended in the text so far; only counted to name a record that fails the file.
    pub(super) fn lines(&self) -> u64 {
        match self {
            Self::Strict(decoding) => decoding.lines(),
            Self::Sorting(_) => 0,
        }
    }
}

fn sound(
    full: &mut Vec<Sorted>,
    decode: impl FnOnce(&mut Vec<RecordBatch>) -> Result<(), BadRecord>,
) -> Result<(), BadRecord> {
    let mut rows = Vec::new();
    let decoded = decode(&mut rows);
    full.extend(rows.into_iter().map(|rows| Sorted { rows, dead: Vec::new() }));
    decoded
}

/// Decodes blocks.
pub(super) struct Sorting {
    form: Arc<Form>,
    time: Option<(usize, EventTimeRule)>,
    blocks: Blocks,
}

impl Sorting {
    fn feed(&mut self, text: &[u8], full: &mut Vec<Sorted>) -> Result<(), BadRecord> {
        let mut blocks = Vec::new();
        self.blocks.feed(text, &mut blocks);
        blocks.into_iter().try_for_each(|block| self.sort(block, full))
    }

    fn finish(&mut self, full: &mut Vec<Sorted>) -> Result<(), BadRecord> {
        let mut blocks = Vec::new();
        self.blocks.finish(&mut blocks);
        blocks.into_iter().try_for_each(|block| self.sort(block, full))
    }

    fn sort(&self, block: Block, full: &mut Vec<Sorted>) -> Result<(), BadRecord> {
        let sorted = match block {
            Block::Records { at, text } => self.records(at, &text),
            Block::Giant(dead) => Ok(Sorted { rows: RecordBatch::new_empty(self.form.decoded()), dead: vec![dead] }),
        };
        let sorted = sorted.map_err(|error| BadRecord { lines_before: 0, error })?;
        full.extend((sorted.records() > 0).then_some(sorted));
        Ok(())
    }

    /// Sorts a block: what fails as a whole is taken apart until the bad records stand alone.
    fn records(&self, at: u64, text: &Bytes) -> Result<Sorted, ArrowError> {
        let raw_as = self.form.raw_as();
        let all = spans(text, self.form.delimiter());
        let (mut rows, mut dead) = (Vec::new(), Vec::new());
        let mut bury = |span: &Range<usize>, error: String| {
            let raw = text.slice_ref(without_end(text.get(span.clone()).unwrap_or_default()));
            dead.push(DeadRecord::new(at + span.start as u64, &raw, raw_as, error));
        };
        let mut ahead: Vec<&[Range<usize>]> = if all.is_empty() { Vec::new() } else { vec![&all] };
        let mut decoder = None;
        while let Some(now) = ahead.pop() {
            match self.form.decode_all(&mut decoder, all.len() + 1, text, now)? {
                Ok(batch) => rows.extend(self.timed(batch, |row| {
                    if let Some(span) = now.get(row) {
                        bury(span, NO_EVENT_TIME.to_owned());
                    }
                })?),
                Err(bad) => {
                    let at = bad.at.filter(|at| *at < now.len()).or((now.len() == 1).then_some(0));
                    if let Some((at, one)) = at.and_then(|at| Some((at, now.get(at)?))) {
                        bury(one, bad.error);
                        let (before, behind) = (now.get(..at), now.get(at + 1..));
                        ahead.extend([behind, before].into_iter().flatten().filter(|some| !some.is_empty()));
                    } else {
                        // Where one in a hundred is bad, nearly all halves would be bad, and their halves.
                        ahead.extend(now.chunks(now.len().div_ceil(PARTS)).rev());
                    }
                }
            }
        }
        dead.sort_by_key(|one| one.position);
        let rows = match rows.len() {
            1 => rows.swap_remove(0),
            _ => concat_batches(&self.form.decoded(), &rows)?,
        };
        Ok(Sorted { rows, dead })
    }

    /// The rows of `batch` that have an event time; the others are told by their place.
    fn timed(&self, batch: RecordBatch, without: impl FnMut(usize)) -> Result<Option<RecordBatch>, ArrowError> {
        let Some((column, rule)) = &self.time else { return Ok(Some(batch)) };
        let times = rule.of_column(batch.column(*column));
        if times.null_count() == 0 {
            return Ok(Some(batch));
        }
        (0..times.len()).filter(|row| times.is_null(*row)).for_each(without);
        let kept = filter_record_batch(&batch, &is_not_null(&times)?)?;
        Ok((kept.num_rows() > 0).then_some(kept))
    }
}

/// Why some records do not decode together.
pub(super) struct Bad {
    /// The first bad one; none where only their values are known to be bad.
    at: Option<usize>,
    error: String,
}

impl Form {
    fn raw_as(&self) -> RawAs {
        if self.delimiter().is_some() { RawAs::Csv } else { RawAs::Json }
    }

    /// The records of `text` at `spans`, decoded as one row each; or why that is not possible. `spare` is a decoder of
    /// up to `most` rows with nothing in it: making one takes longer than a few records do.
    fn decode_all(
        &self,
        spare: &mut Option<Decoder>,
        most: usize,
        text: &[u8],
        spans: &[Range<usize>],
    ) -> Result<Result<RecordBatch, Bad>, ArrowError> {
        let ends = spans.last().is_some_and(|span| span.end == text.len());
        let last = spans.last().and_then(|span| text.get(span.clone())).filter(|_| ends);
        if last.is_some_and(|last| is_open(last, self.delimiter())) {
            return Ok(Err(Bad { at: spans.len().checked_sub(1), error: OPEN.to_owned() }));
        }
        let mut decoder = spare.take().map_or_else(|| self.decoder(most), Ok)?;
        if let Err((at, error)) = decoder.all(text, spans) {
            return Ok(Err(Bad { at: Some(at), error: said(&error) }));
        }
        let decoded = decoder.flush();
        *spare = Some(decoder).filter(|decoder| !ends && decoder.is_empty(most));
        Ok(match decoded {
            Ok(Some(batch)) if batch.num_rows() == spans.len() => Ok(batch),
            Ok(_) => Err(Bad { at: None, error: "it is not one record".to_owned() }),
            Err(error) => Err(Bad { at: None, error: said(&error) }),
        })
    }
}

impl Decoder {
    /// Whether nothing is left in it, a decoder of up to `most` rows, of what it was given.
    fn is_empty(&self, most: usize) -> bool {
        match self {
            Self::Csv(decoder) => decoder.capacity() == most,
            Self::Json(decoder) => decoder.is_empty() && !decoder.has_partial_record(),
        }
    }

    /// Decodes the records of `text` at `spans`, each as exactly one; or which of them is none, and why.
    fn all(&mut self, text: &[u8], spans: &[Range<usize>]) -> Result<(), (usize, ArrowError)> {
        let wrong = |what: &str| ArrowError::ParseError(what.to_owned());
        match self {
            // Its records end where ours do, and it skips what is blank between them.
            Self::Csv(decoder) => {
                let room = decoder.capacity();
                let (start, end) =
                    spans.first().zip(spans.last()).map_or((0, 0), |(first, last)| (first.start, last.end));
                let text = text.get(start..end).unwrap_or_default();
                let mut decoded = decoder.decode(text);
                if decoded.is_ok() && !text.ends_with(b"\n") && !text.ends_with(b"\r") {
                    decoded = decoder.decode(&[]); // the last one ends with the file
                }
                let records = room - decoder.capacity();
                decoded.map_err(|error| (records, error))?;
                if records == spans.len() { Ok(()) } else { Err((records, wrong("it is not one record"))) }
            }
            Self::Json(decoder) => spans.iter().enumerate().try_for_each(|(at, span)| {
                let line = text.get(span.clone()).unwrap_or_default();
                let taken = decoder.decode(line).map_err(|error| (at, error))?;
                if decoder.has_partial_record() {
                    return Err((at, wrong("it ends within a value")));
                }
                let is_one = decoder.len() == at + 1 && taken == line.len();
                if is_one { Ok(()) } else { Err((at, wrong("the line holds more than one value"))) }
            }),
        }
    }
}

/// What a decoder says, without the line that it counts itself at, and without the record: that is kept anyway.
fn said(error: &ArrowError) -> String {
    let said = error.to_string();
    let mut said = said.split(". Row data: ").next().unwrap_or_default().to_owned();
    for counted in [" at line ", " for line "] {
        if let Some((before, after)) = said.split_once(counted) {
            let after = after.trim_start_matches(|c: char| c.is_ascii_digit());
            said = format!("{before}{}", after.replacen(" and field", " in field", 1));
        }
    }
    said
}

/// `record` without its line's end.
fn without_end(record: &[u8]) -> &[u8] {
    let record = record.strip_suffix(b"\n").unwrap_or(record);
    record.strip_suffix(b"\r").unwrap_or(record)
}

/// A part of a text.
#[derive(Debug)]
enum Block {
    /// Whole records, the first of which begins at byte `at`.
    Records { at: u64, text: Bytes },
    /// A record that is too long to be one.
    Giant(DeadRecord),
}

/// Cuts a text into blocks.
struct Blocks {
    records: Records,
    raw_as: RawAs,
    /// Bytes of the longest record.
    longest: u64,
    /// Where `text` begins.
    at: u64,
    /// What is in no block yet.
    text: BytesMut,
    /// The record under way, once it is too long: its first bytes are kept, and nothing else of it.
    giant: Option<DeadRecord>,
}

impl Blocks {
    fn new(form: &Form, at: u64) -> Self {
        Self {
            records: Records::new(form.delimiter()),
            raw_as: form.raw_as(),
            longest: MAX_RECORD,
            at,
            text: BytesMut::new(),
            giant: None,
        }
    }

    fn feed(&mut self, mut text: &[u8], full: &mut Vec<Block>) {
        while !text.is_empty() {
            let wanted = if self.giant.is_some() { 0 } else { BLOCK.saturating_sub(self.text.len()) };
            let end = self.records.end(text, wanted);
            let (now, rest) = text.split_at(end.unwrap_or(text.len()));
            text = rest;
            match &mut self.giant {
                Some(giant) => {
                    giant.length += now.len() as u64;
                    self.at += now.len() as u64;
                }
                None => self.text.extend_from_slice(now),
            }
            if end.is_some() {
                self.cut(self.text.len(), full);
            } else if self.giant.is_none() && self.records.length() > self.longest {
                self.give_up(full);
            }
        }
    }

    fn finish(&mut self, full: &mut Vec<Block>) {
        self.cut(self.text.len(), full);
    }

    /// Makes a block of the first `length` bytes, or of the record that was too long and has ended.
    fn cut(&mut self, length: usize, full: &mut Vec<Block>) {
        if let Some(giant) = self.giant.take() {
            full.push(Block::Giant(giant));
        }
        let text = self.text.split_to(length).freeze();
        if !text.is_empty() {
            let at = self.at;
            self.at += text.len() as u64;
            full.push(Block::Records { at, text });
        }
    }

    /// The record under way is none: most likely, a quote is not closed.
    fn give_up(&mut self, full: &mut Vec<Block>) {
        let under_way = usize::try_from(self.records.length()).unwrap_or(usize::MAX).min(self.text.len());
        self.cut(self.text.len() - under_way, full);
        let error = format!("it is longer than {} bytes: is a quote not closed?", self.longest);
        let raw = Bytes::copy_from_slice(self.text.get(..MAX_RAW).unwrap_or(&self.text));
        let giant = DeadRecord::new(self.at, &raw, self.raw_as, error);
        self.at += self.text.len() as u64;
        self.giant = Some(DeadRecord { length: self.text.len() as u64, ..giant });
        self.text = BytesMut::new();
    }
}
