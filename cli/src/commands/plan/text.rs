//! A plan for people.

use std::fmt::Write as _;

use tidegate_common::clock;
use tidegate_common::slices::Reach;
use tidegate_common::spec::{Resolved, ScanOffset};
use tidegate_common::time::{EventTime, Span, Window};
use tidegate_worker::survey::{DriftSurvey, JoinInputPlan, JoinPlan, OutputSurvey, SourceSurvey};

use super::Planned;
use super::document::effort;
use crate::archive;
use crate::args::WindowArgs;
use crate::figures::{bytes, count, micros, plural, reach, short};
use crate::output;
use crate::report::short_id;
use crate::style::plain;
use crate::topic;

/// The whole plan; `wide` shows the columns of the tables too.
pub(super) fn text(planned: &Planned<'_>, wide: bool) -> String {
    let mut text = head(planned);
    text.push_str("Inputs pinned (nothing after this point is read)\n");
    text.push_str(&indented(&inputs(&planned.survey.sources)));
    text.push_str(&topics(planned));
    let _ = writeln!(text, "Work        {}", work(planned));
    if has_work(planned) {
        text.push_str(&event_time(planned));
    }
    for output in &planned.survey.outputs {
        text.push_str(&table(output, wide));
        if let Some(join) = &output.join {
            text.push_str(&joins(join, planned.spec.resolved.max_drift.is_some()));
        }
    }
    let _ = writeln!(text, "Estimate    {}", estimate(planned));
    let _ = writeln!(text, "Next: {}", next(planned));
    text
}

fn head(planned: &Planned<'_>) -> String {
    let resolved = &planned.spec.resolved;
    let window = match resolved.window {
        Window::ALL => "all of event time".to_owned(),
        window => format!("{window}  {}, event time, UTC", window.to().since(window.from())),
    };
    let id = planned.spec.id.to_string();
    format!("Backfill {} ({})   window {window}\n", resolved.spec.name, short_id(&id))
}

fn inputs(sources: &[SourceSurvey]) -> String {
    let row = |source: &SourceSurvey| {
        let found = &source.found;
        let pruned = if found.rows_pruned > 0 {
            format!("{} of them outside the window, pruned", count(found.rows_pruned))
        } else {
            String::new()
        };
        let times = topic::times(source).unwrap_or_else(|| "nothing in the window".to_owned());
        let (parts, rows) = topic::counted(source);
        vec![source.name.clone(), found.pinned.clone(), parts, bytes(found.bytes_in_range), rows, times, pruned]
    };
    let rows: Vec<Vec<String>> = sources.iter().map(row).collect();
    without_header(&output::columns(&[""; 7], &rows))
}

/// What of each topic is read for the window, and how near retention is.
fn topics(planned: &Planned<'_>) -> String {
    let sources = &planned.survey.sources;
    let now = clock::processing_time_micros();
    let mut text = String::new();
    for (source, range) in sources.iter().filter_map(|source| Some((source, source.topic.as_ref()?))) {
        let (name, headroom) = (plain(&source.name), topic::headroom(range, now));
        for said in source.archive.iter().flat_map(archive::said) {
            let _ = writeln!(text, "    {name}: {}", plain(&said));
        }
        if let Some(reading) = topic::reading(range, &topic::of_topic(source)) {
            let _ = writeln!(text, "    {name} reads {reading}");
        }
        let _ = writeln!(text, "    {name}: {headroom}");
        let from = asked_from(&planned.spec.resolved, &source.name).filter(|_| source.archive.is_none());
        if let Some(short) = from.and_then(|from| topic::short(range, from)) {
            let _ = writeln!(text, "    {name}: {short}");
        }
    }
    text
}

/// From when on, in microseconds, records of a topic are asked for: by its scan, else by the window.
fn asked_from(resolved: &Resolved, source: &str) -> Option<i64> {
    let kafka = resolved.sources.iter().find(|one| one.name == source)?.kafka()?;
    match (&kafka.start, resolved.window) {
        (ScanOffset::Timestamp(at), _) => Some(at.as_micros()),
        (ScanOffset::Earliest, window) if window.from() != EventTime::MIN => Some(window.from().as_micros()),
        _ => None,
    }
}

/// Aligned rows without their (empty) header.
fn without_header(table: &str) -> String {
    table.split_once('\n').map(|(_, rows)| rows.to_owned()).unwrap_or_default()
}

fn indented(lines: &str) -> String {
    lines.lines().map(|line| format!("  {line}\n")).collect()
}

/// Whether there is anything to read.
pub(super) fn has_work(planned: &Planned<'_>) -> bool {
    planned.survey.sources.iter().any(|source| source.found.units > 0)
}

fn work(planned: &Planned<'_>) -> String {
    let sum = |of: fn(&SourceSurvey) -> u64| planned.survey.sources.iter().map(of).sum::<u64>();
    format!(
        "{}, {}, {}   {}",
        plural(sum(|source| source.found.splits), "split"),
        plural(sum(|source| source.found.tasks), "task"),
        plural(sum(|source| source.found.units), "unit"),
        plural(u64::from(planned.slots), "slot")
    )
}

fn event_time(planned: &Planned<'_>) -> String {
    let survey = &planned.survey;
    let widest = survey.sources.iter().max_by_key(|source| source.found.widest_unit);
    // A file's name says enough, a partition's number does not.
    let place = |source: &&SourceSurvey| match &source.topic {
        Some(_) => source.widest_in.clone(),
        None => source.widest_in.rsplit('/').next().unwrap_or_default().to_owned(),
    };
    let place = widest.as_ref().map(place).unwrap_or_default();
    let place = if place.is_empty() { String::new() } else { format!(" (in {})", plain(&place)) };
    let tightest = survey.tightest_drift;
    let mut text = format!(
        "Event time  overlap {}   widest unit {tightest}{place}   tightest drift these {} allow {}\n",
        survey.overlap_depth,
        if survey.sources.iter().any(|source| source.topic.is_some()) { "units" } else { "files" },
        tightest.to_be_written()
    );
    let resolved = &planned.spec.resolved;
    if let Some(drift) = resolved.max_drift.filter(|drift| tightest > *drift) {
        let _ = writeln!(text, "            allow_wide: one source is up to {tightest} ahead of another, not {drift}");
    }
    let slots = format!("KEEPS BUSY OF {}", count(u64::from(planned.slots)));
    let rows: Vec<Vec<String>> = survey.drifts.iter().map(|one| drift(one, tightest)).collect();
    let table = output::columns(&["MAX DRIFT", &slots, "HAS WORK FOR", "AT MOST"], &rows);
    text.push_str(&indented(&table));
    text
}

fn drift(one: &DriftSurvey, tightest: Span) -> Vec<String> {
    let drift = one.drift.map_or_else(|| "no alignment".to_owned(), |drift| drift.to_be_written().to_string());
    let note = match (one.of_spec, one.drift == Some(tightest)) {
        (true, true) => " (the spec's, tightest)",
        (true, false) => " (the spec's)",
        (false, true) => " (tightest)",
        (false, false) => "",
    };
    vec![
        format!("{drift}{note}"),
        format!("{:.1}", one.with_slots.average),
        format!("{:.1}", one.free.average),
        plural(one.free.most as u64, "slot"),
    ]
}

fn table(output: &OutputSurvey, wide: bool) -> String {
    let sign = if output.table.created { "+" } else { "~" };
    let mut parts = Vec::new();
    parts.extend(output.keeps_dead_letters.then(|| format!("the dead letters of {}", output.source)));
    parts.extend(output.keeps_late_of.as_ref().map(|of| format!("the late rows of {of}")));
    parts.extend(output.rows.map(|rows| format!("~{} rows", short(rows as f64))));
    let anchors = output.join.as_ref().and_then(|join| join.anchors);
    parts.extend(anchors.map(|rows| format!("~{} rows of the anchor", short(rows as f64))));
    parts.extend(output.bytes.map(|size| format!("~{}", bytes(size))));
    parts.extend(output.partitions.map(|many| plural(many, "partition")));
    if !output.partition_by.is_empty() {
        parts.push(format!("by {}", output.partition_by.join(", ")));
    }
    let mut text = format!("Output      {sign} {}   {}\n", output.table.table, parts.join(", "));
    let there = &output.table;
    if there.created {
        let _ = writeln!(text, "              to be created with {}", plural(there.columns.len() as u64, "column"));
    } else if !there.marker.is_empty() {
        let last = there.marker.split(':').next().unwrap_or_default();
        let _ = writeln!(
            text,
            "              this backfill has committed to it before, #{last}: it goes on from there, or has ended"
        );
    } else if there.rows_before > 0 && (output.keeps_dead_letters || output.keeps_late_of.is_some()) {
        let _ =
            writeln!(text, "              it holds {} of other runs, and they stay", plural(there.rows_before, "row"));
    } else if there.rows_before > 0 && output.replaces.is_none() {
        let rows = count(there.rows_before);
        let _ = writeln!(
            text,
            "              it holds {rows} rows already: applying is refused unless --allow-existing is given"
        );
    }
    if let Some((files, rows)) = output.replaces {
        let (files, rows) = (plural(files, "file"), count(rows));
        let _ = writeln!(text, "              {files} with {rows} rows are removed from the window when these come");
    }
    if let Some(branch) = &output.branch {
        let _ = writeln!(text, "              staged on branch {branch} until it is published");
    }
    if wide {
        there.columns.iter().for_each(|column| text.push_str(&format!("                {}\n", plain(column))));
    }
    text
}

/// Which sources an output joins, how far around the window each is read, how it is cut, and what waits.
fn joins(join: &JoinPlan, aligned: bool) -> String {
    let anchor = if join.inputs.iter().filter(|input| input.is_anchor).count() > 1 { "an" } else { "the" };
    let input = |(at, input): (usize, &JoinInputPlan)| {
        let met = reach(input.reach.low.as_micros(), input.reach.high.as_micros());
        let word = if at == 0 { "joins" } else { "with" };
        let met = match input.is_anchor {
            true if input.reach == Reach::NONE => format!("{anchor} anchor"),
            true => format!("{anchor} anchor, and {met}"),
            false => met,
        };
        let key = if input.keyed { "by key" } else { "by no key" };
        let warmed = join.warm_up > Span::ZERO && (at > 0 || input.reach != Reach::NONE);
        let warm_up = if warmed { format!(", with a warm_up of {}", join.warm_up) } else { String::new() };
        let read = format!("read over [{}, {}){warm_up}", input.from, input.to);
        vec![word.to_owned(), format!("{}, {met}", input.source), key.to_owned(), read]
    };
    let rows: Vec<Vec<String>> = join.inputs.iter().enumerate().map(input).collect();
    let (slices, buckets) = (plural(join.slices.into(), "slice"), plural(join.buckets.into(), "bucket"));
    let mut lines = without_header(&output::columns(&[""; 4], &rows));
    let _ = writeln!(lines, "in {slices} of {}, {buckets} each", join.slice);
    let why =
        if aligned { "were the bytes of the files spread evenly" } else { "which is all, for nothing is aligned" };
    let of = join.budget.map(|budget| format!(" of the {} that may", bytes(budget))).unwrap_or_default();
    let _ = writeln!(lines, "estimated to wait in the shuffle store: at most ~{}{of}, {why}", bytes(join.state_bytes));
    lines.lines().map(|line| format!("              {line}\n")).collect()
}

fn estimate(planned: &Planned<'_>) -> String {
    let Some(estimate) = planned.survey.estimate else {
        return if has_work(planned) { "none: nothing could be sampled" } else { "nothing to read" }.to_owned();
    };
    let (workers, hours, cost) = effort(planned, estimate.likely);
    let cost = cost.map_or_else(String::new, |cost| format!(", cost {cost:.2}"));
    let units: u64 = planned.survey.sources.iter().map(|source| source.sampled.units).sum();
    let spent: u64 = planned.survey.sources.iter().map(|source| source.sampled.micros).sum();
    let joins = planned.survey.outputs.iter().any(|output| output.join.is_some());
    let joining = if joins { "joining, " } else { "" };
    format!(
        "{} ({} to {})   {hours:.2} worker-hours on {}{cost}\n            from {} read in {} here: reading, SQL and \
         encoding; {joining}commits and slow storage come on top",
        micros(estimate.likely),
        micros(estimate.from),
        micros(estimate.to),
        plural(u64::from(workers), "worker"),
        plural(units, "unit"),
        micros(spent)
    )
}

fn next(planned: &Planned<'_>) -> String {
    if !has_work(planned) {
        return "choose a window that the sources have rows in; `tidegate source describe` says which they have"
            .to_owned();
    }
    if let Some(saved) = planned.out {
        return format!("tidegate apply {} --reason \"…\"", saved.display());
    }
    let file = planned.file.display();
    let window = match (planned.window, planned.spec.resolved.window) {
        (WindowArgs { window: None, last: None }, _) => String::new(),
        (_, window) => format!(" --window {}/{}", window.from(), window.to()),
    };
    format!("tidegate apply {file}{window} --reason \"…\"")
}
