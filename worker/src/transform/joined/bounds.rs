//! What expressions and conditions say of event times.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator};

use super::Within;

pub(super) const MICROS_A_DAY: i64 = 86_400_000_000;

/// How far each column of a relation lies from the anchor's event time, where it is an event time or always null.
pub(super) type Times = Vec<Option<Within>>;

/// How far the value of `expr` lies from the anchor's event time of its relation.
pub(super) fn time_of(expr: &Expr, schema: &DFSchema, times: &[Option<Within>]) -> Option<Within> {
    match expr {
        Expr::Column(column) => times.get(schema.index_of_column(column).ok()?).copied().flatten(),
        Expr::Alias(alias) => time_of(&alias.expr, schema, times),
        Expr::Literal(value, _) if value.is_null() => Some(Within::NEVER),
        Expr::Case(case) => {
            let given = case.when_then_expr.iter().map(|(_, then)| then).chain(&case.else_expr);
            any_of(given.map(AsRef::as_ref), schema, times)
        }
        Expr::ScalarFunction(function) if function.name() == "coalesce" => any_of(function.args.iter(), schema, times),
        Expr::Cast(cast) if in_utc(&cast.data_type) => {
            let from = cast.expr.get_type(schema).ok().filter(in_utc)?;
            Some(time_of(&cast.expr, schema, times)?.plus(coarser(&from, &cast.data_type)))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Plus | Operator::Minus), right }) => {
            let (of, time, by) = match (time_of(left, schema, times), micros(right)) {
                (Some(time), Some(by)) => (left, time, if *op == Operator::Plus { by } else { by.checked_neg()? }),
                _ if *op == Operator::Plus => (right, time_of(right, schema, times)?, micros(left)?),
                _ => return None,
            };
            // The sum is of the time's own type: what is finer than that is rounded away.
            let unit = unit(&of.get_type(schema).ok()?);
            let lost = if by % unit == 0 { Within::SAME } else { Within(-unit, unit) };
            Some(time.plus(Within(by, by)).plus(lost))
        }
        Expr::ScalarFunction(function) if function.name() == "date_trunc" => {
            let [Expr::Literal(unit, _), time] = function.args.as_slice() else { return None };
            Some(time_of(time, schema, times)?.plus(Within(1 - truncated(unit)?, 0)))
        }
        Expr::ScalarFunction(function) if function.name() == "date_bin" => {
            let (width, time) = (micros(function.args.first()?)?, function.args.get(1)?);
            (width > 0).then_some(())?;
            let unit = unit(&time.get_type(schema).ok()?);
            Some(time_of(time, schema, times)?.plus(Within(1_i64.checked_sub(width)?.checked_sub(unit)?, unit)))
        }
        _ => None,
    }
}

/// What holds of each of `exprs`, one of which the value is; or it is null.
fn any_of<'a>(exprs: impl Iterator<Item = &'a Expr>, schema: &DFSchema, times: &[Option<Within>]) -> Option<Within> {
    let of = exprs.map(|expr| time_of(expr, schema, times)).collect::<Option<Vec<_>>>()?;
    Some(of.into_iter().fold(Within::NEVER, Within::or))
}

/// How wide the windows are that `date_trunc` makes of this unit, microseconds; months and years have no one width.
pub(super) fn truncated(unit: &ScalarValue) -> Option<i64> {
    Some(match unit.try_as_str()??.to_lowercase().as_str() {
        "microsecond" => 1,
        "millisecond" => 1_000,
        "second" => 1_000_000,
        "minute" => 60_000_000,
        "hour" => 3_600_000_000,
        "day" => MICROS_A_DAY,
        "week" => 7 * MICROS_A_DAY,
        _ => return None,
    })
}

/// The step between two values of this type, microseconds; one where it is finer.
pub(super) fn unit(of: &DataType) -> i64 {
    match of {
        DataType::Timestamp(TimeUnit::Second, _) => 1_000_000,
        DataType::Timestamp(TimeUnit::Millisecond, _) => 1_000,
        DataType::Date32 => MICROS_A_DAY,
        _ => 1,
    }
}

/// Whether values of this type are event times as they are.
pub(super) fn in_utc(of: &DataType) -> bool {
    match of {
        DataType::Timestamp(_, Some(zone)) => ["UTC", "+00:00", "Z"].contains(&zone.as_ref()),
        DataType::Timestamp(_, None) | DataType::Date32 => true,
        _ => false,
    }
}

/// What a cast takes from a time: it rounds towards zero, and so up before 1970; and a time may be finer than
/// microseconds.
pub(super) fn coarser(from: &DataType, to: &DataType) -> Within {
    let unit = |of: &DataType| match of {
        DataType::Timestamp(TimeUnit::Nanosecond, _) => 0,
        DataType::Timestamp(TimeUnit::Microsecond, _) => 1,
        DataType::Timestamp(TimeUnit::Millisecond, _) => 1_000,
        DataType::Timestamp(TimeUnit::Second, _) => 1_000_000,
        _ => MICROS_A_DAY,
    };
    let most = if unit(to) > unit(from) { unit(to) } else { 0 };
    Within(-most, most)
}

/// A stated length of time, in microseconds; months have none.
pub(super) fn micros(expr: &Expr) -> Option<i64> {
    let Expr::Literal(value, _) = expr else { return None };
    match value {
        ScalarValue::IntervalMonthDayNano(Some(of)) if of.months == 0 => {
            let exact = (of.nanoseconds % 1_000 == 0).then_some(of.nanoseconds / 1_000)?;
            i64::from(of.days).checked_mul(MICROS_A_DAY)?.checked_add(exact)
        }
        ScalarValue::IntervalDayTime(Some(of)) => {
            i64::from(of.days).checked_mul(MICROS_A_DAY)?.checked_add(i64::from(of.milliseconds).checked_mul(1_000)?)
        }
        ScalarValue::DurationMicrosecond(Some(of)) => Some(*of),
        ScalarValue::DurationMillisecond(Some(of)) => of.checked_mul(1_000),
        ScalarValue::DurationSecond(Some(of)) => of.checked_mul(1_000_000),
        ScalarValue::DurationNanosecond(Some(of)) => (of % 1_000 == 0).then_some(of / 1_000),
        _ => None,
    }
}

/// What everywhere can be.
const ANYWHERE: Within = Within(i64::MIN, i64::MAX);

/// One side of a join: its columns and what is known of their times.
#[derive(Clone, Copy)]
pub(super) struct Side<'a> {
    pub(super) schema: &'a DFSchema,
    pub(super) times: &'a [Option<Within>],
}

impl Side<'_> {
    fn time_of(&self, expr: &Expr) -> Option<Within> {
        time_of(expr, self.schema, self.times)
    }
}

/// How far the other side's anchor lies from the anchor side's, in rows that meet on `on` and `filter`; never, where no
/// rows can.
pub(super) fn distance<'a>(
    anchor: Side<'_>,
    other: Side<'_>,
    on: impl Iterator<Item = (&'a Expr, &'a Expr)>,
    filter: Option<&Expr>,
) -> Within {
    let mut within = ANYWHERE;
    for (left, right) in on {
        if let (Some(left), Some(right)) = (anchor.time_of(left), other.time_of(right)) {
            within = within.and(ordered(left, Operator::Eq, right));
        }
    }
    let mut conditions: Vec<&Expr> = filter.into_iter().collect();
    while let Some(condition) = conditions.pop() {
        match condition {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => conditions.extend([&**left, &**right]),
            Expr::Alias(alias) => conditions.push(&alias.expr),
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                within = within.and(compared(anchor, other, left, *op, right))
            }
            Expr::Between(between) if !between.negated => {
                let low = compared(anchor, other, &between.expr, Operator::GtEq, &between.low);
                within = within.and(low).and(compared(anchor, other, &between.expr, Operator::LtEq, &between.high));
            }
            _ => {}
        }
    }
    // Conditions that contradict each other let nothing meet.
    if within.is_never() { Within::NEVER } else { within }
}

/// What `left op right` says, whichever side each of them is of.
fn compared(anchor: Side<'_>, other: Side<'_>, left: &Expr, op: Operator, right: &Expr) -> Within {
    let swapped = |op| match op {
        Operator::Lt => Some(Operator::Gt),
        Operator::LtEq => Some(Operator::GtEq),
        Operator::Gt => Some(Operator::Lt),
        Operator::GtEq => Some(Operator::LtEq),
        Operator::Eq => Some(Operator::Eq),
        _ => None,
    };
    // As the anchor's time `op` the other's.
    let (of_anchor, op, of_other) = match (anchor.time_of(left), other.time_of(right)) {
        (Some(of_anchor), Some(of_other)) => (of_anchor, Some(op), of_other),
        _ => match (anchor.time_of(right), other.time_of(left)) {
            (Some(of_anchor), Some(of_other)) => (of_anchor, swapped(op), of_other),
            _ => return ANYWHERE,
        },
    };
    op.map_or(ANYWHERE, |op| ordered(of_anchor, op, of_other))
}

/// What it says that the anchor's time is `op` the other's.
fn ordered(anchor: Within, op: Operator, other: Within) -> Within {
    use Operator::{Eq, Gt, GtEq, Lt, LtEq};
    match op {
        // A comparison with a null is never true.
        Eq | Lt | LtEq | Gt | GtEq if anchor.is_never() || other.is_never() => Within::NEVER,
        Eq => at_most(anchor, other).and(at_least(anchor, other)),
        // Rows are ordered by more than microseconds: strictly above may be equal here.
        Lt | LtEq => at_least(anchor, other),
        Gt | GtEq => at_most(anchor, other),
        _ => ANYWHERE,
    }
}

/// The anchors' distance where the other's time is at or above the anchor's: `y ≥ x` with `x - a ∈ anchor` and
/// `y - b ∈ other` gives `b - a ≥ anchor.0 - other.1`.
fn at_least(anchor: Within, other: Within) -> Within {
    Within(anchor.0.saturating_sub(other.1), i64::MAX)
}

/// The same where it is at or below it.
fn at_most(anchor: Within, other: Within) -> Within {
    Within(i64::MIN, anchor.1.saturating_sub(other.0))
}
