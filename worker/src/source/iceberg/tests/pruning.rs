//! What is in the window is read, and what is not is counted and left alone.

use super::lake::days;
use super::*;

#[tokio::test]
async fn every_row_of_a_table_is_read_once_with_its_event_time() {
    let lake = Lake::new(&[], &rows(0, 1)).await;
    let batches: Vec<_> = (0..20).map(|at| rows(at * 500, (at + 1) * 500)).collect();
    lake.append(&batches).await;
    let source = lake.source().await;
    let found = find(&*source, Window::ALL).await.unwrap();
    assert!(found[0].units.len() > 1, "the test wants row groups");
    assert_eq!(counted(&found), (10_000, 0));
    let read = read(&*source, &found, "id", Window::ALL).await.unwrap();
    let wanted: Vec<_> = (0..10_000).map(|id| (id.to_string(), Some(id * HOUR))).collect();
    assert_eq!(read, wanted);
    assert_eq!(source.describe(), "iceberg ns.t @ snapshot 1001");
}

#[tokio::test]
async fn files_that_the_manifests_exclude_are_counted_and_never_opened() {
    let lake = Lake::new(&["day(at)"], &rows(0, 1)).await;
    lake.append(&[rows(0, 240)]).await;
    let source = lake.source().await;
    let window = hours(50, 100);
    let found = find(&*source, window).await.unwrap();
    assert_eq!((found.len(), counted(&found)), (10, (24 * 3, 24 * 7)));
    for split in found.iter().filter(|split| split.units.is_empty()) {
        let path = split.split.file.as_ref().unwrap().path.clone();
        std::fs::remove_file(path.strip_prefix("file://").unwrap_or(&path)).unwrap();
    }
    assert_eq!(ids(&*source, window).await, (50..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_window_holds_the_same_rows_for_every_type_of_event_time() {
    let all: Vec<i32> = (-40..40).collect();
    let columns = [
        json!({"column": "zoned"}),
        json!({"column": "local"}),
        json!({"column": "date"}),
        json!({"column": "millis", "unit": "millis"}),
        json!({"column": "secs", "unit": "seconds"}),
    ];
    for by in [&[][..], &["month(zoned)", "day(local)"], &["date", "truncate(1000, millis)"]] {
        let lake = Lake::new(by, &days(&[0])).await;
        lake.append(&[days(&all[..33])]).await;
        lake.append(&[days(&all[33..])]).await;
        for event_time in &columns {
            let source = lake.open(event_time.clone(), None, None).await.unwrap();
            for (from, to) in [(-48, 48), (0, 24), (-24, 1), (-500, -499), (13, 240), (-960, 960)] {
                let window = hours(from, to);
                let found = find(&*source, window).await.unwrap();
                let (read, pruned) = counted(&found);
                assert_eq!(read + pruned, 80, "{by:?} {event_time}");
                let wanted: Vec<i64> = (-40..40).filter(|day| from <= day * 24 && day * 24 < to).collect();
                assert_eq!(ids(&*source, window).await, wanted, "{by:?} {event_time} {window}");
            }
        }
    }
}

#[tokio::test]
async fn a_wall_clock_of_another_zone_prunes_nothing_that_is_in_the_window() {
    let lake = Lake::new(&["day(local)"], &days(&[0])).await;
    lake.append(&[days(&(0..10).collect::<Vec<_>>())]).await;
    // Midnight in Auckland was 12 hours before that of UTC.
    let source = lake.open(json!({"column": "local", "time_zone": "Pacific/Auckland"}), None, None).await.unwrap();
    assert_eq!(ids(&*source, hours(24 * 4 - 13, 24 * 5 - 13)).await, [4]);
}

#[tokio::test]
async fn a_file_outside_the_allowed_folders_is_refused() {
    let lake = Lake::new(&[], &rows(0, 1)).await;
    lake.append(&[rows(0, 10)]).await;
    let access = Access { paths: Some(vec!["/nowhere".into()]), ..Access::default() };
    let source = lake.open_with(json!({"column": "at"}), None, None, &access).await.unwrap();
    assert!(refused(find(&*source, Window::ALL).await).contains("allow.paths"));
    let here = Access { paths: Some(vec![lake.folder.path().to_owned()]), ..Access::default() };
    let source = lake.open_with(json!({"column": "at"}), None, None, &here).await.unwrap();
    assert_eq!(ids(&*source, Window::ALL).await, (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_integer_that_is_no_moment_is_in_every_window() {
    let columns = |seconds: Vec<i64>| {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..seconds.len() as i64));
        RecordBatch::try_from_iter([("id", ids), ("at", Arc::new(Int64Array::from(seconds)) as ArrayRef)]).unwrap()
    };
    let lake = Lake::new(&["truncate(1000, at)"], &columns(vec![0])).await;
    lake.append(&[columns(vec![5, i64::MAX / 1_000, 7_200, i64::MIN / 2])]).await;
    let source = lake.open(json!({"column": "at", "unit": "seconds"}), None, None).await.unwrap();
    assert_eq!(ids(&*source, hours(0, 1)).await, [1, 3, 0]);
}
