//! Partitions: the spec's words for them, and a batch cut by them.

use std::collections::HashMap;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array, cast::AsArray};
use arrow::compute::take_record_batch;
use arrow::row::{RowConverter, SortField};
use iceberg::arrow::{PartitionValueCalculator, arrow_struct_to_literal};
use iceberg::spec::{Literal, PartitionSpec, Schema, Struct, StructType, Transform, UnboundPartitionSpec};

use super::SinkError;

/// The partition spec that texts such as `month(at)`, `bucket(16, id)`, `truncate(4, name)` or `origin` describe.
/// The error says which text is wrong and what there is.
pub(super) fn parse(texts: &[String], schema: &Schema) -> Result<UnboundPartitionSpec, String> {
    let mut builder = UnboundPartitionSpec::builder();
    for text in texts {
        let (transform, column) = parse_one(text)?;
        let field = schema.field_by_name(column).ok_or_else(|| {
            let known: Vec<_> = schema.as_struct().fields().iter().map(|field| field.name.as_str()).collect();
            format!("partition_by {text:?}: there is no column {column}; there are {}", known.join(", "))
        })?;
        transform.result_type(&field.field_type).map_err(|_| {
            format!("partition_by {text:?}: {transform} does not take {column}, which is {}", field.field_type)
        })?;
        let name = column.replace('.', "_");
        let name = match transform {
            Transform::Bucket(_) => format!("{name}_bucket"),
            Transform::Truncate(_) => format!("{name}_trunc"),
            Transform::Identity => name,
            time => format!("{name}_{time}"),
        };
        builder = builder
            .add_partition_field(field.id, name, transform)
            .map_err(|error| format!("partition_by {text:?}: {}", error.message()))?;
    }
    Ok(builder.build())
}

fn parse_one(text: &str) -> Result<(Transform, &str), String> {
    let usage = || {
        format!(
            "partition_by {text:?}: write a column, or identity, year, month, day, hour of one, \
             bucket(N, column) or truncate(N, column)"
        )
    };
    let Some((function, arguments)) = text.trim().strip_suffix(')').and_then(|text| text.split_once('(')) else {
        return column(text).map(|name| (Transform::Identity, name)).ok_or_else(usage);
    };
    let function = function.trim().to_ascii_lowercase();
    let (number, name) = match arguments.split_once(',') {
        Some((number, name)) => (number.trim().parse::<u32>().ok().filter(|number| *number > 0), name),
        None => (None, arguments),
    };
    let transform = match (function.strip_suffix('s').unwrap_or(&function), number) {
        ("identity", None) => Transform::Identity,
        ("year", None) => Transform::Year,
        ("month", None) => Transform::Month,
        ("day", None) => Transform::Day,
        ("hour", None) => Transform::Hour,
        ("bucket", Some(number)) => Transform::Bucket(number),
        ("truncate", Some(width)) => Transform::Truncate(width),
        _ => return Err(usage()),
    };
    column(name).map(|name| (transform, name)).ok_or_else(usage)
}

/// A column's name, with or without double quotes.
fn column(text: &str) -> Option<&str> {
    let name = text.trim();
    let name = name.strip_prefix('"').and_then(|name| name.strip_suffix('"')).unwrap_or(name);
    (!name.is_empty()).then_some(name)
}

/// A spec in the words that [`parse`] reads.
pub(super) fn describe(spec: &PartitionSpec, schema: &Schema) -> String {
    let field = |field: &iceberg::spec::PartitionField| {
        let column = schema.name_by_field_id(field.source_id).unwrap_or("a dropped column");
        match field.transform {
            Transform::Identity => column.to_owned(),
            Transform::Bucket(number) => format!("bucket({number}, {column})"),
            Transform::Truncate(width) => format!("truncate({width}, {column})"),
            transform => format!("{transform}({column})"),
        }
    };
    spec.fields().iter().map(field).collect::<Vec<_>>().join(", ")
}

/// The folder of a partition below the data folder, `name=value/…`, fit for any store: what is not a letter, digit or
/// one of `._-` is written `%XX`, and long values are cut, for files carry a name of their own.
pub(super) fn folder(spec: &PartitionSpec, partition_type: &StructType, values: &Struct) -> String {
    let parts = spec.fields().iter().zip(partition_type.fields()).enumerate().map(|(i, (field, r#type))| {
        let value = values.fields().get(i).and_then(Option::as_ref);
        format!("{}={}", escape(&field.name), escape(&field.transform.to_human_string(&r#type.field_type, value)))
    });
    parts.collect::<Vec<_>>().join("/")
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if escaped.len() > 96 {
            break;
        }
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// The identity of a partition while it is written: its values, encoded.
pub(super) type Key = Box<[u8]>;

/// One partition's share of a batch.
pub(super) struct Share {
    pub(super) key: Key,
    pub(super) rows: RecordBatch,
    /// A row of the batch's partition values that has this share's.
    pub(super) sample: usize,
}

/// Cuts batches by partition.
pub(super) struct Splitter {
    calculator: PartitionValueCalculator,
    rows: RowConverter,
    partition_type: StructType,
    table: String,
}

impl Splitter {
    pub(super) fn new(table: &str, spec: &PartitionSpec, schema: &Schema) -> Result<Self, SinkError> {
        let doing = || format!("table {table}: its partition spec");
        let calculator = PartitionValueCalculator::try_new(spec, schema).map_err(SinkError::lake(doing()))?;
        let fields = calculator.partition_arrow_type().clone();
        let rows = RowConverter::new(vec![SortField::new(fields)]).map_err(SinkError::arrow(doing()))?;
        let partition_type = calculator.partition_type().clone();
        Ok(Self { calculator, rows, partition_type, table: table.to_owned() })
    }

    /// The shares of a batch, in the order of their first rows, and the partition values of all its rows. A batch
    /// within one partition, and a share whose rows follow each other, are not copied.
    pub(super) fn split(&mut self, batch: &RecordBatch) -> Result<(Vec<Share>, ArrayRef), SinkError> {
        let doing = || format!("table {}: partition a batch", self.table);
        let values = self.calculator.calculate(batch).map_err(SinkError::lake(doing()))?;
        let rows = self.rows.convert_columns(std::slice::from_ref(&values)).map_err(SinkError::arrow(doing()))?;
        let mut places: HashMap<&[u8], usize> = HashMap::new();
        let mut runs: Vec<(&[u8], Vec<std::ops::Range<usize>>)> = Vec::new();
        let mut start = 0;
        while start < batch.num_rows() {
            let row = rows.row(start).data();
            let end = (start + 1..batch.num_rows()).find(|&at| rows.row(at).data() != row).unwrap_or(batch.num_rows());
            let place = *places.entry(row).or_insert_with(|| {
                runs.push((row, Vec::new()));
                runs.len() - 1
            });
            if let Some((_, runs)) = runs.get_mut(place) {
                runs.push(start..end);
            }
            start = end;
        }
        let shares = runs.iter().map(|(key, runs)| {
            let rows = pick(batch, runs).map_err(SinkError::arrow(doing()))?;
            Ok(Share { key: Key::from(*key), rows, sample: runs.first().map_or(0, |run| run.start) })
        });
        Ok((shares.collect::<Result<_, SinkError>>()?, values))
    }

    /// The partition of row `row` of the values that [`Splitter::split`] gave.
    pub(super) fn partition(&self, values: &ArrayRef, row: usize) -> Result<Struct, SinkError> {
        let one: ArrayRef = std::sync::Arc::new(values.as_struct().slice(row, 1));
        let doing = || format!("table {}: partition a batch", self.table);
        let literals = arrow_struct_to_literal(&one, &self.partition_type).map_err(SinkError::lake(doing()))?;
        match literals.into_iter().next().flatten() {
            Some(Literal::Struct(values)) => Ok(values),
            _ => Err(SinkError::Lake { doing: doing(), source: "a row has no partition".into() }),
        }
    }
}

fn pick(batch: &RecordBatch, runs: &[std::ops::Range<usize>]) -> Result<RecordBatch, arrow::error::ArrowError> {
    match runs {
        [run] if run.len() == batch.num_rows() => Ok(batch.clone()),
        [run] => Ok(batch.slice(run.start, run.len())),
        runs => {
            let rows = runs.iter().flat_map(|run| run.clone()).map(|row| u32::try_from(row).unwrap_or(u32::MAX));
            take_record_batch(batch, &UInt32Array::from_iter_values(rows))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array, StringArray};
    use arrow::datatypes::Int64Type;
    use iceberg::arrow::RecordBatchPartitionSplitter;
    use iceberg::spec::{NestedField, PrimitiveType, Type};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// The oracle is the library's own splitter, which copies every row and looks each one up.
        #[test]
        fn given_any_batch_when_split_then_the_shares_of_the_librarys_splitter(
            rows in prop::collection::vec((prop::option::of(-3_i64..3), prop::option::of("[ab]{0,2}"), any::<bool>()), 1..60)
        ) {
            let types = [PrimitiveType::Long, PrimitiveType::String, PrimitiveType::Double, PrimitiveType::Long];
            let fields = ["id", "name", "number", "row"].iter().zip(types).zip(1..);
            let fields = fields.map(|((name, r#type), id)| Arc::new(NestedField::optional(id, name, Type::Primitive(r#type))));
            let schema = Arc::new(Schema::builder().with_fields(fields).build().unwrap());
            let texts = ["bucket(3, id)", "truncate(1, name)", "number"].map(str::to_owned);
            let spec = Arc::new(parse(&texts, &schema).unwrap().bind(schema.clone()).unwrap());
            let columns: Vec<ArrayRef> = vec![
                Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>()),
                Arc::new(rows.iter().map(|row| row.1.clone()).collect::<StringArray>()),
                Arc::new(rows.iter().map(|row| Some(f64::from(u8::from(row.2)))).collect::<Float64Array>()),
                Arc::new(Int64Array::from_iter_values((0..).take(rows.len()))),
            ];
            let arrow = Arc::new(iceberg::arrow::schema_to_arrow_schema(&schema).unwrap());
            let batch = RecordBatch::try_new(arrow, columns).unwrap();
            let row_numbers = |batch: &RecordBatch| batch.column(3).as_primitive::<Int64Type>().values().to_vec();

            let mut splitter = Splitter::new("t", &spec, &schema).unwrap();
            let (shares, values) = splitter.split(&batch).unwrap();
            let oracle = RecordBatchPartitionSplitter::try_new_with_computed_values(schema, spec).unwrap();
            let expected = oracle.split(&batch).unwrap();
            let expected = expected.iter().map(|(key, rows)| (format!("{:?}", key.data()), row_numbers(rows)));
            prop_assert_eq!(shares.len(), expected.len());
            let found: BTreeMap<_, _> = shares
                .iter()
                .map(|share| (format!("{:?}", splitter.partition(&values, share.sample).unwrap()), row_numbers(&share.rows)))
                .collect();
            prop_assert_eq!(found, expected.collect::<BTreeMap<_, _>>());
        }
    }

    #[test]
    fn given_the_words_for_partitions_when_parsed_then_their_transforms() {
        let rows = [
            ("origin", Transform::Identity, "origin"),
            (" identity( origin )", Transform::Identity, "origin"),
            ("\"a b\"", Transform::Identity, "a b"),
            ("bucket(16, id)", Transform::Bucket(16), "id"),
            ("TRUNCATE(4,\"name\")", Transform::Truncate(4), "name"),
            ("years(at)", Transform::Year, "at"),
            ("month(at)", Transform::Month, "at"),
            ("day(at)", Transform::Day, "at"),
            ("hours(at)", Transform::Hour, "at"),
        ];
        for (text, transform, column) in rows {
            assert_eq!(parse_one(text).unwrap(), (transform, column), "{text}");
        }
        for text in ["", "bucket(id)", "bucket(0, id)", "week(at)", "day()", "truncate(x, a)"] {
            assert!(parse_one(text).is_err(), "{text}");
        }
    }

    #[test]
    fn given_a_hostile_value_when_it_names_a_folder_then_it_stays_one_part_of_the_path() {
        assert_eq!(escape("../../etc/a b"), "..%2F..%2Fetc%2Fa%20b");
        assert!(escape(&"é".repeat(5_000)).len() < 110);
    }
}
