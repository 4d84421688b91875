//! What is said of a join: how it is cut, how much earlier its sources are read, and how much of it may wait.

use super::*;

fn with_join(join: &str) -> String {
    with("    publish: direct\n", &format!("    publish: direct\n    join: {join}\n"))
}

#[test]
fn how_a_join_is_cut_warmed_up_and_bounded_is_written_in_one_way() {
    let resolved = check(&with_join("{slice: 90m, buckets: 7, warm_up: PT24H, budget: 4096MiB}")).unwrap();
    let output = &resolved.outputs[0];
    let day = Span::from_micros(86_400_000_000);
    assert_eq!((output.warm_up, output.budget, output.buckets), (day, Some(4 << 30), Some(7)));
    let join = resolved.spec.outputs["flights_weather"].join.clone().unwrap();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        join,
        JoinSpec { slice: text("1h30m"), buckets: Some(7), warm_up: text("1d"), budget: text("4GiB") },
        "another way to write it is the same backfill"
    );
    assert_eq!((resolved.outputs[1].warm_up, resolved.outputs[1].budget), (Span::ZERO, None));
    let none = check(&with_join("{warm_up: 0s}")).unwrap();
    assert_eq!(none.spec, check(GOOD).unwrap().spec, "nothing earlier is what is done anyway");
    assert_eq!(
        check(&with_join("{warm_up: 366d}")).unwrap().outputs[0].warm_up,
        Span::from_micros(366 * day.as_micros())
    );
}

#[test]
fn what_no_warm_up_and_no_budget_can_be_is_refused_with_the_place() {
    insta::assert_snapshot!(errors(&with_join("{warm_up: 367d}")), @"spec.yaml:22:21: outputs.flights_weather.join.warm_up: sources are read at most 366d earlier than they are met");
    insta::assert_snapshot!(errors(&with_join("{warm_up: -1d}")), @"spec.yaml:22:21: outputs.flights_weather.join.warm_up: `-1d` is not a duration: it is negative; write `90s`, `2h30m`, `10d`, `500ms`, or ISO 8601 such as `PT1H`");
    insta::assert_snapshot!(errors(&with_join("{budget: 0B}")), @"spec.yaml:22:20: outputs.flights_weather.join.budget: it must be more than nothing");
    insta::assert_snapshot!(errors(&with_join("{budget: much, warm_up: soon, buckets: 0}")), @r"
    spec.yaml:22:20: outputs.flights_weather.join.budget: `much` is not a size; write a whole number and a unit: `512MiB`, `4GiB`, `1GB`
    spec.yaml:22:35: outputs.flights_weather.join.warm_up: `soon` is not a duration; write `90s`, `2h30m`, `10d`, `500ms`, or ISO 8601 such as `PT1H`
    spec.yaml:22:50: outputs.flights_weather.join.buckets: rows are distributed into 1 to 1024 buckets
    ");
}
