#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::failure::{Class, Classify};

const ALL: [usize; 5] = [0, 1, 2, 3, 4];

fn source(spec: Value) -> Result<Arc<dyn Source>, SourceError> {
    open("made", &serde_json::from_value(spec).unwrap(), None)
}

async fn find(source: &dyn Source, window: Window) -> Vec<FoundSplit> {
    let (sender, mut receiver) = mpsc::channel(1000);
    source.enumerate(window, sender).await.unwrap();
    let mut found = Vec::new();
    while let Some(split) = receiver.recv().await {
        found.push(split);
    }
    found
}

async fn unit(source: &dyn Source, split: &FoundSplit, at: usize, window: Window) -> Vec<SourceBatch> {
    let mut reader = source.reader(std::slice::from_ref(&split.split), &ALL, window).await.unwrap();
    reader.read(&split.units[at]).await.unwrap().try_collect().await.unwrap()
}

#[tokio::test]
async fn a_unit_is_the_same_whoever_makes_it_and_another_seed_makes_another() {
    let spec = |seed: u64| json!({"seed": seed, "rows": 200_000, "rate": 50.0, "disorder": "10s", "skew": 1.1});
    let (one, again, other) = (source(spec(7)).unwrap(), source(spec(7)).unwrap(), source(spec(8)).unwrap());
    let found = find(&*one, Window::ALL).await;
    let rows = |batches: Vec<SourceBatch>| batches.into_iter().map(|batch| batch.rows).collect::<Vec<_>>();
    let made = rows(unit(&*one, &found[0], 2, Window::ALL).await);
    unit(&*again, &found[0], 0, Window::ALL).await;
    assert_eq!(made, rows(unit(&*again, &found[0], 2, Window::ALL).await));
    let changed = find(&*other, Window::ALL).await;
    assert_ne!(made, rows(unit(&*other, &changed[0], 2, Window::ALL).await));
}

#[tokio::test]
async fn skewed_keys_follow_zipfs_law() {
    let source = source(json!({"rows": 60_000, "rate": 1.0, "skew": 1.0, "keys": 100})).unwrap();
    let found = find(&*source, Window::ALL).await;
    let mut counts: BTreeMap<i64, f64> = BTreeMap::new();
    for batch in unit(&*source, &found[0], 0, Window::ALL).await {
        for key in batch.rows.column(2).as_primitive::<Int64Type>().values() {
            *counts.entry(*key).or_default() += 1.0;
        }
    }
    assert!(counts.keys().all(|key| (0..100).contains(key)));
    let ratio = counts[&0] / counts[&9];
    assert!((8.0..12.0).contains(&ratio), "the first key comes ten times as often as the tenth: {ratio}");
}

#[tokio::test]
async fn what_makes_no_rows_is_refused() {
    let cases = [
        (json!({"rows": 1, "rate": 0.0}), "generate.rate"),
        (json!({"rows": 1, "rate": 1.0, "start": "soon"}), "generate.start"),
        (json!({"rows": 1, "rate": 1.0, "disorder": "-1s"}), "generate.disorder"),
        (json!({"rows": 1, "rate": 1.0, "keys": 0}), "generate.keys"),
        (json!({"rows": 1, "rate": 1.0, "skew": -1.0}), "generate.skew"),
        (json!({"rows": 1, "rate": 1.0, "skew": 1.0, "keys": 1_000_000_000}), "generate.keys"),
        (json!({"rows": 1, "rate": 1.0, "splits": 0}), "generate.splits"),
        (json!({"rows": u64::MAX, "rate": 1e-3}), "end of time"),
    ];
    for (spec, said) in cases {
        let error = source(spec).err().unwrap();
        assert_eq!(error.class(), Class::Fatal { exit_code: 3 });
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[tokio::test]
async fn a_plan_of_more_rows_than_there_are_is_refused() {
    let many = source(json!({"rows": 10, "rate": 1.0})).unwrap();
    let few = source(json!({"rows": 9, "rate": 1.0})).unwrap();
    let found = find(&*many, Window::ALL).await;
    let mut reader = few.reader(&[found[0].split.clone()], &ALL, Window::ALL).await.unwrap();
    assert!(matches!(reader.read(&found[0].units[0]).await, Err(SourceError::Changed { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Each row of the window is made exactly once, its time within its unit's bounds and within the disorder.
    #[test]
    fn splits_are_disjoint_and_complete(rows in 0_u64..150_000, splits in 1_u64..6, seed: u64, disorder in 0_i64..5_000, from in 0_i64..100) {
        let spec = json!({"rows": rows, "rate": 1000.0, "seed": seed, "splits": splits, "start": "1970-01-01", "disorder": format!("{disorder}ms")});
        let source = source(spec).unwrap();
        let window = Window::new(EventTime::from_micros(from * 1_000_000), EventTime::MAX).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let found = find(&*source, window).await;
            let pruned: u64 = found.iter().map(|split| split.rows_pruned).sum();
            let mut ids = Vec::new();
            for split in &found {
                for at in 0..split.units.len() {
                    for batch in unit(&*source, split, at, window).await {
                        let made = batch.rows.column(1).as_primitive::<Int64Type>().values().iter().zip(batch.event_time.values());
                        for (id, time) in made {
                            assert!((0..=disorder * 1000).contains(&(id * 1000 - time)));
                            ids.push(*id);
                        }
                    }
                }
            }
            assert_eq!(ids.len() as u64 + pruned, rows);
            ids.sort_unstable();
            assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "no row twice");
            assert!(window.from() > EventTime::from_micros(0) || ids.len() as u64 == rows || disorder > 0);
        });
    }
}
