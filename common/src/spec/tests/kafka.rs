//! Kafka sources in a spec.

use super::super::*;
use crate::time::Span;

fn no_variables(_: &str) -> Option<String> {
    None
}

const KAFKA: &str = "\
version: 1
kind: backfill
name: k
sources:
  events:
    kafka:
      topic: events
      properties: {bootstrap.servers: \"localhost:9092\"}
      scan: {start: {timestamp: 2024-01-01}, stop: {offsets: {0: 10, 1: 20}}}
      format: {type: json, schema: [{name: id, type: bigint}]}
    event_time: {out_of_orderness: 60m}
outputs:
  o: {table: a.b}
";

fn kafka_with(from: &str, to: &str) -> String {
    let text = KAFKA.replacen(from, to, 1);
    assert!(from.is_empty() || text != KAFKA, "{from} is not there");
    match parse(&text, "", &no_variables).and_then(|spec| resolve(spec, 0)) {
        Ok(_) => "fine".to_owned(),
        Err(errors) => errors.to_string(),
    }
}

#[test]
fn a_kafka_source_is_pinned_to_what_it_says() {
    let resolved = resolve(parse(KAFKA, "", &no_variables).unwrap(), 0).unwrap();
    let SourceKind::Kafka(kafka) = &resolved.sources[0].kind else { panic!("{:?}", resolved.sources[0].kind) };
    let from = parse_event_time("2024-01-01", &zone("UTC").unwrap(), 0).unwrap();
    assert_eq!(kafka.start, ScanOffset::Timestamp(from));
    assert_eq!(kafka.stop, ScanOffset::Offsets([(0, 10), (1, 20)].into()));
    let time = resolved.sources[0].event_time.as_ref().unwrap();
    assert_eq!((&time.of, time.out_of_orderness), (&EventTimeOf::Record, Some(Span::from_micros(3_600_000_000))));
    assert_eq!(resolved.outputs[0].sql, "SELECT * EXCEPT (_kafka) FROM \"events\"");
}

#[test]
fn what_a_kafka_source_cannot_mean_is_refused() {
    for (from, to, said) in [
        ("topic: events", "topic: \"a b\"", "not the name of a topic"),
        ("bootstrap.servers: \"localhost:9092\"", "client.id: x", "`bootstrap.servers` is missing"),
        ("{bootstrap.servers", "{plugin.library.paths: x, bootstrap.servers", "it loads a library"),
        ("{bootstrap.servers", "{sasl.password: x, bootstrap.servers", "is a secret"),
        ("start: {timestamp: 2024-01-01}", "start: latest, stop_: 1", "unknown key"),
        ("stop: {offsets: {0: 10, 1: 20}}", "stop: earliest", "ends before it starts"),
        ("{0: 10, 1: 20}", "{a: 10}", "is not a partition"),
        ("{0: 10, 1: 20}", "{0: -2}", "0 or more"),
        ("type: json, schema: [{name: id, type: bigint}]", "type: json", "needs its columns"),
        ("type: json, schema: [{name: id, type: bigint}]", "type: avro", "a `schema_registry` or an `avro_schema`"),
        ("type: json,", "type: raw,", "`schema` is not for this format"),
        ("event_time: {out_of_orderness: 60m}", "event_time: {on_disorder: allow}", "no promise to break"),
        ("event_time: {out_of_orderness: 60m}", "event_time: {path: \"%Y\"}", "only files have a path"),
    ] {
        let found = kafka_with(from, to);
        assert!(found.contains(said), "{to}: {found}");
    }
    assert_eq!(kafka_with("type: json, schema: [{name: id, type: bigint}]", "type: raw"), "fine");
}

const LIVE: &str = "live: {group: billing, pause: ./stop.sh, resume: ./start.sh}\n";

#[test]
fn a_live_job_is_no_part_of_the_backfill_and_nothing_of_it_is_sent() {
    let resolved = |text: &str| resolve(parse(text, "", &no_variables).unwrap(), 0).unwrap();
    let (without, with) = (resolved(KAFKA), resolved(&format!("{KAFKA}{LIVE}")));
    let live = with.live.as_ref().unwrap();
    assert_eq!(
        (live.group.as_str(), live.pause.as_deref(), live.resume.as_deref()),
        ("billing", Some("./stop.sh"), Some("./start.sh"))
    );
    assert_eq!(backfill_id("d", &with), backfill_id("d", &without));
    let sent = canonical_json(&with.spec);
    assert_eq!(sent, canonical_json(&without.spec));
    assert!(!sent.contains("billing") && !sent.contains("stop.sh"), "{sent}");
}

#[test]
fn a_live_job_that_means_nothing_is_refused() {
    let said = |from: &str, to: &str| {
        let text = format!("{KAFKA}{LIVE}").replacen(from, to, 1);
        match parse(&text, "", &no_variables).and_then(|spec| resolve(spec, 0)) {
            Ok(_) => "fine".to_owned(),
            Err(errors) => errors.to_string(),
        }
    };
    assert_eq!(said("", ""), "fine");
    assert!(said("group: billing", "group: ''").contains("not the name of a group"));
    assert!(said("pause: ./stop.sh", "pause: ' '").contains("the command is empty"));
    assert!(said("pause:", "paws:").contains("unknown key"));
    let files = "version: 1\nkind: backfill\nname: k\nlive: {group: g}\nsources:\n  f: {files: {path: /x/*.parquet}, event_time: \
                 {column: t}}\noutputs:\n  o: {table: a.b}\n";
    let refused = parse(files, "", &no_variables).and_then(|spec| resolve(spec, 0)).unwrap_err().to_string();
    assert!(refused.contains("no source reads Kafka"), "{refused}");
}
