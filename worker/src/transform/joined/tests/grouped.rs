//! Given random aggregates by windows of event time, over one source and over joins, when they are answered slice by slice
//! and bucket by bucket, then all together are the answer of one plain query.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::SOURCES;
use super::oracle::{Case, bound, held_against_one_query, key, kind, pick};

/// Windows of the event time of `at`.
fn windows(at: &'static str) -> BoxedStrategy<String> {
    let form = pick(&[
        "date_bin(INTERVAL '7 seconds', {t})",
        "date_bin(INTERVAL '13' SECOND, {t}, TIMESTAMP '2026-01-01 00:00:05')",
        "date_bin(INTERVAL '20 seconds', {t}, TIMESTAMP '1960-01-01 00:00:03.5')",
        "date_bin(INTERVAL '1' HOUR, {t})",
        "date_bin(INTERVAL '2500 milliseconds', {t})",
        "date_trunc('second', {t})",
        "date_trunc('minute', {t})",
        "date_trunc('MINUTE', CAST({t} AS TIMESTAMP(9)))",
        "date_trunc('hour', {t})",
        "date_trunc('day', {t})",
        "date_trunc('week', {t})",
    ]);
    form.prop_map(move |form| form.replace("{t}", &format!("{at}.ts"))).boxed()
}

/// What is computed of each group; `#v` is a column of numbers, `#s` one of texts. Nothing depends on the order of rows: sums
/// are of whole numbers, and what is computed with fractions is rounded, away from where rounding turns.
pub(super) fn computed() -> BoxedStrategy<String> {
    let one = pick(&[
        "count(*)",
        "count(#v)",
        "count(#s)",
        "count(DISTINCT #v)",
        "count(DISTINCT #s)",
        "sum(#v)",
        "sum(DISTINCT #v)",
        "sum(CAST(#v + 5 AS DECIMAL(10, 2)))",
        "avg(#v)",
        "min(#s)",
        "max(#v)",
        "min(#v + 1)",
        "bool_and(#v > 0)",
        "bool_or(#v > 2)",
        "bit_and(#v)",
        "bit_or(#v)",
        "bit_xor(#v)",
        "median(#v)",
        "round(stddev(#v) * 1000 + 0.123)",
        "round(stddev_pop(#v) * 1000 + 0.123)",
        "round(var(#v) * 1000 + 0.123)",
        "round(var_pop(#v) * 1000 + 0.123)",
        "round(covar_samp(#v, #v + 1) * 1000 + 0.123)",
        "round(covar_pop(#v, 2 * #v) * 1000 + 0.123)",
        "count(*) FILTER (WHERE coalesce(#v, 0) > 1)",
        "sum(#v) FILTER (WHERE #v > 1)",
        "sum(#v) + count(*)",
    ]);
    let all = prop::collection::vec(one, 1..4);
    all.prop_map(|all| all.iter().enumerate().map(|(at, one)| format!(", {one} AS c{at}")).collect()).boxed()
}

/// An aggregate over `from`: by `window`, and by these columns, which are of `from` too.
fn shaped(
    from: impl Strategy<Value = (String, String)> + 'static,
    columns: &'static [&'static str],
    numbers: &'static [&'static str],
) -> BoxedStrategy<String> {
    let by = prop::sample::subsequence(columns, 0..=columns.len().min(3));
    let shapes = (from, by, computed(), pick(numbers), 0..8, any::<bool>());
    let sql = shapes.prop_map(|((window, from), by, computed, number, shape, by_number)| {
        let computed = computed.replace("#v", number).replace("#s", &number.replace(".v", ".s"));
        let named: String = by.iter().enumerate().map(|(at, column)| format!(", {column} AS g{at}")).collect();
        let by: String = match by_number {
            true => (0..=by.len()).map(|at| (at + 1).to_string()).collect::<Vec<_>>().join(", "),
            false => std::iter::once(window.as_str()).chain(by.iter().copied()).collect::<Vec<_>>().join(", "),
        };
        let plain = format!("SELECT {window} AS w{named}{computed} FROM {from} GROUP BY {by}");
        match shape {
            0 => format!("{plain} HAVING count(*) > 1"),
            1 => format!("{plain} HAVING {window} > TIMESTAMP '1970-01-01 00:00:00'"),
            2 => format!("SELECT w, c0, n + 1 AS n FROM (SELECT *, 2 AS n FROM ({plain})) WHERE c0 IS NOT NULL"),
            3 => format!("SELECT w, count(*) AS n, max(c0) AS most FROM ({plain}) GROUP BY w"),
            4 => format!("WITH t AS ({plain}) SELECT date_trunc('day', w) AS day, t.* FROM t"),
            5 => format!(
                "SELECT w, count(*) AS n, sum(v) AS v FROM (SELECT {window} AS w, {number} AS v FROM {from}) GROUP BY w"
            ),
            _ => plain,
        }
    });
    sql.boxed()
}

fn filter() -> BoxedStrategy<&'static str> {
    pick(&["", "", " WHERE x.v > 0", " WHERE x.s IS NOT NULL", " WHERE x.k = 1 OR x.v = 2"])
}

fn one() -> BoxedStrategy<String> {
    let from = (windows("x"), filter()).prop_map(|(window, filter)| (window, format!("{{0}} x{filter}")));
    shaped(from, &["x.k", "x.s", "x.v"], &["x.v"])
}

fn two() -> BoxedStrategy<String> {
    let joined = (kind(), key(), bound("x", "y"), windows("x"), windows("y"), filter());
    let joined = joined.prop_map(|(kind, key, bound, by_x, by_y, filter)| {
        let window = if kind.starts_with("RIGHT") { by_y } else { by_x };
        (window, format!("{{0}} x {kind} {{1}} y ON x.{key} = y.{key} AND {bound}{filter}"))
    });
    let exists = (key(), bound("x", "y"), windows("x"), any::<bool>()).prop_map(|(key, bound, window, not)| {
        let not = if not { "NOT " } else { "" };
        let exists = format!("EXISTS (SELECT 1 FROM {{1}} y WHERE x.{key} = y.{key} AND {bound})");
        (window, format!("{{0}} x WHERE {not}{exists}"))
    });
    // Groups of what was met, or not: that which is null is of rows of every key.
    let outer = (bound("x", "y"), windows("x"), pick(&["", " AND y.v > 1"])).prop_map(|(bound, window, more)| {
        (window, format!("{{0}} x LEFT JOIN {{1}} y ON x.k = y.k AND {bound}{more}"))
    });
    prop_oneof![
        1 => shaped(outer, &["y.k"], &["x.v", "y.v"]),
        3 => shaped(joined, &["x.k", "y.k", "x.s", "y.s", "y.v"], &["x.v", "y.v"]),
        1 => shaped(exists, &["x.k", "x.s", "x.v"], &["x.v"]),
    ]
    .boxed()
}

fn three() -> BoxedStrategy<String> {
    let left = || pick(&["JOIN", "LEFT JOIN"]);
    let from = (left(), key(), bound("x", "y"), left(), key(), bound("x", "z"), windows("x"));
    let from = from.prop_map(|(first, key, bound, second, other, by, window)| {
        let joined = format!("{{0}} x {first} {{1}} y ON x.{key} = y.{key} AND {bound}");
        (window, format!("{joined} {second} {{2}} z ON x.{other} = z.{other} AND {by}"))
    });
    shaped(from, &["x.k", "y.k", "z.k", "x.s", "z.s"], &["x.v", "y.v", "z.v"])
}

fn case() -> impl Strategy<Value = Case> {
    let source = || prop::sample::select(&SOURCES[..]);
    prop_oneof![
        2 => (one(), [source()]).prop_map(|(sql, sources)| Case::new(sql, &sources)),
        2 => (two(), [source(), source()]).prop_map(|(sql, sources)| Case::new(sql, &sources)),
        1 => (three(), [source(), source(), source()]).prop_map(|(sql, sources)| Case::new(sql, &sources)),
    ]
}

#[test]
fn groups_of_slices_and_buckets_add_up_to_the_answer_of_one_query() {
    let met = held_against_one_query(case());
    let of = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    assert!(of(&met.tight) > of(&met.too_tight), "{met:?}");
    assert!(of(&met.joined) > 6 * of(&met.refused), "{met:?}");
    assert!(4 * of(&met.keyed) > of(&met.joined) && 2 * of(&met.not_empty) > of(&met.joined), "{met:?}");
}
