//! A worker against a scripted coordinator: from a Parquet file to a committed table, all four kinds of task.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use parquet::arrow::ArrowWriter;
use tidegate_common::spec;
use tidegate_proto::v1;
use tidegate_proto::v1::assign::Work;
use tidegate_proto::v1::done::Result as Done;
use tidegate_proto::v1::from_coordinator::Kind as Down;
use tidegate_proto::v1::from_worker::Kind as Up;
use tidegate_proto::v1::task_id::{CommitId, Kind, ReadId, Unit};
use tokio::sync::oneshot;

use super::*;
use crate::session::tests::world::{Log, Peer, assign, backfill, serve};
use crate::sink::{CatalogConfig, OutputTarget, digest, load};

/// 1,000 rows, one a second from 2024-01-01 on; ids count them.
fn events(path: &Path) {
    const START: i64 = 1_704_067_200_000_000;
    let at = TimestampMicrosecondArray::from_iter_values((0..1_000).map(|second| START + second * 1_000_000));
    let columns: [(&str, ArrayRef); 2] =
        [("id", Arc::new(Int64Array::from_iter_values(0..1_000))), ("ts", Arc::new(at.with_timezone("UTC")))];
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
}

/// What `input` has of the first ten minutes where `filter` holds, into `lake.<output>`.
fn spec_json(input: &str, output: &str, filter: &str) -> String {
    let text = format!(
        "version: 1\nkind: backfill\nname: t\n\
         window: {{from: 2024-01-01T00:00:00Z, to: 2024-01-01T00:10:00Z}}\n\
         sources:\n  events:\n    {input}\n    event_time: {{column: ts}}\n\
         outputs:\n  out:\n    table: lake.{output}\n    sql: SELECT id, ts FROM events WHERE {filter}\n",
    );
    let spec = spec::parse(&text, "t.yaml", &|_| None).unwrap();
    spec::canonical_json(&spec::resolve(spec, 0).unwrap().spec)
}

fn info(spec_json: &str, prepared: Option<v1::Prepared>) -> Down {
    let spec_json = spec_json.to_owned();
    Down::Backfill(v1::BackfillInfo { backfill: backfill(), spec_json, prepared, ..Default::default() })
}

async fn done(peer: &mut Peer) -> Done {
    match peer.next().await {
        Up::Done(done) => done.result.unwrap(),
        other => panic!("{other:?} is no end"),
    }
}

/// Runs read task `at` to its end: what its hand-ins carried.
async fn read(peer: &mut Peer, at: u32, number: u64, task: v1::ReadTask) -> Vec<v1::HandIn> {
    let units = u32::try_from(task.units.len()).unwrap();
    let gate = v1::Gate { backfill: backfill(), watermark: task.units[0].low, gate: None, readers: Vec::new() };
    let work = Work::Read(v1::ReadWork { task: Some(task), next_unit: 0, gate: Some(gate), shapes: Vec::new() });
    peer.send(assign(Kind::Read(ReadId { source: 0, segment: 0, at }), u64::from(at) + number + 10, work)).await;
    let mut hand_ins: Vec<v1::HandIn> = Vec::new();
    while hand_ins.last().is_none_or(|last| last.end_unit < units) {
        let next = peer.next().await;
        let Up::HandIn(delivery) = next else { panic!("{next:?} is no hand-in") };
        let hand_in = delivery.hand_in.unwrap();
        peer.send(Down::HandInReply(v1::HandInReply {
            backfill: backfill(),
            task: delivery.task,
            attempt: hand_in.attempt.clone(),
            number: hand_in.number,
            accepted: true,
            reason: String::new(),
        }))
        .await;
        hand_ins.push(hand_in);
    }
    hand_ins
}

fn intent(table: &v1::PreparedOutput, parts: &[v1::OutputPart]) -> v1::Intent {
    let files: Vec<&v1::DataFile> = parts.iter().flat_map(|part| &part.files).collect();
    v1::Intent {
        version: 1,
        sequence: 1,
        digest: digest(files.iter().map(|file| file.path.as_str())),
        table_uuid: table.uuid.clone(),
        snapshot_id: 77,
        schema_id: table.schema_id,
        spec_id: table.spec_id,
        log_to: 1,
        files: files.len() as u64,
        rows: files.iter().map(|file| file.rows).sum(),
        bytes: files.iter().map(|file| file.bytes).sum(),
        ..Default::default()
    }
}

/// A worker and the coordinator's end of its session, over a catalog in a folder.
struct Bench {
    folder: tempfile::TempDir,
    catalogs: Arc<Catalogs>,
    log: Log,
    peer: Peer,
    stop: oneshot::Sender<()>,
    worker: tokio::task::JoinHandle<Result<(), WorkerError>>,
}

/// What a backfill counted.
struct Ran {
    enumerated: v1::Enumerated,
    hand_ins: Vec<v1::HandIn>,
    prepared: v1::Prepared,
    total_records: String,
}

impl Ran {
    fn count(&self, of: fn(&v1::HandIn) -> u64) -> u64 {
        self.hand_ins.iter().map(of).sum()
    }
}

impl Bench {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let catalog = CatalogConfig::Sqlite {
            name: "local".to_owned(),
            path: folder.path().join("catalog.db"),
            warehouse: folder.path().join("warehouse").display().to_string(),
            storage: None,
        };
        let catalogs = Arc::new(Catalogs::new([("local".to_owned(), catalog)]));
        let config = WorkerConfig {
            name: "w-1".to_owned(),
            slots: 2,
            memory_bytes: 256 << 20,
            access: Access::local(),
            catalogs: catalogs.clone(),
            default_catalog: "local".to_owned(),
            shuffle: ShuffleStore::open(&folder.path().join("shuffle").display().to_string()).unwrap(),
            fences: Fences::default(),
        };
        let log = Log::default();
        let (channel, mut sessions) = serve(log.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let worker = tokio::spawn(run(config, channel, async { drop(stopped.await) }));
        let (mut peer, _) = sessions.next().await;
        peer.welcome().await;
        Self { folder, catalogs, log, peer, stop, worker }
    }

    /// Runs a backfill of one source and one output through all its tasks; `number` tells its tasks from others'.
    async fn backfill(&mut self, number: u64, spec_json: &str, output: &str) -> Ran {
        let Self { peer, log, catalogs, .. } = self;
        peer.send(info(spec_json, None)).await;
        peer.send(assign(Kind::Prepare(Unit {}), number, Work::Prepare(v1::PrepareWork::default()))).await;
        let Done::Prepared(prepared) = done(peer).await else { panic!("not prepared") };
        let table = prepared.outputs[0].clone();
        assert_eq!((table.table, table.created), (format!("local.lake.{output}"), true));
        let table = prepared.outputs[0].clone();

        peer.send(info(spec_json, Some(prepared.clone()))).await;
        let work = Work::Enumerate(v1::EnumerateWork::default());
        peer.send(assign(Kind::Enumerate(0), number + 1, work)).await;
        let Up::Segment(found) = peer.next().await else { panic!("no segment") };
        let Done::Enumerated(enumerated) = done(peer).await else { panic!("not enumerated") };

        let mut hand_ins = Vec::new();
        for (at, task) in (0..).zip(found.segment.unwrap().tasks) {
            hand_ins.extend(read(peer, at, number, task).await);
        }
        let parts: Vec<_> = hand_ins.iter().flat_map(|hand_in| hand_in.outputs.clone()).collect();
        let commit = Work::Commit(v1::CommitWork { intent: Some(intent(&table, &parts)), cancel: 0 });
        log.lock().unwrap().clear();
        log.lock().unwrap().extend(parts);
        peer.send(assign(Kind::Commit(CommitId { output: 0, sequence: 1 }), number + 2, commit)).await;
        let Done::Commit(result) = done(peer).await else { panic!("not committed") };
        assert_eq!((result.end(), result.snapshot_id), (v1::CommitEnd::Committed, 77));

        let target = OutputTarget {
            catalog: "local".to_owned(),
            namespace: vec!["lake".to_owned()],
            name: output.to_owned(),
            ..OutputTarget::default()
        };
        let table = load(catalogs, &target).await.unwrap();
        let summary = table.metadata().current_snapshot().unwrap().summary().additional_properties.clone();
        Ran { enumerated, hand_ins, prepared, total_records: summary["total-records"].clone() }
    }

    async fn end(self) {
        self.stop.send(()).unwrap();
        assert!(self.peer.heard_until_the_end().await, "it says that it drains");
        self.worker.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_takes_a_backfill_from_a_file_to_a_committed_table() {
    let mut bench = Bench::start().await;
    let input = bench.folder.path().join("events.parquet");
    events(&input);
    let spec = spec_json(&format!("files: {{path: {}}}", input.display()), "even", "id % 2 = 0");
    let ran = bench.backfill(1, &spec, "even").await;
    assert_eq!((ran.enumerated.files, ran.enumerated.rows_in_range, ran.enumerated.segments), (1, 1_000, 1));
    assert_eq!((&ran.prepared.outputs[0].source[..], ran.prepared.sources.len()), (&["events".into()][..], 0));
    assert_eq!(ran.count(|hand_in| hand_in.rows_read), 1_000);
    assert_eq!(ran.count(|hand_in| hand_in.rows_outside), 400);
    assert_eq!(ran.count(|hand_in| hand_in.outputs[0].rows_passed), 300);
    assert_eq!(ran.count(|hand_in| hand_in.outputs[0].rows_filtered), 700);
    assert_eq!(ran.total_records, "300");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_read_is_committed_and_cancelled_though_its_source_is_gone() {
    let mut bench = Bench::start().await;
    let input = bench.folder.path().join("events.parquet");
    events(&input);
    let spec = spec_json(&format!("files: {{path: {}}}", input.display()), "out", "true");
    let Bench { peer, log, .. } = &mut bench;
    peer.send(info(&spec, None)).await;
    peer.send(assign(Kind::Prepare(Unit {}), 1, Work::Prepare(v1::PrepareWork::default()))).await;
    let Done::Prepared(prepared) = done(peer).await else { panic!("not prepared") };
    assert_eq!(prepared.outputs[0].time_column, "ts");
    std::fs::remove_file(&input).unwrap();
    // Another instance of the description: nothing of it is open.
    peer.send(info(&spec, Some(prepared.clone()))).await;
    log.lock().unwrap().clear();
    let table = &prepared.outputs[0];
    let fenced = v1::Intent { files: 1, rows: 1, ..intent(table, &[]) };
    let replace = v1::Intent {
        sequence: 2,
        snapshot_id: 78,
        predecessor: "1:cancelled:5".to_owned(),
        kind: v1::CommitKind::Replace.into(),
        ..intent(table, &[])
    };
    let id = |sequence| Kind::Commit(CommitId { output: 0, sequence });
    for (number, intent, cancel, said) in
        [(2, fenced, 5, v1::CommitEnd::Cancelled), (3, replace, 0, v1::CommitEnd::Committed)]
    {
        let sequence = intent.sequence;
        let work = Work::Commit(v1::CommitWork { intent: Some(intent), cancel });
        peer.send(assign(id(sequence), number, work)).await;
        let Done::Commit(result) = done(peer).await else { panic!("not committed") };
        assert_eq!(result.end(), said, "{result:?}");
    }
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_was_prepared_and_is_gone_is_not_made_anew_when_its_pins_are_renewed() {
    let mut bench = Bench::start().await;
    let input = bench.folder.path().join("events.parquet");
    events(&input);
    let spec = spec_json(&format!("files: {{path: {}}}", input.display()), "out", "true");
    let pinned = v1::PreparedOutput { uuid: "u".to_owned(), source: vec!["events".to_owned()], ..Default::default() };
    let prepared = v1::Prepared { version: 1, outputs: vec![pinned], ..Default::default() };
    bench.peer.send(info(&spec, Some(prepared))).await;
    bench.peer.send(assign(Kind::Prepare(Unit {}), 1, Work::Prepare(v1::PrepareWork::default()))).await;
    let Done::Prepared(again) = done(&mut bench.peer).await else { panic!("not prepared") };
    assert_eq!(again.outputs[0].uuid, "", "the core refuses another table than it knows");
    let table = OutputTarget {
        catalog: "local".to_owned(),
        namespace: vec!["lake".to_owned()],
        name: "out".to_owned(),
        ..OutputTarget::default()
    };
    assert!(load(&bench.catalogs, &table).await.is_err());
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_takes_a_backfill_from_a_table_to_another() {
    let mut bench = Bench::start().await;
    let input = bench.folder.path().join("events.parquet");
    events(&input);
    let first = spec_json(&format!("files: {{path: {}}}", input.display()), "even", "id % 2 = 0");
    bench.backfill(1, &first, "even").await;

    let second = spec_json("iceberg: {table: lake.even}", "sixth", "id % 3 = 0");
    let ran = bench.backfill(101, &second, "sixth").await;
    assert_eq!(ran.enumerated.pinned, "iceberg lake.even @ snapshot 77");
    assert_eq!((&ran.prepared.sources[0].source[..], ran.prepared.sources[0].snapshot), ("events", Some(77)));
    assert_eq!((ran.enumerated.files, ran.enumerated.rows_in_range), (1, 300));
    assert_eq!(
        (ran.count(|hand_in| hand_in.rows_read), ran.count(|hand_in| hand_in.outputs[0].rows_passed)),
        (300, 100)
    );
    assert_eq!(ran.total_records, "100");

    let missing = spec_json("iceberg: {table: lake.odd}", "none", "true");
    bench.peer.send(info(&missing, None)).await;
    bench.peer.send(assign(Kind::Prepare(Unit {}), 201, Work::Prepare(v1::PrepareWork::default()))).await;
    let next = bench.peer.next().await;
    let Up::Fail(fail) = next else { panic!("{next:?} is no failure") };
    let evidence = fail.evidence.unwrap();
    assert_eq!(evidence.exit_code, 4);
    assert_eq!(evidence.message, "source events: there is no table local.lake.odd: check the catalog and the name");
    bench.end().await;
}
