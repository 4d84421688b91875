//! Names of things: each id is a type of its own, so that no two kinds can be mistaken for each other.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A backfill's identity: a hash of deployment, name, window and normalised spec, never random.
///
/// It reads `bf-` and 16 characters of base 32; the first six are its short form.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackfillId(String);

/// Why a text is not the id of a backfill.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not the id of a backfill: expected `bf-` and 16 of the characters a-z and 2-7")]
pub struct BadBackfillId(String);

impl BackfillId {
    const ALPHABET: &'static [u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    const LENGTH: usize = 16;

    /// The id of what the 32 bytes of a SHA-256 `digest` stand for.
    pub fn from_digest(digest: &[u8; 32]) -> Self {
        let text: String = (0..Self::LENGTH)
            .map(|i| {
                let (byte, shift) = (i * 5 / 8, i * 5 % 8);
                let pair = u16::from_be_bytes([digest[byte], digest[byte + 1]]);
                char::from(Self::ALPHABET[usize::from((pair >> (11 - shift)) & 31)])
            })
            .collect();
        Self(format!("bf-{text}"))
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form shown to people; unique enough on one screen, never used as a key.
    pub fn short(&self) -> &str {
        self.0.get(..9).unwrap_or(&self.0)
    }
}

impl FromStr for BackfillId {
    type Err = BadBackfillId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let tail = text.strip_prefix("bf-").filter(|tail| tail.len() == Self::LENGTH);
        match tail {
            Some(tail) if tail.bytes().all(|b| Self::ALPHABET.contains(&b)) => Ok(Self(text.to_owned())),
            _ => Err(BadBackfillId(text.chars().take(64).collect())),
        }
    }
}

impl TryFrom<String> for BackfillId {
    type Error = BadBackfillId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<BackfillId> for String {
    fn from(id: BackfillId) -> Self {
        id.0
    }
}

impl fmt::Display for BackfillId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BackfillId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name($inner);

        impl $name {
            /// The one with this number.
            pub const fn new(number: $inner) -> Self {
                Self(number)
            }

            /// Its number.
            pub const fn get(self) -> $inner {
                self.0
            }

            /// The next one.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

number! {
    /// Number of the coordinator's leadership of a backfill; every new coordinator raises it.
    Term(u64), "t"
}
number! {
    /// Number of a grant within a term.
    Epoch(u64), "e"
}
number! {
    /// A source's place in its spec, in the order of the names.
    SourceIx(u32), "s"
}
number! {
    /// An output's place in its spec, in the order of the names.
    OutputIx(u32), "o"
}
number! {
    /// A plan segment's place in its source.
    SegmentIx(u32), "g"
}
number! {
    /// Number of an intent of one table and branch; the first is 1.
    Sequence(u64), "#"
}
number! {
    /// A place in a backfill's log of accepted hand-ins.
    LogPosition(u64), "@"
}
number! {
    /// A worker's connection, as the coordinator counts them; never reused within a process.
    SessionId(u64), "w"
}

/// The fencing token of a lease: terms are compared first, then epochs.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Token {
    /// The coordinator's leadership that granted it.
    pub term: Term,
    /// The grant within that leadership.
    pub epoch: Epoch,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.term, self.epoch)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What a worker may be asked to do; the order is the order of a backfill's life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TaskId {
    /// Check the SQL, create or check the tables, pin their uuids.
    Prepare,
    /// Find the splits of a source.
    Enumerate(SourceIx),
    /// Read a run of units: the source, the plan segment, the place in it.
    Read(SourceIx, SegmentIx, u32),
    /// Read again what an object of the shuffle store held that is lost: the output, the number of the object.
    Regenerate(OutputIx, u64),
    /// Join a run of slices of an output, by the first of them.
    Join(OutputIx, u32),
    /// Write the late rows of an object of the shuffle store: the output that joins, the number of its object.
    Late(OutputIx, u64),
    /// Commit an intent.
    Commit(OutputIx, Sequence),
    /// Remove what of the shuffle store nothing needs any more.
    Clean,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prepare => f.write_str("prepare"),
            Self::Enumerate(source) => write!(f, "enumerate-{source}"),
            Self::Read(source, segment, at) => write!(f, "read-{source}{segment}.{at}"),
            Self::Regenerate(output, object) => write!(f, "regenerate-{output}.{object}"),
            Self::Join(output, slice) => write!(f, "join-{output}.{slice}"),
            Self::Late(output, object) => write!(f, "late-{output}.{object}"),
            Self::Commit(output, sequence) => write!(f, "commit-{output}{sequence}"),
            Self::Clean => f.write_str("clean"),
        }
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_itself_and_nothing_else_does() {
        let id = BackfillId::from_digest(&[0xA7; 32]);
        assert_eq!(id.as_str().parse::<BackfillId>().unwrap(), id);
        assert_eq!(id.short().len(), 9);
        for bad in
            ["", "bf-", "bf-ABCDEFGHIJKLMNOP", "bf-../../../../etc/", "bf-aaaaaaaaaaaaaaa", "xx-aaaaaaaaaaaaaaaa"]
        {
            assert!(bad.parse::<BackfillId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn different_digests_give_different_ids() {
        let ids: std::collections::BTreeSet<_> = (0..=255u8)
            .map(|n| {
                let mut digest = [0; 32];
                digest[9] = n;
                BackfillId::from_digest(&digest)
            })
            .collect();
        assert_eq!(ids.len(), 256);
    }

    #[test]
    fn tokens_compare_term_first() {
        let token = |term, epoch| Token { term: Term::new(term), epoch: Epoch::new(epoch) };
        assert!(token(2, 0) > token(1, 99));
        assert!(token(2, 1) > token(2, 0));
    }
}
