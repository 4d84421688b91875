//! Where the records of a text end: at a line's end, for CSV only outside quotes.

use std::ops::Range;

/// A record longer than this is no record: most likely a quote that is never closed.
pub(super) const MAX_RECORD: u64 = 64 << 20;

/// Follows a text from the start of a record and finds the ends of records, chunk by chunk.
#[derive(Clone, Debug)]
pub(super) struct Records {
    /// What stands between two fields, in CSV; none in JSON lines, where no quote holds a line's end.
    delimiter: Option<u8>,
    state: State,
    length: u64,
}

/// A quote opens a field only at its start; within, two quotes are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    FieldStart,
    Field,
    Quoted,
    QuoteInQuoted,
}

impl Records {
    /// At the start of a record.
    pub(super) fn new(delimiter: Option<u8>) -> Self {
        Self { delimiter, state: State::FieldStart, length: 0 }
    }

    /// Goes on through `bytes` to the end of the first record that ends at or behind `after`: the place behind its
    /// line's end. Without one, all of `bytes` is behind it.
    pub(super) fn end(&mut self, bytes: &[u8], after: usize) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate() {
            let is_end = self.step(*byte);
            if is_end && at + 1 >= after {
                return Some(at + 1);
            }
        }
        None
    }

    /// Bytes of the record under way.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Takes one byte; whether it ends a record.
    fn step(&mut self, byte: u8) -> bool {
        let is_end = self.is_end(byte);
        self.length = if is_end { 0 } else { self.length + 1 };
        is_end
    }

    fn is_end(&mut self, byte: u8) -> bool {
        let Some(delimiter) = self.delimiter else { return byte == b'\n' };
        self.state = match (self.state, byte) {
            (State::Quoted, b'"') => State::QuoteInQuoted,
            (State::Quoted, _) => State::Quoted,
            (State::QuoteInQuoted, b'"') => State::Quoted,
            (State::FieldStart, b'"') => State::Quoted,
            (_, b'\n') => {
                self.state = State::FieldStart;
                return true;
            }
            (_, b'\r') => State::FieldStart,
            (_, byte) if byte == delimiter => State::FieldStart,
            (_, _) => State::Field,
        };
        false
    }
}

/// Where the records of `text` are, which begins with one; lines without anything in them are none.
///
/// CSV's decoder ends a record at a carriage return, too, that no line feed follows.
pub(super) fn spans(text: &[u8], delimiter: Option<u8>) -> Vec<Range<usize>> {
    let mut records = Records::new(delimiter);
    let (mut spans, mut start) = (Vec::new(), 0);
    let mut end_at = |end: usize| {
        let record = text.get(start..end).unwrap_or_default();
        let is_blank = |byte: &u8| matches!(byte, b'\r' | b'\n') || delimiter.is_none() && matches!(byte, b' ' | b'\t');
        if !record.iter().all(is_blank) {
            spans.push(start..end);
        }
        start = end;
    };
    for (at, byte) in text.iter().enumerate() {
        let is_end = records.step(*byte);
        let is_return = *byte == b'\r' && delimiter.is_some() && records.state == State::FieldStart;
        if is_end || is_return && text.get(at + 1) != Some(&b'\n') {
            end_at(at + 1);
        }
    }
    end_at(text.len());
    spans
}

/// Whether `text`, which begins with a record and is the end of a file, ends within quotes.
pub(super) fn is_open(text: &[u8], delimiter: Option<u8>) -> bool {
    let mut records = Records::new(delimiter);
    delimiter.is_some() && records.end(text, usize::MAX).is_none() && records.state == State::Quoted
}

/// The end of the first record of `text`; none when it does not end there.
pub(super) fn first_end(text: &[u8], delimiter: Option<u8>) -> Option<usize> {
    Records::new(delimiter).end(text, 0)
}

/// `text` behind a byte-order mark.
pub(super) fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text)
}

/// The lines that end in `text`.
pub(super) fn line_ends(text: &[u8]) -> u64 {
    text.iter().filter(|byte| **byte == b'\n').count() as u64
}
