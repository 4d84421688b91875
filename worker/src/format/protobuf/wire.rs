//! Protobuf's encoding: which fields a message has, in which order, without what is in them.

/// How deep groups that nobody knows may be within one another.
const MAX_GROUPS: usize = 100;

/// What is wrong with a record.
pub(super) type Bad = String;

/// How a value is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    Varint,
    Eight,
    Bytes,
    Group,
    Four,
}

/// One value of a field: a number, or from where to where its bytes are in the message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw {
    pub(super) wire: Wire,
    pub(super) number: u64,
    from: usize,
    to: usize,
}

impl Raw {
    /// The bytes of the value, which is one of `message`.
    pub(super) fn bytes<'a>(&self, message: &'a [u8]) -> &'a [u8] {
        message.get(self.from..self.to).unwrap_or_default()
    }

    pub(super) fn of_number(wire: Wire, number: u64) -> Self {
        Self { wire, number, from: 0, to: 0 }
    }
}

/// Reads one message from its beginning to its end.
pub(super) struct Scan<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self { message, at: 0 }
    }

    /// Bytes that were read.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.message.len()
    }

    pub(super) fn varint(&mut self) -> Result<u64, Bad> {
        let rest = self.message.get(self.at..).unwrap_or_default();
        if let Some(&byte) = rest.first()
            && byte < 0x80
        {
            self.at += 1;
            return Ok(u64::from(byte));
        }
        let mut value = 0;
        for (at, byte) in rest.iter().enumerate().take(10) {
            if at == 9 && *byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * at);
            if *byte < 0x80 {
                self.at += at + 1;
                return Ok(value);
            }
        }
        Err(if rest.len() < 10 { ended() } else { "a number has more than 64 bits".to_owned() })
    }

    fn pass(&mut self, count: usize) -> Result<usize, Bad> {
        let from = self.at;
        let to = from.checked_add(count).filter(|to| *to <= self.message.len()).ok_or_else(ended)?;
        self.at = to;
        Ok(from)
    }

    pub(super) fn eight(&mut self) -> Result<u64, Bad> {
        let from = self.pass(8)?;
        let bytes = self.message.get(from..).and_then(|rest| rest.first_chunk()).ok_or_else(ended)?;
        Ok(u64::from_le_bytes(*bytes))
    }

    pub(super) fn four(&mut self) -> Result<u64, Bad> {
        let from = self.pass(4)?;
        let bytes = self.message.get(from..).and_then(|rest| rest.first_chunk()).ok_or_else(ended)?;
        Ok(u64::from(u32::from_le_bytes(*bytes)))
    }

    /// The next field's number and value; none at the message's end.
    pub(super) fn field(&mut self) -> Result<Option<(u32, Raw)>, Bad> {
        if self.is_at_end() {
            return Ok(None);
        }
        let (field, kind) = self.tag()?;
        if kind == 4 {
            return Err("a group ends that did not begin".to_owned());
        }
        Ok(Some((field, self.value(field, kind, 0)?)))
    }

    fn tag(&mut self) -> Result<(u32, u64), Bad> {
        let tag = self.varint()?;
        let field = u32::try_from(tag >> 3).ok().filter(|field| (1..1 << 29).contains(field));
        Ok((field.ok_or_else(|| format!("a field has the number {}", tag >> 3))?, tag & 7))
    }

    fn value(&mut self, field: u32, kind: u64, depth: usize) -> Result<Raw, Bad> {
        Ok(match kind {
            0 => Raw::of_number(Wire::Varint, self.varint()?),
            1 => Raw::of_number(Wire::Eight, self.eight()?),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| ended())?;
                let from = self.pass(length)?;
                Raw { wire: Wire::Bytes, number: 0, from, to: self.at }
            }
            3 => {
                let from = self.at;
                let to = self.group(field, depth)?;
                Raw { wire: Wire::Group, number: 0, from, to }
            }
            5 => Raw::of_number(Wire::Four, self.four()?),
            other => return Err(format!("a field is encoded in the unknown way {other}")),
        })
    }

    /// Goes on behind the group `field`, and says where what is in it ends.
    fn group(&mut self, field: u32, depth: usize) -> Result<usize, Bad> {
        if depth >= MAX_GROUPS {
            return Err("the record is nested too deeply".to_owned());
        }
        loop {
            let end = self.at;
            match self.tag()? {
                (ended, 4) if ended == field => return Ok(end),
                (_, 4) => return Err("a group ends that did not begin".to_owned()),
                (inner, kind) => self.value(inner, kind, depth + 1).map(|_| ())?,
            }
        }
    }
}

pub(super) fn ended() -> Bad {
    "the record ends too early".to_owned()
}
