//! Plans of the example's flights and weather.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use tidegate_common::slices::Reach;
use tidegate_common::time::EventTime;
use tidegate_worker::survey::{Estimate, JoinInputPlan, JoinPlan};

use super::*;
use crate::args::WindowArgs;
use crate::config::{self, ConfigFile, Places};
use crate::style::Paint;

/// As long as it takes: what a sample reads does not depend on how fast this machine is.
const WHOLE: Duration = Duration::from_secs(3600);

/// Of the clone that cargo runs this in.
fn example() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&own).join("../examples/flights")
}

/// The example in a folder of its own, its spec changed by `change`.
struct World {
    folder: tempfile::TempDir,
    config: Config,
}

impl World {
    fn new(change: impl Fn(String) -> String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for below in ["flights", "weather"] {
            std::fs::create_dir(folder.path().join(below)).unwrap();
            for file in std::fs::read_dir(example().join(below)).unwrap() {
                let file = file.unwrap();
                std::fs::copy(file.path(), folder.path().join(below).join(file.file_name())).unwrap();
            }
        }
        let spec = std::fs::read_to_string(example().join("aligned.yaml")).unwrap();
        std::fs::write(folder.path().join("spec.yaml"), change(spec)).unwrap();
        let places = Places { folder: folder.path().to_owned(), env: &|_| None, config: None };
        let config = config::load(ConfigFile::default(), &places).unwrap();
        Self { folder, config }
    }

    fn spec(&self, window: &WindowArgs) -> CheckedSpec {
        spec_file::load_over(&self.folder.path().join("spec.yaml"), window).unwrap()
    }

    /// The plan with whatever depends on this machine's speed made the same everywhere.
    async fn planned<'a>(&self, spec: &'a CheckedSpec, window: &'a WindowArgs) -> Planned<'a> {
        let mut survey = surveyed(spec, &self.config, 4, WHOLE).await.unwrap();
        let estimate = Estimate { likely: 1_234_567, from: 987_654, to: 1_851_851 };
        survey.estimate = survey.estimate.map(|_| estimate);
        for source in &mut survey.sources {
            source.sampled.micros = 500_000;
        }
        Planned {
            file: Path::new("spec.yaml"),
            out: None,
            window,
            spec,
            survey,
            slots: 4,
            slots_a_worker: 2,
            price: Some(1800.0),
        }
    }

    fn without_place(&self, spec: &CheckedSpec, text: &str) -> String {
        let folder = self.folder.path().canonicalize().unwrap().display().to_string();
        let id = spec.id.to_string();
        text.replace(&folder, "…").replace(crate::report::short_id(&id), "bf-…")
    }
}

#[tokio::test]
async fn the_plan_of_the_example() {
    let world = World::new(|spec| spec);
    let window = WindowArgs::default();
    let spec = world.spec(&window);
    let planned = world.planned(&spec, &window).await;
    refuse_wide(&planned).unwrap();
    insta::assert_snapshot!(world.without_place(&spec, &text::text(&planned, true)));
}

#[tokio::test]
async fn the_plan_of_another_window_says_how_to_apply_that_window() {
    let world = World::new(|spec| spec);
    let window = WindowArgs { window: Some("2013-02-10/2013-02-20".to_owned()), last: None };
    let spec = world.spec(&window);
    let planned = world.planned(&spec, &window).await;
    insta::assert_snapshot!(world.without_place(&spec, &text::text(&planned, false)));
}

#[tokio::test]
async fn the_plan_of_a_window_without_data_has_nothing_to_read() {
    let world = World::new(|spec| spec);
    let window = WindowArgs { window: Some("1999-01-01/1999-02-01".to_owned()), last: None };
    let spec = world.spec(&window);
    let planned = world.planned(&spec, &window).await;
    insta::assert_snapshot!(world.without_place(&spec, &text::text(&planned, false)));
}

/// Flights with the weather from `low` hours on, to an hour after.
fn joining(low: i64, keyed: bool) -> JoinPlan {
    const HOUR: i64 = 3_600_000_000;
    let input = |source: &str, low: i64, high: i64| JoinInputPlan {
        source: source.to_owned(),
        reach: Reach { low: Span::from_micros(low * HOUR), high: Span::from_micros(high * HOUR) },
        is_anchor: source == "flights",
        keyed,
        from: EventTime::from_micros(1_357_016_400_000_000 + low * HOUR),
        to: EventTime::from_micros(1_388_552_400_000_000 + high * HOUR),
    };
    JoinPlan {
        inputs: vec![input("flights", 0, 0), input("weather", low, 1)],
        slice: Span::from_micros(168 * HOUR),
        slices: 53,
        buckets: if keyed { 4 } else { 1 },
        state_bytes: 345_678,
        budget: None,
        warm_up: Span::ZERO,
        anchors: Some(335_776),
    }
}

#[tokio::test]
async fn the_plan_of_a_join_says_how_far_each_source_is_read_and_how_it_is_cut() {
    let world = World::new(|spec| spec);
    let window = WindowArgs::default();
    let spec = world.spec(&window);
    let mut planned = world.planned(&spec, &window).await;
    planned.survey.outputs.truncate(1);
    let output = &mut planned.survey.outputs[0];
    (output.join, output.rows, output.bytes) = (Some(joining(-4, true)), None, None);
    insta::assert_snapshot!(world.without_place(&spec, &text::text(&planned, false)));
    let document = serde_json::to_value(document::Plan::of(&planned)).unwrap();
    insta::assert_snapshot!("join_json", format!("{:#}", document["outputs"][0]["join"]));
}

#[tokio::test]
async fn the_plan_of_a_join_that_nothing_holds_together_says_that_all_may_wait() {
    let world = World::new(|spec| spec.replace("alignment: {max_drift: 10d}", ""));
    let window = WindowArgs::default();
    let spec = world.spec(&window);
    let mut planned = world.planned(&spec, &window).await;
    planned.survey.outputs[0].join = Some(joining(-4, false));
    let text = text::text(&planned, false);
    assert!(text.contains("with   weather, from 4h before to 1h after  by no key  read over"), "{text}");
    assert!(text.contains("in 53 slices of 7d, 1 bucket each"), "{text}");
    assert!(text.contains("at most ~337.6 KiB, which is all, for nothing is aligned"), "{text}");
}

#[tokio::test]
async fn the_plan_of_a_join_says_how_much_earlier_it_is_read_to_warm_up_and_how_much_may_wait() {
    let world = World::new(|spec| spec);
    let window = WindowArgs::default();
    let spec = world.spec(&window);
    let mut planned = world.planned(&spec, &window).await;
    let warm = |budget| JoinPlan { budget, warm_up: Span::from_micros(86_400_000_000), ..joining(-4, true) };
    planned.survey.outputs[0].join = Some(warm(Some(1 << 20)));
    refuse_over_budget(&planned).unwrap();
    let text = text::text(&planned, false);
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("with a warm_up of 1d")).collect();
    assert!(matches!(lines.as_slice(), [line] if line.contains("with   weather")), "{text}");
    assert!(text.contains("at most ~337.6 KiB of the 1.0 MiB that may, were the bytes"), "{text}");
    planned.survey.outputs[0].join = Some(warm(Some(100_000)));
    let refused = refuse_over_budget(&planned).unwrap_err();
    assert_eq!(refused.exit(), Exit::Preflight);
    let said = refused.render(Paint::plain());
    assert!(said.contains("about 337.6 KiB may wait in the shuffle store, and join.budget is 97.7 KiB"), "{said}");
}

#[tokio::test]
async fn a_unit_wider_than_the_drift_is_refused_with_the_numbers_unless_it_is_allowed() {
    let window = WindowArgs::default();
    let world = World::new(|spec| spec.replace("max_drift: 10d", "max_drift: 1d"));
    let spec = world.spec(&window);
    let refused = refuse_wide(&world.planned(&spec, &window).await).unwrap_err();
    assert_eq!(refused.exit(), Exit::Preflight);
    insta::assert_snapshot!(world.without_place(&spec, &refused.render(Paint::plain())));

    let world = World::new(|spec| spec.replace("max_drift: 10d", "max_drift: 1d, allow_wide: true"));
    let spec = world.spec(&window);
    let planned = world.planned(&spec, &window).await;
    refuse_wide(&planned).unwrap();
    assert!(text::text(&planned, false).contains("allow_wide: one source is up to"));
}

#[tokio::test]
async fn a_saved_plan_holds_every_file_and_is_no_spec() {
    let world = World::new(|spec| spec);
    let window = WindowArgs::default();
    let spec = world.spec(&window);
    let path = world.folder.path().join("plan.json");
    let planned = Planned { out: Some(&path), ..world.planned(&spec, &window).await };
    assert!(text::text(&planned, false).ends_with("/plan.json --reason \"…\"\n"));
    save(&planned, &path).unwrap();
    let saved: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!((&saved["kind"], &saved["apply"]["version"]), (&"Plan".into(), &1.into()));
    assert_eq!(saved["apply"]["id"], spec.id.to_string());
    assert_eq!(saved["apply"]["sources"][0]["pins"].as_array().unwrap().len(), 12);
    assert_eq!(saved["apply"]["sources"][0]["digest"].as_str().unwrap().len(), 64);
    assert_eq!(saved["apply"]["outputs"][0]["table_uuid"], serde_json::Value::Null);
    let refused = spec_file::load(&path).unwrap_err();
    assert_eq!(refused.exit(), Exit::Usage);
    assert!(refused.render(Paint::plain()).contains("is a saved plan"));

    let wanted = spec_file::load_to_apply(&path, &window).unwrap();
    assert_eq!(wanted.spec.id, spec.id);
    assert_eq!(wanted.expected.unwrap().sources[0].pins.len(), 12);
    let other = WindowArgs { window: Some("2013-01-01/2013-02-01".to_owned()), last: None };
    assert_eq!(spec_file::load_to_apply(&path, &other).unwrap_err().exit(), Exit::Usage);
    let again = world.planned(&spec, &window).await;
    let digests =
        |planned: &Planned<'_>| planned.survey.sources.iter().map(|one| one.found.digest.clone()).collect::<Vec<_>>();
    assert_eq!(digests(&planned), digests(&again), "the same files are the same plan");
}
