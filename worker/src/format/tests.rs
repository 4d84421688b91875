#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use arrow::array::{ArrayRef, AsArray, BinaryBuilder};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use proptest::prelude::*;
use serde_json::json;

use super::*;

/// A format as a spec writes it.
pub(super) async fn opened(spec: serde_json::Value) -> Result<Arc<dyn Format>, FormatError> {
    opened_with(spec, &Access::local(), None).await
}

pub(super) async fn opened_with(
    spec: serde_json::Value,
    access: &Access,
    pin: Option<&[u8]>,
) -> Result<Arc<dyn Format>, FormatError> {
    open("flights", &serde_json::from_value(spec).unwrap(), access, pin).await
}

pub(super) fn binary<T: AsRef<[u8]>>(values: &[Option<T>]) -> BinaryArray {
    let mut builder = BinaryBuilder::new();
    values.iter().for_each(|value| builder.append_option(value.as_ref()));
    builder.finish()
}

/// Decodes all columns of `values`.
pub(super) async fn decode<T: AsRef<[u8]>>(format: &dyn Format, values: &[Option<T>]) -> Decoded {
    let columns: Vec<usize> = (0..format.schema().fields().len()).collect();
    decode_columns(format, &columns, values).await
}

pub(super) async fn decode_columns<T: AsRef<[u8]>>(
    format: &dyn Format,
    columns: &[usize],
    values: &[Option<T>],
) -> Decoded {
    let keys = binary::<&[u8]>(&vec![None; values.len()]);
    let decoded = format.decoder(columns).unwrap().decode(&keys, &binary(values)).await.unwrap();
    assert_eq!(decoded.rows.num_rows() + decoded.others.len(), values.len());
    assert!(decoded.others.is_sorted_by_key(|(at, _)| *at));
    assert_eq!(decoded.rows.schema().fields().len(), columns.len());
    decoded
}

/// Runs `f` to its end.
pub(super) fn now<T>(f: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(f)
}

/// The rows as text, a cell `null` where there is none.
pub(super) fn cells(rows: &RecordBatch) -> Vec<Vec<String>> {
    let options = FormatOptions::default().with_null("null").with_display_error(false);
    let columns: Vec<ArrayFormatter<'_>> =
        rows.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap()).collect();
    (0..rows.num_rows())
        .map(|row| columns.iter().map(|column| column.value(row).try_to_string().unwrap_or_default()).collect())
        .collect()
}

/// The only record's row, or what is wrong with it.
pub(super) fn one(format: &dyn Format, value: impl AsRef<[u8]>) -> Result<Vec<String>, NoRow> {
    let mut decoded = now(decode(format, &[Some(value)]));
    match decoded.others.pop() {
        Some((_, why)) => Err(why),
        None => Ok(cells(&decoded.rows).remove(0)),
    }
}

pub(super) fn bad(format: &dyn Format, value: impl AsRef<[u8]>) -> String {
    match one(format, value) {
        Err(NoRow::Bad(what)) => what,
        other => panic!("not a bad record: {other:?}"),
    }
}

/// What holds where the form of the `bad` ones is wrong: whichever columns are asked for, rows and others are the same.
pub(super) fn sorts_out(format: &dyn Format, good: &[Vec<u8>], bad: &[Vec<u8>], order: &[u8]) {
    let (values, all) = sorts_out_values(format, good, bad, order);
    for columns in [vec![], vec![0], (0..format.schema().fields().len()).rev().collect()] {
        let some = now(decode_columns(format, &columns, &values));
        assert_eq!(some.rows, all.rows.project(&columns).unwrap());
        assert_eq!(some.others, all.others);
    }
}

/// What holds for a format that makes rows of `good` ones: the bad ones and the tombstones among them are named, and
/// the others are rows in their order.
pub(super) fn sorts_out_values(
    format: &dyn Format,
    good: &[Vec<u8>],
    bad: &[Vec<u8>],
    order: &[u8],
) -> (Vec<Option<Vec<u8>>>, Decoded) {
    let (mut goods, mut bads) = (good.iter().cycle(), bad.iter().cycle());
    let mut expected = Vec::new();
    let values: Vec<Option<Vec<u8>>> = order
        .iter()
        .enumerate()
        .map(|(at, what)| match what % 3 {
            0 => goods.next().cloned(),
            1 => {
                expected.push((at, true));
                bads.next().cloned()
            }
            _ => {
                expected.push((at, false));
                None
            }
        })
        .collect();
    let all = now(decode(format, &values));
    let others: Vec<(usize, bool)> = all.others.iter().map(|(at, why)| (*at, matches!(why, NoRow::Bad(_)))).collect();
    assert_eq!(others, expected);
    let rows: Vec<Vec<String>> = order
        .iter()
        .filter(|what| *what % 3 == 0)
        .zip(good.iter().cycle())
        .map(|(_, value)| one(format, value).unwrap())
        .collect();
    assert_eq!(cells(&all.rows), rows);
    (values, all)
}

#[tokio::test]
async fn raw_gives_the_buffers_that_came_and_a_row_for_a_tombstone() {
    let format = opened(json!({"type": "raw"})).await.unwrap();
    let (keys, values) = (binary(&[Some("k"), None]), binary(&[None, Some("v")]));
    let decoded = format.decoder(&[1, 0]).unwrap().decode(&keys, &values).await.unwrap();
    assert_eq!(decoded.others, []);
    let (value, key): (&ArrayRef, &ArrayRef) = (decoded.rows.column(0), decoded.rows.column(1));
    assert_eq!(value.as_binary::<i32>(), &values);
    assert_eq!(key.as_binary::<i32>().values().as_ptr(), keys.values().as_ptr());
    let none = format.decoder(&[]).unwrap().decode(&keys, &values).await.unwrap();
    assert_eq!((none.rows.num_rows(), none.rows.num_columns()), (2, 0));
}

#[test]
fn a_value_beyond_the_limit_is_a_bad_record() {
    let format = now(opened(json!({"type": "json", "schema": [{"name": "a", "type": "bigint"}]}))).unwrap();
    let giant = [b"{\"a\": 1}".to_vec(), vec![b' '; MAX_VALUE]].concat();
    let decoded = now(decode(format.as_ref(), &[Some(giant), Some(b"{\"a\": 2}".to_vec())]));
    assert_eq!(cells(&decoded.rows), [["2"]]);
    let (0, NoRow::Bad(what)) = &decoded.others[0] else { panic!("{:?}", decoded.others) };
    assert!(what.contains("67108872 bytes"), "{what}");
    let raw = now(opened(json!({"type": "raw"}))).unwrap();
    let decoded = now(decode(raw.as_ref(), &[Some(vec![0; MAX_VALUE + 1]), Some(b"v".to_vec()), None]));
    assert_eq!((decoded.rows.num_rows(), decoded.others.len(), decoded.others[0].0), (2, 1, 0));
}

proptest! {
    #[test]
    fn what_is_shown_of_a_text_is_short_and_one_line(text in any::<String>()) {
        let shown = shown(&text);
        prop_assert!(!shown.contains('\n') && shown.chars().count() < 700);
    }
}
