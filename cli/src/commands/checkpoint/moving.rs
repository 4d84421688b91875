//! Positions, moved: shown, refused, confirmed, kept and set, always in this order.
//!
//! | asked for | and | then |
//! |---|---|---|
//! | no `--execute` | | shown; nothing is done, exit 0 |
//! | `--execute` | the group is active, the query cannot be reset, or records would be lost without `--allow-gap` | exit 4 |
//! | `--execute` | the name is not confirmed | exit 5 |
//! | `--execute` | | the old positions are kept in a file, the new ones are set and read back |

use serde::Serialize;
use tidegate_worker::checkpoint::spark::{self, Checkpoint};
use tidegate_worker::checkpoint::{self, Activity, Brokers, CheckpointError, PartitionMove, Plan};

use super::backup::{keep_group, keep_spark};
use super::inspect::moment;
use super::{asked, failed};
use crate::args::WayArgs;
use crate::commands::Context;
use crate::exit::{Error, Exit, Outcome};
use crate::figures::{count, plural, time};
use crate::output::{self, Format};
use crate::prompt;
use crate::style::plain;

/// Whose positions move.
pub(in crate::commands) enum Mover<'a> {
    /// A group's.
    Group(&'a Brokers),
    /// A Spark query's.
    Spark(&'a Checkpoint),
}

/// A reset; `kind: CheckpointReset`.
#[derive(Serialize)]
struct View<'a> {
    /// The group, or the folder.
    of: &'a str,
    /// Whether it was done.
    executed: bool,
    /// Whether records would be lost, or what was asked for is not in the log.
    gap: bool,
    /// Where the old positions are kept.
    backup: Option<&'a str>,
    skipped: u64,
    again: u64,
    partitions: Vec<MoveView<'a>>,
}

#[derive(Serialize)]
struct MoveView<'a> {
    topic: &'a str,
    partition: i32,
    old: Option<i64>,
    new: i64,
    /// What was asked for, where that is not in the log.
    asked: Option<i64>,
    /// Offsets that were not read and will not be.
    skipped: u64,
    /// Of those, offsets that the backfill has read.
    covered: u64,
    /// Offsets that will be read again.
    again: u64,
    old_time: Option<String>,
    new_time: Option<String>,
}

impl Mover<'_> {
    /// The group, or the folder.
    fn title(&self) -> &str {
        match self {
            Self::Group(brokers) => brokers.group_name(),
            Self::Spark(checkpoint) => checkpoint.folder.shown(),
        }
    }

    /// What is typed to confirm.
    fn name(&self) -> &str {
        match self {
            Self::Group(brokers) => brokers.group_name(),
            Self::Spark(checkpoint) => checkpoint.folder.name(),
        }
    }

    /// Why it cannot be moved now.
    fn refusal(&self) -> Result<(), Error> {
        match self {
            Self::Group(brokers) => {
                let facts = asked(|| brokers.group())?;
                match facts.activity() {
                    Activity::Active => Err(failed(CheckpointError::Active(format!(
                        "the group {} is active ({}): its positions are its members' to set",
                        facts.name,
                        facts.who()
                    )))),
                    Activity::Inactive | Activity::Untold => Ok(()),
                }
            }
            Self::Spark(checkpoint) => spark::must_be_resettable(checkpoint).map(|_| ()).map_err(failed),
        }
    }

    /// Moves the positions as `plan` says, as far as `way` allows.
    pub(in crate::commands) async fn go(&self, plan: &Plan, way: &WayArgs, context: &Context) -> Outcome {
        if matches!(context.format(), Format::Table | Format::Wide) {
            output::print(&text(self.title(), plan))?;
        }
        if !plan.is_change() {
            context.say("nothing to do: every position is there already");
            return self.done(plan, None, context);
        }
        let refusal = self.refusal();
        if !way.execute {
            self.say_what_stands_in_the_way(plan, &refusal, way, context);
            self.print(plan, false, None, context)?;
            return Ok(Exit::Done);
        }
        refusal?;
        if plan.is_gap() && !way.allow_gap {
            return Err(Error::new(
                Exit::Preflight,
                format!("records would be lost: {}; nothing was done", lost(plan)),
            )
            .hint("take --allow-gap when that is what you want, or another target"));
        }
        prompt::confirm_name(&self.question(), self.name(), way.confirm.as_deref())?;
        let backup = self.keep(plan, way.backup_to.as_deref()).await?;
        if let Some(backup) = &backup {
            context.say(&format!("the old positions are kept in {backup}"));
        }
        let set = match self {
            Self::Group(brokers) => asked(|| checkpoint::apply(brokers, plan)),
            Self::Spark(checkpoint) => spark::reset(checkpoint, plan).await.map_err(failed),
        };
        set?;
        self.done(plan, backup.as_deref(), context)
    }

    fn question(&self) -> String {
        match self {
            Self::Group(brokers) => {
                let name = plain(brokers.group_name());
                format!(
                    "Move the positions of {name}? Consumers that assign partitions to themselves are not seen: they must be stopped."
                )
            }
            Self::Spark(checkpoint) => {
                format!(
                    "Move the positions in {}? Nothing tells whether the query runs: it must be stopped.",
                    plain(checkpoint.folder.shown())
                )
            }
        }
    }

    async fn keep(&self, plan: &Plan, to: Option<&str>) -> Result<Option<String>, Error> {
        match self {
            Self::Group(_) if plan.before.is_empty() => Ok(None),
            Self::Group(brokers) => keep_group(brokers, &plan.before, to).map(Some),
            Self::Spark(checkpoint) => Ok(Some(keep_spark(&checkpoint.folder, to).await?.0)),
        }
    }

    fn say_what_stands_in_the_way(&self, plan: &Plan, refusal: &Result<(), Error>, way: &WayArgs, context: &Context) {
        if let Err(refusal) = refusal {
            context.say(&format!("it would be refused: {refusal}"));
        }
        if plan.is_gap() && !way.allow_gap {
            context.say(&format!("records would be lost: {}; that takes --allow-gap", lost(plan)));
        }
        context.say(&format!(
            "a dry run: nothing was changed\nNext: the same with --execute, and --confirm={}",
            self.name()
        ));
    }

    fn done(&self, plan: &Plan, backup: Option<&str>, context: &Context) -> Outcome {
        if plan.is_change() {
            let moved = plan.moves.iter().filter(|one| one.moved.is_change()).count() as u64;
            context.say(&format!("{} of {} set and read back", plural(moved, "position"), plain(self.title())));
        }
        self.print(plan, plan.is_change(), backup, context)?;
        Ok(Exit::Done)
    }

    /// For programs; people have seen it before.
    fn print(&self, plan: &Plan, executed: bool, backup: Option<&str>, context: &Context) -> Result<(), Error> {
        match context.format() {
            Format::Table | Format::Wide => Ok(()),
            format => {
                let (skipped, again) = sums(plan);
                let partitions = plan.moves.iter().map(MoveView::of).collect();
                let view = View { of: self.title(), executed, gap: plan.is_gap(), backup, skipped, again, partitions };
                output::print_document(format, "CheckpointReset", self.name(), &view)
            }
        }
    }
}

impl<'a> MoveView<'a> {
    fn of(one: &'a PartitionMove) -> Self {
        let at = |millis: Option<i64>| millis.map(|millis| time(millis.saturating_mul(1_000)));
        let moved = &one.moved;
        Self {
            topic: &one.partition.topic,
            partition: one.partition.number,
            old: moved.old,
            new: moved.new,
            asked: moved.outside,
            skipped: moved.skipped,
            covered: moved.covered,
            again: moved.again,
            old_time: at(one.old_time),
            new_time: at(one.new_time),
        }
    }
}

fn sums(plan: &Plan) -> (u64, u64) {
    let sum = |of: fn(&PartitionMove) -> u64| plan.moves.iter().map(of).fold(0, u64::saturating_add);
    (sum(|one| one.moved.skipped), sum(|one| one.moved.again))
}

/// What is lost, in a few words.
fn lost(plan: &Plan) -> String {
    let unread =
        plan.moves.iter().map(|one| one.moved.skipped.saturating_sub(one.moved.covered)).fold(0, u64::saturating_add);
    let outside: Vec<String> = plan
        .moves
        .iter()
        .filter_map(|one| one.moved.outside.map(|asked| format!("{asked} in {}", one.partition)))
        .collect();
    let mut words = Vec::new();
    if unread > 0 {
        words.push(format!("{} would be skipped unread", plural(unread, "offset")));
    }
    if let Some(first) = outside.first() {
        let more = outside.len() - 1;
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        words.push(format!("{first}{more} is not in the log"));
    }
    words.join(", and ")
}

fn text(title: &str, plan: &Plan) -> String {
    let rows = plan.moves.iter().map(|one| {
        let moved = &one.moved;
        let number = |many: u64| if many == 0 { "-".to_owned() } else { count(many) };
        let mut notes = Vec::new();
        if moved.covered > 0 {
            notes.push(format!("{} of them read by the backfill", count(moved.covered)));
        }
        if let Some(asked) = moved.outside {
            notes.push(format!("{asked} is not in the log"));
        }
        if !moved.is_change() {
            notes.push("as it is".to_owned());
        }
        vec![
            one.partition.topic.clone(),
            one.partition.number.to_string(),
            moved.old.map_or_else(|| "-".to_owned(), |old| old.to_string()),
            moved.new.to_string(),
            number(moved.skipped),
            number(moved.again),
            moment(one.old_time),
            moment(one.new_time),
            notes.join("; "),
        ]
    });
    let header = ["TOPIC", "PARTITION", "OLD", "NEW", "SKIPPED", "AGAIN", "OLD TIME", "NEW TIME", ""];
    let (skipped, again) = sums(plan);
    let table = output::columns(&header, &rows.collect::<Vec<_>>());
    let (skipped, again) = (plural(skipped, "offset"), plural(again, "offset"));
    format!("{}\n{table}{skipped} skipped, {again} read again{}\n", plain(title), spans(plan))
}

/// How much record time lies between the old positions and the new, over all partitions.
fn spans(plan: &Plan) -> String {
    let both = plan.moves.iter().filter_map(|one| Some((one.old_time?, one.new_time?)));
    let widest = both.map(|(old, new)| new.saturating_sub(old)).max_by_key(|span| span.unsigned_abs());
    match widest {
        Some(span) if span != 0 => {
            let length = crate::figures::micros(span.unsigned_abs().saturating_mul(1_000));
            let way = if span > 0 { "forward" } else { "back" };
            format!(", up to {length} {way} in record time")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use tidegate_worker::checkpoint::{Move, Partition};

    use super::*;

    #[test]
    fn a_reset_is_a_table_of_what_moves_and_what_that_costs() {
        let one = |number, moved, old_time, new_time| PartitionMove {
            partition: Partition::new("orders", number),
            moved,
            metadata: String::new(),
            old_time,
            new_time,
        };
        let moves = vec![
            one(
                0,
                Move { old: Some(10), new: 1_510, skipped: 1_500, covered: 500, ..Move::default() },
                Some(0),
                Some(5_400_000),
            ),
            one(
                1,
                Move { old: Some(70), new: 20, again: 50, outside: Some(5), ..Move::default() },
                Some(9_000),
                Some(0),
            ),
            one(2, Move { old: None, new: 7, ..Move::default() }, None, None),
            one(3, Move { old: Some(7), new: 7, ..Move::default() }, Some(1), Some(1)),
        ];
        let plan = Plan { moves, before: std::collections::BTreeMap::new() };
        insta::assert_snapshot!(format!("{}{}", text("billing", &plan), lost(&plan)));
    }
}
