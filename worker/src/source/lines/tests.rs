#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod sorting;

use std::io::Write;
use std::path::PathBuf;

use arrow::array::{AsArray, Int64Array, StringArray};
use arrow::datatypes::DataType;
use proptest::prelude::*;
use serde_json::{Value, json};
use tidegate_common::spec::model::SourceSpec;
use tidegate_common::time::EventTime;

use super::*;
use crate::access::Access;
use crate::failure::{Class, Classify, chain};
use crate::source::DeadRecord;

struct Folder(tempfile::TempDir);

impl Folder {
    fn with(files: &[(&str, &[u8])]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    fn path(&self) -> PathBuf {
        self.0.path().canonicalize().unwrap()
    }

    /// The source over all files, cut into units of about `bytes`.
    async fn source(&self, format: Format, extra: Value, bytes: u64) -> Result<LinesSource, SourceError> {
        let mut spec = json!({"files": {"path": self.path()}, "event_time": {"column": "ts"}});
        for (key, value) in extra.as_object().unwrap() {
            match key.as_str() {
                "event_time" | "on_error" => spec[key] = value.clone(),
                key => spec["files"][key] = value.clone(),
            }
        }
        let spec: SourceSpec = serde_json::from_value(spec).unwrap();
        let files = spec.files.as_ref().unwrap();
        let store = Store::open("s", &files.path, None, &Access::local())?;
        let first = store.files().next().await.unwrap()?;
        let on_error = spec.on_error.unwrap_or(OnError::Fail);
        let source = LinesSource::open("s", store, &first, format, files, spec.event_time.as_ref(), on_error).await?;
        Ok(source.with_unit_bytes(bytes))
    }
}

fn typed() -> Value {
    json!({"schema": [{"name": "id", "type": "bigint"}, {"name": "ts", "type": "timestamptz"}, {"name": "note", "type": "varchar"}]})
}

async fn find(source: &LinesSource, window: Window) -> Result<Vec<FoundSplit>, SourceError> {
    let (sender, mut receiver) = mpsc::channel(1000);
    source.enumerate(window, sender).await?;
    let mut found = Vec::new();
    while let Some(split) = receiver.recv().await {
        found.push(split);
    }
    Ok(found)
}

type Row = (i64, Option<i64>, Option<String>);

async fn read(source: &LinesSource, found: &[FoundSplit], window: Window) -> Result<Vec<Row>, SourceError> {
    let (rows, dead) = read_all(source, found, window).await?;
    assert_eq!(dead, []);
    Ok(rows)
}

/// The rows, sorted, and the dead records as they come.
async fn read_all(
    source: &LinesSource,
    found: &[FoundSplit],
    window: Window,
) -> Result<(Vec<Row>, Vec<DeadRecord>), SourceError> {
    let columns = ["note", "id"].map(|name| source.schema().index_of(name).unwrap());
    let (mut rows, mut dead) = (Vec::new(), Vec::new());
    for split in found {
        let mut reader = source.reader(std::slice::from_ref(&split.split), &columns, window).await?;
        for unit in &split.units {
            let batches: Vec<_> = reader.read(unit).await?.try_collect().await?;
            for batch in batches {
                let notes: &StringArray = batch.rows.column(0).as_string();
                let ids: &Int64Array = batch.rows.column(1).as_primitive();
                let all = ids.values().iter().zip(batch.event_time.iter()).zip(notes);
                rows.extend(all.map(|((id, time), note)| (*id, time, note.map(str::to_owned))));
                dead.extend(batch.dead);
            }
        }
    }
    rows.sort();
    Ok((rows, dead))
}

fn row(id: i64, second: i64, note: &str) -> Row {
    (id, Some(second * 1_000_000), Some(note.to_owned()))
}

#[tokio::test]
async fn quotes_line_breaks_within_them_carriage_returns_and_a_mark_are_honoured() {
    let text = "\u{FEFF}id,ts,note\r\n1,1970-01-01T00:00:09Z,\"a\r\nb, \"\"c\"\"\n\"\r\n2,1970-01-01T00:00:01Z,pl\"ain\r\n\r\n3,1970-01-01T00:00:05Z,last";
    let folder = Folder::with(&[("a.csv", text.as_bytes())]);
    for bytes in [1, 30, 1000] {
        let source = folder.source(Format::Csv, typed(), bytes).await.unwrap();
        let found = find(&source, Window::ALL).await.unwrap();
        let expected = [row(1, 9, "a\r\nb, \"c\"\n"), row(2, 1, "pl\"ain"), row(3, 5, "last")];
        assert_eq!(read(&source, &found, Window::ALL).await.unwrap(), expected, "units of {bytes} bytes");
        if bytes == 1 {
            let units: Vec<_> = found[0].units.iter().map(|u| (u.low, u.high, u.rows)).collect();
            assert_eq!(
                units,
                [(1_000_000, 1_000_000, 1), (5_000_000, 5_000_000, 1), (9_000_000, 9_000_000, 1)],
                "by low"
            );
        }
    }
}

#[tokio::test]
async fn a_header_may_name_the_columns_in_any_order_but_no_others() {
    let folder = Folder::with(&[
        ("a.csv", b"ts,note,id\n1970-01-01T00:00:01Z,x,1\n"),
        ("b.csv", b"id,ts,note\n2,1970-01-01T00:00:02Z,y\n"),
    ]);
    let source = folder.source(Format::Csv, typed(), 1000).await.unwrap();
    let found = find(&source, Window::ALL).await.unwrap();
    assert_eq!(read(&source, &found, Window::ALL).await.unwrap(), [row(1, 1, "x"), row(2, 2, "y")]);
    for (bad, said) in [("id,ts\n", "has no column note"), ("id,ts,note,more\n", "has a column more")] {
        std::fs::write(folder.path().join("c.csv"), bad).unwrap();
        let error = find(&source, Window::ALL).await.unwrap_err();
        assert_eq!(error.class(), Class::Fatal { exit_code: 4 });
        assert!(error.to_string().contains(said) && error.to_string().contains("c.csv"), "{error}");
    }
}

#[tokio::test]
async fn json_lines_are_read_by_name_and_a_missing_field_is_null() {
    let text = "{\"ts\":\"1970-01-01T00:00:01Z\",\"id\":1,\"note\":\"a\\nb\"}\n{\"id\":2,\"more\":7}\n\n{\"note\":null,\"id\":3,\"ts\":\"1970-01-01T00:00:03Z\"}";
    let folder = Folder::with(&[("a.jsonl", text.as_bytes())]);
    let source = folder.source(Format::Json, typed(), 1).await.unwrap();
    let found = find(&source, Window::new(EventTime::from_micros(3_000_000), EventTime::MAX).unwrap()).await.unwrap();
    assert_eq!(found[0].rows_pruned, 1, "the row without event time is not pruned");
    let rows = read(&source, &found, Window::ALL).await.unwrap();
    assert_eq!(rows, [(2, None, None), (3, Some(3_000_000), None)]);
}

#[tokio::test]
async fn a_record_that_does_not_decode_is_named_by_file_and_line() {
    let good: String = (0..9000).map(|i| format!("{i},1970-01-01T00:00:01Z,\"x\ny\"\n")).collect();
    for (bad, in_plan) in
        [("1,never,x\n", true), ("1,1970-01-01T00:00:01Z\n", true), ("one,1970-01-01T00:00:01Z,x\n", false)]
    {
        let text = format!("id,ts,note\n{good}{bad}{good}");
        let folder = Folder::with(&[("a.csv", text.as_bytes())]);
        for bytes in [10_000, 100 << 20] {
            let source = folder.source(Format::Csv, typed(), bytes).await.unwrap();
            let error = match find(&source, Window::ALL).await {
                Err(error) => {
                    assert!(in_plan, "{error}");
                    error
                }
                Ok(found) => read(&source, &found, Window::ALL).await.unwrap_err(),
            };
            assert!(error.place().contains("a.csv, line 18002"), "{}", chain(&error));
            assert_eq!(error.class(), if in_plan { Class::Fatal { exit_code: 4 } } else { Class::Poison });
        }
    }
}

#[tokio::test]
async fn inferred_columns_are_checked_to_the_last_record_when_the_source_is_planned() {
    let rows = |extra: &str| -> String {
        (0..1500).map(|i| format!("{i},2024-01-01T00:00:01,x\n")).collect::<String>() + extra
    };
    let folder = Folder::with(&[("a.csv", format!("id,ts,note\n{}", rows("")).as_bytes())]);
    let source = folder.source(Format::Csv, json!({}), 1000).await.unwrap();
    let types: Vec<DataType> = source.schema().fields().iter().map(|f| f.data_type().clone()).collect();
    assert_eq!(types[0], DataType::Int64);
    assert!(matches!(types[1], DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None)), "{types:?}");
    assert!(find(&source, Window::ALL).await.is_ok());
    std::fs::write(folder.path().join("b.csv"), format!("id,ts,note\n{}", rows("1.5,2024-01-01T00:00:01,x\n")))
        .unwrap();
    let error = find(&source, Window::ALL).await.unwrap_err();
    assert!(
        error.place().contains("b.csv, line 1502") && chain(&error).contains("give them in `schema`"),
        "{}",
        chain(&error)
    );

    let folder = Folder::with(&[("a.jsonl", b"{\"ts\":1}\n{\"ts\":2}\n")]);
    let source =
        folder.source(Format::Json, json!({"event_time": {"column": "ts", "unit": "seconds"}}), 1000).await.unwrap();
    std::fs::write(folder.path().join("b.jsonl"), "{\"ts\":1}\n{\"ts\":2,\"late\":true}\n").unwrap();
    let error = find(&source, Window::ALL).await.unwrap_err();
    assert!(error.place().contains("b.jsonl, line 2"), "{}", chain(&error));
}

#[tokio::test]
async fn an_inferred_time_keeps_its_zone_and_a_zone_now_and_then_is_refused() {
    let kind = async |times: [&str; 2]| {
        let text = format!("ts,x\n{},1\n,2\n{},3\n", times[0], times[1]);
        let folder = Folder::with(&[("a.csv", text.as_bytes())]);
        let source = folder.source(Format::Csv, json!({}), 1000).await;
        source.map(|source| source.schema().field(0).data_type().to_string()).map_err(|e| e.to_string())
    };
    assert!(kind(["2024-01-01T00:00:01Z", "2024-01-01T00:00:01+02:00"]).await.unwrap().contains("+00:00"));
    assert!(!kind(["2024-01-01T00:00:01", "2024-01-01 00:00:02"]).await.unwrap().contains("+00:00"));
    let error = kind(["2024-01-01T00:00:01Z", "2024-01-01T00:00:02"]).await.unwrap_err();
    assert!(error.contains("some times of ts name a zone") && error.contains("give them in `schema`"), "{error}");
}

#[tokio::test]
async fn a_compressed_file_is_one_unit_however_many_members_it_has() {
    let parts = ["id,ts,note\n1,1970-01-01T00:00:01Z,x\n2,1970-01-01T", "00:00:02Z,y\n3,1970-01-01T00:00:03Z,z\n"];
    let gzip = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let gz: Vec<u8> = parts.iter().flat_map(|part| gzip(part)).collect();
    let zst: Vec<u8> = parts.iter().flat_map(|part| zstd::encode_all(part.as_bytes(), 3).unwrap()).collect();
    for (name, bytes) in [("a.csv.gz", gz), ("a.csv.zst", zst)] {
        let folder = Folder::with(&[(name, &bytes)]);
        let source = folder.source(Format::Csv, typed(), 1).await.unwrap();
        let found = find(&source, Window::ALL).await.unwrap();
        assert_eq!((found[0].units.len(), found[0].units[0].rows, found[0].units[0].bytes), (1, 3, bytes.len() as u64));
        assert_eq!(read(&source, &found, Window::ALL).await.unwrap(), [row(1, 1, "x"), row(2, 2, "y"), row(3, 3, "z")]);

        std::fs::write(folder.path().join(name), &bytes[..bytes.len() - 5]).unwrap();
        let error = find(&source, Window::ALL).await.unwrap_err();
        assert!(error.place().contains(name), "{}", chain(&error));
        assert_eq!(error.class(), Class::Fatal { exit_code: 4 });
    }
}

#[tokio::test]
async fn promised_bounds_avoid_the_scan_and_a_row_that_breaks_them_is_poison() {
    let folder =
        Folder::with(&[("2024-01-01.csv", b"id,ts,note\n1,2024-01-01T05:00:00Z,x\n2,2024-01-02T00:00:00Z,y\n")]);
    let event_time = |bounds: Value| {
        let mut extra = typed();
        extra["event_time"] = json!({"column": "ts", "path": "%Y-%m-%d.csv", "bounds": bounds});
        extra
    };
    let source = folder.source(Format::Csv, event_time(json!("path")), 1).await.unwrap();
    let found = find(&source, Window::ALL).await.unwrap();
    assert_eq!((found[0].units.len(), found[0].units[0].rows), (1, 0), "rows are not known");
    let error = read(&source, &found, Window::ALL).await.unwrap_err();
    assert_eq!(error.class(), Class::Poison);
    assert!(error.place().contains("row 1") && error.to_string().contains("event_time.bounds"), "{error}");

    let source = folder.source(Format::Csv, event_time(json!({"declared": "25h"})), 1).await.unwrap();
    let found = find(&source, Window::ALL).await.unwrap();
    assert_eq!(read(&source, &found, Window::ALL).await.unwrap().len(), 2);
}

#[tokio::test]
async fn what_stands_for_nothing_and_between_fields_can_be_said() {
    let folder = Folder::with(&[("a.csv", b"NA;1970-01-01T00:00:01Z;\n")]);
    let mut extra = typed();
    extra["csv"] = json!({"header": false, "delimiter": ";", "null": "NA"});
    let source = folder.source(Format::Csv, extra, 1).await.unwrap();
    let found = find(&source, Window::ALL).await.unwrap();
    assert_eq!(read(&source, &found, Window::ALL).await.unwrap()[0].2, Some(String::new()), "an empty text is a text");
    for delimiter in ["", ";;", "\"", "é"] {
        let error = folder.source(Format::Csv, json!({"csv": {"delimiter": delimiter}}), 1).await.err().unwrap();
        assert_eq!(error.class(), Class::Fatal { exit_code: 3 });
    }
}

fn note() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "\"", "\n", "\r\n", ",", "é", " "]), 1..6)
        .prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However a file is cut: each record is in exactly one unit, within its bounds, and reads as it was written.
    #[test]
    fn every_record_is_in_exactly_one_unit(rows in prop::collection::vec((0_i64..60, note()), 1..40), bytes in 1_u64..200, is_json: bool, ends: bool) {
        let mut text = if is_json { String::new() } else { "id,ts,note\n".to_owned() };
        let lines: Vec<String> = (0..).zip(&rows).map(|(id, (second, note))| {
            let ts = format!("1970-01-01T00:00:{second:02}Z");
            if is_json { json!({"id": id, "ts": ts, "note": note}).to_string() } else { format!("{id},{ts},\"{}\"", note.replace('"', "\"\"")) }
        }).collect();
        text.push_str(&lines.join("\n"));
        if ends { text.push('\n'); }
        let format = if is_json { Format::Json } else { Format::Csv };
        let folder = Folder::with(&[("a", text.as_bytes())]);
        let expected: Vec<Row> = (0..).zip(&rows).map(|(id, (second, note))| row(id, *second, note)).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let source = folder.source(format, typed(), bytes).await.unwrap();
            let found = find(&source, Window::ALL).await.unwrap();
            assert_eq!(found[0].units.iter().map(|unit| unit.rows).sum::<u64>(), rows.len() as u64);
            assert_eq!(read(&source, &found, Window::ALL).await.unwrap(), expected);
        });
    }
}
