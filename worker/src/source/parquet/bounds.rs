//! The event-time bounds of row groups: exact, or none.

use arrow::array::{Array, ArrayRef, Int64Array};
use arrow::compute::{cast, max, min};
use arrow::datatypes::DataType;
use futures::TryStreamExt;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use tidegate_common::time::{Bounds, EventTime};

use super::file::{ParquetFile, caught};
use crate::source::bounds::KnownBounds;
use crate::source::error::{During, SourceError};
use crate::source::event_time::EventTimeRule;

/// The bounds of each row group: from its statistics, from a promise, or from reading its column at `column`.
pub(in crate::source) async fn of_groups(
    file: &ParquetFile,
    column: usize,
    rule: &EventTimeRule,
    promised: Option<Bounds>,
) -> Result<Vec<KnownBounds>, SourceError> {
    let mut all = Vec::with_capacity(file.row_groups().len());
    for (at, known) in of_statistics(file, column, rule)?.into_iter().enumerate() {
        all.push(match (known, promised) {
            (Some(known), _) => known,
            (None, Some(bounds)) => KnownBounds { bounds: Some(bounds), has_nulls: false },
            (None, None) => of_column(file, at, column, rule).await?,
        });
    }
    Ok(all)
}

/// The bounds by the statistics of the column at `column` of the file; none where they are absent or not exact.
fn of_statistics(
    file: &ParquetFile,
    column: usize,
    rule: &EventTimeRule,
) -> Result<Vec<Option<KnownBounds>>, SourceError> {
    let groups = file.row_groups();
    let schema = file.schema();
    let field = schema.field(column);
    let read = || {
        let converter = StatisticsConverter::try_new(field.name(), schema, file.parquet_schema())?
            .with_missing_null_counts_as_zero(false);
        let (lows, highs) = (converter.row_group_mins(groups)?, converter.row_group_maxes(groups)?);
        Ok((lows, highs, converter.row_group_null_counts(groups)?, converter.parquet_column_index()))
    };
    let (lows, highs, nulls, leaf) = caught(read).map_err(|e| file.corrupt("statistics", During::Plan, e))?;
    let (lows, highs) = (rule.of_column(&lows), rule.of_column(&highs));
    let is_unsigned = field.data_type().is_unsigned_integer();
    let bounds = groups.iter().enumerate().map(|(at, group)| {
        let written = leaf.and_then(|leaf| group.columns().get(leaf)?.statistics())?;
        if is_unsigned && written.is_min_max_deprecated() {
            return None; // the order of these was signed
        }
        let nulls = if nulls.is_null(at) { if field.is_nullable() { return None } else { 0 } } else { nulls.value(at) };
        let bounds = value(&lows, at).zip(value(&highs, at)).and_then(|(low, high)| Bounds::new(low, high));
        let all_null = i64::try_from(nulls) == Ok(group.num_rows());
        (bounds.is_some() || all_null).then_some(KnownBounds { bounds, has_nulls: nulls > 0 })
    });
    Ok(bounds.collect())
}

/// The bounds by reading the column once.
async fn of_column(
    file: &ParquetFile,
    group: usize,
    column: usize,
    rule: &EventTimeRule,
) -> Result<KnownBounds, SourceError> {
    let mut batches = file.read_group(group, &[column], During::Plan)?;
    let mut known = KnownBounds { bounds: None, has_nulls: false };
    while let Some(batch) = batches.try_next().await? {
        let times = rule.of_column(batch.column(0));
        known.has_nulls |= times.null_count() > 0;
        let here = min(&times).zip(max(&times));
        let here = here.and_then(|(low, high)| Bounds::new(EventTime::from_micros(low), EventTime::from_micros(high)));
        known.bounds = known.bounds.into_iter().chain(here).reduce(Bounds::union);
    }
    Ok(known)
}

/// The least and greatest of the integer column at `column` in each row group; none where they are not known, or one is null.
pub(in crate::source) fn of_integers(
    file: &ParquetFile,
    column: usize,
) -> Result<Vec<Option<(i64, i64)>>, SourceError> {
    let (groups, schema) = (file.row_groups(), file.schema());
    let kind = schema.field(column).data_type();
    if !kind.is_signed_integer() {
        return Ok(vec![None; groups.len()]);
    }
    let read = || {
        let name = schema.field(column).name();
        let converter =
            StatisticsConverter::try_new(name, schema, file.parquet_schema())?.with_missing_null_counts_as_zero(false);
        let (lows, highs) = (converter.row_group_mins(groups)?, converter.row_group_maxes(groups)?);
        let (lows, highs) = (cast(&lows, &DataType::Int64)?, cast(&highs, &DataType::Int64)?);
        Ok((lows, highs, converter.row_group_null_counts(groups)?))
    };
    let (lows, highs, nulls) = caught(read).map_err(|e| file.corrupt("statistics", During::Plan, e))?;
    let numbers = |of: &ArrayRef| of.as_any().downcast_ref::<Int64Array>().cloned();
    let Some((lows, highs)) = numbers(&lows).zip(numbers(&highs)) else { return Ok(vec![None; groups.len()]) };
    let has_none =
        |at: usize| if nulls.is_null(at) { !schema.field(column).is_nullable() } else { nulls.value(at) == 0 };
    let known =
        |at: usize| lows.is_valid(at) && highs.is_valid(at) && has_none(at) && lows.value(at) <= highs.value(at);
    Ok((0..groups.len()).map(|at| known(at).then(|| (lows.value(at), highs.value(at)))).collect())
}

fn value(times: &Int64Array, at: usize) -> Option<EventTime> {
    (times.is_valid(at)).then(|| EventTime::from_micros(times.value(at)))
}
