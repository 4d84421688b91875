//! Hybrid sources in a spec.

use super::super::model::SwitchSpec;
use super::super::*;

fn no_variables(_: &str) -> Option<String> {
    None
}

const HYBRID: &str = "\
version: 1
kind: backfill
name: h
sources:
  events:
    hybrid:
      archive: {iceberg: {table: lake.events_archive}, partition: p, offset: o}
      live:
        kafka: {topic: events, properties: {bootstrap.servers: \"localhost:9092\"}, format: {type: raw}}
      switch: {offsets: {1: 20, 0: 10}}
outputs:
  o: {table: a.b}
";

fn resolved(text: &str) -> Result<Resolved, SpecErrors> {
    parse(text, "", &no_variables).and_then(|spec| resolve(spec, 0))
}

fn with(from: &str, to: &str) -> String {
    let text = HYBRID.replacen(from, to, 1);
    assert!(from.is_empty() || text != HYBRID, "{from} is not there");
    resolved(&text).map_or_else(|errors| errors.to_string(), |_| "fine".to_owned())
}

#[test]
fn a_hybrid_source_is_an_archive_and_a_topic() {
    let resolved = resolved(HYBRID).unwrap();
    let SourceKind::Hybrid(hybrid) = &resolved.sources[0].kind else { panic!("{:?}", resolved.sources[0].kind) };
    assert_eq!(hybrid.table.to_string(), "lake.events_archive");
    assert_eq!((hybrid.archive.partition.as_deref(), hybrid.archive.offset.as_deref()), (Some("p"), Some("o")));
    assert_eq!(hybrid.switch, Some([(0, 10), (1, 20)].into()));
    assert_eq!(resolved.sources[0].kafka().map(|kafka| kafka.spec.topic.as_str()), Some("events"));
    assert_eq!(resolved.sources[0].event_time.as_ref().map(|time| &time.of), Some(&EventTimeOf::Record));
    assert_eq!(resolved.outputs[0].sql, "SELECT * EXCEPT (_kafka) FROM \"events\"");
}

#[test]
fn a_switch_that_is_left_out_and_one_that_is_auto_are_one_backfill() {
    let of = |text: &str| backfill_id("d", &resolved(text).unwrap());
    let (given, auto) = ("      switch: {offsets: {1: 20, 0: 10}}\n", "      switch: auto\n");
    assert_eq!(of(&HYBRID.replace(given, "")), of(&HYBRID.replace(given, auto)));
    assert_ne!(of(HYBRID), of(&HYBRID.replace(given, "")));
    assert_eq!(of(HYBRID), of(&HYBRID.replace("{1: 20, 0: 10}", "{0: 10, 01: 20}")));
    let spec = resolved(HYBRID).unwrap().spec;
    let switch = spec.sources["events"].hybrid.as_ref().unwrap().switch.clone();
    assert_eq!(switch, Some(SwitchSpec::Offsets([("0".to_owned(), 10), ("1".to_owned(), 20)].into())));
}

#[test]
fn what_a_hybrid_source_cannot_mean_is_refused() {
    for (from, to, said) in [
        ("table: lake.events_archive", "table: events_archive", "hybrid.archive.iceberg.table"),
        ("partition: p", "partitions: p", "did you mean `partition`"),
        ("offset: o", "offset: p", "this column is `partition` already"),
        ("offset: o", "offset: ''", "hybrid.archive.offset"),
        ("topic: events", "topic: \"a b\"", "not the name of a topic"),
        ("bootstrap.servers: \"localhost:9092\"", "client.id: x", "live.kafka.properties"),
        ("switch: {offsets: {1: 20, 0: 10}}", "switch: {offsets: {a: 1}}", "is not a partition"),
        ("switch: {offsets: {1: 20, 0: 10}}", "switch: automatic", "switch"),
        ("    hybrid:", "    generate: {rows: 1, rate: 1}\n    hybrid:", "exactly one of"),
        ("outputs:", "    event_time: {path: \"%Y\"}\noutputs:", "only files have a path"),
    ] {
        let found = with(from, to);
        assert!(found.contains(said), "{to}: {found}");
    }
    assert_eq!(with("", ""), "fine");
    assert_eq!(with("outputs:", "live: {group: billing}\noutputs:"), "fine", "its topic has groups");
}
