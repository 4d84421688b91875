#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{Int64Type, Schema, SchemaRef};
use async_trait::async_trait;
use futures::StreamExt;
use proptest::prelude::*;

use super::*;
use crate::source::UnitReader;

/// A source that finds what it is given.
struct Found(Vec<FoundSplit>);

#[async_trait]
impl Source for Found {
    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::empty())
    }

    fn describe(&self) -> String {
        "what was given".to_owned()
    }

    async fn enumerate(&self, _: Window, found: mpsc::Sender<FoundSplit>) -> Result<(), SourceError> {
        for split in &self.0 {
            found.send(split.clone()).await.map_err(|_| SourceError::Abandoned)?;
        }
        Ok(())
    }

    async fn reader(&self, _: &[v1::Split], _: &[usize], _: Window) -> Result<Box<dyn UnitReader>, SourceError> {
        Err(SourceError::Abandoned)
    }
}

fn split(path: usize, units: Vec<(i64, i64)>, rows_pruned: u64) -> FoundSplit {
    let pin = v1::FilePin { path: path.to_string(), ..Default::default() };
    let unit = |(low, width)| v1::UnitOfWork { low, high: low + width, rows: 3, bytes: 7, ..Default::default() };
    let units = units.into_iter().map(unit).collect();
    FoundSplit {
        split: v1::Split { file: Some(pin), ..Default::default() },
        units,
        rows_pruned,
        bytes_pruned: 2 * rows_pruned,
    }
}

fn run(found: Vec<FoundSplit>) -> (v1::Enumerated, Vec<v1::PlanSegment>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (sender, mut receiver) = mpsc::channel(1);
        let source = Found(found);
        let taken = async {
            let mut segments = Vec::new();
            while let Some(segment) = receiver.recv().await {
                segments.push(segment);
            }
            segments
        };
        let (tally, segments) = tokio::join!(enumerate(&source, Window::ALL, Packing::default(), None, sender), taken);
        (tally.unwrap(), segments)
    })
}

#[test]
fn an_enumeration_that_finds_nothing_says_so() {
    let (tally, segments) = run(vec![split(1, vec![], 9)]);
    assert!(segments.is_empty() && tally.low > tally.high);
    assert_eq!((tally.files, tally.splits, tally.tasks, tally.rows_in_range, tally.rows_pruned), (1, 0, 0, 9, 9));
    assert_eq!(tally.pinned, "what was given");
}

#[test]
fn units_that_touch_overlap_and_units_that_follow_do_not() {
    assert_eq!(run(vec![split(1, vec![(0, 10), (10, 10), (21, 5)], 0)]).0.overlap_depth, 2);
    assert_eq!(run(vec![split(1, vec![(0, 10), (11, 10)], 0)]).0.overlap_depth, 1);
}

#[tokio::test]
async fn segments_that_nobody_takes_end_the_enumeration() {
    let (sender, receiver) = mpsc::channel(1);
    drop(receiver);
    let source = Found(vec![split(1, vec![(0, 10)], 0)]);
    let ended = enumerate(&source, Window::ALL, Packing::default(), None, sender).await;
    assert!(matches!(ended, Err(EnumerateError::Abandoned)));
}

/// Three CSV files whose times interleave, cut and packed, and every task read back.
#[tokio::test]
async fn what_is_planned_is_what_is_read() {
    let folder = tempfile::tempdir().unwrap();
    for file in 0..3 {
        let rows: String = (0..500).map(|row| format!("{},{}\n", file * 500 + row, 3 * row + file)).collect();
        std::fs::write(folder.path().join(format!("{file}.csv")), format!("id,ts\n{rows}")).unwrap();
    }
    let spec = serde_json::json!({"files": {"path": folder.path().canonicalize().unwrap()}, "event_time": {"column": "ts", "unit": "seconds"}});
    let spec = serde_json::from_value(spec).unwrap();
    let source = crate::source::open("s", &spec, &crate::access::Access::local()).await.unwrap();
    let packing = Packing { max_drift: Some(tidegate_common::time::Span::from_micros(i64::MAX)), ..Packing::default() };
    let (sender, mut receiver) = mpsc::channel(100);
    let tally = enumerate(&*source, Window::ALL, packing, None, sender).await.unwrap();
    assert_eq!((tally.files, tally.tasks, tally.rows_in_range, tally.overlap_depth), (3, 1, 1500, 3));

    let mut ids = Vec::new();
    while let Some(segment) = receiver.recv().await {
        for task in segment.tasks {
            let mut reader = source.reader(&task.splits, &[0], Window::ALL).await.unwrap();
            for unit in &task.units {
                let mut batches = reader.read(unit).await.unwrap();
                while let Some(batch) = batches.next().await {
                    ids.extend(batch.unwrap().rows.column(0).as_primitive::<Int64Type>().values().iter().copied());
                }
            }
        }
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..1500).collect::<Vec<i64>>());
}

proptest! {
    #[test]
    fn the_tallies_balance(files in prop::collection::vec((prop::collection::vec((0_i64..60, 0_i64..20), 0..5), 0_u64..9), 0..12)) {
        let units: Vec<(i64, i64)> = files.iter().flat_map(|(units, _)| units).map(|(low, width)| (*low, low + width)).collect();
        let pruned: u64 = files.iter().map(|(_, rows)| rows).sum();
        let count = files.len() as u64;
        let (tally, segments) = run(files.into_iter().enumerate().map(|(at, (units, rows))| split(at, units, rows)).collect());

        let planned = || segments.iter().flat_map(|s| &s.tasks).flat_map(|t| &t.units);
        let rows: u64 = planned().map(|unit| unit.rows).sum();
        prop_assert_eq!(tally.rows_in_range, rows + tally.rows_pruned);
        prop_assert_eq!(tally.bytes_in_range, planned().map(|unit| unit.bytes).sum::<u64>() + tally.bytes_pruned);
        prop_assert_eq!((tally.rows_pruned, tally.bytes_pruned, tally.files), (pruned, 2 * pruned, count));
        prop_assert_eq!(tally.units as usize, units.len());
        prop_assert_eq!(planned().count(), units.len());
        prop_assert_eq!(tally.segments as usize, segments.len());
        prop_assert_eq!(tally.tasks as usize, segments.iter().map(|s| s.tasks.len()).sum::<usize>());
        prop_assert_eq!(tally.widest_unit, units.iter().map(|(low, high)| high - low).max().unwrap_or(0));
        let depth = (0..80).map(|at| units.iter().filter(|(low, high)| *low <= at && at <= *high).count()).max();
        prop_assert_eq!(tally.overlap_depth as usize, depth.unwrap_or(0));
    }
}
