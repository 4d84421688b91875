//! Given random SQL with several anchors, FULL joins and UNION ALL, or with windows that overlap, when it is answered slice
//! by slice, then all together are the answer of one plain query, of whose rows those count that are of the window.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::SOURCES;
use super::grouped::computed;
use super::oracle::{Case, bound, held_against_one_query, key, kind, pick};

/// That the time `of` lies in the window.
fn within(of: &str) -> String {
    format!("({of} >= {{from}} AND {of} < {{to}})")
}

/// SQL, and the same with its window.
type Both = (String, String);

/// `SELECT … FROM …` with what is said of its rows, and with what its anchor's time is.
fn whole(select: &str, condition: &str, anchor: &str) -> Both {
    let plain = if condition.is_empty() { String::new() } else { format!(" WHERE ({condition})") };
    let word = if condition.is_empty() { " WHERE" } else { " AND" };
    (format!("{select}{plain}"), format!("{select}{plain}{word} {}", within(anchor)))
}

fn filter() -> BoxedStrategy<&'static str> {
    pick(&[
        "",
        "",
        "",
        "x.v > 0",
        "y.v IS NULL",
        "x.ts IS NULL",
        "coalesce(x.v, y.v) <> 1",
        "x.s <> y.s",
        "x.k = 1 OR y.k = 2",
    ])
}

fn full() -> BoxedStrategy<Both> {
    let more = pick(&["", "", " AND x.v < 3", " AND y.v > 0", " AND x.v <> y.v"]);
    let sql = (key(), bound("x", "y"), more, filter()).prop_map(|(key, bound, more, filter)| {
        let select = format!(
            "SELECT x.k, x.v + 1 AS v, x.ts, y.k AS yk, y.v AS yv, upper(y.s) AS ys, y.ts AS yts, coalesce(x.v, y.v) AS cv \
             FROM {{0}} x FULL JOIN {{1}} y ON x.{key} = y.{key} AND {bound}{more}"
        );
        whole(&select, filter, "coalesce(x.ts, y.ts)")
    });
    sql.boxed()
}

/// Groups of what a FULL join yields, by windows of whichever time there is.
fn grouped_full() -> BoxedStrategy<Both> {
    let by = pick(&["", ", coalesce(x.k, y.k)", ", x.s", ", coalesce(x.s, y.s)", ", y.v"]);
    let window = pick(&["date_bin(INTERVAL '7 seconds', {t})", "date_trunc('minute', {t})", "date_trunc('hour', {t})"]);
    let sql = (key(), bound("x", "y"), by, window, computed(), filter());
    let sql = sql.prop_map(|(key, bound, by, window, computed, filter)| {
        let computed = computed.replace("#v", "coalesce(x.v, y.v)").replace("#s", "y.s");
        let window = window.replace("{t}", "coalesce(x.ts, y.ts)");
        let named = if by.is_empty() { String::new() } else { format!("{by} AS g") };
        let select = format!(
            "SELECT {window} AS w{named}{computed} FROM {{0}} x FULL JOIN {{1}} y ON x.{key} = y.{key} AND {bound}"
        );
        let (plain, restricted) = whole(&select, filter, "coalesce(x.ts, y.ts)");
        let group = format!(" GROUP BY {window}{by}");
        (plain + &group, restricted + &group)
    });
    sql.boxed()
}

/// One part of a UNION ALL.
fn part(first: &'static str, second: &'static str) -> BoxedStrategy<Both> {
    let joined = (kind(), key(), bound("x", "y")).prop_map(move |(kind, key, bound)| {
        let select = format!(
            "SELECT x.k, x.v, coalesce(x.s, 'none') AS s, x.ts, y.v AS yv FROM {first} x {kind} {second} y \
             ON x.{key} = y.{key} AND {bound}"
        );
        whole(&select, "", if kind.starts_with("RIGHT") { "y.ts" } else { "x.ts" })
    });
    let one = pick(&["", "x.v > 1"]).prop_map(move |condition| {
        whole(&format!("SELECT x.k, x.v, x.s, x.ts, NULL AS yv FROM {first} x"), condition, "x.ts")
    });
    let exists = (key(), bound("x", "y"), any::<bool>()).prop_map(move |(key, bound, not)| {
        let not = if not { "NOT " } else { "" };
        let exists = format!("{not}EXISTS (SELECT 1 FROM {second} y WHERE x.{key} = y.{key} AND {bound})");
        whole(&format!("SELECT x.k, x.v, x.s, x.ts, 7 AS yv FROM {first} x"), &exists, "x.ts")
    });
    prop_oneof![2 => joined, 1 => one, 1 => exists].boxed()
}

fn union() -> BoxedStrategy<Both> {
    let parts = (part("{0}", "{1}"), part("{1}", "{2}"), any::<bool>(), part("{2}", "{0}"));
    let shape = pick(&[
        "{u}",
        "{u}",
        "SELECT v + 1 AS v, s, ts FROM ({u})",
        "SELECT date_bin(INTERVAL '13 seconds', ts) AS w, s, count(*) AS n, sum(v) AS v FROM ({u})",
        "SELECT date_trunc('minute', ts) AS w, count(DISTINCT k) AS n FROM ({u})",
    ]);
    let above = pick(&["", "v < 3", "yv IS NULL", "s <> 'x'"]);
    let sql = (parts, shape, above).prop_map(|((one, other, third, last), shape, above)| {
        let parts = if third { vec![one, other, last] } else { vec![one, other] };
        let all = |of: Vec<String>| shape.replace("{u}", &of.join(" UNION ALL "));
        let group = if shape.contains(" s, count") { " GROUP BY 1, s" } else { " GROUP BY 1" };
        let group = if shape.contains("AS w") { group } else { "" };
        // What DataFusion makes of a condition above a UNION ALL is not to be relied upon: there it is in each part.
        let each = |(_, part): &Both| match above {
            "" => part.clone(),
            condition => format!("SELECT * FROM ({part}) p WHERE {condition}"),
        };
        let plain = all(parts.iter().map(|(part, _)| part.clone()).collect());
        let condition = if above.is_empty() { String::new() } else { format!(" WHERE {above}") };
        let plain = if shape == "{u}" && !above.is_empty() { format!("SELECT * FROM ({plain})") } else { plain };
        (plain + &condition + group, all(parts.iter().map(each).collect()) + group)
    });
    sql.boxed()
}

/// A FULL join and a third source; and what is in neither of two.
fn chain() -> BoxedStrategy<Both> {
    let third = (kind(), key(), bound("x", "y"), bound("y", "z")).prop_map(|(kind, key, bound, by)| {
        let select = format!(
            "SELECT x.v, x.ts, y.v AS yv, y.ts AS yts, z.v AS zv, z.ts AS zts FROM {{0}} x FULL JOIN {{1}} y \
             ON x.{key} = y.{key} AND {bound} {kind} {{2}} z ON y.k = z.k AND {by}"
        );
        whole(&select, "", if kind.starts_with("RIGHT") { "z.ts" } else { "coalesce(x.ts, y.ts)" })
    });
    let full = (key(), bound("x", "y"), 0..20i64, 0..20i64).prop_map(|(key, bound, back, forward)| {
        let select = format!(
            "SELECT x.v, x.ts, y.v AS yv, y.ts AS yts, z.v AS zv, z.ts AS zts FROM {{0}} x FULL JOIN {{1}} y \
             ON x.{key} = y.{key} AND {bound} FULL JOIN {{2}} z ON coalesce(x.k, y.k) = z.k AND z.ts BETWEEN \
             coalesce(x.ts, y.ts) - INTERVAL '{back}' SECOND AND coalesce(x.ts, y.ts) + INTERVAL '{forward}' SECOND"
        );
        whole(&select, "", "coalesce(x.ts, y.ts, z.ts)")
    });
    prop_oneof![third, full].boxed()
}

/// Windows that overlap, over one source and over what it joins.
fn hopping() -> BoxedStrategy<Both> {
    let bin = pick(&[
        "date_bin(INTERVAL '7 seconds', {t})",
        "date_bin(INTERVAL '7 seconds', {t}, TIMESTAMP '2026-01-01 00:00:05')",
        "date_trunc('minute', {t})",
    ]);
    let from = prop_oneof![
        1 => Just((String::from("{0} x"), "x.ts")),
        2 => (kind(), key(), bound("x", "y")).prop_map(|(kind, key, bound)| {
            let anchor = if kind.starts_with("RIGHT") { "y.ts" } else { "x.ts" };
            (format!("{{0}} x {kind} {{1}} y ON x.{key} = y.{key} AND {bound}"), anchor)
        }),
    ];
    let by = pick(&["", ", k", ", s"]);
    let sql = (bin, from, -4..4i64, 0..4i64, by, computed(), 0..5);
    let sql = sql.prop_map(|(bin, (from, anchor), first, more, by, computed, shape)| {
        let step = if bin.contains("minute") { 60 } else { 7 };
        let origin = if bin.contains("2026") { ", TIMESTAMP '2026-01-01 00:00:05'" } else { "" };
        let wider = format!("date_bin(INTERVAL '{} seconds', w{origin})", 3 * step);
        let bin = bin.replace("{t}", anchor);
        // From the first to the last beginning, which need not have the row's own between them.
        let (back, on) = (-first * step, (first + more) * step);
        let of = anchor.trim_end_matches(".ts");
        let rows = format!(
            "SELECT unnest(generate_series({bin} - INTERVAL '{back}' SECOND, {bin} + INTERVAL '{on}' SECOND, \
             INTERVAL '{step} seconds')) AS w, {of}.k, {of}.v, {of}.s, {of}.ts FROM {from}"
        );
        let computed = computed.replace("#v", "v").replace("#s", "s");
        let group = format!(" GROUP BY w{by}");
        let grouped = format!("SELECT w{by}{computed} FROM ({rows})");
        let (plain, restricted) = match shape {
            0 => whole(&format!("SELECT w, k, v, ts FROM ({rows})"), "v > 0", "w"),
            1 => whole(&grouped, "v > 1", "w"),
            _ => whole(&grouped, "", "w"),
        };
        match shape {
            0 => (plain, restricted),
            2 => {
                let again = |sql: String| format!("SELECT {wider} AS m, count(*) AS n FROM ({sql}) GROUP BY 1");
                (again(plain + &group), again(restricted + &group))
            }
            _ => (plain + &group, restricted + &group),
        }
    });
    sql.boxed()
}

fn case(sql: BoxedStrategy<Both>) -> impl Strategy<Value = Case> {
    let source = || prop::sample::select(&SOURCES[..]);
    (sql, [source(), source(), source()]).prop_map(|((sql, restricted), sources)| Case {
        sql,
        sources: sources.to_vec(),
        restricted: Some(restricted),
    })
}

fn of(count: &AtomicUsize) -> usize {
    count.load(Ordering::Relaxed)
}

#[test]
fn rows_of_several_anchors_add_up_to_the_answer_of_one_query() {
    let met = held_against_one_query(case(prop_oneof![2 => full(), 2 => union(), 1 => chain()].boxed()));
    assert!(of(&met.joined) > 4 * of(&met.refused), "{met:?}");
    assert!(of(&met.tight) > of(&met.too_tight) && 2 * of(&met.not_empty) > of(&met.joined), "{met:?}");
    assert!(4 * of(&met.keyed) > of(&met.joined), "{met:?}");
}

#[test]
fn groups_of_several_anchors_and_of_windows_that_overlap_add_up_to_the_answer_of_one_query() {
    let met = held_against_one_query(case(prop_oneof![1 => grouped_full(), 2 => hopping()].boxed()));
    assert!(of(&met.joined) > 4 * of(&met.refused), "{met:?}");
    assert!(of(&met.tight) > of(&met.too_tight) && 2 * of(&met.not_empty) > of(&met.joined), "{met:?}");
}
