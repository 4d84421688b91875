//! The archive's columns as those of the topic: found by name, cast where nothing can be lost.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, StructArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use tidegate_common::spec::model::{ArchiveSpec, EventTimeSpec, TimeUnitSpec};

use crate::source::error::SourceError;
use crate::source::event_time::unknown_column;

/// What Kafka knows of a record, in the topic's columns.
const KNOWN: &str = "_kafka";
/// The timestamp of a record that has none, in milliseconds, as Kafka has it.
pub(super) const NO_TIME: i64 = -1;
/// How such columns are called in an archive unless the spec says so; the second is what Iceberg's sink for Kafka Connect writes.
const NAMES: [&str; 2] = ["_kafka_", "_kafka_metadata_"];

/// Where the archive keeps what Kafka knows of a record, as places in its schema.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    pub(super) partition: usize,
    pub(super) offset: usize,
    pub(super) topic: Option<usize>,
    topic_name: String,
    /// What the spec names: it must be of use. What was found by its name alone is left out where it is of none.
    named: Vec<&'static str>,
    timestamp: Option<usize>,
    timestamp_type: Option<usize>,
    key: Option<usize>,
    headers: Option<usize>,
}

impl Columns {
    /// Finds them in `archive`, the columns of `table`.
    pub(crate) fn of(name: &str, spec: &ArchiveSpec, archive: &Schema) -> Result<Self, SourceError> {
        let table = &spec.iceberg.table;
        let refuse = |what: String| SourceError::Input { source_name: name.to_owned(), what };
        let find = |key: &str, given: Option<&String>| match given {
            Some(column) => archive.index_of(column).map(Some).map_err(|_| {
                refuse(format!("hybrid.archive.{key}: the archive {table} has {}", unknown_column(column, archive)))
            }),
            None => Ok(NAMES.iter().find_map(|prefix| archive.index_of(&format!("{prefix}{key}")).ok())),
        };
        let number = |key: &str, given: Option<&String>| {
            let at = find(key, given)?.ok_or_else(|| {
                let (default, names) = (format!("{}{key}", NAMES[0]), listed(archive));
                refuse(format!(
                    "the archive {table} has no column {default}: say which one holds each record's {key}, by \
                     hybrid.archive.{key}; its columns are {names}"
                ))
            })?;
            let field = archive.field(at);
            if field.data_type().is_integer() {
                return Ok(at);
            }
            let (column, kind) = (field.name(), field.data_type());
            Err(refuse(format!("hybrid.archive.{key}: the column {column} of {table} is {kind}, and no integer")))
        };
        let topic = find("topic", spec.topic.as_ref())?;
        if let Some(field) = topic.map(|at| archive.field(at)).filter(|field| *field.data_type() != DataType::Utf8) {
            let (column, kind) = (field.name(), field.data_type());
            return Err(refuse(format!("hybrid.archive.topic: the column {column} of {table} is {kind}, and no text")));
        }
        let is_time = |at: &usize| {
            let kind = archive.field(*at).data_type();
            spec.timestamp.is_some() || kind.is_integer() || matches!(kind, DataType::Timestamp(..))
        };
        let named = [("timestamp", &spec.timestamp), ("key", &spec.key), ("headers", &spec.headers)];
        Ok(Self {
            partition: number("partition", spec.partition.as_ref())?,
            offset: number("offset", spec.offset.as_ref())?,
            topic,
            topic_name: topic.map(|at| archive.field(at).name().clone()).unwrap_or_default(),
            named: named.into_iter().filter(|(_, given)| given.is_some()).map(|(part, _)| part).collect(),
            timestamp: find("timestamp", spec.timestamp.as_ref())?.filter(is_time),
            timestamp_type: find("timestamp_type", None)?,
            key: find("key", spec.key.as_ref())?,
            headers: find("headers", spec.headers.as_ref())?,
        })
    }

    /// Where the event times of the archive come from: from the column of the topic's name, or, for `by_record`, from that of
    /// the records' timestamps.
    pub(crate) fn event_time(
        &self,
        name: &str,
        by_record: bool,
        spec: Option<&EventTimeSpec>,
        archive: &Schema,
    ) -> Result<EventTimeSpec, SourceError> {
        let given = spec.cloned().unwrap_or_default();
        let column = match (by_record, self.timestamp) {
            (false, _) => given.column,
            (true, Some(at)) => Some(archive.field(at).name().clone()),
            (true, None) => {
                let what = format!(
                    "event times are the records' timestamps, and the archive has no column {}timestamp: say which one holds \
                     them, by hybrid.archive.timestamp, or name an event_time.column; its columns are {}",
                    NAMES[0],
                    listed(archive)
                );
                return Err(SourceError::Input { source_name: name.to_owned(), what });
            }
        };
        // The archive may hold as a time what is a number in the topic; Kafka's own are in milliseconds.
        let is_number = |column: &String| archive.field_with_name(column).is_ok_and(|of| of.data_type().is_integer());
        let unit = if by_record { Some(TimeUnitSpec::Millis) } else { given.unit };
        let unit = unit.filter(|_| column.as_ref().is_some_and(is_number));
        Ok(EventTimeSpec { column, unit, time_zone: given.time_zone, ..EventTimeSpec::default() })
    }

    /// Of what tells a record's place: those that are read of every row.
    pub(super) fn places(&self) -> Vec<usize> {
        [self.partition, self.offset].into_iter().chain(self.topic).collect()
    }

    /// The name of the column of topics.
    pub(super) fn topic_name(&self) -> &str {
        &self.topic_name
    }

    /// The column of the records' timestamps.
    pub(super) fn timestamp(&self) -> Option<usize> {
        self.timestamp
    }
}

fn listed(schema: &Schema) -> String {
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).take(50).collect();
    names.join(", ")
}

/// The columns of the whole: those of the topic, and where each comes from in the archive.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) schema: SchemaRef,
    from: Vec<From>,
    topic: String,
}

#[derive(Debug)]
enum From {
    /// The archive's column of that place.
    Column(usize),
    /// What Kafka knows, field by field.
    Known(Vec<Known>),
    /// From nowhere: why.
    Nowhere(String),
}

/// Where a field of what Kafka knows comes from.
#[derive(Clone, Copy, Debug)]
enum Known {
    /// The topic's name.
    Topic,
    Column(usize),
}

impl Joined {
    /// The columns of `live`, with those of `archive`, of the table called `table`, behind them.
    pub(super) fn of(
        topic: &str,
        live: &Schema,
        (table, archive): (&str, &Schema),
        columns: &Columns,
    ) -> Result<Self, String> {
        let (mut fields, mut from) = (Vec::new(), Vec::new());
        for field in live.fields() {
            if let (KNOWN, DataType::Struct(known)) = (field.name().as_str(), field.data_type()) {
                let (kept, places) = known_of(known, (table, archive), columns)?;
                fields.push(Arc::new(Field::new(KNOWN, DataType::Struct(kept), true)));
                from.push(From::Known(places));
                continue;
            }
            fields.push(field.clone());
            let (name, kind) = (field.name(), field.data_type());
            from.push(match archive.index_of(name) {
                Ok(at) if is_carried(archive.field(at).data_type(), kind) => From::Column(at),
                Ok(at) => From::Nowhere(format!(
                    "the column {name} is {kind} in the topic {topic}, and {} in the archive {table}, which does not become \
                     that without loss: give it that type in the archive, or leave it out of the query",
                    archive.field(at).data_type()
                )),
                Err(_) => From::Nowhere(format!(
                    "the topic {topic} has a column {name}, and the archive {table} has {}: add it there, where it is then \
                     null, or leave it out of the query",
                    unknown_column(name, archive)
                )),
            });
        }
        Ok(Self { schema: Arc::new(Schema::new(fields)), from, topic: topic.to_owned() })
    }

    /// Why the columns `columns` cannot all be had from both.
    pub(super) fn lacks(&self, columns: &[usize]) -> Option<&str> {
        columns.iter().find_map(|at| match self.from.get(*at) {
            Some(From::Nowhere(why)) => Some(why.as_str()),
            _ => None,
        })
    }

    /// The archive's columns that `columns` are made from.
    pub(super) fn wanted(&self, columns: &[usize]) -> Vec<usize> {
        let of = |at: &usize| match self.from.get(*at) {
            Some(From::Column(place)) => vec![*place],
            Some(From::Known(places)) => {
                let column = |known: &Known| if let Known::Column(at) = known { Some(*at) } else { None };
                places.iter().filter_map(column).collect()
            }
            Some(From::Nowhere(_)) | None => Vec::new(),
        };
        columns.iter().flat_map(of).collect()
    }

    /// The columns `columns` of rows of the archive; `rows` has the archive's columns `held`.
    pub(super) fn of_archive(
        &self,
        columns: &[usize],
        rows: &RecordBatch,
        held: &[usize],
    ) -> Result<Vec<ArrayRef>, ArrowError> {
        let column = |at: usize| {
            let place = held.iter().position(|held| *held == at);
            place
                .map(|place| rows.column(place))
                .ok_or_else(|| ArrowError::SchemaError(format!("column {at} is not read")))
        };
        let made = |at: &usize| -> Result<ArrayRef, ArrowError> {
            let field = self.schema.fields().get(*at);
            let field = field.ok_or_else(|| ArrowError::SchemaError(format!("there is no column {at}")))?;
            match (self.from.get(*at), field.data_type()) {
                (Some(From::Column(from)), kind) => carried(column(*from)?, kind),
                (Some(From::Known(places)), DataType::Struct(fields)) => {
                    let part = |(known, field): (&Known, &Arc<Field>)| match known {
                        Known::Topic => {
                            let topics = std::iter::repeat_n(self.topic.as_str(), rows.num_rows());
                            Ok(Arc::new(StringArray::from_iter_values(topics)) as ArrayRef)
                        }
                        Known::Column(at) => known_as(column(*at)?, field.data_type()),
                    };
                    let parts = places.iter().zip(fields).map(part).collect::<Result<Vec<_>, _>>()?;
                    Ok(Arc::new(StructArray::try_new(fields.clone(), parts, None)?))
                }
                (_, kind) => Ok(new_null_array(kind, rows.num_rows())),
            }
        };
        columns.iter().map(made).collect()
    }

    /// A column of the topic as the whole has it.
    pub(super) fn of_live(&self, at: usize, column: &ArrayRef) -> ArrayRef {
        let wanted = self.schema.fields().get(at).map(|field| field.data_type());
        match (wanted, column.as_any().downcast_ref::<StructArray>()) {
            (Some(DataType::Struct(kept)), Some(whole)) if matches!(self.from.get(at), Some(From::Known(_))) => {
                let parts: Option<Vec<ArrayRef>> =
                    kept.iter().map(|field| whole.column_by_name(field.name()).cloned()).collect();
                let made =
                    parts.and_then(|parts| StructArray::try_new(kept.clone(), parts, whole.nulls().cloned()).ok());
                made.map_or_else(|| column.clone(), |made| Arc::new(made) as ArrayRef)
            }
            _ => column.clone(),
        }
    }
}

/// The fields of what Kafka knows that the archive has, too.
fn known_of(
    known: &Fields,
    (table, archive): (&str, &Schema),
    columns: &Columns,
) -> Result<(Fields, Vec<Known>), String> {
    let (mut kept, mut places) = (Vec::new(), Vec::new());
    for field in known {
        let at = match field.name().as_str() {
            "topic" => Some(Known::Topic),
            "partition" => Some(Known::Column(columns.partition)),
            "offset" => Some(Known::Column(columns.offset)),
            "timestamp" => columns.timestamp.map(Known::Column),
            "timestamp_type" => columns.timestamp_type.map(Known::Column),
            "key" => columns.key.map(Known::Column),
            "headers" => columns.headers.map(Known::Column),
            _ => None,
        };
        let Some(at) = at else { continue };
        if let Known::Column(at) = at {
            let held = archive.field(at);
            if !is_known_as(held.data_type(), field.data_type()) {
                let (column, from, to) = (held.name(), held.data_type(), field.data_type());
                let part = field.name();
                if !columns.named.contains(&part.as_str()) && !matches!(part.as_str(), "partition" | "offset") {
                    continue;
                }
                return Err(format!(
                    "the column {column} of the archive {table} is {from}, and no {KNOWN}.{part}, which is {to}: name another \
                     one by hybrid.archive.{part}"
                ));
            }
        }
        kept.push(field.clone());
        places.push(at);
    }
    Ok((kept.into(), places))
}

/// Partitions and offsets are integers of any width, and timestamps may be in milliseconds.
fn is_known_as(from: &DataType, to: &DataType) -> bool {
    let is_number = from.is_integer() && (to.is_integer() || matches!(to, DataType::Timestamp(..)));
    let is_time = matches!((from, to), (DataType::Timestamp(..), DataType::Timestamp(..)));
    is_number || is_time || is_carried(from, to)
}

fn known_as(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    match (column.data_type(), to) {
        (from, DataType::Timestamp(..)) if from.is_integer() => {
            let millis = without_none(integers(column)?, NO_TIME);
            carried(&carried(&millis, &DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into())))?, to)
        }
        (DataType::Timestamp(unit, zone), DataType::Timestamp(..)) => {
            let a_milli = match unit {
                TimeUnit::Second => return carried(column, to),
                TimeUnit::Millisecond => 1,
                TimeUnit::Microsecond => 1_000,
                TimeUnit::Nanosecond => 1_000_000,
            };
            let kept = without_none(integers(column)?, NO_TIME * a_milli);
            carried(&carried(&kept, &DataType::Timestamp(*unit, zone.clone()))?, to)
        }
        _ => carried(column, to),
    }
}

/// `times` without those that are `none`.
fn without_none(times: Int64Array, none: i64) -> ArrayRef {
    Arc::new(times.iter().map(|time| time.filter(|time| *time != none)).collect::<Int64Array>())
}

/// `column` as a `to`, to the last value.
fn carried(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    if column.data_type() == to {
        return Ok(column.clone());
    }
    cast_with_options(column, to, &CastOptions { safe: false, ..Default::default() })
}

/// The integers of a column.
pub(super) fn integers(column: &ArrayRef) -> Result<Int64Array, ArrowError> {
    let cast = carried(column, &DataType::Int64)?;
    cast.as_any().downcast_ref::<Int64Array>().cloned().ok_or_else(|| ArrowError::CastError("no integers".to_owned()))
}

/// The milliseconds of a column of timestamps, rounded down.
pub(super) fn millis(column: &ArrayRef) -> Result<Int64Array, ArrowError> {
    match column.data_type() {
        DataType::Timestamp(..) => {
            let micros = integers(&carried(column, &DataType::Timestamp(TimeUnit::Microsecond, None))?)?;
            Ok(of_times(&micros, |micros| micros.div_euclid(1_000)))
        }
        _ => Ok(of_times(&integers(column)?, |millis| millis)),
    }
}

/// Milliseconds of `times`; none where the record has no time.
fn of_times(times: &Int64Array, millis: impl Fn(i64) -> i64) -> Int64Array {
    times.iter().map(|time| time.map(&millis).filter(|millis| *millis != NO_TIME)).collect()
}

/// Whether every `from` is a `to`.
fn is_carried(from: &DataType, to: &DataType) -> bool {
    use DataType::{
        Binary, Decimal128, FixedSizeBinary, Float32, Float64, Int8, Int16, Int32, Int64, List, Struct, Timestamp,
        UInt8, UInt16, UInt32, Utf8,
    };
    match (from, to) {
        (Int8, Int16 | Int32 | Int64 | Float64) | (Int16, Int32 | Int64 | Float64) | (Int32, Int64 | Float64) => true,
        (UInt8, Int16 | Int32 | Int64) | (UInt16, Int32 | Int64) | (UInt32, Int64) => true,
        (Float32, Float64) | (Utf8 | FixedSizeBinary(_), Binary) => true,
        (Decimal128(digits, scale), Decimal128(wider, finer)) => {
            scale <= finer && i16::from(*digits) - i16::from(*scale) <= i16::from(*wider) - i16::from(*finer)
        }
        (Timestamp(held, zone), Timestamp(wanted, other)) => {
            let is_finer = match wanted {
                TimeUnit::Second | TimeUnit::Nanosecond => held == wanted,
                TimeUnit::Millisecond => matches!(held, TimeUnit::Second | TimeUnit::Millisecond),
                TimeUnit::Microsecond => *held != TimeUnit::Nanosecond,
            };
            is_finer && zone.is_some() == other.is_some()
        }
        (List(from), List(to)) => is_carried(from.data_type(), to.data_type()),
        (Struct(from), Struct(to)) => {
            let same = |(from, to): (&Arc<Field>, &Arc<Field>)| {
                from.name() == to.name() && is_carried(from.data_type(), to.data_type())
            };
            from.len() == to.len() && from.iter().zip(to).all(same)
        }
        (from, to) => from.equals_datatype(to),
    }
}

#[cfg(test)]
mod tests;
