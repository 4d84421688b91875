//! Replacements among the writes of others, at random.

use proptest::prelude::*;

use super::*;

/// What others write: hours of rows.
fn writes() -> impl Strategy<Value = Vec<Vec<i64>>> {
    prop::collection::vec(prop::collection::vec(0_i64..120, 1..12), 0..4)
}

#[derive(Default)]
struct Model {
    rows: Vec<(i64, i64)>,
    next: i64,
}

impl Model {
    fn add(&mut self, hours: &[i64]) -> RecordBatch {
        let from = self.next;
        let rows: Vec<_> = (from..).zip(hours.iter().copied()).collect();
        self.next += i64::try_from(rows.len()).unwrap();
        self.rows.extend(&rows);
        rows_at(&rows)
    }

    fn ids(&self) -> Vec<i64> {
        let mut ids: Vec<_> = self.rows.iter().map(|row| row.0).collect();
        ids.sort_unstable();
        ids
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The oracle is a list of rows: those in the window go, the new ones come, and whatever others write before and
    /// after is there once. Others who write into the window after the plan make it a conflict that changes nothing.
    #[test]
    fn given_any_history_when_a_window_is_replaced_then_the_rows_of_the_model(
        before in writes(),
        (day, days) in (0_i64..4, 1_i64..3),
        new in prop::collection::vec(0_i64..1_000, 0..12),
        between in writes(),
        after in writes(),
        fields in prop::sample::select(vec![vec!["day(at)"], vec!["hour(at)"], vec!["bucket(2, id)", "day(at)"]]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let lake = Lake::new();
            let target = target("t", &fields);
            let window = day * 24..(day + days) * 24;
            let scope = hours("bf-a", window.start, window.end, true);
            let mut model = Model::default();
            for hours in &before {
                by_another(&lake.catalogs, &target, model.add(hours)).await;
            }
            let prepared = plan(&lake, &target, &scope).await.unwrap();
            let inside = |row: &(i64, i64)| window.contains(&row.1);
            assert_eq!(prepared.rows_before, model.rows.iter().filter(|row| inside(row)).count() as u64);
            for hours in &between {
                by_another(&lake.catalogs, &target, model.add(hours)).await;
            }
            let hit = between.iter().flatten().any(|hour| window.contains(hour));
            let expected = model.ids();
            model.rows.retain(|row| !inside(row));
            let new: Vec<_> = new.iter().map(|hour| window.start + hour % (days * 24)).collect();
            let rows = (!new.is_empty()).then(|| model.add(&new));
            let (intent, parts) = replacement(&lake, &target, &prepared, (1, ""), rows).await;
            let result = commit(&lake.catalogs, &target, &scope, &intent, parts).await.unwrap();
            if hit {
                assert_eq!(result.end(), v1::CommitEnd::Conflict);
                assert_eq!(ids(&lake.catalogs, &target).await, expected);
                return;
            }
            assert_eq!(result.end(), v1::CommitEnd::Committed);
            for hours in &after {
                by_another(&lake.catalogs, &target, model.add(hours)).await;
            }
            assert_eq!(ids(&lake.catalogs, &target).await, model.ids());
            let table = load(&lake.catalogs, &target).await.unwrap();
            let head = table.metadata().current_snapshot().unwrap().clone();
    let summary = &head.summary().additional_properties;
            let files = inspect::live_files(&table, "main").await.unwrap();
            assert_eq!(summary["total-records"], model.rows.len().to_string());
            assert_eq!(summary["total-data-files"], files.len().to_string());
        });
    }
}
