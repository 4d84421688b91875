//! Given journals, what is handed over.

use tidegate_proto::v1::record::Kind;

use super::*;

const SPEC: &str = r#"{"version":1,"kind":"backfill","name":"replay","sources":{"orders":{"kafka":{"topic":"orders.v2",
    "properties":{"bootstrap.servers":"b:9092"},"format":{"type":"raw"}}}},"outputs":{"out":{"table":"lake.orders"}}}"#;

/// As the first release wrote it.
const FIXTURE: &str = r#"{
  "kind": "HandOver",
  "version": 1,
  "made_at": "2026-10-01T00:00:00Z",
  "backfill": "bf-aaaaaaaaaaaaaaaa",
  "name": "replay",
  "group": "live",
  "covers": true,
  "topics": [
    {
      "source": "orders",
      "topic": "orders.v2",
      "topic_id": "Zm9v",
      "partitions": [
        {
          "partition": 0,
          "from": 5,
          "next": 120
        },
        {
          "partition": 1,
          "from": 0,
          "next": 0
        }
      ]
    }
  ]
}
"#;

fn account(spec: &str, phase: v1::Phase) -> Account {
    archived(spec, phase, Vec::new())
}

fn archived(spec: &str, phase: v1::Phase, archive: Vec<v1::KafkaRange>) -> Account {
    let range = |partition, start, end| v1::KafkaRange { partition, start, end };
    let ranges = vec![range(0, 5, 120), range(1, 0, 0)];
    let kafka = v1::KafkaPin { topic_id: "Zm9v".to_owned(), ranges, partitions: 2, ..Default::default() };
    let pin = v1::SourcePin { source: "orders".to_owned(), kafka: Some(kafka), archive, ..Default::default() };
    let created = v1::record::Created { spec_json: spec.to_owned(), ..Default::default() };
    let prepared = v1::Prepared { version: 1, sources: vec![pin], ..Default::default() };
    let mut account = Account::new("bf-aaaaaaaaaaaaaaaa");
    let ended = v1::record::PhaseChanged { phase: phase.into(), evidence: None };
    for kind in [Kind::Created(created), Kind::Prepared(prepared), Kind::Phase(ended)] {
        account.book(v1::Record { at: 0, kind: Some(kind) }).unwrap();
    }
    account
}

const AT: i64 = 1_790_812_800_000_000;

#[test]
fn a_backfill_that_succeeded_hands_over_the_pinned_ends() {
    let account = account(SPEC, v1::Phase::Succeeded);
    let made = HandOver::of(&account, Some("live".to_owned()), AT).unwrap();
    assert_eq!(made.text(), FIXTURE);
    assert_eq!(HandOver::read(FIXTURE, "a.json").unwrap(), made);
}

#[test]
fn what_came_from_an_archive_is_read_and_covered() {
    let kafka: serde_json::Value = serde_json::from_str::<serde_json::Value>(SPEC).unwrap()["sources"]["orders"].take();
    let mut spec: serde_json::Value = serde_json::from_str(SPEC).unwrap();
    spec["sources"]["orders"] =
        serde_json::json!({"hybrid": {"archive": {"iceberg": {"table": "lake.a"}}, "live": kafka}});
    let archive = vec![v1::KafkaRange { partition: 0, start: 2, end: 5 }];
    let made = HandOver::of(&archived(&spec.to_string(), v1::Phase::Succeeded, archive), None, AT).unwrap();
    let ranges: Vec<(i64, i64)> = made.positions().map(|(_, from, next)| (from, next)).collect();
    assert_eq!((ranges, made.covers), (vec![(2, 120), (0, 0)], true));
}

#[test]
fn what_a_window_or_parked_work_leaves_out_is_not_covered() {
    let windowed = SPEC
        .replace(r#""sources""#, r#""window":{"from":"2026-01-01T00:00:00Z","to":"2026-02-01T00:00:00Z"},"sources""#);
    let covers = |spec: &str, phase| HandOver::of(&account(spec, phase), None, AT).map(|made| made.covers).ok();
    assert_eq!(covers(SPEC, v1::Phase::Succeeded), Some(true));
    assert_eq!(covers(&windowed, v1::Phase::Succeeded), Some(false));
    assert_eq!(covers(SPEC, v1::Phase::Partial), Some(false));
    for phase in [v1::Phase::Running, v1::Phase::Staged, v1::Phase::Failed, v1::Phase::Cancelled] {
        assert_eq!(covers(SPEC, phase), None, "{phase:?}");
    }
}

#[test]
fn the_group_of_the_scan_is_the_live_one_where_no_other_is_named() {
    let scanned = SPEC.replace(r#""format""#, r#""scan":{"stop":{"group":"billing"}},"format""#);
    let group = |group: Option<&str>| {
        HandOver::of(&account(&scanned, v1::Phase::Succeeded), group.map(str::to_owned), AT).unwrap().group
    };
    assert_eq!(group(None).as_deref(), Some("billing"));
    assert_eq!(group(Some("other")).as_deref(), Some("other"));
}

#[test]
fn what_is_no_hand_over_is_refused() {
    let why = |text: &str| HandOver::read(text, "a.json").unwrap_err().to_string();
    assert!(why(&FIXTURE.replace("\"version\": 1", "\"version\": 7")).contains("reads up to 1"));
    assert!(why(&FIXTURE.replace("120", "4")).contains("orders.v2-0"));
    assert!(why(&FIXTURE.replace("\"partition\": 1", "\"partition\": 0")).contains("twice"));
    assert!(why(&FIXTURE.replace("HandOver", "Verification")).contains("no HandOver but Verification"));
}
