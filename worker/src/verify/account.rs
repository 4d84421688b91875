//! What a backfill's journal says, added up.

use std::collections::BTreeMap;

use tidegate_common::ids::{OutputIx, SourceIx, TaskId};
use tidegate_common::spec::model::LatePolicy;
use tidegate_common::spec::{self, Resolved};
use tidegate_common::time::Window;
use tidegate_proto::convert;
use tidegate_proto::v1::{self, record::Kind};

use super::joins::JoinBook;
use crate::sink::OutputTarget;
use crate::task::opened::target;

/// The journal does not make sense.
#[derive(Debug, thiserror::Error)]
#[error("the journal cannot be understood: {0}")]
pub struct BadJournal(String);

/// A backfill's account.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// The whole id.
    pub id: String,
    /// The spec; `None` before the journal's first record.
    pub spec: Option<Resolved>,
    /// How far it is.
    pub phase: v1::Phase,
    /// In the order of the spec.
    pub sources: Vec<SourceBook>,
    /// In the order of the spec.
    pub outputs: Vec<OutputBook>,
    /// Which state of tables and topics it reads.
    pub pins: Vec<v1::SourcePin>,
    /// For each read task: the units accepted, and those it has.
    pub(super) tasks: BTreeMap<TaskId, (u32, u32)>,
    /// Hand-ins whose units are not the next of their task.
    pub(super) out_of_turn: Vec<String>,
    hand_ins: u64,
}

/// What was read of a source.
#[derive(Clone, Debug, Default)]
pub struct SourceBook {
    /// Its name.
    pub name: String,
    /// What its enumeration found.
    pub found: Option<v1::Enumerated>,
    /// Rows read.
    pub read: u64,
    /// Rows read of units whose rows the plan did not know: they are in range with what was read.
    pub unplanned: u64,
    /// Offsets that hold no record.
    pub gaps: u64,
    /// Records that do not decode and rows without event time, of those read.
    pub dead_letter: u64,
    /// Units accepted.
    pub units: u64,
}

/// What was written to an output.
#[derive(Clone, Debug, Default)]
pub struct OutputBook {
    /// Its name.
    pub name: String,
    /// What prepare pinned.
    pub table: Option<v1::PreparedOutput>,
    /// How it joins; `None` where its query reads one source.
    pub join: Option<JoinBook>,
    /// Rows read for it; where it joins, rows of its anchor that were joined.
    pub read: u64,
    /// Rows that its query passed on.
    pub passed: u64,
    /// Rows that its query or the window left out.
    pub filtered: u64,
    /// Rows that came too late.
    pub late: u64,
    /// Rows that its source could not use; 0 for the table that keeps them.
    pub dead_letter: u64,
    /// Every file that was handed in.
    pub files: Vec<CommittedFile>,
    /// Every intent by its sequence, with its end where it is known.
    pub intents: BTreeMap<u64, (v1::Intent, Option<v1::CommitResult>)>,
}

/// A file that was handed in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommittedFile {
    /// The position of its hand-in in the log.
    pub position: u64,
    /// Where it stands.
    pub path: String,
    /// Its rows.
    pub rows: u64,
}

impl OutputBook {
    /// The table's name where it is known, else the output's.
    pub fn title(&self) -> &str {
        self.table.as_ref().map_or(&self.name, |table| &table.table)
    }

    /// The source whose event times are its own: the only one, or the anchor.
    pub fn anchor(&self) -> Option<&str> {
        let table = self.table.as_ref()?;
        table.inputs.first().map(|input| &input.source).or(table.source.first()).map(String::as_str)
    }

    /// The intents whose files stand in the table: on main, or on the staging branch as long as nothing is on main.
    pub fn committed(&self) -> impl Iterator<Item = (&v1::Intent, &v1::CommitResult)> {
        let stages = self.stages();
        self.landed().filter(move |(intent, _)| intent.branch.is_empty() != stages && self.stands(intent))
    }

    /// Those that stand on the staging branch, published since or not.
    pub fn staged(&self) -> impl Iterator<Item = (&v1::Intent, &v1::CommitResult)> {
        self.landed().filter(|(intent, _)| !intent.branch.is_empty() && self.stands(intent))
    }

    /// Whether its files stand on the staging branch, and not on main.
    pub fn stages(&self) -> bool {
        !self.landed().any(|(intent, _)| intent.branch.is_empty()) && self.staged().next().is_some()
    }

    /// The intents that were fenced off.
    pub fn cancelled(&self) -> impl Iterator<Item = (&v1::Intent, &v1::CommitResult)> {
        self.ended(v1::CommitEnd::Cancelled)
    }

    /// Whether anything was to be committed at all.
    pub fn is_touched(&self) -> bool {
        !self.intents.is_empty()
    }

    fn ended(&self, end: v1::CommitEnd) -> impl Iterator<Item = (&v1::Intent, &v1::CommitResult)> {
        let ended = self.intents.values().filter_map(|(intent, result)| Some((intent, result.as_ref()?)));
        ended.filter(move |(_, result)| result.end() == end)
    }

    /// Those that added or replaced files.
    fn landed(&self) -> impl Iterator<Item = (&v1::Intent, &v1::CommitResult)> {
        let adds = |kind| matches!(kind, v1::CommitKind::Append | v1::CommitKind::Replace);
        self.ended(v1::CommitEnd::Committed).filter(move |(intent, _)| adds(intent.kind()))
    }

    /// Whether no discard of its branch came after it.
    fn stands(&self, intent: &v1::Intent) -> bool {
        let discards =
            |(other, _): &(&v1::Intent, _)| other.kind() == v1::CommitKind::Discard && other.branch == intent.branch;
        !self.ended(v1::CommitEnd::Committed).filter(discards).any(|(other, _)| other.sequence > intent.sequence)
    }

    /// The files of `intent`.
    pub fn files_of(&self, intent: &v1::Intent) -> impl Iterator<Item = &CommittedFile> {
        let range = intent.log_from..intent.log_to;
        self.files.iter().filter(move |file| range.contains(&file.position))
    }
}

impl Account {
    /// The account of the backfill `id`, before its first record.
    pub fn new(id: &str) -> Self {
        Self { id: id.to_owned(), ..Self::default() }
    }

    /// Whether it has come to its end, whatever that was.
    pub fn is_over(&self) -> bool {
        use v1::Phase::{Cancelled, Failed, Partial, Succeeded};
        matches!(self.phase, Succeeded | Partial | Failed | Cancelled)
    }

    /// Books the next record of the journal.
    ///
    /// # Errors
    /// A record that names what is not there: the journal is of another version, or damaged.
    pub fn book(&mut self, record: v1::Record) -> Result<(), BadJournal> {
        match record.kind {
            Some(Kind::Created(created)) => return self.created(&created.spec_json),
            Some(Kind::Prepared(prepared)) => {
                for (output, table) in self.outputs.iter_mut().zip(prepared.outputs) {
                    // Prepared again, a backfill that has begun stays as it was.
                    if output.join.as_ref().is_none_or(JoinBook::is_blank) {
                        output.join = JoinBook::of(&table.inputs);
                    }
                    output.table = Some(table);
                }
                self.pins = prepared.sources;
            }
            Some(Kind::Planned(planned)) => self.source(planned.source)?.found = planned.found,
            Some(Kind::HandIn(accepted)) => return self.hand_in(accepted),
            Some(Kind::Sliced(sliced)) => {
                let window = self.spec.as_ref().map_or(Window::ALL, |spec| spec.window);
                self.join(sliced.output)?.cut(window, &sliced);
            }
            Some(Kind::Sealed(intent)) => {
                self.output(intent.output)?.intents.insert(intent.sequence, (intent, None));
            }
            Some(Kind::Publishing(publishing)) => {
                for intent in publishing.intents {
                    self.output(intent.output)?.intents.insert(intent.sequence, (intent, None));
                }
            }
            Some(Kind::Ended(ended)) => {
                let intents = &mut self.output(ended.output)?.intents;
                let unknown = || BadJournal(format!("intent {} ended and was never sealed", ended.sequence));
                intents.get_mut(&ended.sequence).ok_or_else(unknown)?.1 = ended.result;
            }
            Some(Kind::Phase(changed)) => self.phase = changed.phase(),
            Some(Kind::Retried(_)) => self.phase = v1::Phase::Running,
            // What stands in the place of an object that was lost holds the same rows.
            Some(Kind::Term(_) | Kind::Parked(_) | Kind::Wish(_) | Kind::Regenerated(_)) | None => {}
        }
        Ok(())
    }

    fn created(&mut self, json: &str) -> Result<(), BadJournal> {
        let spec = spec::from_canonical_json(json).map_err(|bad| BadJournal(bad.to_string()))?;
        let resolved = spec::resolve(spec, 0).map_err(|bad| BadJournal(bad.to_string()))?;
        let source = |name: &String| SourceBook { name: name.clone(), ..SourceBook::default() };
        let output = |name: &String| OutputBook { name: name.clone(), ..OutputBook::default() };
        self.sources = resolved.sources.iter().map(|one| source(&one.name)).collect();
        self.outputs = resolved.outputs.iter().map(|one| output(&one.name)).collect();
        self.spec = Some(resolved);
        Ok(())
    }

    fn source(&mut self, at: u32) -> Result<&mut SourceBook, BadJournal> {
        let found = usize::try_from(at).ok().and_then(|at| self.sources.get_mut(at));
        found.ok_or_else(|| BadJournal(format!("there is no source {at}")))
    }

    fn output(&mut self, at: u32) -> Result<&mut OutputBook, BadJournal> {
        let found = usize::try_from(at).ok().and_then(|at| self.outputs.get_mut(at));
        found.ok_or_else(|| BadJournal(format!("there is no output {at}")))
    }

    fn join(&mut self, at: u32) -> Result<&mut JoinBook, BadJournal> {
        let joins_nothing = || BadJournal(format!("output {at} joins nothing"));
        self.output(at)?.join.as_mut().ok_or_else(joins_nothing)
    }

    fn hand_in(&mut self, accepted: v1::record::HandInAccepted) -> Result<(), BadJournal> {
        let task = convert::task_id(accepted.task).map_err(|bad| BadJournal(bad.to_string()))?;
        let hand_in = accepted.hand_in.unwrap_or_default();
        match task {
            TaskId::Read(source, ..) => {
                self.in_turn(task, &hand_in, accepted.units_in_task);
                self.read(source, &hand_in, accepted.rows_planned)?;
            }
            TaskId::Late(output, number) => self.join(output.get())?.late_handed_in(number, &hand_in),
            TaskId::Join(output, first) => self.join(output.get())?.joined((output.get(), first), &hand_in),
            _ => return Err(BadJournal(format!("{task} handed in"))),
        }
        let position = self.hand_ins;
        self.hand_ins += 1;
        for part in hand_in.outputs {
            let book = self.output(part.output)?;
            let files = part.files.into_iter();
            book.files.extend(files.map(|file| CommittedFile { position, path: file.path, rows: file.rows }));
            if book.join.is_some() && matches!(task, TaskId::Read(..)) {
                continue; // They wait to be joined, and stand in the account of their source.
            }
            book.read += part.rows_read;
            book.passed += part.rows_passed;
            book.filtered += part.rows_filtered;
            book.late += part.rows_late;
            book.dead_letter += part.rows_dead_letter;
        }
        Ok(())
    }

    /// Notes where a read does not cover the next units of its task.
    fn in_turn(&mut self, task: TaskId, hand_in: &v1::HandIn, units: u32) {
        let (next, units) = self.tasks.entry(task).or_insert((0, units));
        if hand_in.first_unit != *next || hand_in.end_unit <= hand_in.first_unit || hand_in.end_unit > *units {
            let (first, end) = (hand_in.first_unit, hand_in.end_unit);
            self.out_of_turn
                .push(format!("{task}: units [{first},{end}) were accepted, and [{next},{units}) remained"));
        }
        *next = hand_in.end_unit;
    }

    fn read(&mut self, source: SourceIx, hand_in: &v1::HandIn, planned: u64) -> Result<(), BadJournal> {
        let book = self.source(source.get())?;
        book.read += hand_in.rows_read;
        book.gaps += hand_in.rows_gaps;
        book.unplanned += (hand_in.rows_read + hand_in.rows_gaps).saturating_sub(planned);
        book.dead_letter += hand_in.rows_dead_letter;
        book.units += u64::from(hand_in.end_unit.saturating_sub(hand_in.first_unit));
        let name = book.name.clone();
        let breaks_order = self.spec.as_ref().and_then(|spec| spec.source(source)).is_some_and(|one| one.may_be_late());
        for part in &hand_in.outputs {
            let output = self.spec.as_ref().and_then(|spec| spec.output(OutputIx::new(part.output)));
            let may = breaks_order && output.is_some_and(|output| output.late.policy != LatePolicy::Include);
            if let Some(join) = &mut self.output(part.output)?.join {
                join.read(&name, part, may);
            }
        }
        Ok(())
    }

    /// The table of the output at `at`.
    ///
    /// # Errors
    /// A journal without a spec, or without that output.
    pub fn target(&self, at: usize, default_catalog: &str) -> Result<OutputTarget, BadJournal> {
        let ix = u32::try_from(at).map(OutputIx::new).ok();
        let output = self.spec.as_ref().zip(ix).and_then(|(spec, ix)| spec.output(ix));
        output
            .map(|output| target(output, default_catalog))
            .ok_or_else(|| BadJournal(format!("there is no output {at}")))
    }

    /// The source whose dead letters `output` keeps, where that is what it is for.
    pub(super) fn kept_by(&self, output: &OutputBook) -> Option<&SourceBook> {
        let spec = self.spec.as_ref()?.outputs.iter().find(|spec| spec.name == output.name)?;
        self.sources.get(usize::try_from(spec.dead_letters?.source.get()).ok()?)
    }

    /// The output whose late rows `output` keeps, where that is what it is for.
    pub(super) fn late_of(&self, output: &OutputBook) -> Option<&OutputBook> {
        let spec = self.spec.as_ref()?.outputs.iter().find(|spec| spec.name == output.name)?;
        self.outputs.get(usize::try_from(spec.late_of?.get()).ok()?)
    }

    /// Whether it keeps what another output cannot: its rows have no event time of its own.
    pub(super) fn keeps(&self, output: &OutputBook) -> bool {
        self.kept_by(output).is_some() || self.late_of(output).is_some()
    }

    /// The source of that number, for the checks.
    pub(super) fn spec_source(&self, ix: SourceIx) -> Option<&spec::ResolvedSource> {
        self.spec.as_ref()?.source(ix)
    }
}
