//! Surveys of generated rows, whose figures are known.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tidegate_common::spec::Document;

use super::*;
use crate::sink::CatalogConfig;

const SPEC: &str = "\
version: 1
kind: backfill
name: made-up
alignment: {max_drift: 1h}
sources:
  a: {generate: {seed: 1, rows: 20000, rate: 10, disorder: 10s, splits: 4}}
  b: {generate: {seed: 2, rows: 2000, rate: 1, disorder: 10s, splits: 2}}
outputs:
  of_a: {table: t.a, sql: 'SELECT * FROM a'}
  of_b: {table: t.b, sql: 'SELECT * FROM b WHERE false'}
";

fn resolved(text: &str) -> (Resolved, BackfillId) {
    let mut document = Document::read(text, "spec.yaml", &|_| None).unwrap();
    document.absolutise("/nowhere").unwrap();
    let resolved = document.resolve(0).unwrap();
    let id = spec::backfill_id("default", &resolved);
    (resolved, id)
}

fn no_catalogs() -> Means {
    Means {
        access: Access::local(),
        catalogs: std::sync::Arc::new(Catalogs::to_read([])),
        default_catalog: "default".to_owned(),
        slots: 2,
        sample: Duration::ZERO,
    }
}

async fn surveyed(text: &str, folder: &std::path::Path) -> Result<Survey, TaskError> {
    let (spec, id) = resolved(text);
    let catalog = CatalogConfig::Sqlite {
        name: "default".to_owned(),
        path: folder.join("state/catalog.db"),
        warehouse: folder.join("warehouse").display().to_string(),
        storage: None,
    };
    let catalogs = Catalogs::to_read([("default".to_owned(), catalog)]);
    let means = Means {
        access: Access::local(),
        catalogs: std::sync::Arc::new(catalogs),
        default_catalog: "default".to_owned(),
        slots: 2,
        sample: Duration::from_secs(3600),
    };
    survey(&spec, &id, &means).await
}

#[tokio::test]
async fn a_survey_counts_everything_and_makes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let survey = surveyed(SPEC, folder.path()).await.unwrap();
    let rows: Vec<u64> = survey.sources.iter().map(|source| source.found.rows_in_range).collect();
    assert_eq!(rows, [20_000, 2_000]);
    assert!(survey.sources.iter().all(|source| source.sampled.bytes > 0 && source.found.digest.len() == 64));
    assert!(survey.overlap_depth >= 2, "both sources begin at the same time");
    let [a, b] = survey.outputs.as_slice() else { panic!("two outputs") };
    assert_eq!((a.rows, b.rows), (Some(20_000), Some(0)), "one query passes all, the other nothing");
    assert!(a.table.created && a.table.uuid.is_empty());
    let estimate = survey.estimate.unwrap();
    assert!(estimate.from < estimate.likely && estimate.likely < estimate.to, "{estimate:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn the_drifts_go_from_tight_to_none_and_name_the_spec_s_own() {
    let folder = tempfile::tempdir().unwrap();
    let survey = surveyed(SPEC, folder.path()).await.unwrap();
    let drifts: Vec<_> = survey.drifts.iter().map(|one| one.drift).collect();
    assert!(drifts.windows(2).all(|two| two[1].is_none() || two[0] < two[1]), "{drifts:?}");
    assert_eq!(drifts.last(), Some(&None));
    let of_spec: Vec<_> = survey.drifts.iter().filter(|one| one.of_spec).map(|one| one.drift).collect();
    assert_eq!(of_spec, [Some(Span::from_micros(3_600_000_000))]);
    assert!(drifts.contains(&Some(survey.tightest_drift)));
    assert!(survey.drifts.iter().all(|one| one.with_slots.most <= 2));
}

#[tokio::test]
async fn what_prepare_refuses_a_survey_refuses_with_the_same_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    for (from, to, code) in [
        ("SELECT * FROM a", "SELECT nothing FROM a", 3),
        ("{table: t.a,", "{table: t.a, mode: replace_window, partition_by: [kind],", 3),
        ("{table: t.a,", "{table: t.a, partition_by: [nothing],", 3),
    ] {
        let spec = SPEC.replace("alignment:", "window: {from: 2024-01-01, to: 2024-01-02}\nalignment:");
        let failed = surveyed(&spec.replace(from, to), folder.path()).await.unwrap_err();
        assert_eq!(failed.evidence().exit_code, code, "{to}: {failed:?}");
    }
}

#[tokio::test]
async fn what_is_staged_or_replaced_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let plain = surveyed(SPEC, folder.path()).await.unwrap();
    assert!(plain.outputs.iter().all(|output| output.branch.is_none() && output.replaces.is_none()));
    let spec =
        SPEC.replace("{table: t.a,", "{table: t.a, mode: replace_window, publish: staged, partition_by: [day(ts)],");
    let spec = spec.replace("alignment:", "window: {from: 2024-01-01, to: 2024-01-02}\nalignment:");
    let (_, id) = resolved(&spec);
    let survey = surveyed(&spec, folder.path()).await.unwrap();
    assert_eq!(survey.outputs[0].branch, Some(format!("tidegate_{id}")));
    assert_eq!(survey.outputs[0].replaces, Some((0, 0)), "the table is yet to be created");
}

#[tokio::test]
async fn sources_can_be_surveyed_alone() {
    let (spec, id) = resolved(SPEC);
    let only = sources(&spec, &id, |source| source.name == "b", &no_catalogs()).await.unwrap();
    assert_eq!(only.iter().map(|source| source.name.as_str()).collect::<Vec<_>>(), ["b"]);
    assert_eq!(sources(&spec, &id, |_| true, &no_catalogs()).await.unwrap().len(), 2);
}

#[tokio::test]
async fn the_first_rows_of_each_source_are_shown_and_no_more_than_are_asked_for() {
    let (spec, id) = resolved(SPEC);
    let shown = rows(&spec, &id, Some("b"), 3, &no_catalogs()).await.unwrap();
    let [shown] = shown.as_slice() else { panic!("{shown:?}") };
    assert_eq!((shown.source.as_str(), shown.cells.len(), shown.objects.len()), ("b", 3, 3));
    assert!(shown.cells.iter().all(|row| row.len() == shown.columns.len()));
    let all = rows(&spec, &id, None, usize::MAX, &no_catalogs()).await.unwrap();
    let found = sources(&spec, &id, |_| true, &no_catalogs()).await.unwrap();
    for (rows, source) in all.iter().zip(&found) {
        assert_eq!(rows.objects.len() as u64, source.found.rows_in_range, "{}", rows.source);
    }
}

#[tokio::test]
async fn given_a_warm_up_then_what_the_anchor_meets_is_read_so_much_earlier_by_every_task_and_the_plan_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let rows = |name: &str| {
        let times = (0..100).map(|hour| format!("2024-01-{:02}T{:02}:00:00Z,k", 1 + hour / 24, hour % 24));
        let text = std::iter::once("ts,key".to_owned()).chain(times).collect::<Vec<_>>().join("\n");
        std::fs::write(folder.path().join(name), text + "\n").unwrap();
    };
    rows("p.csv");
    rows("s.csv");
    let spec = |join: &str| {
        let source = |name: &str| {
            format!(
                "  {name}: {{files: {{path: '{}/{name}.csv'}}, event_time: {{column: ts}}}}\n",
                folder.path().display()
            )
        };
        let sql = "SELECT p.ts FROM p JOIN s ON p.key = s.key AND s.ts BETWEEN p.ts - INTERVAL '2' HOUR AND p.ts";
        format!(
            "version: 1\nkind: backfill\nname: warm\nwindow: {{from: 2024-01-03, to: 2024-01-04}}\nsources:\n{}{}outputs:\n  \
             o: {{table: n.t, sql: \"{sql}\"{join}}}\n",
            source("p"),
            source("s")
        )
    };
    let mut shuffled = Vec::new();
    for (join, from) in [("", "2024-01-02T22:00:00Z"), (", join: {warm_up: 1d}", "2024-01-01T22:00:00Z")] {
        let survey = surveyed(&spec(join), folder.path()).await.unwrap();
        let plan = survey.outputs[0].join.clone().unwrap();
        let read: Vec<String> = plan.inputs.iter().map(|input| input.from.to_string()).collect();
        assert_eq!(read, ["2024-01-03T00:00:00Z", from], "the anchor is not warmed up");
        let (resolved, id) = resolved(&spec(join));
        let opened = open(&resolved, &id, &no_catalogs()).unwrap();
        for (ix, input) in (0..).map(SourceIx::new).zip(&plan.inputs) {
            let window = opened.used(ix).await.unwrap().window;
            assert_eq!((window.from(), window.to()), (input.from, input.to), "what is read is what the plan says");
        }
        shuffled.push(plan.state_bytes);
    }
    assert!(shuffled[1] <= shuffled[0], "what nobody meets does not wait: {shuffled:?}");
}
