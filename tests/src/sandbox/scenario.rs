//! Two sources of different size, replayed side by side into two tables: what most tests run.

use std::path::PathBuf;

use tidegate_proto::v1;

use super::input::{BEGIN, DAY, Input};
use super::oracle::{Check, Other, Verdict, must_be_exact};
use super::world::World;

/// Days of the input before and after the window.
const MARGIN: i64 = 2;
const HOUR: i64 = DAY / 24;

/// How far before an anchor its partners lie at most, and behind it.
const BACK: i64 = 2 * HOUR;
const FORWARD: i64 = HOUR / 2;

/// What of the large source is joined with the small one.
const JOIN: &str = "SELECT b.ts, b.id, b.key, s.id AS other, s.amount * 2 AS doubled FROM big b LEFT JOIN small s \
                    ON b.key = s.key AND s.ts BETWEEN b.ts - INTERVAL '2' HOUR AND b.ts + INTERVAL '30' MINUTE \
                    WHERE b.id % 5 <> 0";

/// A world with input and a spec, and what must come of it.
#[derive(Debug)]
pub struct Scenario {
    /// Where it happens.
    pub world: World,
    /// The files of the large source.
    pub big: Vec<PathBuf>,
    /// The files of the large source as they were before one was spoilt: all, and those that share a task with it.
    clean: Option<(PathBuf, Vec<String>)>,
    days: i64,
    joins: bool,
}

impl Scenario {
    /// The spec's file in the world.
    pub const SPEC: &str = "spec.yaml";

    /// About 200,000 rows in hundreds of units: a few seconds' work, many hand-ins, many commits.
    pub fn large() -> Self {
        let big = Input { folder: "big", rows: 160_000, days: 90, files: 30, unit: 500, seed: 1 };
        let small = Input { folder: "small", rows: 40_000, days: 90, files: 15, unit: 400, seed: 2 };
        Self::new(&big, &small, "4d", "200ms")
    }

    /// About 5,000 rows in a few tasks, committed as soon as there is something to commit.
    pub fn little() -> Self {
        let big = Input { folder: "big", rows: 4_000, days: 40, files: 8, unit: 100, seed: 3 };
        let small = Input { folder: "small", rows: 1_000, days: 40, files: 4, unit: 50, seed: 4 };
        Self::new(&big, &small, "10d", "1ms")
    }

    /// Writes the spec anew with `from` replaced by `to`, wherever it stands.
    ///
    /// # Panics
    /// When it does not stand there.
    pub fn respell(&self, from: &str, to: &str) {
        let path = self.world.root().join(Self::SPEC);
        let spec = std::fs::read_to_string(path).expect("the spec is there");
        assert!(spec.contains(from), "{from:?} is not in {spec}");
        self.world.write(Self::SPEC, &spec.replace(from, to));
    }

    fn new(big: &Input, small: &Input, drift: &str, every: &str) -> Self {
        let world = World::new();
        let days = i64::from(big.days);
        let (from, to) = window(days);
        let spec = format!(
            "version: 1
kind: backfill
name: two-sources
window: {{from: '{}', to: '{}'}}
alignment: {{max_drift: {drift}}}
sources:
  big: {{files: {{path: 'big/*.parquet'}}, event_time: {{column: ts}}}}
  small: {{files: {{path: 'small/*.parquet'}}, event_time: {{column: ts}}}}
outputs:
  big:
    table: lake.big
    sql: SELECT * FROM big
    partition_by: ['month(ts)']
    commit: {{every: {every}}}
  joined:
    table: lake.joined
    sql: \"{JOIN}\"
    partition_by: ['month(ts)']
    commit: {{every: {every}}}
  small:
    table: lake.small
    sql: SELECT ts, id, upper(key) AS key, amount FROM small WHERE key <> 'k7'
    partition_by: ['month(ts)']
    commit: {{every: {every}}}
",
            rfc3339(from),
            rfc3339(to)
        );
        let files = big.write(world.root());
        small.write(world.root());
        world.write(Self::SPEC, &spec);
        Self { world, big: files, clean: None, days, joins: true }
    }

    /// What the two tables must hold after the backfill `id`.
    pub fn checks(&self, id: &str) -> Vec<Check> {
        let files = |name: &str| vec![self.world.root().join(name).join("*.parquet").display().to_string()];
        let (from, to) = window(self.days);
        let check = |name: &str, query: &str| Check {
            catalog: self.world.catalog(),
            table: format!("lake.{name}"),
            branch: None,
            input: files(name),
            others: Vec::new(),
            query: Some(query.to_owned()),
            time: "ts",
            window: Some(window(self.days)),
            backfill: Some(id.to_owned()),
            may_miss: None,
        };
        let mut big = check("big", "SELECT * FROM input");
        let mut joined = check("joined", &JOIN.replace("FROM big b", "FROM input b"));
        joined.input = files("big");
        joined.others = vec![Other { name: "small", input: files("small"), window: (from - BACK, to + FORWARD) }];
        if let Some((folder, may_miss)) = &self.clean {
            big.input = vec![folder.join("*.parquet").display().to_string()];
            big.may_miss = Some(may_miss.clone());
            joined.input.clone_from(&big.input);
            // No slice is joined that needs what is parked, and none behind the first of those: no watermark passes it.
            joined.may_miss = Some(big.input.clone());
        }
        let small = check("small", "SELECT ts, id, upper(key) AS key, amount FROM input WHERE key <> 'k7'");
        if self.joins { vec![big, joined, small] } else { vec![big, small] }
    }

    /// Without the output that joins: what was cancelled while rows waited to be joined is not taken up again.
    ///
    /// # Panics
    /// When the spec is not there.
    pub fn unjoined(mut self) -> Self {
        let spec = std::fs::read_to_string(self.world.root().join(Self::SPEC)).expect("the spec is there");
        let (before, rest) = spec.split_once("  joined:\n").expect("it joins");
        let after = rest.find("  small:\n").expect("another output follows");
        self.world.write(Self::SPEC, &format!("{before}{}", &rest[after..]));
        self.joins = false;
        self
    }

    /// Spoils a row group in the middle of one file of the large source; gives the file's path.
    pub fn spoil(&mut self, file: usize) -> PathBuf {
        let clean = self.world.root().join("clean");
        std::fs::create_dir_all(&clean).expect("a folder");
        for path in &self.big {
            std::fs::copy(path, clean.join(path.file_name().expect("a file"))).expect("a copy");
        }
        let spoilt = self.big[file].clone();
        super::input::spoil(&spoilt);
        // A task is parked as a whole, and holds the files next to each other in event time that fit into the drift.
        let near = &self.big[file.saturating_sub(1)..(file + 2).min(self.big.len())];
        let near = near.iter().map(|path| clean.join(path.file_name().expect("a file")).display().to_string());
        self.clean = Some((clean.clone(), near.collect()));
        spoilt
    }

    /// Waits for the backfill's end and wants it to be perfect: succeeded, its account balanced, its tables exact.
    ///
    /// # Panics
    /// When anything is wrong.
    pub async fn must_end_exact(&self, id: &str) -> (v1::Backfill, Vec<Verdict>) {
        let last = self.world.until_over(id).await;
        assert_eq!(last.phase(), v1::Phase::Succeeded, "{:?}", last.failure);
        must_balance(&last);
        let found = must_be_exact(&self.checks(&last.id));
        for (output, verdict) in last.outputs.iter().zip(&found) {
            assert_eq!(output.rows_committed, verdict.rows, "the report of {} and its table", output.name);
            assert_eq!(output.files_committed, verdict.files, "the report of {} and its table", output.name);
            assert_eq!(output.commits, verdict.snapshots, "the report of {} and its table", output.name);
        }
        (last, found)
    }
}

/// Wants every edge of the ledger balanced, by an account of our own.
///
/// # Panics
/// When one is not.
pub fn must_balance(last: &v1::Backfill) {
    assert_eq!(last.imbalances, [""; 0]);
    for source in &last.sources {
        let found = source.found.as_ref().expect("it was enumerated");
        assert_eq!(found.rows_in_range, source.rows_read + found.rows_pruned, "{source:?}");
        assert_eq!(source.units_done, found.units, "{source:?}");
        assert_eq!(source.tasks_done, found.tasks, "{source:?}");
        let bound = last.promised_skew.expect("it is aligned");
        assert!(source.max_skew <= bound, "skew {} of {} is above the bound {bound}", source.max_skew, source.name);
    }
    for output in &last.outputs {
        if let Some(join) = &output.join {
            joins_balance(last, output, join);
            continue;
        }
        let out = output.rows_passed + output.rows_filtered + output.rows_late + output.rows_dead_letter;
        assert_eq!(output.rows_read, out, "{output:?}");
        assert_eq!((output.rows_passed, output.files), (output.rows_committed, output.files_committed), "{output:?}");
    }
}

fn joins_balance(last: &v1::Backfill, output: &v1::OutputState, join: &v1::JoinState) {
    for input in &join.inputs {
        let source = last.sources.iter().find(|source| source.name == input.source).expect("it is a source");
        let out = input.rows_shuffled + input.rows_filtered + input.rows_late + input.rows_dead_letter;
        assert_eq!((input.rows_read, input.rows_read), (source.rows_read, out), "{input:?}");
    }
    assert_eq!(output.rows_read, join.anchors, "{join:?}");
    assert_eq!((join.slices_done, join.live_bytes), (join.slices, 0), "{join:?}");
    assert!(join.slices > 1 && join.peak_bytes > 0, "{join:?}");
    assert_eq!((output.rows_passed, output.files), (output.rows_committed, output.files_committed), "{output:?}");
}

fn window(days: i64) -> (i64, i64) {
    (BEGIN + MARGIN * DAY, BEGIN + (days - MARGIN) * DAY)
}

fn rfc3339(micros: i64) -> String {
    tidegate_common::time::EventTime::from_micros(micros).to_string()
}
