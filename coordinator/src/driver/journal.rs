//! The journal: makes what the core decided durable, and reads it back after a restart.
//!
//! A backfill's log is a row of immutable blobs; its head, in the meta store, says how many of them are true. Every
//! write moves the head by one compare-and-swap on the version this coordinator last wrote, and with it the records of
//! the tables. Whoever has taken the backfill up since has moved the head: the compare fails, and this coordinator is
//! deposed. A blob is named by its number, its term and whoever wrote it, so that what a deposed coordinator, or one that
//! died between the blob and the head, left behind is never mistaken.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use tidegate_common::failpoint::hit;
use tidegate_common::ids::BackfillId;
use tidegate_proto::v1::{self, record};
use uuid::Uuid;

use crate::core::Action;
use crate::store::blobs::Blobs;
use crate::store::meta::{MetaStore, Outcome, Txn};

use super::DriverError;

/// The version of the records that this build writes.
const VERSION: u32 = 1;
const HEADS: &str = "heads/";

/// Before a plan segment is durable.
pub const SEGMENT_BEFORE: &str = "segment.before";
/// After a plan segment is durable, before anything names it.
pub const SEGMENT_AFTER: &str = "segment.after";

/// Where a backfill's log stands.
#[derive(Debug, Default)]
struct Log {
    head: v1::Head,
    /// The head's version in the meta store; 0 while there is none.
    version: u64,
    /// How many hand-ins the log holds.
    hand_ins: u64,
    /// The first hand-in of each blob that holds one, with the blob's number.
    starts: Vec<(u64, u64)>,
}

/// The part of a log that an intent speaks of.
#[derive(Clone, Debug)]
pub struct LogRange {
    /// The blobs that hold it, in order.
    pub blobs: Vec<String>,
    /// The position of the first hand-in in the first of them.
    pub first: u64,
}

/// A backfill as it was found in the stores.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) id: BackfillId,
    pub(super) records: Vec<v1::Record>,
}

/// The journal of every backfill that this coordinator knows.
pub(super) struct Journal {
    meta: Arc<dyn MetaStore>,
    blobs: Blobs,
    logs: BTreeMap<BackfillId, Log>,
    /// Names this process in what it writes.
    writer: String,
}

/// What one batch of steps adds to a backfill's log.
#[derive(Default)]
struct Addition {
    records: Vec<v1::Record>,
    tables: BTreeMap<u32, v1::TableRecord>,
}

/// Every backfill's journal as it stands in the stores of a coordinator that does not run. Nothing is taken up and
/// nothing is changed.
///
/// # Errors
/// What the stores say, or a record that this build cannot read.
pub async fn read_journals(
    meta: Arc<dyn MetaStore>,
    blobs: Blobs,
) -> Result<Vec<(BackfillId, Vec<v1::Record>)>, DriverError> {
    let found = Journal::new(meta, blobs).recover().await?;
    Ok(found.into_iter().map(|found| (found.id, found.records)).collect())
}

impl Journal {
    pub(super) fn new(meta: Arc<dyn MetaStore>, blobs: Blobs) -> Self {
        let writer = Uuid::new_v4().simple().to_string();
        Self { meta, blobs, logs: BTreeMap::new(), writer }
    }

    /// Reads every backfill back.
    pub(super) async fn recover(&mut self) -> Result<Vec<Found>, DriverError> {
        let mut all = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = self.meta.list(HEADS, after.as_deref(), 256).await?;
            let Some((last, _)) = page.last() else { return Ok(all) };
            after = Some(last.clone());
            for (key, found) in page {
                all.push(self.recover_one(&key, found.version, &found.value).await?);
            }
        }
    }

    async fn recover_one(&mut self, key: &str, version: u64, value: &Bytes) -> Result<Found, DriverError> {
        let unreadable = |why: String| DriverError::Unreadable { what: format!("record {key}"), why };
        let id: BackfillId =
            key.strip_prefix(HEADS).unwrap_or(key).parse().map_err(|bad| unreadable(format!("{bad}")))?;
        let head = v1::Head::decode(value.clone()).map_err(|bad| unreadable(bad.to_string()))?;
        if head.version > VERSION {
            return Err(unreadable(format!("it is of version {}, this is a coordinator of {VERSION}", head.version)));
        }
        let mut log = Log { version, ..Log::default() };
        let mut records = Vec::new();
        for number in 0..head.blobs {
            let path = blob_path(&id, &head, number);
            let blob = v1::LogBlob::decode(self.blobs.get(&path).await?)
                .map_err(|bad| DriverError::Unreadable { what: path, why: bad.to_string() })?;
            log.count(number, &blob.records);
            records.extend(blob.records);
        }
        log.head = head;
        self.logs.insert(id.clone(), log);
        Ok(Found { id, records })
    }

    /// Makes the journal records, table records and blobs among `actions` durable, in that everything is true or, for
    /// each backfill, nothing is. Returns what remains to be done.
    pub(super) async fn commit(&mut self, actions: Vec<Action>) -> Result<Vec<Action>, DriverError> {
        let mut rest = Vec::with_capacity(actions.len());
        let mut additions: BTreeMap<BackfillId, Addition> = BTreeMap::new();
        for action in actions {
            match action {
                Action::Journal(id, record) => additions.entry(id).or_default().records.push(record),
                Action::TableRecord(id, output, record) => {
                    additions.entry(id).or_default().tables.insert(output, record);
                }
                Action::WriteBlob(path, bytes) => {
                    hit(SEGMENT_BEFORE)?;
                    self.blobs.put_new(&path, bytes).await?;
                    hit(SEGMENT_AFTER)?;
                }
                other => rest.push(other),
            }
        }
        for (id, addition) in additions {
            self.append(&id, addition).await?;
        }
        Ok(rest)
    }

    async fn append(&mut self, id: &BackfillId, addition: Addition) -> Result<(), DriverError> {
        let log = self.logs.entry(id.clone()).or_default();
        let mut head = log.head.clone();
        let number = head.blobs;
        head.version = VERSION;
        head.blobs += 1;
        head.observe(number, &addition.records, &self.writer);
        let path = blob_path(id, &head, number);
        let blob = v1::LogBlob { version: VERSION, number, term: head.term, records: addition.records };
        let points = points_of(&blob.records);
        hit_all(&points, "before-log")?;
        self.blobs.put_new(&path, Bytes::from(blob.encode_to_vec())).await?;
        hit_all(&points, "before-head")?;
        let key = format!("{HEADS}{id}");
        let txn = if log.version == 0 {
            Txn::default().if_absent(&key)
        } else {
            Txn::default().if_version(&key, log.version)
        };
        let mut txn = txn.put(&key, head.encode_to_vec());
        for (output, record) in addition.tables {
            txn = txn.put(format!("tables/{id}/{output}"), record.encode_to_vec());
        }
        match self.meta.transact(txn).await? {
            Outcome::Done { versions } => {
                hit_all(&points, "after-head")?;
                log.version = versions.first().copied().unwrap_or_default();
                log.head = head;
                log.count(number, &blob.records);
                Ok(())
            }
            Outcome::Conflict { key } => Err(DriverError::Deposed { key }),
        }
    }

    /// Where the hand-ins `[from, to)` of a backfill's log are.
    pub(super) fn range(&self, id: &BackfillId, from: u64, to: u64) -> Option<LogRange> {
        let log = self.logs.get(id)?;
        let begin = log.starts.partition_point(|(first, _)| *first <= from).checked_sub(1)?;
        let end = log.starts.partition_point(|(first, _)| *first < to);
        let blobs = log.starts.get(begin..end)?;
        let first = blobs.first()?.0;
        Some(LogRange { blobs: blobs.iter().map(|(_, number)| blob_path(id, &log.head, *number)).collect(), first })
    }

    /// The path of each blob of a backfill's log from `number` on.
    pub(super) fn blobs_from(&self, id: &BackfillId, number: u64) -> Vec<(u64, String)> {
        let Some(log) = self.logs.get(id) else { return Vec::new() };
        (number..log.head.blobs).map(|number| (number, blob_path(id, &log.head, number))).collect()
    }
}

impl Log {
    fn count(&mut self, number: u64, records: &[v1::Record]) {
        let hand_ins =
            records.iter().filter(|record| matches!(record.kind, Some(record::Kind::HandIn(_)))).count() as u64;
        if hand_ins > 0 {
            self.starts.push((self.hand_ins, number));
            self.hand_ins += hand_ins;
        }
    }
}

/// What a head learns from the records that are added behind it.
trait Observe {
    fn observe(&mut self, number: u64, records: &[v1::Record], writer: &str);
}

impl Observe for v1::Head {
    fn observe(&mut self, number: u64, records: &[v1::Record], writer: &str) {
        for record in records {
            match &record.kind {
                Some(record::Kind::Created(_)) => self.created = record.at,
                Some(record::Kind::Term(raised)) => {
                    self.term = raised.term;
                    let writer = writer.to_owned();
                    self.terms.push(v1::head::TermStart { term: raised.term, blob: number, writer });
                }
                Some(record::Kind::Phase(changed)) => self.phase = changed.phase,
                _ => {}
            }
        }
    }
}

/// The kinds of records whose durable writes a test may break; each has three points: `<kind>.before-log`, when
/// nothing is written; `<kind>.before-head`, when its blob is written and nothing names it; and `<kind>.after-head`,
/// when it is true and nobody has heard of it.
pub const POINTS: [&str; 11] = [
    "created",
    "prepared",
    "planned",
    "sliced",
    "hand-in",
    "sealed",
    "ended",
    "parked",
    "phase",
    "publishing",
    "regenerated",
];

/// Which of [`POINTS`] a write of `records` passes; empty in a release build.
fn points_of(records: &[v1::Record]) -> Vec<&'static str> {
    use record::Kind;
    if cfg!(not(debug_assertions)) {
        return Vec::new();
    }
    let points = records.iter().filter_map(|record| match record.kind.as_ref()? {
        Kind::Created(_) => Some("created"),
        Kind::Prepared(_) => Some("prepared"),
        Kind::Planned(_) => Some("planned"),
        Kind::Sliced(_) => Some("sliced"),
        Kind::HandIn(_) => Some("hand-in"),
        Kind::Sealed(_) => Some("sealed"),
        Kind::Publishing(_) => Some("publishing"),
        Kind::Ended(_) => Some("ended"),
        Kind::Parked(_) => Some("parked"),
        Kind::Phase(_) => Some("phase"),
        Kind::Regenerated(_) => Some("regenerated"),
        Kind::Term(_) | Kind::Wish(_) | Kind::Retried(_) => None,
    });
    points.collect()
}

fn hit_all(points: &[&str], place: &str) -> Result<(), DriverError> {
    points.iter().try_for_each(|point| Ok(hit(&format!("{point}.{place}"))?))
}

fn blob_path(id: &BackfillId, head: &v1::Head, number: u64) -> String {
    let start = head.terms.iter().rev().find(|start| start.blob <= number).cloned().unwrap_or_default();
    format!("backfills/{id}/log/{number:010}-t{}-{}", start.term, start.writer)
}
