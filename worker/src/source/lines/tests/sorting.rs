//! Records that do not decode, among records that do.

use arrow::datatypes::SchemaRef;
use tidegate_common::spec::model::ColumnSpec;

use super::super::sort::Sorted;
use super::*;
use crate::source::RawAs;

/// A record as it stands in a file, and the row that it is; none where it is a dead letter.
type Record = (Vec<u8>, Option<Row>);

const SECOND: &str = "1970-01-01T00:00:01Z";

fn bad(text: impl AsRef<[u8]>) -> Record {
    (text.as_ref().to_vec(), None)
}

fn bad_csv() -> Vec<Record> {
    let mut all = vec![
        bad(format!("7,{SECOND}")),
        bad(format!("7,{SECOND},x,y")),
        bad(format!("seven,{SECOND},x")),
        bad("7,never,x"),
        bad("7,,no time"),
        bad("   "),
        bad("xyz"),
        bad(format!("9999999999999999999999,{SECOND},\"a\nb\"")),
    ];
    all.push(bad([format!("7,{SECOND},").as_bytes(), b"\xff\xfe"].concat()));
    all
}

fn bad_json() -> Vec<Record> {
    let mut all = vec![
        bad(r#"{"id":7,"ts":"#),
        bad(r#"{"id":7,"note":"a"#),
        bad("[1,2]"),
        bad("5"),
        bad("null"),
        bad("xyz"),
        bad("}"),
        bad(format!(r#"{{"id":"seven","ts":"{SECOND}"}}"#)),
        bad(r#"{"id":7,"ts":"never"}"#),
        bad(r#"{"id":7,"ts":null,"note":"x"}"#),
        bad(r#"{"id":7}"#),
        bad(format!(r#"{{"id":7,"ts":"{SECOND}"}}{{"id":8,"ts":"{SECOND}"}}"#)),
    ];
    all.push(bad([br#"{"id":7,"note":""#.as_slice(), b"\xff\xfe\"}"].concat()));
    all
}

fn good(is_json: bool) -> impl Strategy<Value = Record> {
    (0..1000_i64, 0..60_i64, note()).prop_map(move |(id, second, note)| {
        let ts = format!("1970-01-01T00:00:{second:02}Z");
        let text = if is_json {
            json!({"id": id, "ts": ts, "note": note}).to_string()
        } else {
            format!("{id},{ts},\"{}\"", note.replace('"', "\"\""))
        };
        (text.into_bytes(), Some(row(id, second, &note)))
    })
}

fn records(is_json: bool) -> impl Strategy<Value = Vec<Record>> {
    let bad = prop::sample::select(if is_json { bad_json() } else { bad_csv() });
    let blank = prop::sample::select(if is_json { vec!["", "  "] } else { vec![""] });
    let blank = blank.prop_map(|text| (text.as_bytes().to_vec(), None));
    prop::collection::vec(prop_oneof![6 => good(is_json), 3 => bad, 1 => blank], 1..60)
}

/// The file of `records`, each ending in one of `ends`; the last without, unless `closed`.
fn text(records: &[Record], ends: &[&str], closed: bool, is_json: bool) -> Vec<u8> {
    let mut text = if is_json { Vec::new() } else { b"id,ts,note\n".to_vec() };
    for (at, (record, _)) in records.iter().enumerate() {
        text.extend_from_slice(record);
        if closed || at + 1 < records.len() {
            text.extend_from_slice(ends[at % ends.len()].as_bytes());
        }
    }
    text
}

fn is_blank(record: &Record) -> bool {
    record.0.iter().all(|byte| *byte == b' ') && (record.0.is_empty() || record.0.len() == 2)
}

/// The rows and the raw dead letters that `records` are.
fn told_apart(records: &[Record]) -> (Vec<Row>, Vec<Vec<u8>>) {
    let mut rows: Vec<Row> = records.iter().filter_map(|(_, row)| row.clone()).collect();
    rows.sort();
    let dead = records.iter().filter(|record| record.1.is_none() && !is_blank(record));
    (rows, dead.map(|(text, _)| text.clone()).collect())
}

fn form(is_json: bool) -> Arc<Form> {
    let columns: Vec<ColumnSpec> = serde_json::from_value(typed()["schema"].clone()).unwrap();
    let schema: SchemaRef = Arc::new(crate::format::given::schema(&columns).unwrap());
    let dialect = Dialect::new(if is_json { Format::Json } else { Format::Csv }, None).unwrap();
    Arc::new(Form::new(&dialect, &schema, &Head { order: vec![0, 1, 2], start: 0 }, &[0, 1, 2], false))
}

fn engine(is_json: bool, at: u64) -> Engine {
    let form = form(is_json);
    let rule = json!({"column": "ts"});
    let rule = serde_json::from_value(rule).unwrap();
    let rule = EventTimeRule::resolve("s", Some(&rule), form.decoded().as_ref()).unwrap();
    Engine::sorting(form, Some((1, rule)), at)
}

fn dead(sorted: &[Sorted]) -> Vec<&DeadRecord> {
    sorted.iter().flat_map(|sorted| &sorted.dead).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// However a file is cut into units and whatever its records are: each is one row or one dead letter, as it was
    /// written, and the plan counts as many as are read.
    #[test]
    fn rows_and_dead_letters_are_the_records(
        (is_json, records) in any::<bool>().prop_flat_map(|is_json| records(is_json).prop_map(move |all| (is_json, all))),
        ends in prop::sample::subsequence(vec!["\n", "\r\n"], 1..=2),
        bytes in 1_u64..200,
        closed: bool,
        zips: bool,
    ) {
        let text = text(&records, &ends, closed, is_json);
        let (rows, lost) = told_apart(&records);
        let format = if is_json { Format::Json } else { Format::Csv };
        let folder = if zips {
            Folder::with(&[("a.zst", &zstd::encode_all(text.as_slice(), 1).unwrap())])
        } else {
            Folder::with(&[("a", &text)])
        };
        let mut extra = typed();
        extra["on_error"] = json!("dead_letter");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let source = folder.source(format, extra, bytes).await.unwrap();
            let found = find(&source, Window::ALL).await.unwrap();
            let planned: u64 = found[0].units.iter().map(|unit| unit.rows).sum();
            assert_eq!(planned, (rows.len() + lost.len()) as u64);
            let (found_rows, mut found_dead) = read_all(&source, &found, Window::ALL).await.unwrap();
            assert_eq!(found_rows, rows);
            found_dead.sort_by_key(|one| one.position);
            let raw: Vec<Vec<u8>> = found_dead.iter().map(|one| one.raw.to_vec()).collect();
            assert_eq!(raw, lost);
            for one in &found_dead {
                let at = usize::try_from(one.position).unwrap();
                assert_eq!(&text[at..at + one.raw.len()], &one.raw[..], "the record stands where it says");
                assert_eq!(one.raw_as, if is_json { RawAs::Json } else { RawAs::Csv });
            }
        });
    }

    /// However a text arrives, and where a record too long to be one stands in it.
    #[test]
    fn chunks_of_any_size_make_no_difference(
        records in records(false),
        cuts in prop::collection::vec(1_usize..90, 1..20),
        giant in prop::option::of(0_usize..60),
        ends in prop::sample::subsequence(vec!["\n", "\r\n"], 1..=2),
    ) {
        let mut records = records;
        if let Some(at) = giant {
            let long = format!("1,{SECOND},\"{}\"", "x\n".repeat(300));
            records.insert(at % records.len(), bad(long));
        }
        let text = text(&records, &ends, true, false).split_off("id,ts,note\n".len());
        let mut engine = engine(false, 1000).with_longest(500);
        let (mut full, mut rest, mut cuts) = (Vec::new(), text.as_slice(), cuts.iter().cycle());
        while !rest.is_empty() {
            let (now, then) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
            engine.feed(now, &mut full).unwrap();
            rest = then;
        }
        engine.finish(&mut full).unwrap();
        let (rows, lost) = told_apart(&records);
        assert_eq!(full.iter().map(|sorted| sorted.rows.num_rows()).sum::<usize>(), rows.len());
        let dead = dead(&full);
        assert_eq!(dead.len(), lost.len());
        for (one, lost) in dead.iter().zip(&lost) {
            let at = usize::try_from(one.position).unwrap() - 1000;
            assert!(text[at..].starts_with(lost), "{one:?}");
            let is_giant = lost.len() > 500;
            assert!(one.length >= lost.len() as u64 && lost.starts_with(&one.raw), "{one:?}");
            assert_eq!(one.error.contains("longer than 500 bytes"), is_giant);
        }
    }
}

#[test]
fn each_dead_letter_says_what_is_wrong_and_names_no_line_of_its_own_counting() {
    let said = |is_json: bool, records: Vec<Record>| -> Vec<String> {
        let text = text(&records, &["\n"], true, true);
        let (mut engine, mut full) = (engine(is_json, 0), Vec::new());
        engine.feed(&text, &mut full).unwrap();
        engine.finish(&mut full).unwrap();
        let all = dead(&full);
        assert_eq!(all.len(), records.len());
        all.iter().map(|one| format!("{}: {}", String::from_utf8_lossy(&one.raw), one.error)).collect()
    };
    insta::assert_snapshot!(said(false, bad_csv()).join("\n---\n"), @r#"
    7,1970-01-01T00:00:01Z: Csv error: incorrect number of fields, expected 3 got 2
    ---
    7,1970-01-01T00:00:01Z,x,y: Csv error: incorrect number of fields, expected 3 got 4
    ---
    seven,1970-01-01T00:00:01Z,x: Parser error: Error while parsing value 'seven' as type 'Int64' for column 0
    ---
    7,never,x: Parser error: Error parsing column 1: Parser error: Error parsing timestamp from 'never': timestamp must contain at least 10 characters
    ---
    7,,no time: it has no event time
    ---
       : Csv error: incorrect number of fields, expected 3 got 1
    ---
    xyz: Csv error: incorrect number of fields, expected 3 got 1
    ---
    9999999999999999999999,1970-01-01T00:00:01Z,"a
    b": Parser error: Error while parsing value '9999999999999999999999' as type 'Int64' for column 0
    ---
    7,1970-01-01T00:00:01Z,��: Csv error: Encountered invalid UTF-8 data in field 3
    "#);
    insta::assert_snapshot!(said(true, bad_json()).join("\n---\n"), @r#"
    {"id":7,"ts":: Parser error: it ends within a value
    ---
    {"id":7,"note":"a: Parser error: it ends within a value
    ---
    [1,2]: Json error: expected { got [1, 2]
    ---
    5: Json error: expected { got 5
    ---
    null: Json error: expected { got null
    ---
    xyz: Json error: Encountered unexpected 'x' whilst parsing value
    ---
    }: Json error: Encountered unexpected '}' whilst parsing value
    ---
    {"id":"seven","ts":"1970-01-01T00:00:01Z"}: Json error: whilst decoding field 'id': failed to parse "seven" as Int64
    ---
    {"id":7,"ts":"never"}: Json error: whilst decoding field 'ts': failed to parse "never" as Timestamp(µs, "+00:00"): Parser error: Error parsing timestamp from 'never': timestamp must contain at least 10 characters
    ---
    {"id":7,"ts":null,"note":"x"}: it has no event time
    ---
    {"id":7}: it has no event time
    ---
    {"id":7,"ts":"1970-01-01T00:00:01Z"}{"id":8,"ts":"1970-01-01T00:00:01Z"}: Parser error: the line holds more than one value
    ---
    {"id":7,"note":"��"}: Json error: Encountered non-UTF-8 data
    "#);
}

#[test]
fn a_file_that_ends_within_quotes_ends_in_a_dead_letter() {
    let text = format!("1,{SECOND},x\n2,{SECOND},\"torn\n3,{SECOND},y\n");
    let (mut engine, mut full) = (engine(false, 0), Vec::new());
    engine.feed(text.trim_end().as_bytes(), &mut full).unwrap();
    engine.finish(&mut full).unwrap();
    assert_eq!(full.iter().map(|sorted| sorted.rows.num_rows()).sum::<usize>(), 1);
    let [torn] = dead(&full)[..] else { panic!("one: {full:?}") };
    assert!(torn.raw.starts_with(b"2,") && torn.error.contains("within quotes"), "{torn:?}");
}

#[tokio::test]
async fn a_file_that_ends_within_quotes_fails_where_dead_letters_are_not_kept() {
    for end in ["", "\n"] {
        let text = format!("id,ts,note\n1,{SECOND},x\n2,{SECOND},\"torn\n3,{SECOND},y{end}");
        let folder = Folder::with(&[("a.csv", text.as_bytes())]);
        let source = folder.source(Format::Csv, typed(), 1000).await.unwrap();
        let error = find(&source, Window::ALL).await.unwrap_err();
        assert!(error.place().ends_with("a.csv, line 3"), "{}", chain(&error));
        assert!(chain(&error).contains("within quotes") && chain(&error).contains("dead_letter"), "{}", chain(&error));
    }
}

#[test]
fn a_carriage_return_alone_ends_a_record_too() {
    let text = format!("1,{SECOND},a\rtwo,{SECOND},b\r3,{SECOND},\"c\rd\"\r\r\n4,{SECOND},e\r");
    let (mut engine, mut full) = (engine(false, 0), Vec::new());
    engine.feed(text.as_bytes(), &mut full).unwrap();
    engine.finish(&mut full).unwrap();
    assert_eq!(full.iter().map(|sorted| sorted.rows.num_rows()).sum::<usize>(), 3);
    let [one] = dead(&full)[..] else { panic!("one: {full:?}") };
    assert_eq!((&one.raw[..], one.position), (format!("two,{SECOND},b").as_bytes(), 25));
}

#[test]
fn a_text_of_nothing_but_bad_records_is_never_held_whole() {
    let line = format!("{}\n", "x".repeat(99));
    let chunk = line.repeat(1000);
    let mut engine = engine(true, 0);
    let (mut fed, mut buried) = (0, 0);
    for _ in 0..40 {
        let mut full = Vec::new();
        engine.feed(chunk.as_bytes(), &mut full).unwrap();
        fed += chunk.len();
        buried += dead(&full).len() * line.len();
        assert!(fed - buried < 1 << 20, "{} bytes are held", fed - buried);
    }
    let long = "y".repeat(3 << 20);
    let mut full = Vec::new();
    engine.feed(long.as_bytes(), &mut full).unwrap();
    engine.finish(&mut full).unwrap();
    let last = dead(&full).last().copied().unwrap().clone();
    assert_eq!((last.raw.len(), last.length), (1 << 20, 3 << 20), "a long one is cut, and says so");
}

#[tokio::test]
async fn a_file_that_is_no_text_or_has_another_header_fails_all_the_same() {
    let mut extra = typed();
    extra["on_error"] = json!("dead_letter");
    for (bytes, said) in [
        (b"PAR1\0\0\x15\x04".as_slice(), "a.csv is not a text"),
        (b"id,ts\n1,1970-01-01T00:00:01Z\n", "has no column note"),
    ] {
        let folder = Folder::with(&[("a.csv", bytes)]);
        let source = folder.source(Format::Csv, extra.clone(), 1000).await.unwrap();
        let error = find(&source, Window::ALL).await.unwrap_err();
        assert_eq!(error.class(), Class::Fatal { exit_code: 4 });
        assert!(error.to_string().contains(said), "{error}");
    }
    let folder = Folder::with(&[("a.csv", b"id,ts,note\n1,1970-01-01T00:00:01Z,x\n")]);
    let error = folder.source(Format::Csv, json!({"on_error": "dead_letter"}), 1000).await.err().unwrap();
    assert_eq!(error.class(), Class::Fatal { exit_code: 3 });
    assert!(error.to_string().contains("needs the columns in `schema`"), "{error}");
}

#[tokio::test]
async fn a_unit_of_nothing_but_dead_letters_is_planned_and_a_promise_needs_no_scan() {
    let mut extra = typed();
    extra["on_error"] = json!("dead_letter");
    let folder = Folder::with(&[("a.csv", b"id,ts,note\n1,never,x\n2,3\n")]);
    let source = folder.source(Format::Csv, extra.clone(), 1000).await.unwrap();
    let window = Window::new(EventTime::from_micros(50), EventTime::from_micros(60)).unwrap();
    let found = find(&source, window).await.unwrap();
    assert_eq!((found[0].units.len(), found[0].units[0].rows, found[0].units[0].low), (1, 2, 50));
    assert_eq!(read_all(&source, &found, window).await.unwrap().1.len(), 2);

    let folder = Folder::with(&[("2024-01-01.csv", b"id,ts,note\n1,never,x\n2,2024-01-01T05:00:00Z,y\n")]);
    extra["event_time"] = json!({"column": "ts", "path": "%Y-%m-%d.csv", "bounds": "path"});
    let source = folder.source(Format::Csv, extra, 1000).await.unwrap();
    let found = find(&source, Window::ALL).await.unwrap();
    assert_eq!(found[0].units[0].rows, 0, "rows are not known");
    let (rows, dead) = read_all(&source, &found, Window::ALL).await.unwrap();
    assert_eq!((rows.len(), dead.len(), dead[0].position), (1, 1, 11));
}
