//! The virtual store: heads and tables' records moved by one compare-and-swap, the log, and immutable blobs.

use std::collections::BTreeMap;

use bytes::Bytes;
use tidegate_common::ids::BackfillId;
use tidegate_proto::v1::{self, record};

/// How much of a backfill's log is true, and in whose term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) term: u64,
    pub(super) blobs: u64,
}

/// What is stored of one backfill.
#[derive(Clone, Debug, Default)]
pub(super) struct Shelf {
    pub(super) head: Head,
    pub(super) log: Vec<v1::Record>,
    pub(super) tables: BTreeMap<u32, v1::TableRecord>,
}

/// A write that happens whole or not at all.
#[derive(Clone, Debug, Default)]
pub(super) struct Transaction {
    /// What each head must be.
    pub(super) expected: BTreeMap<BackfillId, Head>,
    pub(super) records: Vec<(BackfillId, v1::Record)>,
    pub(super) tables: Vec<(BackfillId, u32, v1::TableRecord)>,
}

/// The virtual store.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) shelves: BTreeMap<BackfillId, Shelf>,
    pub(super) blobs: BTreeMap<String, Bytes>,
}

impl Transaction {
    /// The heads as they are once this has happened.
    pub(super) fn heads(&self) -> BTreeMap<BackfillId, Head> {
        let mut heads = self.expected.clone();
        for head in heads.values_mut() {
            head.blobs += 1;
        }
        for (id, record) in &self.records {
            if let (Some(record::Kind::Term(raised)), Some(head)) = (&record.kind, heads.get_mut(id)) {
                head.term = raised.term;
            }
        }
        heads
    }
}

impl Store {
    /// The head of a backfill; of one that does not exist, the zero head.
    pub(super) fn head(&self, id: &BackfillId) -> Head {
        self.shelves.get(id).map(|shelf| shelf.head).unwrap_or_default()
    }

    /// Does all of `transaction`, or nothing where a head is not as expected and `compares`.
    pub(super) fn write(&mut self, transaction: &Transaction, compares: bool) -> bool {
        if compares && transaction.expected.iter().any(|(id, expected)| self.head(id) != *expected) {
            return false;
        }
        for (id, head) in transaction.heads() {
            self.shelves.entry(id).or_default().head = head;
        }
        for (id, record) in &transaction.records {
            self.shelves.entry(id.clone()).or_default().log.push(record.clone());
        }
        for (id, output, record) in &transaction.tables {
            self.shelves.entry(id.clone()).or_default().tables.insert(*output, record.clone());
        }
        true
    }

    /// The parts of one output in the accepted hand-ins `[from, to)` of the log.
    pub(super) fn parts(&self, id: &BackfillId, output: u32, from: u64, to: u64) -> Vec<v1::OutputPart> {
        let Some(shelf) = self.shelves.get(id) else { return Vec::new() };
        let hand_ins = shelf.log.iter().filter_map(|record| match &record.kind {
            Some(record::Kind::HandIn(accepted)) => accepted.hand_in.as_ref(),
            _ => None,
        });
        let within = hand_ins.zip(0u64..).filter(|(_, at)| (from..to).contains(at));
        within.flat_map(|(hand_in, _)| hand_in.outputs.iter().filter(|part| part.output == output)).cloned().collect()
    }
}
