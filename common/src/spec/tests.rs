//! What a spec may say, what it may not, and what a user then reads.

mod dead_letters;
mod hybrid;
mod joins;
mod kafka;
mod late;

use super::model::*;
use super::*;
use crate::time::{EventTime, Span};

/// 2026-10-08T12:00:00Z.
const NOW: i64 = 1_791_460_800_000_000;

pub(super) const GOOD: &str = "\
version: 1
kind: backfill
name: flights-weather-2013
window: {from: 2013-01-01, to: 2014-01-01, time_zone: America/New_York}
alignment: {max_drift: 10d}
sources:
  flights:
    files: {path: flights/*.parquet}
    event_time: {column: time_hour}
  weather:
    files: {path: weather/*.parquet}
    event_time: {column: time_hour}
outputs:
  flights_weather:
    table: air.flights_weather
    sql: |
      SELECT f.time_hour, w.temp
      FROM flights f LEFT JOIN weather w ON f.origin = w.origin AND f.time_hour = w.time_hour
    partition_by: [\"month(time_hour)\"]
    mode: append
    publish: direct
  late_flights:
    table: lake.air.late_flights
    sql: SELECT * FROM flights WHERE dep_delay > 60
    commit: {every: 90s, bytes: 512MiB}
";

fn env(name: &str) -> Option<String> {
    match name {
        "REGION" => Some("eu-west-1".to_owned()),
        "ROWS" => Some("7".to_owned()),
        "EMPTY" => Some(String::new()),
        "EVIL" => Some("x\nsources: {}\n# ${REGION} \"'".to_owned()),
        _ => None,
    }
}

fn check(text: &str) -> Result<Resolved, SpecErrors> {
    let mut document = Document::read(text, "spec.yaml", &env)?;
    document.absolutise("/specs")?;
    document.resolve(NOW)
}

fn errors(text: &str) -> String {
    check(text).expect_err("this spec is bad").to_string()
}

/// The good spec with `from` replaced.
fn with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    GOOD.replacen(from, to, 1)
}

fn bad(from: &str, to: &str) -> String {
    errors(&with(from, to))
}

fn generated(more: &str) -> String {
    format!(
        "version: 1\nkind: backfill\nname: g\nsources:\n  g:\n    generate: {{rows: 10, rate: 2.5{more}}}\noutputs:\n  o: {{table: a.b}}\n"
    )
}

#[test]
fn what_replaces_a_window_needs_one_and_commits_once() {
    let replaces = with("mode: append", "mode: replace_window");
    assert!(check(&replaces).is_ok());
    let window = "window: {from: 2013-01-01, to: 2014-01-01, time_zone: America/New_York}\n";
    assert!(errors(&replaces.replace(window, "")).contains("needs a window"));
    let commits = replaces.replace("publish: direct", "commit: {every: 90s}");
    assert!(errors(&commits).contains("commits once"));
    assert!(check(&commits.replace("commit: {every: 90s}", "publish: staged\n    commit: {every: 90s}")).is_ok());
}

#[test]
fn the_example_of_the_manual_resolves() {
    let resolved = check(GOOD).unwrap();
    assert_eq!(resolved.window.to_string(), "[2013-01-01T05:00:00Z, 2014-01-01T05:00:00Z)");
    assert_eq!(resolved.max_drift, Some(Span::from_micros(864_000_000_000)));
    let names: Vec<&str> = resolved.sources.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(names, ["flights", "weather"]);
    let SourceKind::Files(files) = &resolved.sources[0].kind else { panic!("files") };
    assert_eq!(files.path, "/specs/flights/*.parquet");
    let [weather, late] = resolved.outputs.as_slice() else { panic!("two outputs") };
    assert_eq!(weather.table.to_string(), "air.flights_weather");
    assert_eq!(weather.partition_by, [PartitionField { column: "time_hour".to_owned(), transform: Transform::Month }]);
    assert_eq!((weather.commit_every.as_secs(), weather.commit_bytes), (60, 4 << 30));
    assert_eq!((late.commit_every.as_secs(), late.commit_bytes), (90, 512 << 20));
    assert_eq!(late.table.catalog.as_deref(), Some("lake"));
}

#[test]
fn errors_of_form_name_place_and_way_out() {
    insta::assert_snapshot!(bad("window:", "windw:"), @"spec.yaml:4:1: unknown key `windw`; did you mean `window`?");
    insta::assert_snapshot!(bad("files: {path: flights", "kinesis: {path: flights"), @"spec.yaml:8:5: sources.flights: unknown key `kinesis`; expected one of files, iceberg, kafka, hybrid, generate, event_time, on_error, dead_letter");
    insta::assert_snapshot!(bad("version: 1", "version: 2"), @"spec.yaml:1:10: the version is `2`, and this release reads version 1; write `version: 1`");
    insta::assert_snapshot!(bad("version: 1\n", ""), @"spec.yaml:1:1: `version` is missing; begin with `version: 1`");
    insta::assert_snapshot!(bad("name: flights-weather-2013\n", ""), @"spec.yaml:1:1: the key `name` is missing");
    insta::assert_snapshot!(bad("kind: backfill", "kind: backfil"), @"spec.yaml:2:7: kind: unknown value `backfil`; did you mean `backfill`?");
    insta::assert_snapshot!(bad("mode: append", "mode: [append]"), @"spec.yaml:20:5: outputs.flights_weather.mode: expected one of append, replace_window, found a list");
    insta::assert_snapshot!(bad("max_drift: 10d", "max_drift: 10d, allow_wide: yes"), @"spec.yaml:5:41: alignment.allow_wide: expected true or false, found `yes`");
    insta::assert_snapshot!(bad("name: flights-weather-2013", "name:"), @"spec.yaml:3:5: name: expected text, found nothing");
    insta::assert_snapshot!(bad("name: flights", "name: a\nname: flights"), @"spec.yaml:4:1: the key `name` is given twice; keep one of them");
    insta::assert_snapshot!(bad("partition_by: [\"month(time_hour)\"]", "partition_by: month"), @"spec.yaml:19:19: outputs.flights_weather.partition_by: expected a list, found `month`");
    insta::assert_snapshot!(errors(&generated(", seed: -1")), @"spec.yaml:6:43: sources.g.generate.seed: expected a whole number, 0 or more, found `-1`");
    insta::assert_snapshot!(errors(&generated(", seed: \"1\"")), @"spec.yaml:6:43: sources.g.generate.seed: expected a whole number, 0 or more, found the text `1`; take the quotation marks away");
    insta::assert_snapshot!(bad("{column: time_hour}", "{column: t, bounds: declared}"), @"spec.yaml:9:37: sources.flights.event_time.bounds: `declared` needs a value; write `{declared: …}`");
    insta::assert_snapshot!(bad("name: flights-weather-2013", "name: !secret x"), @"spec.yaml:3:15: a spec has no YAML tags; take the `!…` away");
    insta::assert_snapshot!(bad("alignment: {", "alignment: [}"), @"spec.yaml:5:12: this is not YAML: mismatched bracket '[' closed by '}'");
    insta::assert_snapshot!(errors(""), @"spec.yaml:1:1: the spec is empty; see `tidegate init`");
    insta::assert_snapshot!(errors("- 1"), @"spec.yaml:1:1: a spec is keys and values; begin with `version: 1`");
    insta::assert_snapshot!(errors(&format!("{GOOD}---\n{GOOD}")), @"spec.yaml:26:1: a file holds one spec; put the second document into a file of its own");
}

#[test]
fn all_errors_come_in_one_go() {
    let text = with("files: {path: flights/*.parquet}", "files: {paht: x}")
        .replace("files: {path: weather/*.parquet}", "files: 7");
    insta::assert_snapshot!(errors(&text.replace("mode: append", "mod: append")), @r"
    spec.yaml:8:5: sources.flights.files: the key `path` is missing
    spec.yaml:8:13: sources.flights.files: unknown key `paht`; did you mean `path`?
    spec.yaml:11:12: sources.weather.files: expected keys and values (path, format, compression, schema, csv, storage), found `7`
    spec.yaml:20:5: outputs.flights_weather: unknown key `mod`; did you mean `mode`?
    ");
    let text = with("max_drift: 10d", "max_drift: 0s").replace("name: flights-weather-2013", "name: a/b");
    insta::assert_snapshot!(errors(&text.replace("lake.air.late_flights", "../x").replace("every: 90s", "every: soon")), @r"
    spec.yaml:3:7: name: `a/b` is not the name of a backfill; use 1 to 64 letters, digits, `-` and `_`
    spec.yaml:5:24: alignment.max_drift: it must be longer than nothing
    spec.yaml:23:12: outputs.late_flights.table: `../x` is not the name of a table: a part of it is empty; write `namespace.table` or `catalog.namespace.table`
    spec.yaml:25:21: outputs.late_flights.commit.every: `soon` is not a duration; write `90s`, `2h30m`, `10d`, `500ms`, or ISO 8601 such as `PT1H`
    ");
}

#[test]
fn errors_of_meaning_name_place_and_way_out() {
    insta::assert_snapshot!(bad("to: 2014-01-01", "to: 2013-01-01"), @"spec.yaml:4:32: window.to: the window ends at 2013-01-01T05:00:00Z, and begins at 2013-01-01T05:00:00Z; windows are half-open: `to` is the first point after the window");
    insta::assert_snapshot!(bad("to: 2014-01-01", "to: 2013-12-31T00:00"), @"spec.yaml:4:32: window.to: `2013-12-31T00:00` is not a point in time: it lacks its offset from UTC, such as `Z` or `-05:00`; write `2013-01-31`, `2013-01-31T05:00:00Z`, `now` or `now-7d`");
    insta::assert_snapshot!(bad("to: 2014-01-01", "to: now-1month"), @"spec.yaml:4:32: window.to: `1month` is not a duration: months and years have no fixed length; write `90s`, `2h30m`, `10d`, `500ms`, or ISO 8601 such as `PT1H`");
    insta::assert_snapshot!(bad("America/New_York", "America/NewYork"), @"spec.yaml:4:55: window.time_zone: there is no time zone `America/NewYork`; name one of the IANA database, such as `America/New_York` or `UTC`");
    insta::assert_snapshot!(bad("event_time: {column: time_hour}", "event_time: {unit: millis}"), @r"
    spec.yaml:9:5: sources.flights.event_time: exactly one of `column` and `path` says where event times come from
    spec.yaml:9:24: sources.flights.event_time.unit: a unit belongs to an integer `column`
    ");
    insta::assert_snapshot!(bad("    event_time: {column: time_hour}\n", ""), @"spec.yaml:7:3: sources.flights: the key `event_time` is missing; say where event times come from: `event_time: {column: …}`");
    insta::assert_snapshot!(bad("event_time: {column: time_hour}", "event_time: {path: \"day=%d\"}"), @"spec.yaml:9:24: sources.flights.event_time.path: `day=%d` is not the form of a path: it names no year (`%Y`); write date parts from the year down: `dt=%Y-%m-%d/hour=%H`");
    insta::assert_snapshot!(bad("files: {path: flights/*.parquet}", "iceberg: {table: a.b}\n    files: {path: x}"), @"spec.yaml:7:3: sources.flights: exactly one of `files`, `iceberg`, `kafka`, `hybrid` and `generate` says what a source reads");
    insta::assert_snapshot!(bad("lake.air.late_flights", "air.flights_weather"), @"spec.yaml:23:12: outputs.late_flights.table: the outputs `flights_weather` and `late_flights` both write it; name another table, or make one query of both");
    insta::assert_snapshot!(bad("lake.air.late_flights", "air.flights_weather__late"), @"spec.yaml:23:12: outputs.late_flights.table: it is kept for rows that `flights_weather` cannot write; name another table");
    insta::assert_snapshot!(bad("lake.air.late_flights", "\"air.a\\u202eb\""), @r"spec.yaml:23:12: outputs.late_flights.table: `air.a\u{202e}b` is not the name of a table: it holds `\u{202e}`; write `namespace.table` or `catalog.namespace.table`");
    insta::assert_snapshot!(bad("month(time_hour)", "mnth(time_hour)"), @"spec.yaml:19:20: outputs.flights_weather.partition_by.0: `mnth(time_hour)` is not a partition field: `mnth` is no transform; did you mean `month`?");
    insta::assert_snapshot!(bad("month(time_hour)", "bucket(0, time_hour)"), @"spec.yaml:19:20: outputs.flights_weather.partition_by.0: `bucket(0, time_hour)` is not a partition field: `0` is no width");
    insta::assert_snapshot!(bad("[\"month(time_hour)\"]", "[month(t), day(t)]"), @"spec.yaml:19:30: outputs.flights_weather.partition_by.1: `day(t)` says no more than `month(t)`; keep one of them");
    insta::assert_snapshot!(bad("    sql: SELECT * FROM flights WHERE dep_delay > 60\n", ""), @"spec.yaml:22:3: outputs.late_flights: the key `sql` is missing; with several sources, a query says what is written");
    insta::assert_snapshot!(errors(&generated(", splits: 11, skew: -1")), @r"
    spec.yaml:6:45: sources.g.generate.splits: from 1 to the number of rows, 10
    spec.yaml:6:55: sources.g.generate.skew: -1 is not from 0.000001 to 100
    ");
    insta::assert_snapshot!(errors("version: 1\nkind: backfill\nname: a\nsources: {}\noutputs: {}"), @r"
    spec.yaml:4:1: sources: there is no source; name at least one source
    spec.yaml:5:1: outputs: there is no output; name at least one output
    ");
}

#[test]
fn paths_that_climb_or_hold_secrets_are_refused() {
    let path = |path: &str| bad("path: flights/*.parquet", &format!("path: \"{path}\""));
    insta::assert_snapshot!(path("../other/*.parquet"), @"spec.yaml:8:19: sources.flights.files.path: the path `../other/*.parquet` climbs with `..`; name the place itself, by an absolute path or from the spec's folder down");
    insta::assert_snapshot!(path("https://example.com/x"), @"spec.yaml:8:19: sources.flights.files.path: no reader for `https://`; expected a path, s3://, gs://, az://, abfss:// or file://");
    insta::assert_snapshot!(path("s3://key:secret@bucket/x"), @"spec.yaml:8:19: sources.flights.files.path: a URL must not hold a user or password: specs are stored in clear; name the credentials under `storage`, by `from_env` or `from_file`");
    for climbing in
        ["a/../b", "/a/../../etc", "s3://bucket/%2E%2e/x", "file:///a/..", "a/{..,b}/c", "..", "a\\\\..\\\\b"]
    {
        assert!(path(climbing).contains("climbs"), "{climbing}");
    }
    for secret in ["s3://k:pass@b/../x", "ftp://pass@b", "s3://k:pass@", "abfss://k:pass@a.dfs.core.windows.net/x"] {
        assert!(!path(secret).contains("pass@"), "{secret}");
    }
    let foreign = "abfss://box@account.example.com/x";
    for refused in ["", "s3://", "file://host/x", "~/x", "a\\u0007b", "s3a://b/c", "s3://b*/c", foreign] {
        path(refused);
    }
    for (given, made) in [
        ("./a//b/", "/specs/a/b"),
        ("/abs/./x", "/abs/x"),
        ("s3://bucket/a/**/*.parquet", "s3://bucket/a/**/*.parquet"),
        ("gs://bucket", "gs://bucket"),
        ("abfss://box@account.dfs.core.windows.net/x", "abfss://box@account.dfs.core.windows.net/x"),
        ("file:///a/b", "file:///a/b"),
        ("a..b/...", "/specs/a..b/..."),
    ] {
        let resolved = check(&with("flights/*.parquet", given)).unwrap();
        assert_eq!(resolved.spec.sources["flights"].files.as_ref().unwrap().path, made);
    }
    let mut spec = parse(GOOD, "", &env).unwrap();
    assert!(resolve(spec.clone(), NOW).is_err(), "a relative path needs its folder");
    for folder in ["", "relative", "/a/..", "/a*"] {
        assert!(absolutise(&mut spec, folder).is_err(), "{folder}");
    }
}

#[test]
fn secrets_are_references_and_nothing_is_expanded_in_them() {
    let storage = |inside: &str| {
        with("files: {path: flights/*.parquet}", &format!("files: {{path: \"s3://b/x\", storage: {{{inside}}}}}"))
    };
    let pair = |id: &str| {
        storage(&format!("region: \"${{REGION}}\", access_key_id: {id}, secret_access_key: {{from_file: secrets/key}}"))
    };
    let resolved = check(&pair("{from_env: AWS_ID}")).unwrap();
    let stored = resolved.spec.sources["flights"].files.as_ref().unwrap().storage.clone().unwrap();
    assert_eq!(stored.region.as_deref(), Some("eu-west-1"));
    assert_eq!(stored.secret_access_key.unwrap().from_file.as_deref(), Some("/specs/secrets/key"));
    insta::assert_snapshot!(errors(&pair("{from_env: \"${REGION}\"}")), @"spec.yaml:8:62: sources.flights.files.storage.access_key_id: `${REGION}` is not the name of an environment variable; write the bare name: `{from_env: AWS_SECRET_ACCESS_KEY}`");
    insta::assert_snapshot!(errors(&pair("{from_env: A, from_file: /b}")), @"spec.yaml:8:62: sources.flights.files.storage.access_key_id: exactly one of `from_env` and `from_file` says where a secret is");
    insta::assert_snapshot!(errors(&pair("AKIA123")), @"spec.yaml:8:77: sources.flights.files.storage.access_key_id: a secret is never written into a spec; write `{from_env: VARIABLE}` or `{from_file: path}`");
    insta::assert_snapshot!(errors(&storage("access_key_id: {from_env: A}")), @"spec.yaml:8:31: sources.flights.files.storage: `access_key_id` and `secret_access_key` come together");
    insta::assert_snapshot!(errors(&storage("endpoint: http://minio:9000")), @"spec.yaml:8:51: sources.flights.files.storage.endpoint: the endpoint is not encrypted; write https://, or `allow_http: true` if that is meant");
    insta::assert_snapshot!(errors(&storage("endpoint: https://u:p@minio")), @"spec.yaml:8:51: sources.flights.files.storage.endpoint: a URL must not hold a user or password: specs are stored in clear; name the credentials under `storage`, by `from_env` or `from_file`");
}

#[test]
fn variables_are_put_into_scalars_and_cannot_inject() {
    let sql = |written: &str| {
        let text = with("sql: SELECT * FROM flights WHERE dep_delay > 60", &format!("sql: {written}"));
        parse(&text, "spec.yaml", &env).map(|spec| spec.outputs["late_flights"].sql.clone().unwrap())
    };
    assert_eq!(sql("a ${REGION} b").unwrap(), "a eu-west-1 b");
    assert_eq!(sql("${NONE:-x y}${EMPTY:-z}${EMPTY}").unwrap(), "x yz");
    assert_eq!(sql("$${REGION} $$${X} $5 a$").unwrap(), "${REGION} $${X} $5 a$");
    assert_eq!(sql("'${REGION}'").unwrap(), "eu-west-1", "quotation marks are YAML's");
    assert_eq!(sql("${EVIL}").unwrap(), env("EVIL").unwrap(), "a value is neither YAML nor expanded again");
    assert_eq!(sql("\"${EVIL}\"").unwrap(), env("EVIL").unwrap());
    let rows = parse(&generated("").replace("rows: 10", "rows: \"${ROWS}\""), "", &env).unwrap();
    assert_eq!(rows.sources["g"].generate.as_ref().unwrap().rows, 7);
    insta::assert_snapshot!(sql("x ${NONE}").unwrap_err().to_string(), @"spec.yaml:24:10: outputs.late_flights.sql: the variable `NONE` is not set; set it, or give a default: `${NONE:-…}`");
    insta::assert_snapshot!(sql("${NONE:?set it to the region}").unwrap_err().to_string(), @"spec.yaml:24:10: outputs.late_flights.sql: the variable `NONE` is not set: set it to the region");
    insta::assert_snapshot!(sql("${NONE").unwrap_err().to_string(), @"spec.yaml:24:10: outputs.late_flights.sql: `${` without a `}`; close it, or write `$${` for the characters themselves");
    insta::assert_snapshot!(sql("${A:-${B}}").unwrap_err().to_string(), @"spec.yaml:24:10: outputs.late_flights.sql: `${A:-${B}` cannot be expanded; write `${VAR}`, `${VAR:-default}` or `${VAR:?message}`; `$${` stands for `${` itself");
    insta::assert_snapshot!(sql("${1A}").unwrap_err().to_string(), @"spec.yaml:24:10: outputs.late_flights.sql: `${1A}` cannot be expanded; write `${VAR}`, `${VAR:-default}` or `${VAR:?message}`; `$${` stands for `${` itself");
}

#[test]
fn hostile_texts_are_refused_before_they_grow() {
    let mut laughs = "version: 1\na0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        laughs += &format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(", "));
    }
    insta::assert_snapshot!(errors(&laughs), @"spec.yaml:6:30: the spec, its aliases replaced, is larger than 50000 values or 4194304 bytes");
    insta::assert_snapshot!(errors(&"[".repeat(1 << 19)), @"spec.yaml:1:256: this is not YAML: recursion limit exceeded");
    insta::assert_snapshot!(errors(&"x".repeat((1 << 20) + 1)), @"spec.yaml:1:1: the spec has 1048577 bytes, more than the 1048576 allowed");
    insta::assert_snapshot!(errors(&format!("a: {}{}", "[".repeat(40), "]".repeat(40))), @"spec.yaml:1:35: nested deeper than 32 levels");
    insta::assert_snapshot!(errors("a: &a [*a]"), @"spec.yaml:1:8: an alias cannot stand inside what it names");
    let wide = format!("a: &a {}\nb: [{}]", "x".repeat(500_000), vec!["*a"; 1_000].join(", "));
    assert!(errors(&wide).contains("aliases replaced"));
    let many: String = (0..65).map(|n| format!("\n  s{n}: {{generate: {{rows: 1, rate: 1}}}}")).collect();
    insta::assert_snapshot!(errors(&format!("version: 1\nkind: backfill\nname: a\nsources:{many}\noutputs: {{o: {{table: a.b, sql: x}}}}")), @"spec.yaml:4:1: sources: there are 65 sources, more than the 64 allowed; split the work into several backfills");
    let long = |name: &str| Some(if name == "LONG" { "x".repeat(100_000) } else { name.to_owned() });
    let grown = with("lake.air.late_flights", &"${LONG}".repeat(11));
    assert!(parse(&grown, "", &long).unwrap_err().to_string().contains("variables are put in"));
    let grown = with("[\"month(time_hour)\"]", &format!("[{}]", vec!["\"${LONG}\""; 50].join(", ")));
    assert!(parse(&grown, "", &long).unwrap_err().to_string().contains("its variables put in"));
    let failing: String = (0..5_000).map(|n| format!("\n  s{n}: {{files: 1, odd: 2}}")).collect();
    assert_eq!(errors(&format!("version: 1\nsources:{failing}")).lines().count(), 100);
    let noisy: String = (0..5_000).map(|n| format!("\nk{n}: 1")).collect();
    assert_eq!(errors(&format!("version: 1{noisy}")).lines().count(), 100);
}

#[test]
fn a_long_text_of_any_one_thing_is_read_to_its_end() {
    let things = [
        "[", "{a: ", "- ", "? ", "a:\n", "#\n", "'", "\"", "&a ", "&a [", "*a ", "|\n", "%", "a: b\n", "\t", "!",
        "!a ", "${", "\n", "a,", "---\n", "a: &a\n", "- a\n", "\u{feff}", "<<: *a\n", "\r", ">\n ", "\\", ": ", ",",
        "[],", "{},",
    ];
    for thing in things {
        for start in ["", "version: 1\n", "a: [", "a: \"", "a: &a b\nc:\n"] {
            let text: String = std::iter::once(start).chain(std::iter::repeat(thing)).take(10_000).collect();
            errors(&text);
        }
    }
}

#[test]
fn aliases_share_settings() {
    let text = with("event_time: {column: time_hour}", "event_time: &t {column: time_hour}");
    let text = text.replacen("event_time: {column: time_hour}", "event_time: *t", 1);
    assert_eq!(check(&text).unwrap().spec, check(GOOD).unwrap().spec);
}

#[test]
fn days_begin_at_midnight_of_the_zone() {
    let window = |from: &str, to: &str, zone: &str| {
        let window = format!("{{from: {from}, to: {to}, time_zone: {zone}}}");
        check(&with("{from: 2013-01-01, to: 2014-01-01, time_zone: America/New_York}", &window))
            .unwrap()
            .window
            .to_string()
    };
    // the day without an hour, and the day with one more
    assert_eq!(window("2013-03-10", "2013-03-11", "America/New_York"), "[2013-03-10T05:00:00Z, 2013-03-11T04:00:00Z)");
    assert_eq!(window("2013-11-03", "2013-11-04", "America/New_York"), "[2013-11-03T04:00:00Z, 2013-11-04T05:00:00Z)");
    // a day that has no midnight begins at one
    assert_eq!(window("2018-11-04", "2018-11-05", "America/Sao_Paulo"), "[2018-11-04T03:00:00Z, 2018-11-05T02:00:00Z)");
    // the zone moves dates only
    assert_eq!(
        window("2013-01-01T00:00:00Z", "2013-01-01T01:00:00+00:30", "Asia/Tokyo"),
        "[2013-01-01T00:00:00Z, 2013-01-01T00:30:00Z)"
    );
    assert_eq!(window("now-7d", "now", "Asia/Tokyo"), "[2026-10-01T12:00:00Z, 2026-10-08T12:00:00Z)");
}

#[test]
fn one_meaning_has_one_id() {
    let id = |text: &str| backfill_id("here", &check(text).unwrap());
    let good = id(GOOD);
    for (from, to) in [
        ("max_drift: 10d", "max_drift: PT240H"),
        ("from: 2013-01-01", "from: 2013-01-01T00:00:00-05:00"),
        ("every: 90s, bytes: 512MiB", "bytes: 536870912, every: 1m30s"),
        ("month(time_hour)", " month( time_hour )"),
        ("path: flights/*.parquet", "path: /specs/./flights/*.parquet"),
        ("mode: append\n", "\n"),
    ] {
        assert_eq!(id(&with(from, to)), good, "{to}");
    }
    for (from, to) in
        [("10d", "11d"), ("2013-01-01", "2013-01-02"), ("flights-weather-2013", "b"), ("w.temp", "w.visib")]
    {
        assert_ne!(id(&with(from, to)), good, "{to}");
    }
    assert_ne!(backfill_id("there", &check(GOOD).unwrap()), good);
    // The id of a spec that is stored must not change with a release.
    insta::assert_snapshot!(good, @"bf-5tw3ysqka4eoyoyr");
    insta::assert_snapshot!(canonical_json(&check(&generated(", disorder: 90s")).unwrap().spec), @r#"{"version":1,"kind":"backfill","name":"g","sources":{"g":{"generate":{"seed":0,"rows":10,"rate":2.5,"disorder":"1m30s","skew":0.0,"keys":1000}}},"outputs":{"o":{"table":"a.b","mode":"append","publish":"direct"}}}"#);
}

#[test]
fn a_resolved_spec_resolves_to_itself_at_any_time() {
    let text = with("to: 2014-01-01", "to: now-1d");
    let resolved = check(&text).unwrap();
    let sent = from_canonical_json(&canonical_json(&resolved.spec)).unwrap();
    assert_eq!(resolve(sent, NOW + 999_000_000_000).unwrap(), resolved);
    assert!(from_canonical_json("{}").is_err());
    assert!(from_canonical_json(&"[".repeat(500_000)).is_err());
}

#[test]
fn differences_name_the_paths() {
    let a = parse(GOOD, "", &env).unwrap();
    let text = with("10d", "11d")
        .replace("    mode: append\n", "    properties: {a: b}\n")
        .replace("    commit: {every: 90s, bytes: 512MiB}\n", "");
    insta::assert_snapshot!(differences(&a, &parse(&text, "", &env).unwrap()).join("\n"), @r#"
    alignment.max_drift: "10d" → "11d"
    outputs.flights_weather.properties: none → {"a":"b"}
    outputs.late_flights.commit: {"bytes":"512MiB","every":"90s"} → none
    "#);
    assert!(differences(&a, &a.clone()).is_empty());
}

#[test]
fn the_schema_is_draft_07_and_closed() {
    let schema: serde_json::Value = serde_json::from_str(&json_schema()).unwrap();
    assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["definitions"]["SourceSpec"]["additionalProperties"], false);
    assert_eq!(schema["properties"]["version"]["maximum"], 1);
}

#[test]
fn generated_rows_have_their_defaults() {
    let resolved = check(&generated("")).unwrap();
    let SourceKind::Generate(made) = &resolved.sources[0].kind else { panic!("generated") };
    assert_eq!((made.keys, made.splits, made.disorder), (1_000, 1, Span::ZERO));
    assert_eq!(made.start.to_string(), "2024-01-01T00:00:00Z");
    assert_eq!(resolved.outputs[0].sql, "SELECT * FROM \"g\"");
    assert_eq!(resolved.window, crate::time::Window::ALL);
    assert_eq!(resolved.spec.sources["g"].event_time, None::<EventTimeSpec>);
    assert!(resolved.window.contains(EventTime::from_micros(NOW)));
}
