//! Reads JSON as RFC 8259 has it, and nothing else: where values begin and end, and what they are.

use super::super::shown;

/// How deep arrays and objects may be within one another.
pub(in super::super) const MAX_DEPTH: usize = 128;

/// Reads one text from its beginning to its end.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Scan<'a> {
    text: &'a str,
    at: usize,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Kind {
    Null,
    True,
    False,
    Number,
    /// A text that stands there as it is.
    Text,
    /// A text with escapes.
    Escaped,
    Object,
    Array,
}

/// Where a value is; of a text, what is between its quotes.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Value<'a> {
    pub(in super::super) kind: Kind,
    pub(in super::super) text: &'a str,
}

/// What is wrong with a text, and at which byte.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Wrong {
    pub(in super::super) at: usize,
    pub(in super::super) what: &'static str,
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no JSON: {} at byte {}", self.what, self.at)
    }
}

type Scanned<T> = Result<T, Wrong>;

impl<'a> Scan<'a> {
    pub(in super::super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn bytes(&self) -> &'a [u8] {
        self.text.as_bytes()
    }

    fn wrong<T>(&self, what: &'static str) -> Scanned<T> {
        Err(Wrong { at: self.at, what })
    }

    fn slice(&self, from: usize, to: usize) -> &'a str {
        self.text.get(from..to).unwrap_or_default()
    }

    /// The next byte that is no white space.
    pub(in super::super) fn peek(&mut self) -> Option<u8> {
        loop {
            match self.bytes().get(self.at) {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    /// Goes on behind `byte`, when it is the next one.
    pub(in super::super) fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// Goes on behind `expected`, when it is what comes right here.
    pub(in super::super) fn take_all(&mut self, expected: &[u8]) -> bool {
        let is_next = self.bytes().get(self.at..).is_some_and(|rest| rest.starts_with(expected));
        self.at += if is_next { expected.len() } else { 0 };
        is_next
    }

    pub(in super::super) fn expect(&mut self, byte: u8, what: &'static str) -> Scanned<()> {
        if self.take(byte) { Ok(()) } else { self.wrong(what) }
    }

    /// Nothing but white space may follow.
    pub(in super::super) fn end(&mut self) -> Scanned<()> {
        if self.peek().is_none() { Ok(()) } else { self.wrong("something follows the value") }
    }

    /// The next value, whole.
    pub(in super::super) fn value(&mut self, depth: usize) -> Scanned<Value<'a>> {
        let (kind, from) = match self.peek() {
            Some(b'"') => return self.string(),
            Some(b'-' | b'0'..=b'9') => (Kind::Number, self.at),
            Some(b'{') => (Kind::Object, self.at),
            Some(b'[') => (Kind::Array, self.at),
            Some(b't') => (Kind::True, self.at),
            Some(b'f') => (Kind::False, self.at),
            Some(b'n') => (Kind::Null, self.at),
            _ => return self.wrong("a value is missing"),
        };
        match kind {
            Kind::Number => self.number()?,
            Kind::Object | Kind::Array if depth >= MAX_DEPTH => return self.wrong("it is nested too deeply"),
            Kind::Object => self.object(depth)?,
            Kind::Array => self.array(depth)?,
            Kind::True => self.word(b"true")?,
            Kind::False => self.word(b"false")?,
            _ => self.word(b"null")?,
        }
        Ok(Value { kind, text: self.slice(from, self.at) })
    }

    /// A text; the quote is next.
    pub(in super::super) fn string(&mut self) -> Scanned<Value<'a>> {
        self.expect(b'"', "a text is missing")?;
        self.rest_of_string()
    }

    /// A text whose first quote was taken.
    pub(in super::super) fn rest_of_string(&mut self) -> Scanned<Value<'a>> {
        let from = self.at;
        let mut kind = Kind::Text;
        loop {
            self.at += plain(self.bytes().get(self.at..).unwrap_or_default());
            match self.bytes().get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                Some(_) => return self.wrong("a control character stands in a text"),
                None => return self.wrong("a text does not end"),
            }
            kind = Kind::Escaped;
        }
        let text = self.slice(from, self.at);
        self.at += 1;
        Ok(Value { kind, text })
    }

    fn escape(&mut self) -> Scanned<()> {
        let rest = self.bytes().get(self.at..).unwrap_or_default();
        match escaped(rest) {
            Some((_, length)) => {
                self.at += length;
                Ok(())
            }
            None => self.wrong("an escape is none"),
        }
    }

    fn word(&mut self, word: &[u8]) -> Scanned<()> {
        if self.take_all(word) { Ok(()) } else { self.wrong("a value is missing") }
    }

    fn digits(&mut self) -> usize {
        let rest = self.bytes().get(self.at..).unwrap_or_default();
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        count
    }

    fn number(&mut self) -> Scanned<()> {
        const NONE: &str = "a number is none";
        self.take_all(b"-");
        let is_zero = self.bytes().get(self.at) == Some(&b'0');
        match self.digits() {
            0 => return self.wrong(NONE),
            1 => {}
            _ if is_zero => return self.wrong(NONE),
            _ => {}
        }
        if self.take_all(b".") && self.digits() == 0 {
            return self.wrong(NONE);
        }
        if self.take_all(b"e") || self.take_all(b"E") {
            let _ = self.take_all(b"-") || self.take_all(b"+");
            if self.digits() == 0 {
                return self.wrong(NONE);
            }
        }
        Ok(())
    }

    fn object(&mut self, depth: usize) -> Scanned<()> {
        self.at += 1;
        let mut is_first = true;
        while self.field(is_first)? {
            self.string()?;
            self.colon()?;
            self.value(depth + 1)?;
            is_first = false;
        }
        Ok(())
    }

    /// Goes on to the next field's name of an object, or behind the object.
    pub(in super::super) fn field(&mut self, is_first: bool) -> Scanned<bool> {
        if self.take(b'}') {
            return Ok(false);
        }
        if !is_first {
            self.expect(b',', "a comma or `}` is missing")?;
        }
        if self.peek() == Some(b'"') { Ok(true) } else { self.wrong("the name of a field is missing") }
    }

    pub(in super::super) fn colon(&mut self) -> Scanned<()> {
        self.expect(b':', "a colon is missing")
    }

    fn array(&mut self, depth: usize) -> Scanned<()> {
        self.at += 1;
        if self.take(b']') {
            return Ok(());
        }
        loop {
            self.value(depth + 1)?;
            if self.take(b']') {
                return Ok(());
            }
            self.expect(b',', "a comma or `]` is missing")?;
        }
    }
}

impl Value<'_> {
    /// What a text says.
    pub(in super::super) fn unescaped(&self) -> String {
        let mut bytes = Vec::with_capacity(self.text.len());
        unescape(self.text, &mut bytes);
        String::from_utf8(bytes).unwrap_or_default()
    }

    /// As it may stand in a message.
    pub(in super::super) fn shown(&self) -> String {
        match self.kind {
            Kind::Object => "an object".to_owned(),
            Kind::Array => "an array".to_owned(),
            Kind::Text | Kind::Escaped => format!("the text {}", shown(self.text)),
            _ => self.text.chars().take(60).collect(),
        }
    }
}

/// Appends what the text of escapes `text` says, which was read before.
pub(in super::super) fn unescape(text: &str, into: &mut Vec<u8>) {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let (now, behind) = rest.split_at(plain(rest).min(rest.len()));
        into.extend_from_slice(now);
        let Some((c, length)) = escaped(behind) else { break };
        into.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        rest = behind.get(length..).unwrap_or_default();
    }
}

/// The character that the escape at the beginning of `bytes` says, and how long it is.
fn escaped(bytes: &[u8]) -> Option<(char, usize)> {
    let [b'\\', kind, rest @ ..] = bytes else { return None };
    let c = match kind {
        b'"' | b'\\' | b'/' => char::from(*kind),
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let high = hex(rest)?;
            if let Some(c) = char::from_u32(high) {
                return Some((c, 6));
            }
            let low = rest.get(4..)?.strip_prefix(b"\\u").and_then(hex)?;
            let mut pair = char::decode_utf16([u16::try_from(high).ok()?, u16::try_from(low).ok()?]);
            return Some((pair.next()?.ok()?, 12));
        }
        _ => return None,
    };
    Some((c, 2))
}

fn hex(bytes: &[u8]) -> Option<u32> {
    let digits = bytes.get(..4)?;
    digits.iter().try_fold(0, |value, digit| Some(value * 16 + char::from(*digit).to_digit(16)?))
}

/// How many bytes at the beginning of `bytes` stand in a text as they are: up to a quote, a backslash or a control
/// character. Eight bytes at a time, the lowest one that is marked is right (those above it may be marked wrongly).
fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = ONES << 7;
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & TOPS;
    let mut at = 0;
    let (words, tail) = bytes.as_chunks::<8>();
    for word in words {
        let word = u64::from_le_bytes(*word);
        let quote = below(word ^ (ONES * u64::from(b'"')), 1);
        let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
        let found = quote | backslash | below(word, 0x20);
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at + tail.iter().take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20)).count()
}
