//! How many partitions the bounds of a source's event time suggest. Pure.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tidegate_common::spec::{PartitionField, Transform};

/// The partitions that rows from `low` to `high` (microseconds, both included) fall into, at most, where every field
/// is a time of the event-time column or a bucket; `None` where that cannot be told, and where there is no field.
pub(super) fn partitions(fields: &[PartitionField], event_time: &str, low: i64, high: i64) -> Option<u64> {
    if fields.is_empty() || low > high {
        return None;
    }
    fields.iter().try_fold(1_u64, |all, field| {
        let of_field = match field.transform {
            Transform::Bucket(buckets) => u64::from(buckets),
            time if field.column == event_time => spanned(time, low, high)?,
            _ => return None,
        };
        all.checked_mul(of_field)
    })
}

/// How many values of `transform` the times from `low` to `high` have.
fn spanned(transform: Transform, low: i64, high: i64) -> Option<u64> {
    let ordinal = |micros: i64| {
        let days = micros.div_euclid(86_400_000_000);
        let civil = || Timestamp::from_microsecond(micros).ok().map(|at| at.to_zoned(TimeZone::UTC));
        match transform {
            Transform::Hour => Some(micros.div_euclid(3_600_000_000)),
            Transform::Day => Some(days),
            Transform::Month => civil().map(|at| i64::from(at.year()) * 12 + i64::from(at.month())),
            Transform::Year => civil().map(|at| i64::from(at.year())),
            Transform::Identity | Transform::Bucket(_) | Transform::Truncate(_) => None,
        }
    };
    u64::try_from(ordinal(high)?.checked_sub(ordinal(low)?)?).ok()?.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000_000;

    fn count(fields: &[&str], low: i64, high: i64) -> Option<u64> {
        let fields: Vec<PartitionField> = fields.iter().map(|field| field.parse().unwrap()).collect();
        partitions(&fields, "at", low, high)
    }

    #[test]
    fn the_times_between_the_bounds_are_counted_with_both_ends() {
        let (from, year_end) = (1_356_998_400_000_000, 1_356_998_400_000_000 + 365 * DAY - 1);
        assert_eq!(count(&["month(at)"], from, year_end), Some(12));
        assert_eq!(count(&["month(at)"], from - 1, year_end + 1), Some(14), "in UTC, with both ends");
        assert_eq!(count(&["year(at)"], from, year_end), Some(1));
        assert_eq!(count(&["day(at)"], -1, 0), Some(2), "before 1970 as well");
        assert_eq!(count(&["hour(at)", "bucket(16, id)"], 0, DAY - 1), Some(24 * 16));
    }

    #[test]
    fn what_the_bounds_do_not_tell_is_unknown() {
        assert_eq!(count(&[], 0, DAY), None);
        assert_eq!(count(&["month(at)", "origin"], 0, DAY), None);
        assert_eq!(count(&["month(other)"], 0, DAY), None);
        assert_eq!(count(&["month(at)"], 1, 0), None, "there is nothing to read");
    }
}
