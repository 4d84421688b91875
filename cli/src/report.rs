//! The report of a run: what was read, what was written, how it adds up, how far apart the sources were, where the
//! time went, what was left out, and what to do next.

mod joins;

use tidegate_common::clock;
use tidegate_proto::v1;

use crate::exit::{Error, Exit};
use crate::figures::{bytes, count, micros, plural, rate, reach, span, time};
use crate::ledger::{self, Balance, Edge};
use crate::output;
use crate::style::{Paint, plain};
pub(crate) use joins::{joined, late_text};

/// Parked tasks that are shown; `-o json` has them all.
const PARKED_SHOWN: usize = 10;

/// How a process that waited for the end of `backfill` ends.
///
/// | the backfill | exit |
/// |---|---|
/// | succeeded, or is staged | 0 |
/// | succeeded or is staged, with more dead letters than expected | 6 |
/// | is partial | 6 |
/// | failed | what its evidence says, else 1 |
/// | was cancelled | 1 |
/// | goes on | 75 |
pub(crate) fn exit_code(backfill: &v1::Backfill) -> Exit {
    match backfill.phase() {
        v1::Phase::Succeeded | v1::Phase::Staged => {
            if backfill.outputs.iter().any(ledger::above_limit) {
                Exit::Partial
            } else {
                Exit::Done
            }
        }
        v1::Phase::Partial => Exit::Partial,
        v1::Phase::Failed => {
            let said = backfill.failure.as_ref().and_then(|failure| Exit::from_code(failure.exit_code));
            said.filter(|exit| *exit != Exit::Done).unwrap_or(Exit::Failed)
        }
        v1::Phase::Cancelled => Exit::Failed,
        v1::Phase::Preparing | v1::Phase::Enumerating | v1::Phase::Running => Exit::Temporary,
    }
}

/// Whether nothing more happens until somebody wants it: it has ended, or is staged.
pub(crate) fn is_at_rest(backfill: &v1::Backfill) -> bool {
    backfill.ended != 0 || backfill.phase() == v1::Phase::Staged
}

/// Prints the report of `backfill` to stdout.
///
/// # Errors
/// stdout that cannot be written.
pub(crate) fn print_report(backfill: &v1::Backfill, paint: Paint) -> Result<(), Error> {
    output::print(&render(backfill, clock::processing_time_micros(), paint))
}

/// The report of `backfill` at processing time `now` (microseconds); it is right for one that goes on, too.
pub(crate) fn render(backfill: &v1::Backfill, now: i64, paint: Paint) -> String {
    let mut lines = Lines { text: String::new(), wall: wall_micros(backfill, now), paint };
    lines.put(&headline(backfill, now, paint));
    for source in &backfill.sources {
        lines.put("");
        lines.source(backfill, source);
    }
    for output in &backfill.outputs {
        lines.put("");
        lines.output(backfill, output);
    }
    lines.troubles(backfill);
    lines.put("");
    lines.put(&format!("{} {}", paint.bold("Next:"), next(backfill)));
    lines.text
}

/// `bf-7k3m9q flights  SUCCEEDED  wall time 8m30s`.
fn headline(backfill: &v1::Backfill, now: i64, paint: Paint) -> String {
    let state = paint_state(backfill, paint);
    let wall = micros(wall_micros(backfill, now));
    format!("{} {}  {state}  wall time {wall}", short_id(&backfill.id), paint.bold(&backfill.name))
}

/// The state in capitals, coloured.
pub(crate) fn paint_state(backfill: &v1::Backfill, paint: Paint) -> String {
    let state = plain(&backfill.state).to_uppercase();
    match backfill.phase() {
        v1::Phase::Succeeded => paint.good(&state),
        v1::Phase::Partial | v1::Phase::Cancelled => paint.warn(&state),
        v1::Phase::Failed => paint.bad(&state),
        _ => paint.bold(&state),
    }
    .into_owned()
}

/// The form of an id that is shown to people, and accepted from them.
pub(crate) fn short_id(id: &str) -> &str {
    id.get(..9).unwrap_or(id)
}

/// How long `backfill` took, or has taken until `now`; in microseconds.
pub(crate) fn wall_micros(backfill: &v1::Backfill, now: i64) -> u64 {
    let until = if backfill.ended == 0 { now } else { backfill.ended };
    u64::try_from(until.saturating_sub(backfill.created)).unwrap_or_default()
}

/// What to do next.
pub(crate) fn next(backfill: &v1::Backfill) -> String {
    let id = short_id(&backfill.id);
    match backfill.phase() {
        v1::Phase::Succeeded => {
            let tables = |which: fn(&v1::OutputState) -> bool| -> Vec<&str> {
                let outputs = backfill.outputs.iter().filter(|output| which(output));
                outputs.filter_map(|output| output.table.as_ref()).map(|table| table.table.as_str()).collect()
            };
            let above = tables(ledger::above_limit);
            if !above.is_empty() {
                let above = plain(&above.join(", ")).into_owned();
                return format!("see what {above} says: it holds more dead letters than `dead_letter.limit`");
            }
            let tables = tables(|output| {
                let keeps = output.dead_letters_expected.is_some() || !output.late_of.is_empty();
                !keeps || output.rows_passed > 0
            });
            let late = match ledger::late(backfill) {
                0 => String::new(),
                _ => format!("; tidegate late list {id} says which rows came late"),
            };
            match tables.is_empty() {
                true => "nothing to do".to_owned(),
                false => format!("query {}{late}", plain(&tables.join(", "))),
            }
        }
        v1::Phase::Partial => {
            format!("mend what is parked, then tidegate retry {id}; tidegate events {id} says what happened")
        }
        v1::Phase::Failed => {
            let way = match backfill.failure.as_ref().map_or(0, |failure| failure.exit_code) {
                3 => "change the spec and apply it: as it is, it fails again".to_owned(),
                4 => format!("mend the cause, then tidegate retry {id}, or change the spec and apply it"),
                _ => format!("mend the cause, then tidegate retry {id}"),
            };
            format!("{way}; tidegate events {id} says what happened")
        }
        v1::Phase::Staged => {
            let branches = staged_on(backfill);
            format!("query {branches}; then tidegate publish {id}, or tidegate cancel {id}")
        }
        v1::Phase::Cancelled => format!("what was committed stays; tidegate retry {id} takes up the rest"),
        _ if backfill.wish() == v1::Wish::Pause => format!("tidegate resume {id}"),
        _ => format!("tidegate watch {id}"),
    }
}

/// Where what is staged can be queried.
fn staged_on(backfill: &v1::Backfill) -> String {
    let staged = backfill.outputs.iter().filter(|output| !output.branch.is_empty());
    let table = |output: &v1::OutputState| output.table.as_ref().map(|table| table.table.clone());
    let on = staged.filter_map(|output| Some(format!("branch {} of {}", output.branch, table(output)?)));
    plain(&on.collect::<Vec<_>>().join(", ")).into_owned()
}

struct Lines {
    text: String,
    /// How long the run has taken, in microseconds.
    wall: u64,
    paint: Paint,
}

impl Lines {
    fn put(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    /// A mark, a word that says the same, and what it is about.
    fn edge(&mut self, edge: &Edge) {
        let paint = self.paint;
        let (mark, word) = match edge.balance {
            Balance::Balanced => (paint.good("✓"), "balanced"),
            Balance::Open => (paint.dim("·"), "so far"),
            Balance::Incomplete => (paint.warn("✗"), "incomplete"),
            Balance::Wrong => (paint.bad("✗"), "WRONG"),
        };
        self.put(&format!(" {mark} {word:<11} {}", plain(&edge.text)));
    }

    fn fact(&mut self, word: &str, text: &str) {
        self.put(&format!("   {word:<11} {}", plain(text)));
    }

    fn source(&mut self, backfill: &v1::Backfill, source: &v1::SourceState) {
        let name = self.paint.bold(&source.name).into_owned();
        let Some(found) = &source.found else {
            self.put(&format!("Source {name}   not enumerated yet"));
            return;
        };
        let pinned = if found.pinned.is_empty() { String::new() } else { format!("   {}", plain(&found.pinned)) };
        let size = [plural(found.files, "file"), plural(found.splits, "split"), plural(found.units, "unit")].join(", ");
        self.put(&format!("Source {name}   {size}{pinned}"));
        if let Some(edge) = ledger::source_edge(backfill, source) {
            self.edge(&edge);
        }
        let outside = plural(source.rows_outside, "row");
        let mut those = format!("{outside} outside the window, {} dead letter", count(source.rows_dead_letter));
        if source.rows_void > 0 {
            those.push_str(&format!(", {} without a row (tombstones, changes left out)", count(source.rows_void)));
        }
        if source.rows_disordered > 0 {
            those.push_str(&format!(", {} out of the declared order", count(source.rows_disordered)));
        }
        self.fact("of those", &those);
        let seconds = self.wall as f64 / 1e6;
        let speed = if seconds > 0.0 { source.rows_read as f64 / seconds } else { 0.0 };
        self.fact("read", &format!("{} at {} over the whole run", bytes(source.bytes_read), rate(speed)));
        self.skew(backfill, source);
        let spent = [source.held_micros, source.backpressure_micros, source.busy_micros].map(micros);
        let [held, backpressure, busy] = spent;
        let limited = match source.limited_micros {
            0 => String::new(),
            limited => format!(", rate limit {}", micros(limited)),
        };
        let waits = format!("held at the gate {held}, backpressure {backpressure}{limited}");
        self.fact("time", &format!("{waits}, busy {busy} (summed over readers)"));
    }

    fn skew(&mut self, backfill: &v1::Backfill, source: &v1::SourceState) {
        if source.max_skew == i64::MIN {
            return self.fact("skew", "no row was read");
        }
        let largest = span(source.max_skew);
        match backfill.promised_skew {
            None => self.fact("skew", &format!("largest {largest}; nothing is aligned")),
            Some(bound) => {
                let kept = source.max_skew <= bound;
                let mark = if kept { self.paint.good("✓") } else { self.paint.bad("✗") };
                let word = if kept { "skew kept" } else { "SKEW BROKEN" };
                self.put(&format!(" {mark} {word:<11} largest {largest}, promised at most {}", span(bound)));
            }
        }
    }

    fn output(&mut self, backfill: &v1::Backfill, output: &v1::OutputState) {
        let name = self.paint.bold(&output.name).into_owned();
        let Some(table) = &output.table else {
            self.put(&format!("Output {name}   not prepared yet"));
            return;
        };
        let how = if table.created { "created by this run" } else { "was there" };
        self.put(&format!("Output {name}   {} ({how})", plain(&table.table)));
        for edge in ledger::output_edges(backfill, output) {
            self.edge(&edge);
        }
        if let Some(expected) = output.dead_letters_expected {
            let (mark, word) = match ledger::above_limit(output) {
                false => (self.paint.good("✓"), "limit kept"),
                true => (self.paint.warn("✗"), "ABOVE LIMIT"),
            };
            let (kept, expected) = (count(output.rows_passed), count(expected));
            self.put(&format!(" {mark} {word:<11} {kept} dead letters, at most {expected} expected"));
        }
        if let Some(join) = &output.join {
            // The anchor is with itself where its source is joined more than once.
            let met = join.inputs.iter().enumerate().filter(|(at, input)| *at > 0 || (input.low, input.high) != (0, 0));
            for (_, input) in met {
                self.fact("with", &format!("{}, {}", input.source, reach(input.low, input.high)));
            }
            self.fact("joined", &joined(join));
            for input in &join.inputs {
                input.late.iter().for_each(|late| self.fact("late", &late_text(input, late)));
            }
        }
        let files = plural(output.files_committed, "file");
        let snapshots = match output.commits {
            0 => "no snapshot".to_owned(),
            many => format!("{}, the last {}", plural(many, "snapshot"), output.last_snapshot),
        };
        self.fact("committed", &format!("{files}, {} written, {snapshots}", bytes(output.bytes)));
        if output.rows_staged > 0 || output.staged_commits > 0 {
            let files = plural(output.files_staged, "file");
            let snapshots = plural(output.staged_commits, "snapshot");
            self.fact("staged", &format!("{files} in {snapshots} on branch {}", output.branch));
        }
        if output.replaces {
            self.fact("replaces", "what the window held when it was prepared");
        }
        match output.committed_through {
            // What comes late has no order.
            _ if !output.late_of.is_empty() => {}
            Some(through) => self.fact("complete", &format!("through {}", time(through))),
            None if backfill.phase() == v1::Phase::Succeeded => self.fact("complete", "through the whole window"),
            None => self.fact("complete", "through no point yet"),
        }
    }

    fn troubles(&mut self, backfill: &v1::Backfill) {
        let paint = self.paint;
        if !backfill.parked.is_empty() {
            let many = plural(backfill.parked.len() as u64, "task");
            self.put("");
            self.put(&format!("{} {many}: their rows are in no table", paint.warn("Parked")));
            for parked in backfill.parked.iter().take(PARKED_SHOWN) {
                let evidence = parked.evidence.clone().unwrap_or_default();
                let tries =
                    if evidence.attempts == 1 { "1 try".to_owned() } else { format!("{} tries", evidence.attempts) };
                self.put(&format!(
                    " ✗ {} of {}, {tries}, on {}",
                    plain(&parked.task),
                    parked.source,
                    or_unknown(&evidence.worker)
                ));
                self.evidence(&evidence);
            }
            if let Some(more) = backfill.parked.len().checked_sub(PARKED_SHOWN).filter(|more| *more > 0) {
                self.put(&format!("   and {more} more: tidegate status {} -o json", short_id(&backfill.id)));
            }
        }
        if let Some(failure) = backfill.failure.as_ref().filter(|_| backfill.phase() == v1::Phase::Failed) {
            self.put("");
            self.put(&paint.bad("Failed"));
            self.evidence(failure);
        }
        for wrong in &backfill.imbalances {
            self.put(&format!(" {} {}", paint.bad("✗"), plain(wrong)));
        }
    }

    fn evidence(&mut self, evidence: &v1::Evidence) {
        self.put(&format!("   {}", plain(&evidence.message)));
        if !evidence.place.is_empty() && !evidence.message.contains(&evidence.place) {
            self.put(&format!("   at {}", plain(&evidence.place)));
        }
    }
}

fn or_unknown(worker: &str) -> String {
    if worker.is_empty() { "an unknown worker".to_owned() } else { plain(worker).into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{self, NOW};

    #[test]
    fn a_run_that_succeeded() {
        insta::assert_snapshot!(render(&sample::succeeded(), NOW, Paint::plain()));
    }

    #[test]
    fn a_run_that_is_staged() {
        insta::assert_snapshot!(render(&sample::staged(), NOW, Paint::plain()));
    }

    #[test]
    fn a_run_that_left_something_out() {
        insta::assert_snapshot!(render(&sample::partial(), NOW, Paint::plain()));
    }

    #[test]
    fn a_run_that_failed_before_it_began() {
        insta::assert_snapshot!(render(&sample::failed(), NOW, Paint::plain()));
    }

    #[test]
    fn a_run_that_goes_on() {
        insta::assert_snapshot!(render(&sample::running(), NOW, Paint::plain()));
    }

    #[test]
    fn a_run_that_joined() {
        insta::assert_snapshot!(render(&sample::joined(), NOW, Paint::plain()));
    }

    #[test]
    fn a_run_that_joins_says_how_far_it_is() {
        let text = render(&sample::joining(), NOW, Paint::plain());
        let line = "   joined      12 of 53 slices of 7d, 2 under way, 1 bucket each, 18.2 MiB live in the shuffle store, 40.1 MiB at most";
        assert!(text.lines().any(|one| one == line), "{text}");
        let mut lost = sample::joining();
        lost.outputs[0].join.as_mut().unwrap().regenerated = 2;
        assert!(render(&lost, NOW, Paint::plain()).contains("40.1 MiB at most, 2 objects lost and read again"));
        let mut uncut = sample::joining();
        uncut.outputs[0].join.as_mut().unwrap().slices = 0;
        assert!(render(&uncut, NOW, Paint::plain()).contains("joined      nothing: it is not cut into slices yet"));
    }

    #[test]
    fn sums_that_contradict_each_other_and_a_broken_promise_are_said_in_words() {
        let mut run = sample::succeeded();
        run.sources[0].rows_read += 1;
        run.sources[1].max_skew = 864_000_000_001;
        run.outputs[0].rows_filtered += 5;
        let text = render(&run, NOW, Paint::plain());
        assert_eq!(text.matches("✗ WRONG").count(), 3, "{text}");
        assert_eq!(text.matches("✗ SKEW BROKEN").count(), 1, "{text}");
    }

    #[test]
    fn a_run_with_late_rows() {
        insta::assert_snapshot!(render(&sample::late(), NOW, Paint::plain()));
        assert_eq!(exit_code(&sample::late()), Exit::Done);
    }

    #[test]
    fn a_run_with_more_dead_letters_than_expected() {
        insta::assert_snapshot!(render(&sample::with_dead_letters(20), NOW, Paint::plain()));
        let within = render(&sample::with_dead_letters(100), NOW, Paint::plain());
        assert!(within.contains("✓ limit kept  100 dead letters, at most 100 expected"), "{within}");
        let mut lost = sample::with_dead_letters(100);
        lost.sources[1].rows_dead_letter = 101;
        let text = render(&lost, NOW, Paint::plain());
        assert_eq!(text.matches("✗ WRONG       101 dead letters of weather = 100 kept").count(), 1, "{text}");
    }

    #[test]
    fn the_phase_decides_the_exit_code() {
        assert_eq!(exit_code(&sample::succeeded()), Exit::Done);
        assert_eq!(exit_code(&sample::with_dead_letters(100)), Exit::Done);
        assert_eq!(exit_code(&sample::with_dead_letters(99)), Exit::Partial);
        assert_eq!(exit_code(&sample::partial()), Exit::Partial);
        assert_eq!(exit_code(&sample::staged()), Exit::Done);
        assert_eq!(exit_code(&sample::running()), Exit::Temporary);
        let mut failed = sample::failed();
        assert_eq!(exit_code(&failed), Exit::Preflight, "its evidence says 4");
        for (code, exit) in [(0, Exit::Failed), (99, Exit::Failed), (3, Exit::SpecInvalid)] {
            failed.failure.as_mut().unwrap().exit_code = code;
            assert_eq!(exit_code(&failed), exit);
        }
        failed.phase = v1::Phase::Cancelled.into();
        assert_eq!(exit_code(&failed), Exit::Failed);
    }
}
