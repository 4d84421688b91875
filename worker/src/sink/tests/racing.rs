//! Commits that fail on the way, get no answer, or race with others: each lands once.

use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use iceberg::{TableCreation, TableIdent, TableRequirement, TableUpdate};

use super::committing::{end, work};
use super::*;

/// What a catalog does to a commit that reaches it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fault {
    /// Applies it, and loses the reply.
    LostReply,
    /// Loses the request: nothing is applied, and nobody knows.
    LostRequest,
    /// Refuses it as if another had been first.
    Conflict,
    /// Loses the request and is not heard of again.
    Gone,
}

/// A catalog that does `fault` to its first `times` commits.
pub(super) struct Faulty {
    inner: Arc<dyn TableCommitter>,
    fault: Fault,
    left: AtomicU32,
}

impl Faulty {
    pub(super) async fn over(lake: &Lake, fault: Fault, times: u32) -> (Arc<Self>, Catalogs) {
        let inner = lake.catalogs.get("lake").await.unwrap();
        let faulty = Arc::new(Self { inner, fault, left: AtomicU32::new(times) });
        (faulty.clone(), Catalogs::default().with("lake", faulty))
    }

    pub(super) fn fired(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }
}

#[async_trait]
impl TableCommitter for Faulty {
    async fn load(&self, ident: &TableIdent) -> Result<Option<LoadedTable>, SinkError> {
        if self.fault == Fault::Gone && self.fired() {
            let doing = "look up a table".to_owned();
            return Err(SinkError::Catalog { catalog: "lake".to_owned(), doing, source: "no route to host".into() });
        }
        self.inner.load(ident).await
    }

    async fn create(&self, ident: &TableIdent, creation: TableCreation) -> Result<LoadedTable, SinkError> {
        self.inner.create(ident, creation).await
    }

    async fn compare_and_swap(
        &self,
        base: &LoadedTable,
        updates: Vec<TableUpdate>,
        requirements: Vec<TableRequirement>,
    ) -> Result<Swap, SinkError> {
        let fires = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        let unknown = || SinkError::Unknown { table: "t".to_owned(), source: "504 gateway timeout".into() };
        match self.fault {
            Fault::LostReply if fires => {
                let swap = self.inner.compare_and_swap(base, updates, requirements).await?;
                assert!(matches!(swap, Swap::Done(_)));
                Err(unknown())
            }
            Fault::LostRequest | Fault::Gone if fires => Err(unknown()),
            Fault::Conflict if fires => Ok(Swap::Conflict),
            _ => self.inner.compare_and_swap(base, updates, requirements).await,
        }
    }
}

#[tokio::test]
async fn given_a_fault_of_the_catalog_when_committed_then_the_rows_land_once() {
    for (fault, times, already_done, tries) in
        [(Fault::LostReply, 1, true, 2), (Fault::LostRequest, 2, false, 3), (Fault::Conflict, 3, false, 4)]
    {
        let lake = Lake::new();
        let target = target("t", &[]);
        let prepared = prepared(&lake.catalogs, &target).await;
        let (intent, parts) = work(&lake, &target, &prepared, 1, "", (0, 10)).await;
        let (faulty, catalogs) = Faulty::over(&lake, fault, times).await;
        let result = commit(&catalogs, &target, &Scope::of("bf-a"), &intent, parts).await.unwrap();
        assert!(faulty.fired(), "{fault:?}");
        assert_eq!(
            (end(&result), result.already_done, result.tries),
            (v1::CommitEnd::Committed, already_done, tries),
            "{fault:?}"
        );
        assert_eq!(ids(&lake.catalogs, &target).await, (0..10).collect::<Vec<_>>(), "{fault:?}");
    }
}

#[tokio::test]
async fn given_a_catalog_that_is_gone_after_a_commit_was_sent_when_committed_then_the_outcome_is_unknown() {
    use crate::failure::{Class, Classify};
    let lake = Lake::new();
    let target = target("t", &[]);
    let prepared = prepared(&lake.catalogs, &target).await;
    let (intent, parts) = work(&lake, &target, &prepared, 1, "", (0, 10)).await;
    let (_, catalogs) = Faulty::over(&lake, Fault::Gone, 1).await;
    let error = commit(&catalogs, &target, &Scope::of("bf-a"), &intent, parts).await.unwrap_err();
    assert_eq!(error.class(), Class::Unknown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_many_backfills_racing_for_one_table_when_committed_then_all_land_once() {
    let lake = Arc::new(Lake::new());
    let target = target("t", &["bucket(4, id)"]);
    let prepared = prepared(&lake.catalogs, &target).await;
    let racers = (0..8_i64).map(|racer| {
        let (lake, target, prepared) = (lake.clone(), target.clone(), prepared.clone());
        tokio::spawn(async move {
            // A connection of its own, as another worker would have.
            let catalogs = Catalogs::new([("lake".to_owned(), config(lake.folder.path()))]);
            let backfill = format!("bf-{racer}");
            let mut predecessor = String::new();
            for sequence in 1..=3_u64 {
                let from = racer * 1_000 + i64::try_from(sequence).unwrap() * 10;
                let (intent, parts) = work(&lake, &target, &prepared, sequence, &predecessor, (from, from + 10)).await;
                let result = commit(&catalogs, &target, &Scope::of(&backfill), &intent, parts).await.unwrap();
                assert_eq!((end(&result), result.already_done), (v1::CommitEnd::Committed, false));
                predecessor = marker::of(&intent);
            }
        })
    });
    for racer in racers.collect::<Vec<_>>() {
        racer.await.unwrap();
    }
    let expected: Vec<i64> = (0..8).flat_map(|racer| racer * 1_000 + 10..racer * 1_000 + 40).collect();
    assert_eq!(ids(&lake.catalogs, &target).await, expected);
    let table = load(&lake.catalogs, &target).await.unwrap();
    assert_eq!(table.metadata().snapshots().len(), 24);
    assert_eq!(table.metadata().current_snapshot().unwrap().summary().additional_properties["total-records"], "240");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_the_same_intent_in_two_hands_when_both_commit_then_it_lands_once() {
    let lake = Arc::new(Lake::new());
    let target = target("t", &[]);
    let prepared = prepared(&lake.catalogs, &target).await;
    for round in 0..5_i64 {
        let backfill = format!("bf-{round}");
        let (intent, parts) = work(&lake, &target, &prepared, 1, "", (round * 10, round * 10 + 10)).await;
        let hands = (0..2).map(|_| {
            let (lake, target, intent, parts, backfill) =
                (lake.clone(), target.clone(), intent.clone(), parts.clone(), backfill.clone());
            tokio::spawn(async move {
                let catalogs = Catalogs::new([("lake".to_owned(), config(lake.folder.path()))]);
                commit(&catalogs, &target, &Scope::of(&backfill), &intent, parts).await.unwrap()
            })
        });
        let mut already_done = Vec::new();
        for hand in hands.collect::<Vec<_>>() {
            let result = hand.await.unwrap();
            assert_eq!((end(&result), result.snapshot_id), (v1::CommitEnd::Committed, intent.snapshot_id));
            already_done.push(result.already_done);
        }
        already_done.sort_unstable();
        assert_eq!(already_done, [false, true]);
    }
    assert_eq!(ids(&lake.catalogs, &target).await, (0..50).collect::<Vec<_>>());
}
