//! Where the records of a source go that cannot be used.

use super::*;

#[test]
fn dead_letters_go_to_a_table_of_their_own_behind_the_outputs() {
    let tables = |text: &str| -> Vec<String> {
        let resolved = check(text).unwrap();
        let kept = resolved.outputs.iter().filter_map(|output| Some((output, output.dead_letters?)));
        kept.map(|(o, kept)| format!("{} {} {} {:?}", o.name, o.table, kept.source, kept.limit)).collect()
    };
    assert_eq!(tables(GOOD), [""; 0]);
    let one = generated("").replace("generate: {rows: 10, rate: 2.5}", "files: {path: x}\n    event_time: {column: t}");
    let one = one.replace("event_time: {column: t}", "event_time: {column: t}\n    on_error: dead_letter");
    assert_eq!(tables(&one), ["g__dead_letter a.b__dead_letter s0 PartsPerMillion(10000)"]);
    let kept = "event_time: {column: time_hour}\n    on_error: dead_letter\n    ";
    let two = GOOD.replace("event_time: {column: time_hour}", kept);
    let two = two.replacen(kept, &format!("{kept}dead_letter: {{table: lake.bad.ones, limit: 20}}\n"), 1);
    assert_eq!(
        tables(&two),
        [
            "flights__dead_letter lake.bad.ones s0 Records(20)",
            "weather__dead_letter air.weather__dead_letter s1 PartsPerMillion(10000)"
        ]
    );
    assert_eq!(check(&two).unwrap().outputs.len(), 4);
    let id = |text: &str| backfill_id("here", &check(text).unwrap());
    assert_eq!(id(&GOOD.replace("event_time", "on_error: fail\n    event_time")), id(GOOD));
    assert_ne!(id(&two), id(GOOD));
}

#[test]
fn dead_letters_that_cannot_be_kept_are_refused() {
    let with =
        |more: &str| bad("event_time: {column: time_hour}", &format!("event_time: {{column: time_hour}}\n    {more}"));
    insta::assert_snapshot!(bad("{column: time_hour}", "{column: t, on_error: dead_letter}"), @"spec.yaml:9:29: sources.flights.event_time: unknown key `on_error`; expected one of column, unit, path, time_zone, bounds, out_of_orderness, on_disorder");
    insta::assert_snapshot!(with("dead_letter: {limit: 5}"), @"spec.yaml:10:5: sources.flights.dead_letter: there are no dead letters while a bad record fails the run; write `on_error: dead_letter` beside it, or take it away");
    insta::assert_snapshot!(with("on_error: dead_letter\n    dead_letter: {limit: some, table: x}"), @r"
    spec.yaml:11:26: sources.flights.dead_letter.limit: `some` is no limit; write a number of records, `1000`, or a part of those read, `0.1%`
    spec.yaml:11:39: sources.flights.dead_letter.table: `x` is not the name of a table: it has 1 parts; write `namespace.table` or `catalog.namespace.table`
    ");
    insta::assert_snapshot!(with("on_error: dead_letter\n    dead_letter: {table: air.flights_weather}"), @"spec.yaml:11:5: sources.flights.dead_letter: its dead letters would go to air.flights_weather, which `flights_weather` writes; name another `table`");
    insta::assert_snapshot!(with("on_error: deadletter"), @"spec.yaml:10:15: sources.flights.on_error: unknown value `deadletter`; did you mean `dead_letter`?");
    insta::assert_snapshot!(errors(&generated("").replace("outputs:", "    on_error: dead_letter\noutputs:")), @"spec.yaml:7:15: sources.g.on_error: generated rows are all sound; take it away");
}
