//! What every meta store must do, written once and run on each of them.
//!
//! Every case works under keys of its own, so that a backend that is shared between runs can be tested too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::future::join_all;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::StoreError;
use super::meta::{Expected, MAX_BYTES, MAX_KEY_BYTES, MAX_OPERATIONS, MetaStore, Outcome, Txn, Versioned};

/// Every case of the contract.
pub(crate) async fn contract(store: &dyn MetaStore) {
    a_key_is_absent_until_it_is_put(store).await;
    versions_rise_across_deletes(store).await;
    comparisons_follow_the_truth_table(store).await;
    a_conflict_changes_nothing_and_names_the_first_key(store).await;
    a_list_is_ordered_bounded_and_within_its_prefix(store).await;
    limits_are_typed_errors_and_change_nothing(store).await;
    a_transaction_at_both_limits_is_done(store).await;
    of_concurrent_swaps_one_wins(store).await;
}

async fn done(store: &dyn MetaStore, txn: Txn) -> Vec<u64> {
    match store.transact(txn).await.unwrap() {
        Outcome::Done { versions } => versions,
        Outcome::Conflict { key } => panic!("conflict at {key}"),
    }
}

async fn conflict(store: &dyn MetaStore, txn: Txn) -> String {
    match store.transact(txn).await.unwrap() {
        Outcome::Done { versions } => panic!("done with {versions:?}"),
        Outcome::Conflict { key } => key,
    }
}

async fn a_key_is_absent_until_it_is_put(store: &dyn MetaStore) {
    assert_eq!(store.get("put/a").await.unwrap(), None);
    let versions = done(store, Txn::default().if_absent("put/a").put("put/a", "1").put("put/b", Bytes::new())).await;
    assert_eq!(versions.len(), 2);
    let a = store.get("put/a").await.unwrap().unwrap();
    assert_eq!(a, Versioned { version: versions[0], value: Bytes::from("1") });
    let b = store.get("put/b").await.unwrap().unwrap();
    assert_eq!(b, Versioned { version: versions[1], value: Bytes::new() }, "a value may be empty");
    assert_eq!(done(store, Txn::default()).await, [0; 0], "a transaction of nothing is done");
}

async fn versions_rise_across_deletes(store: &dyn MetaStore) {
    let first = done(store, Txn::default().put("rise", "1")).await[0];
    assert!(first > 0);
    let second = done(store, Txn::default().put("rise", "1")).await[0];
    assert!(second > first, "the same value again is a write");
    assert_eq!(done(store, Txn::default().delete("rise")).await, [0; 0]);
    assert_eq!(store.get("rise").await.unwrap(), None);
    done(store, Txn::default().delete("rise")).await;
    let third = done(store, Txn::default().if_absent("rise").put("rise", "1")).await[0];
    assert!(third > second, "a key that comes back must not look like the one that went");
}

async fn comparisons_follow_the_truth_table(store: &dyn MetaStore) {
    let version = done(store, Txn::default().put("table/present", "1")).await[0];
    let rows = [
        ("table/absent", Expected::Absent, true),
        ("table/absent", Expected::Version(version), false),
        ("table/absent", Expected::Version(0), false),
        ("table/present", Expected::Absent, false),
        ("table/present", Expected::Version(version), true),
        ("table/present", Expected::Version(version + 1), false),
        ("table/present", Expected::Version(0), false),
    ];
    for (key, expected, holds) in rows {
        let outcome = store.transact(Txn::default().compare(key, expected)).await.unwrap();
        assert_eq!(matches!(outcome, Outcome::Done { .. }), holds, "{key} {expected:?}");
    }
}

async fn a_conflict_changes_nothing_and_names_the_first_key(store: &dyn MetaStore) {
    let version = done(store, Txn::default().put("conflict/a", "1").put("conflict/gone", "1")).await[0];
    let txn = Txn::default()
        .if_version("conflict/a", version)
        .if_version("conflict/b", version)
        .if_absent("conflict/a")
        .put("conflict/a", "2")
        .put("conflict/new", "2")
        .delete("conflict/gone");
    assert_eq!(conflict(store, txn).await, "conflict/b");
    assert_eq!(store.get("conflict/a").await.unwrap().unwrap().version, version);
    assert_eq!(store.get("conflict/new").await.unwrap(), None);
    assert!(store.get("conflict/gone").await.unwrap().is_some());
}

async fn a_list_is_ordered_bounded_and_within_its_prefix(store: &dyn MetaStore) {
    let keys = ["list/", "list/a", "list/a/b", "list/b", "list/é", "list0", "lis"];
    let txn = keys.iter().rev().fold(Txn::default(), |txn, key| txn.put(*key, *key));
    done(store, txn).await;
    let listed = async |prefix: &str, after: Option<&str>, limit: usize| {
        let entries = store.list(prefix, after, limit).await.unwrap();
        assert!(entries.iter().all(|(key, found)| found.value == key.as_bytes() && found.version > 0));
        entries.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    assert_eq!(listed("list/", None, 10).await, ["list/", "list/a", "list/a/b", "list/b", "list/é"]);
    assert_eq!(listed("list/", None, 2).await, ["list/", "list/a"]);
    assert_eq!(listed("list/", Some("list/a"), 2).await, ["list/a/b", "list/b"], "after is left out");
    assert_eq!(listed("list/", Some("list/aa"), 1).await, ["list/b"], "after need not be there");
    assert_eq!(listed("list/", Some("a"), 1).await, ["list/"], "after before the prefix");
    assert_eq!(listed("list/", Some("list0"), 9).await, [""; 0], "after past the prefix");
    assert_eq!(listed("list/", None, 0).await, [""; 0], "none asked, none given");
    assert_eq!(listed("list/z", None, 9).await, [""; 0]);
}

async fn limits_are_typed_errors_and_change_nothing(store: &dyn MetaStore) {
    let many = |operations: usize| {
        (1..operations).fold(Txn::default().put("limit/first", "1"), |txn, n| txn.if_absent(format!("limit/{n}")))
    };
    let error = store.transact(many(MAX_OPERATIONS + 1)).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { what: "operations", found: 101, limit: 100 }), "{error}");
    let large = Txn::default().put("limit/large", vec![0; MAX_BYTES]);
    let error = store.transact(large).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { what: "bytes", limit: 1_048_576, .. }), "{error}");
    let refused = [
        Txn::default().put("limit/twice", "1").put("limit/twice", "2"),
        Txn::default().put("limit/twice", "1").delete("limit/twice"),
        Txn::default().delete("limit/twice").delete("limit/twice"),
        Txn::default().put("", "1"),
        Txn::default().if_absent(""),
        Txn::default().put("k".repeat(MAX_KEY_BYTES + 1), "1"),
    ];
    for txn in refused {
        let error = store.transact(txn).await.unwrap_err();
        assert!(matches!(error, StoreError::Key { .. }) && !error.is_retryable(), "{error}");
    }
    assert_eq!(store.list("limit/", None, 10).await.unwrap(), []);
}

async fn a_transaction_at_both_limits_is_done(store: &dyn MetaStore) {
    let keys: Vec<String> = (0..MAX_OPERATIONS).map(|n| format!("full/{n:03}")).collect();
    let each = MAX_BYTES / MAX_OPERATIONS - keys[0].len();
    let rest = MAX_BYTES % MAX_OPERATIONS;
    let txn = keys.iter().enumerate().fold(Txn::default(), |txn, (n, key)| {
        txn.put(key.as_str(), vec![u8::try_from(n).unwrap(); if n == 0 { each + rest } else { each }])
    });
    let versions = done(store, txn).await;
    assert_eq!(versions.len(), MAX_OPERATIONS);
    let listed = store.list("full/", None, usize::MAX).await.unwrap();
    assert_eq!(listed.len(), MAX_OPERATIONS);
    assert_eq!(listed.iter().map(|(key, found)| key.len() + found.value.len()).sum::<usize>(), MAX_BYTES);
    assert!(listed.iter().zip(&versions).all(|((_, found), version)| found.version == *version));
    done(store, keys.iter().fold(Txn::default(), |txn, key| txn.delete(key.as_str()))).await;
}

async fn of_concurrent_swaps_one_wins(store: &dyn MetaStore) {
    let mut version = done(store, Txn::default().put("race", "start")).await[0];
    for _ in 0..5 {
        let swaps =
            (0..8).map(|n| store.transact(Txn::default().if_version("race", version).put("race", n.to_string())));
        let outcomes: Vec<_> = join_all(swaps).await.into_iter().map(Result::unwrap).collect();
        let won: Vec<u64> = outcomes
            .into_iter()
            .filter_map(|outcome| match outcome {
                Outcome::Done { versions } => Some(versions[0]),
                Outcome::Conflict { .. } => None,
            })
            .collect();
        assert_eq!(won.len(), 1);
        version = won[0];
        assert_eq!(store.get("race").await.unwrap().unwrap().version, version);
    }
}

/// What a random comparison expects.
#[derive(Clone, Copy, Debug)]
enum Guess {
    Right,
    Stale,
    Absent,
}

/// A random transaction over few keys: comparisons, and for each key at most one write, `None` to delete it.
type Step = (Vec<(u8, Guess)>, BTreeMap<u8, Option<Vec<u8>>>);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let guess = prop_oneof![8 => Just(Guess::Right), 1 => Just(Guess::Stale), 1 => Just(Guess::Absent)];
    let compares = prop::collection::vec((0..6u8, guess), 0..4);
    let writes =
        prop::collection::btree_map(0..6u8, prop::option::weighted(0.7, prop::collection::vec(0..9u8, 0..9)), 0..4);
    prop::collection::vec((compares, writes), 1..24)
}

/// Runs `cases` random histories of transactions against the store and a plain map.
pub(crate) fn agrees_with_a_map(store: &dyn MetaStore, cases: u32) {
    static CASE: AtomicU64 = AtomicU64::new(0);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let ended = TestRunner::new(config).run(&steps(), |steps| {
        let prefix = format!("map/{}/", CASE.fetch_add(1, Ordering::Relaxed));
        runtime.block_on(history(store, &prefix, steps));
        Ok(())
    });
    ended.unwrap();
}

async fn history(store: &dyn MetaStore, prefix: &str, steps: Vec<Step>) {
    let mut map: BTreeMap<String, Versioned> = BTreeMap::new();
    let mut highest = 0;
    for (compares, writes) in steps {
        let key = |n: u8| format!("{prefix}{n}");
        let mut txn = Txn::default();
        for (n, guess) in compares {
            let now = map.get(&key(n)).map(|found| found.version);
            txn = txn.compare(
                key(n),
                match (guess, now) {
                    (Guess::Right, Some(version)) => Expected::Version(version),
                    (Guess::Right, None) | (Guess::Absent, _) => Expected::Absent,
                    (Guess::Stale, now) => Expected::Version(now.unwrap_or(highest).saturating_sub(1)),
                },
            );
        }
        for (n, write) in writes {
            txn = match write {
                Some(value) => txn.put(key(n), value),
                None => txn.delete(key(n)),
            };
        }
        let expected = txn.compare.iter().find(|compare| {
            let now = map.get(&compare.key).map(|found| found.version);
            match compare.expected {
                Expected::Absent => now.is_some(),
                Expected::Version(version) => now != Some(version),
            }
        });
        match (store.transact(txn.clone()).await.unwrap(), expected) {
            (Outcome::Conflict { key }, Some(compare)) => assert_eq!(key, compare.key),
            (Outcome::Done { versions }, None) => {
                assert_eq!(versions.len(), txn.puts.len());
                for ((key, value), version) in txn.puts.into_iter().zip(versions) {
                    assert!(version > map.get(&key).map_or(0, |before| before.version));
                    highest = highest.max(version);
                    map.insert(key, Versioned { version, value });
                }
                map.retain(|key, _| !txn.deletes.contains(key));
            }
            (outcome, expected) => panic!("{outcome:?}, but the map says {expected:?}"),
        }
        let listed = store.list(prefix, None, usize::MAX).await.unwrap();
        assert_eq!(listed, map.clone().into_iter().collect::<Vec<_>>());
    }
    for n in 0..6u8 {
        let key = format!("{prefix}{n}");
        assert_eq!(store.get(&key).await.unwrap(), map.get(&key).cloned());
    }
}
