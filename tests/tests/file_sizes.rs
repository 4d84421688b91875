//! Data files near the size that the table asks for, however many splits feed them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use tidegate_tests::sandbox::{Input, World};

const TARGET: u64 = 512 << 10;

fn spec(input: &str, more: &str) -> String {
    format!(
        "version: 1\nkind: backfill\nname: sizes\nsources:\n  rows: {{files: {{path: '{input}'}}, event_time: {{column: ts}}}}\n\
         outputs:\n  out:\n    table: sizes.out\n    properties: {{write.target-file-size-bytes: '{TARGET}'}}\n{more}"
    )
}

/// The data files below `folder`.
fn data_files(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => open.push(path),
                false => found.extend(path.extension().is_some_and(|ending| ending == "parquet").then_some(path)),
            }
        }
    }
    found
}

async fn sizes(world: &World, input: &Input, more: &str) -> Vec<u64> {
    input.write(world.root());
    world.write("spec.yaml", &spec(&input.glob(world.root()), more));
    world.run_local_with("spec.yaml", &[], &[]).await.with(0);
    let (before, all) = (world.root().join(input.folder), data_files(world.root()));
    all.iter().filter(|path| !path.starts_with(&before)).map(|path| fs::metadata(path).unwrap().len()).collect()
}

/// Three quarters to nine fifths of the target: what Iceberg's own compaction leaves alone.
fn is_near(size: u64) -> bool {
    (TARGET * 3 / 4..=TARGET * 9 / 5).contains(&size)
}

#[tokio::test]
async fn given_hundreds_of_little_files_when_replayed_then_every_file_is_near_the_target() {
    let world = World::new();
    let input = Input { folder: "in", rows: 120_000, days: 30, files: 400, unit: 10_000, seed: 3 };
    let sizes = sizes(&world, &input, "").await;
    assert!(sizes.len() >= 8, "{sizes:?}");
    assert!(sizes.iter().all(|size| is_near(*size)), "{sizes:?}");
}

#[tokio::test]
async fn given_files_of_many_row_groups_when_replayed_then_every_file_is_near_the_target() {
    let world = World::new();
    let input = Input { folder: "in", rows: 240_000, days: 30, files: 3, unit: 4_000, seed: 4 };
    let sizes = sizes(&world, &input, "").await;
    assert!(sizes.len() >= 8, "{sizes:?}");
    assert!(sizes.iter().all(|size| is_near(*size)), "{sizes:?}");
}

#[tokio::test]
async fn given_partitions_of_a_few_files_each_when_replayed_then_few_bytes_are_in_small_files() {
    let world = World::new();
    let input = Input { folder: "in", rows: 240_000, days: 30, files: 60, unit: 4_000, seed: 5 };
    let sizes = sizes(&world, &input, "    partition_by: ['bucket(2, id)']\n").await;
    let all: u64 = sizes.iter().sum();
    let small: u64 = sizes.iter().filter(|size| **size < TARGET / 2).sum();
    assert!(sizes.iter().all(|size| *size <= TARGET * 9 / 5), "{sizes:?}");
    assert!(small * 4 <= all, "{small} of {all}: {sizes:?}");
}
