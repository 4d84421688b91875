//! Rows that delete files take away are not there.

use iceberg::spec::{NestedField, PrimitiveType, Type};

use super::*;

async fn many() -> (Lake, String) {
    let lake = Lake::new(&[], &rows(0, 1)).await;
    let batches: Vec<_> = (0..8).map(|at| rows(at * 500, (at + 1) * 500)).collect();
    lake.append(&batches).await;
    let file = lake.files().await.into_keys().next().unwrap();
    (lake, file)
}

fn all_but(end: i64, gone: impl Fn(i64) -> bool) -> Vec<i64> {
    (0..end).filter(|id| !gone(*id)).collect()
}

#[tokio::test]
async fn positional_deletes_are_honoured_in_every_row_group() {
    let (lake, file) = many().await;
    let gone = |id: i64| id % 3 == 0 || (700..1_300).contains(&id) || id == 3_999;
    let places: Vec<_> = (0..4_000).filter(|id| gone(*id)).map(|id| (file.clone(), id)).collect();
    lake.delete_places(&places, false).await;
    let source = lake.source().await;
    let found = find(&*source, Window::ALL).await.unwrap();
    assert!(found[0].units.len() > 2 && found[0].units.iter().all(|unit| unit.rows == 0), "only reading tells");
    assert_eq!(ids(&*source, Window::ALL).await, all_but(4_000, gone));
    let window = hours(1_200, 2_500);
    let wanted: Vec<_> = all_but(4_000, gone).into_iter().filter(|id| (1_200..2_500).contains(id)).collect();
    assert_eq!(ids(&*source, window).await, wanted);
}

#[tokio::test]
async fn equality_deletes_take_older_rows_and_leave_newer_ones() {
    let (lake, _) = many().await;
    lake.delete_equal("id", 1, Arc::new(Int64Array::from(vec![5, 6, 2_000, 9_999]))).await;
    lake.delete_equal("name", 2, Arc::new(StringArray::from(vec!["name 3"]))).await;
    lake.append(&[rows(5, 8), rows(10, 11)]).await;
    let source = lake.source().await;
    let mut wanted = all_but(4_000, |id| [5, 6, 2_000].contains(&id) || id % 7 == 3);
    wanted.extend([5, 6, 7, 10]);
    wanted.sort_unstable();
    assert_eq!(ids(&*source, Window::ALL).await, wanted);
}

#[tokio::test]
async fn a_footer_tells_the_spans_of_integers_but_of_no_file_with_deletes() {
    let (lake, file) = many().await;
    lake.append(&[rows(4_000, 4_100)]).await;
    lake.delete_places(&[(file, 0)], true).await;
    let source = lake.source().await;
    let (mut told, mut untold) = (0, 0);
    for found in find(&*source, Window::ALL).await.unwrap() {
        let spans = source.spans(&found.split, &[0, 1]).await.unwrap();
        if found.units.iter().any(|unit| unit.rows == 0) {
            assert_eq!(spans, [], "how many rows are left, no footer tells");
            untold += 1;
            continue;
        }
        for unit in &found.units {
            let one = FoundSplit { units: vec![*unit], ..found.clone() };
            let ids: Vec<i64> = read(&*source, &[one], "id", Window::ALL)
                .await
                .unwrap()
                .iter()
                .map(|row| row.0.parse().unwrap())
                .collect();
            let span = spans.iter().find(|span| span.position == unit.position).unwrap();
            let bounds = ids.iter().min().copied().zip(ids.iter().max().copied());
            assert_eq!(span.bounds, [bounds, None], "names are no integers");
            told += ids.len();
        }
    }
    assert_eq!((told, untold), (100, 1));
}

#[tokio::test]
async fn both_kinds_of_deletes_apply_together_and_a_file_that_none_speaks_of_is_read_as_it_stands() {
    let (lake, file) = many().await;
    lake.append(&[rows(4_000, 4_100)]).await;
    lake.delete_places(&[(file.clone(), 0), (file.clone(), 1), (file, 3_500)], true).await;
    let source = lake.source().await;
    assert_eq!(counted(&find(&*source, Window::ALL).await.unwrap()), (100, 0), "the other file's rows are known");
    lake.delete_equal("id", 1, Arc::new(Int64Array::from(vec![2, 4_050]))).await;
    let source = lake.source().await;
    let wanted = all_but(4_100, |id| [0, 1, 2, 3_500, 4_050].contains(&id));
    assert_eq!(ids(&*source, Window::ALL).await, wanted);
}

#[tokio::test]
async fn an_equality_delete_takes_a_null_for_a_null_and_leaves_files_older_than_its_column() {
    let batch = |ids: &[i64], names: Vec<Option<&str>>| {
        let times = TimestampMicrosecondArray::from_iter_values(ids.iter().map(|id| id * HOUR));
        RecordBatch::try_from_iter_with_nullable([
            ("id", Arc::new(Int64Array::from(ids.to_vec())) as ArrayRef, true),
            ("name", Arc::new(StringArray::from(names)) as ArrayRef, true),
            ("at", Arc::new(times.with_timezone("UTC")) as ArrayRef, true),
        ])
        .unwrap()
    };
    let lake = Lake::new(&[], &batch(&[0], vec![None])).await;
    lake.append(&[batch(&[1, 2, 3, 4], vec![Some("x"), None, Some("y"), None])]).await;
    lake.delete_equal("name", 2, Arc::new(StringArray::from(vec!["x"]))).await;
    assert_eq!(ids(&*lake.source().await, Window::ALL).await, [2, 3, 4], "null is not x");

    lake.evolve(|fields| {
        let column = |id, name, kind| Arc::new(NestedField::optional(id, name, Type::Primitive(kind)));
        fields[1] = column(2, "label", PrimitiveType::String);
        fields.push(column(9, "extra", PrimitiveType::Long));
    })
    .await;
    lake.delete_equal("extra", 9, Arc::new(Int64Array::from(vec![7]))).await;
    lake.delete_equal("name", 2, Arc::new(StringArray::from(vec!["y"]))).await;
    let source = lake.source().await;
    assert_eq!(ids(&*source, Window::ALL).await, [2, 4], "a column that a file is older than is null there");
    let found = find(&*source, Window::ALL).await.unwrap();
    let labels = read(&*source, &found, "label", Window::ALL).await.unwrap();
    assert_eq!(labels, [(String::new(), Some(2 * HOUR)), (String::new(), Some(4 * HOUR))]);

    lake.delete_equal("name", 2, Arc::new(StringArray::from(vec![None::<&str>]))).await;
    assert_eq!(ids(&*lake.source().await, Window::ALL).await, [0_i64; 0], "null is null");
}
