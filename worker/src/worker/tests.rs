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

/// The even ids of the first ten minutes.
fn spec_json(input: &Path) -> String {
    let text = format!(
        "version: 1\nkind: backfill\nname: t\n\
         window: {{from: 2024-01-01T00:00:00Z, to: 2024-01-01T00:10:00Z}}\n\
         sources:\n  events:\n    files: {{path: {}}}\n    event_time: {{column: ts}}\n\
         outputs:\n  even:\n    table: lake.even\n    sql: SELECT id, ts FROM events WHERE id % 2 = 0\n",
        input.display()
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
async fn read(peer: &mut Peer, at: u32, task: v1::ReadTask) -> Vec<v1::HandIn> {
    let units = u32::try_from(task.units.len()).unwrap();
    let gate = v1::Gate { backfill: backfill(), watermark: task.units[0].low, gate: None };
    let work = Work::Read(v1::ReadWork { task: Some(task), next_unit: 0, gate: Some(gate) });
    peer.send(assign(Kind::Read(ReadId { source: 0, segment: 0, at }), u64::from(at) + 10, work)).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_takes_a_backfill_from_a_file_to_a_committed_table() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("events.parquet");
    events(&input);
    let catalog = CatalogConfig::Sqlite {
        name: "local".to_owned(),
        path: folder.path().join("catalog.db"),
        warehouse: folder.path().join("warehouse").display().to_string(),
    };
    let catalogs = Arc::new(Catalogs::new([("local".to_owned(), catalog)]));
    let config = WorkerConfig {
        name: "w-1".to_owned(),
        slots: 2,
        memory_bytes: 256 << 20,
        access: Access::local(),
        catalogs: catalogs.clone(),
        default_catalog: "local".to_owned(),
        fences: Fences::default(),
    };
    let log = Log::default();
    let (channel, mut sessions) = serve(log.clone());
    let (stop, stopped) = oneshot::channel::<()>();
    let worker = tokio::spawn(run(config, channel, async { drop(stopped.await) }));
    let (mut peer, _) = sessions.next().await;
    peer.welcome().await;

    let spec_json = spec_json(&input);
    peer.send(info(&spec_json, None)).await;
    peer.send(assign(Kind::Prepare(Unit {}), 1, Work::Prepare(v1::PrepareWork {}))).await;
    let Done::Prepared(prepared) = done(&mut peer).await else { panic!("not prepared") };
    let table = prepared.outputs[0].clone();
    assert_eq!(
        (table.table.as_str(), table.created, &table.source[..]),
        ("local.lake.even", true, &["events".into()][..])
    );

    peer.send(info(&spec_json, Some(prepared))).await;
    peer.send(assign(Kind::Enumerate(0), 2, Work::Enumerate(v1::EnumerateWork { source: 0 }))).await;
    let Up::Segment(found) = peer.next().await else { panic!("no segment") };
    let Done::Enumerated(enumerated) = done(&mut peer).await else { panic!("not enumerated") };
    assert_eq!((enumerated.files, enumerated.rows_in_range, enumerated.segments), (1, 1_000, 1));

    let mut hand_ins = Vec::new();
    for (at, task) in (0..).zip(found.segment.unwrap().tasks) {
        hand_ins.extend(read(&mut peer, at, task).await);
    }
    let count = |of: fn(&v1::HandIn) -> u64| hand_ins.iter().map(of).sum::<u64>();
    assert_eq!(count(|hand_in| hand_in.rows_read), 1_000);
    assert_eq!(count(|hand_in| hand_in.rows_outside), 400);
    assert_eq!(count(|hand_in| hand_in.outputs[0].rows_passed), 300);
    assert_eq!(count(|hand_in| hand_in.outputs[0].rows_filtered), 700);

    let parts: Vec<_> = hand_ins.into_iter().flat_map(|hand_in| hand_in.outputs).collect();
    let commit = Work::Commit(v1::CommitWork { intent: Some(intent(&table, &parts)) });
    log.lock().unwrap().extend(parts);
    peer.send(assign(Kind::Commit(CommitId { output: 0, sequence: 1 }), 3, commit)).await;
    let Done::Commit(result) = done(&mut peer).await else { panic!("not committed") };
    assert_eq!((result.end(), result.snapshot_id), (v1::CommitEnd::Committed, 77));

    let target = OutputTarget {
        catalog: "local".to_owned(),
        namespace: vec!["lake".to_owned()],
        name: "even".to_owned(),
        ..OutputTarget::default()
    };
    let table = load(&catalogs, &target).await.unwrap();
    let summary = table.metadata().current_snapshot().unwrap().summary().additional_properties.clone();
    assert_eq!(summary["total-records"], "300");

    stop.send(()).unwrap();
    assert!(peer.heard_until_the_end().await, "it says that it drains");
    worker.await.unwrap().unwrap();
}
