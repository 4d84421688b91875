//! Progress while a backfill runs: a live display on a terminal, a line every few seconds anywhere else.
//!
//! It shows the successive states of one backfill and decides nothing. It writes to stderr only, and something
//! stands there before anything is waited for.

use std::time::Duration;

use futures::{Stream, StreamExt as _};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tidegate_common::clock::{self, Monotonic};
use tidegate_proto::v1;

use crate::figures::{count, micros, plural, rate, second, span};
use crate::ledger;
use crate::output;
use crate::report::{joined, paint_state, short_id, wall_micros};
use crate::style::{Paint, plain};

/// How often a line is written at most, where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// How often the display is drawn again where nothing else changes.
const REFRESH: Duration = Duration::from_secs(1);
/// Over how long rates are smoothed.
const SMOOTH: Duration = Duration::from_secs(5);
/// No forecast is made from less than this.
const FORECAST_AFTER: Duration = Duration::from_secs(2);

/// Shows how a backfill goes on.
pub(crate) struct Progress {
    show: Show,
    pace: Pace,
}

enum Show {
    Nothing,
    Terminal(ProgressBar, Paint),
    Lines { last: Option<Monotonic>, state: String },
}

impl Progress {
    /// Begins, with `text` as what is done first: a live display when stderr is a terminal, lines when it is not,
    /// nothing when `quiet`.
    pub(crate) fn begin(text: &str, quiet: bool, terminal: bool, paint: Paint) -> Self {
        let show = match (quiet, terminal) {
            (true, _) => Show::Nothing,
            (false, true) => {
                let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(10));
                if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                    bar.set_style(style);
                }
                bar.set_message(text.to_owned());
                bar.enable_steady_tick(Duration::from_millis(100));
                Show::Terminal(bar, paint)
            }
            (false, false) => {
                output::say(text);
                Show::Lines { last: None, state: String::new() }
            }
        };
        Self { show, pace: Pace::default() }
    }

    /// Shows `backfill` as it is now.
    pub(crate) fn update(&mut self, backfill: &v1::Backfill) {
        let now = clock::monotonic();
        let wall = clock::processing_time_micros();
        self.pace.note(now, backfill);
        match &mut self.show {
            Show::Nothing => {}
            Show::Terminal(bar, paint) => bar.set_message(frame(backfill, &self.pace, wall, *paint)),
            Show::Lines { last, state } => {
                let due = last.is_none_or(|last| now.since(last) >= LINE_EVERY) || *state != backfill.state;
                if due {
                    output::say(&line(backfill, &self.pace, wall));
                    *last = Some(now);
                    state.clone_from(&backfill.state);
                }
            }
        }
    }

    /// Takes the live display away, so that what follows stands alone.
    pub(crate) fn end(&mut self) {
        if let Show::Terminal(bar, _) = &self.show {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

/// Shows every state of `updates` and gives back the last; `None` where there was none.
///
/// # Errors
/// What the stream says.
pub(crate) async fn follow<E>(
    updates: impl Stream<Item = Result<v1::Backfill, E>>,
    progress: &mut Progress,
) -> Result<Option<v1::Backfill>, E> {
    let mut updates = std::pin::pin!(updates);
    let mut last = None;
    loop {
        match tokio::time::timeout(REFRESH, updates.next()).await {
            Ok(Some(update)) => last = Some(update?),
            Ok(None) => break,
            // nothing has changed but the time
            Err(_) => {}
        }
        if let Some(state) = &last {
            progress.update(state);
        }
    }
    progress.end();
    Ok(last)
}

/// How fast things go, learned from one state to the next.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    first: Option<Seen>,
    last: Option<Seen>,
    /// Records a second of each source, smoothed.
    rates: Vec<f64>,
}

#[derive(Clone, Debug)]
struct Seen {
    at: Monotonic,
    done: u64,
    watermark: Option<i64>,
    read: Vec<u64>,
}

impl Pace {
    /// Learns from `backfill` as it is at `now`.
    pub(crate) fn note(&mut self, now: Monotonic, backfill: &v1::Backfill) {
        let seen = Seen {
            at: now,
            done: records(backfill).0,
            watermark: backfill.read_watermark,
            read: backfill.sources.iter().map(|source| source.rows_read).collect(),
        };
        self.rates.resize(seen.read.len(), 0.0);
        if let Some(last) = &self.last {
            let passed = now.since(last.at).as_secs_f64();
            if passed <= 0.0 {
                return;
            }
            let weight = 1.0 - (-passed / SMOOTH.as_secs_f64()).exp();
            let known = self.first.as_ref().is_some_and(|first| last.at.since(first.at) > Duration::ZERO);
            for ((rate, new), old) in self.rates.iter_mut().zip(&seen.read).zip(&last.read) {
                let current = new.saturating_sub(*old) as f64 / passed;
                *rate = if known { *rate + weight * (current - *rate) } else { current };
            }
        }
        let begun = backfill.phase() == v1::Phase::Running;
        if self.first.as_ref().is_none_or(|first| begun && first.done == 0 && seen.done == 0) {
            self.first = Some(seen.clone());
        }
        self.last = Some(seen);
    }

    fn rate(&self, source: usize) -> f64 {
        self.rates.get(source).copied().unwrap_or_default()
    }

    fn over_all(&self) -> Option<(f64, &Seen, &Seen)> {
        let (first, last) = (self.first.as_ref()?, self.last.as_ref()?);
        let passed = last.at.since(first.at);
        (passed >= FORECAST_AFTER).then_some((passed.as_secs_f64(), first, last))
    }

    /// How much longer it takes at the pace since the first state, in microseconds.
    fn eta(&self, total: u64) -> Option<i64> {
        let (passed, first, last) = self.over_all()?;
        let done = last.done.saturating_sub(first.done);
        let rest = total.saturating_sub(last.done);
        (done > 0 && rest > 0).then(|| (rest as f64 / (done as f64 / passed)).ceil() as i64 * 1_000_000)
    }

    /// How many seconds of event time go by in a second.
    fn speed(&self) -> Option<f64> {
        let (passed, first, last) = self.over_all()?;
        let moved = last.watermark?.checked_sub(first.watermark?)?;
        (moved > 0).then(|| moved as f64 / 1e6 / passed)
    }
}

/// Records done and records to be read or proven not to be; the latter is 0 until all sources are enumerated.
fn records(backfill: &v1::Backfill) -> (u64, u64) {
    let found = |source: &v1::SourceState| source.found.clone().unwrap_or_default();
    let done = backfill.sources.iter().map(|source| source.rows_read + found(source).rows_pruned).sum();
    let known = backfill.sources.iter().all(|source| source.found.is_some());
    let total = backfill.sources.iter().map(ledger::in_range).sum();
    (done, if known { total } else { 0 })
}

fn head(backfill: &v1::Backfill, pace: &Pace, now: i64, paint: Paint) -> String {
    let (done, total) = records(backfill);
    let ran = micros(wall_micros(backfill, now) / 1_000_000 * 1_000_000);
    let id = short_id(&backfill.id);
    let mut text = format!("{id} {}  {}  {ran}", plain(&backfill.name), paint_state(backfill, paint));
    if let Some(part) = ledger::done_percent(backfill) {
        // where only reading tells how many there are, there is no whole to speak of
        let of = if total > done || part >= 100.0 { format!(" / {}", count(total)) } else { String::new() };
        text.push_str(&format!("  {part:.1}%  {}{of} records", count(done)));
        if let Some(eta) = pace.eta(total) {
            text.push_str(&format!("  ETA {}", span(eta)));
        }
    }
    if !backfill.parked.is_empty() {
        let parked = format!("{} parked", plural(backfill.parked.len() as u64, "task"));
        text.push_str(&format!("  {}", paint.warn(&parked)));
    }
    text
}

/// One line for a log, at processing time `now` (microseconds).
fn line(backfill: &v1::Backfill, pace: &Pace, now: i64) -> String {
    let mut text = head(backfill, pace, now, Paint::plain());
    if let Some(watermark) = backfill.read_watermark {
        text.push_str(&format!("  watermark {}", second(watermark)));
    }
    let joins = || backfill.outputs.iter().filter_map(|output| output.join.as_ref());
    let slices = |of: fn(&v1::JoinState) -> u32| joins().map(|join| u64::from(of(join))).sum::<u64>();
    let all = slices(|join| join.slices);
    if all > 0 {
        let done = count(slices(|join| join.slices_done));
        text.push_str(&format!("  joined {done} of {}", plural(all, "slice")));
    }
    text
}

/// The whole picture for a terminal at processing time `now` (microseconds), without a line feed at its end.
fn frame(backfill: &v1::Backfill, pace: &Pace, now: i64, paint: Paint) -> String {
    let mut text = head(backfill, pace, now, paint);
    if let Some(part) = ledger::done_percent(backfill) {
        text.push_str(&format!("\n{}", bar(part)));
    }
    if let Some(watermark) = backfill.read_watermark {
        text.push_str(&format!("\nread watermark {}", second(watermark)));
        if let (Some(gate), Some(drift)) = (backfill.gate, backfill.max_drift) {
            text.push_str(&format!("   gate {} (drift {})", second(gate), span(drift)));
        }
        if let Some(speed) = pace.speed() {
            text.push_str(&format!("   speed {}x event time", count(speed as u64)));
        }
    }
    let rows: Vec<Vec<String>> =
        backfill.sources.iter().enumerate().map(|(at, source)| source_row(backfill, source, pace.rate(at))).collect();
    text.push('\n');
    text.push_str(output::columns(&["SOURCE", "WATERMARK", "AHEAD", "UNITS", "RATE", "STATE"], &rows).trim_end());
    for output in &backfill.outputs {
        let through =
            output.committed_through.map(|at| format!(", complete through {}", second(at))).unwrap_or_default();
        let committed =
            format!("{} rows committed in {}", count(output.rows_committed), plural(output.commits, "snapshot"));
        let staged = match output.branch.is_empty() {
            true => String::new(),
            false => format!(", {} rows staged on {}", count(output.rows_staged), plain(&output.branch)),
        };
        text.push_str(&format!("\nOUTPUT {}  {committed}{through}{staged}", plain(&output.name)));
        if let Some(join) = &output.join {
            text.push_str(&format!("\n  joined {}", joined(join)));
        }
    }
    text.push('\n');
    text.push_str(&workers(backfill));
    text
}

fn bar(part: f64) -> String {
    const WIDTH: usize = 40;
    let full = (part / 100.0 * WIDTH as f64) as usize;
    format!("[{}{}]", "#".repeat(full.min(WIDTH)), "-".repeat(WIDTH.saturating_sub(full)))
}

fn source_row(backfill: &v1::Backfill, source: &v1::SourceState, records_a_second: f64) -> Vec<String> {
    let found = source.found.clone().unwrap_or_default();
    let ahead = source.watermark.zip(backfill.read_watermark).map(|(own, all)| own.saturating_sub(all).max(0));
    let state = match (source.found.is_some(), source.running, source.paused) {
        (false, ..) => "enumerating".to_owned(),
        (true, 0, _) if source.units_done == found.units => "finished".to_owned(),
        (true, 0, _) => "waiting".to_owned(),
        (true, running, 0) => plural(running.into(), "reader"),
        (true, running, held) => format!("{}, {held} held at the gate", plural(running.into(), "reader")),
    };
    vec![
        source.name.clone(),
        source.watermark.map_or_else(|| "-".to_owned(), second),
        ahead.map_or_else(|| "-".to_owned(), |ahead| format!("+{}", span(ahead / 1_000_000 * 1_000_000))),
        format!("{}/{}", count(source.units_done), count(found.units)),
        rate(records_a_second),
        state,
    ]
}

fn workers(backfill: &v1::Backfill) -> String {
    let sum =
        |get: fn(&v1::WorkerState) -> u32| backfill.workers.iter().map(|worker| u64::from(get(worker))).sum::<u64>();
    let (slots, busy, held) = (sum(|worker| worker.slots), sum(|worker| worker.busy), sum(|worker| worker.paused));
    if backfill.workers.is_empty() {
        return "WORKERS none: start one with `tidegate worker`".to_owned();
    }
    let working = busy.saturating_sub(held);
    let idle = slots.saturating_sub(busy);
    let up = backfill.workers.len();
    format!("WORKERS {up} up   of {}: {working} busy, {held} held at the gate, {idle} idle", plural(slots, "slot"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{self, NOW};

    fn seconds(seconds: u64) -> Monotonic {
        Monotonic::from_micros(seconds * 1_000_000)
    }

    fn paced() -> (v1::Backfill, Pace) {
        paced_of(sample::running())
    }

    fn paced_of(now: v1::Backfill) -> (v1::Backfill, Pace) {
        let mut before = now.clone();
        before.sources[0].rows_read -= 60_000;
        before.sources[1].rows_read -= 4_000;
        before.read_watermark = before.read_watermark.map(|at| at - 86_400_000_000);
        let mut pace = Pace::default();
        pace.note(seconds(100), &before);
        pace.note(seconds(110), &now);
        (now, pace)
    }

    #[test]
    fn the_picture_of_a_run() {
        let (now, pace) = paced();
        insta::assert_snapshot!(frame(&now, &pace, NOW, Paint::plain()));
    }

    #[test]
    fn the_picture_of_a_run_that_has_nobody_to_do_it() {
        let mut now = sample::failed();
        now.phase = v1::Phase::Preparing.into();
        now.state = "preparing".to_owned();
        insta::assert_snapshot!(frame(&now, &Pace::default(), NOW, Paint::plain()));
    }

    #[test]
    fn the_line_of_a_run() {
        let (now, pace) = paced();
        insta::assert_snapshot!(line(&now, &pace, NOW));
    }

    #[test]
    fn the_picture_and_the_line_of_a_run_that_joins() {
        let (now, pace) = paced_of(sample::joining());
        let (frame, line) = (frame(&now, &pace, NOW, Paint::plain()), line(&now, &pace, NOW));
        insta::assert_snapshot!(format!("{frame}\n\n{line}"));
    }

    #[test]
    fn no_forecast_is_made_from_nothing() {
        let now = sample::running();
        let mut pace = Pace::default();
        pace.note(seconds(1), &now);
        pace.note(seconds(1), &now);
        assert_eq!(pace.eta(1_000_000), None);
        pace.note(seconds(60), &now);
        assert_eq!(pace.eta(1_000_000), None, "nothing was read: there is no pace");
    }

    #[tokio::test]
    async fn following_gives_back_the_last_state() {
        let states = [sample::running(), sample::succeeded()].map(Ok::<_, std::convert::Infallible>);
        let mut progress = Progress::begin("", true, false, Paint::plain());
        let last = follow(futures::stream::iter(states), &mut progress).await.unwrap().unwrap();
        assert_eq!(last, sample::succeeded());
    }
}
