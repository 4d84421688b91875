//! The sink's door: a batch of a query becomes a batch of the table's Arrow schema, or an error.
//!
//! By name, with field ids, without views or dictionaries, in microseconds. Nothing is lost on the way: a value that
//! does not fit (overflow, part of a microsecond, part of a day, null where the table requires one) is an error that
//! names the column and the first bad row.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, cast::AsArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date64Type, Field, SchemaRef, Time64NanosecondType, TimeUnit, TimestampNanosecondType,
};
use iceberg::arrow::schema_to_arrow_schema;
use iceberg::spec::Schema;

use super::SinkError;

const SAFE: CastOptions<'static> =
    CastOptions { safe: true, format_options: arrow::util::display::FormatOptions::new() };

/// Casts batches to a table's schema.
#[derive(Debug)]
pub struct Caster {
    table: String,
    target: SchemaRef,
    /// The schema of the batches seen last, and where each of the table's columns stands in it.
    plan: Option<(SchemaRef, Vec<Option<usize>>)>,
}

impl Caster {
    /// A caster to the columns of `schema`; `table` is for messages.
    pub fn new(table: impl Into<String>, schema: &Schema) -> Result<Self, SinkError> {
        let table = table.into();
        let doing = || format!("table {table}: its schema as Arrow's");
        let target = Arc::new(schema_to_arrow_schema(schema).map_err(SinkError::lake(doing()))?);
        Ok(Self { table, target, plan: None })
    }

    /// The table's Arrow schema.
    pub fn schema(&self) -> &SchemaRef {
        &self.target
    }

    /// `batch` in the table's schema; columns that are right already are not copied.
    pub fn cast(&mut self, batch: &RecordBatch) -> Result<RecordBatch, SinkError> {
        let places = self.places(&batch.schema())?;
        let columns = self.target.fields().iter().zip(places).map(|(field, place)| match place {
            Some(at) => self.column(batch.column(at), field),
            None => self.checked_nulls(new_null_array(field.data_type(), batch.num_rows()), field),
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(self.target.clone(), columns, &options)
            .map_err(SinkError::arrow(format!("table {}: build a batch of its schema", self.table)))
    }

    fn places(&mut self, input: &SchemaRef) -> Result<Vec<Option<usize>>, SinkError> {
        if let Some((seen, places)) = &self.plan
            && (Arc::ptr_eq(seen, input) || seen == input)
        {
            return Ok(places.clone());
        }
        let stranger = input.fields().iter().find(|field| self.target.index_of(field.name()).is_err());
        if let Some(stranger) = stranger {
            let what = format!("the query's column {} is not in the table", stranger.name());
            return Err(SinkError::Preflight { table: self.table.clone(), what });
        }
        let places: Vec<_> = self.target.fields().iter().map(|field| input.index_of(field.name()).ok()).collect();
        self.plan = Some((input.clone(), places.clone()));
        Ok(places)
    }

    fn column(&self, column: &ArrayRef, field: &Field) -> Result<ArrayRef, SinkError> {
        if column.data_type() == field.data_type() {
            return self.checked_nulls(column.clone(), field);
        }
        let bad = |row, what: String| self.bad(field, row, what);
        if let Some(row) = truncated_row(column, field.data_type()) {
            return Err(bad(row, format!("{} would lose a part in {}", column.data_type(), field.data_type())));
        }
        let cast = cast_with_options(column, field.data_type(), &SAFE).map_err(|error| bad(0, error.to_string()))?;
        if cast.logical_null_count() != column.logical_null_count() {
            let (before, after) = (column.logical_nulls(), cast.logical_nulls());
            let null = |nulls: &Option<arrow::buffer::NullBuffer>, row| nulls.as_ref().is_some_and(|n| n.is_null(row));
            let row = (0..cast.len()).find(|&row| null(&after, row) && !null(&before, row)).unwrap_or(0);
            return Err(bad(row, format!("a {} that {} cannot hold", column.data_type(), field.data_type())));
        }
        if cast.data_type().is_nested()
            && let Some(row) = self.changed_row(column, &cast)
        {
            return Err(bad(row, format!("a {} that {} cannot hold", column.data_type(), field.data_type())));
        }
        self.checked_nulls(cast, field)
    }

    /// The first row of a nested column that is not itself again when it is cast back.
    fn changed_row(&self, column: &ArrayRef, cast: &ArrayRef) -> Option<usize> {
        let back = cast_with_options(cast, column.data_type(), &SAFE).ok()?;
        if back.as_ref() == column.as_ref() {
            return None;
        }
        (0..column.len()).find(|&row| back.slice(row, 1).as_ref() != column.slice(row, 1).as_ref())
    }

    fn checked_nulls(&self, column: ArrayRef, field: &Field) -> Result<ArrayRef, SinkError> {
        match column.nulls() {
            Some(nulls) if !field.is_nullable() && nulls.null_count() > 0 => {
                let row = (0..column.len()).find(|&row| nulls.is_null(row)).unwrap_or(0);
                Err(self.bad(field, row, "null, and the table requires a value".to_owned()))
            }
            _ => Ok(column),
        }
    }

    fn bad(&self, field: &Field, row: usize, what: String) -> SinkError {
        SinkError::Value { table: self.table.clone(), column: field.name().clone(), row, what }
    }
}

/// The first row whose value is not a whole number of the target's units.
fn truncated_row(column: &ArrayRef, target: &DataType) -> Option<usize> {
    match (column.data_type(), target) {
        (DataType::Timestamp(TimeUnit::Nanosecond, _), DataType::Timestamp(TimeUnit::Microsecond, _)) => {
            not_whole::<TimestampNanosecondType>(column, 1_000)
        }
        (DataType::Time64(TimeUnit::Nanosecond), DataType::Time64(TimeUnit::Microsecond)) => {
            not_whole::<Time64NanosecondType>(column, 1_000)
        }
        (DataType::Date64, DataType::Date32) => not_whole::<Date64Type>(column, 86_400_000),
        (DataType::Dictionary(_, values), _) => {
            // Rare: times in a dictionary. Their values are unpacked to be looked at.
            matches!(values.as_ref(), DataType::Timestamp(..) | DataType::Time64(_) | DataType::Date64)
                .then(|| cast_with_options(column, values, &SAFE).ok())
                .flatten()
                .and_then(|unpacked| truncated_row(&unpacked, target))
        }
        _ => None,
    }
}

fn not_whole<T: ArrowPrimitiveType<Native = i64>>(column: &ArrayRef, unit: i64) -> Option<usize> {
    let column = column.as_primitive_opt::<T>()?;
    if column.values().iter().all(|value| value % unit == 0) {
        return None;
    }
    (0..column.len()).find(|&row| column.is_valid(row) && column.value(row) % unit != 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use arrow::array::*;
    use iceberg::spec::{NestedField, PrimitiveType, Type};

    use super::*;

    fn caster(fields: &[(&str, PrimitiveType, bool)]) -> Caster {
        let fields = fields.iter().zip(1..).map(|((name, r#type, required), id)| {
            Arc::new(NestedField::new(id, name, Type::Primitive(r#type.clone()), *required))
        });
        Caster::new("t", &Schema::builder().with_fields(fields).build().unwrap()).unwrap()
    }

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
    }

    fn bad(error: SinkError) -> (String, usize) {
        match error {
            SinkError::Value { column, row, .. } => (column, row),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn given_views_dictionaries_and_another_order_when_cast_then_the_tables_schema() {
        let mut caster = caster(&[
            ("s", PrimitiveType::String, false),
            ("d", PrimitiveType::String, false),
            ("ts", PrimitiveType::Timestamptz, false),
            ("missing", PrimitiveType::Long, false),
        ]);
        let dictionary: DictionaryArray<arrow::datatypes::Int32Type> = vec!["x", "y"].into_iter().collect();
        let input = batch(vec![
            ("ts", Arc::new(TimestampNanosecondArray::from(vec![1_000, -2_000]).with_timezone("UTC"))),
            ("d", Arc::new(dictionary)),
            ("s", Arc::new(StringViewArray::from(vec![Some("a"), None]))),
        ]);
        let cast = caster.cast(&input).unwrap();
        assert_eq!(cast.schema(), *caster.schema());
        assert_eq!(cast.column(0).as_string::<i32>().iter().collect::<Vec<_>>(), vec![Some("a"), None]);
        assert_eq!(cast.column(1).as_string::<i32>().value(1), "y");
        assert_eq!(cast.column(2).as_primitive::<arrow::datatypes::TimestampMicrosecondType>().values(), &[1, -2]);
        assert_eq!(cast.column(3).null_count(), 2);
    }

    #[test]
    fn given_a_value_that_does_not_fit_when_cast_then_column_and_first_bad_row() {
        let mut caster = caster(&[("n", PrimitiveType::Int, false)]);
        let input = batch(vec![("n", Arc::new(Int64Array::from(vec![Some(1), None, Some(1 << 40), Some(1 << 41)])))]);
        assert_eq!(bad(caster.cast(&input).unwrap_err()), ("n".to_owned(), 2));
    }

    #[test]
    fn given_parts_of_a_microsecond_or_of_a_day_when_cast_then_refused() {
        let mut times = caster(&[("t", PrimitiveType::Timestamp, false)]);
        let input = batch(vec![("t", Arc::new(TimestampNanosecondArray::from(vec![1_000, 1_001])))]);
        assert_eq!(bad(times.cast(&input).unwrap_err()), ("t".to_owned(), 1));
        let mut days = caster(&[("t", PrimitiveType::Date, false)]);
        let input = batch(vec![("t", Arc::new(Date64Array::from(vec![86_400_000, 1])))]);
        assert_eq!(bad(days.cast(&input).unwrap_err()), ("t".to_owned(), 1));
    }

    #[test]
    fn given_wider_numbers_when_cast_then_nothing_is_lost() {
        use arrow::datatypes::Decimal128Type;
        let decimal = |precision, scale| PrimitiveType::Decimal { precision, scale };
        let mut caster = caster(&[("u", decimal(20, 0), false), ("d", decimal(12, 4), false)]);
        let wide = Decimal256Array::from_iter_values([arrow::datatypes::i256::from(12_345)]);
        let input = batch(vec![
            ("u", Arc::new(UInt64Array::from(vec![u64::MAX]))),
            ("d", Arc::new(wide.with_precision_and_scale(40, 2).unwrap())),
        ]);
        let cast = caster.cast(&input).unwrap();
        assert_eq!(cast.column(0).as_primitive::<Decimal128Type>().value(0), i128::from(u64::MAX));
        assert_eq!(cast.column(1).as_primitive::<Decimal128Type>().value(0), 1_234_500);
        let over = Decimal256Array::from_iter_values([1, 1_000_000_000_000].map(arrow::datatypes::i256::from_i128));
        let input = batch(vec![("d", Arc::new(over.with_precision_and_scale(40, 2).unwrap()))]);
        assert_eq!(bad(caster.cast(&input).unwrap_err()), ("d".to_owned(), 1));
    }

    #[test]
    fn given_a_nested_value_that_would_lose_a_part_when_cast_then_its_row() {
        let element = NestedField::list_element(2, Type::Primitive(PrimitiveType::Timestamp), false);
        let list = Type::List(iceberg::spec::ListType::new(Arc::new(element)));
        let schema = Schema::builder().with_fields([Arc::new(NestedField::optional(1, "l", list))]).build().unwrap();
        let mut caster = Caster::new("t", &schema).unwrap();
        let lists = |nanos: [i64; 2]| {
            let mut builder = ListBuilder::new(TimestampNanosecondBuilder::new());
            nanos.into_iter().for_each(|nanos| builder.append_value([Some(nanos)]));
            batch(vec![("l", Arc::new(builder.finish()))])
        };
        assert_eq!(caster.cast(&lists([1_000, 2_000])).unwrap().num_rows(), 2);
        assert_eq!(bad(caster.cast(&lists([1_000, 2_001])).unwrap_err()), ("l".to_owned(), 1));
    }

    #[test]
    fn given_null_or_nothing_in_a_required_column_when_cast_then_refused() {
        let mut caster = caster(&[("a", PrimitiveType::Long, true)]);
        let input = batch(vec![("a", Arc::new(Int64Array::from(vec![Some(1), None])))]);
        assert_eq!(bad(caster.cast(&input).unwrap_err()), ("a".to_owned(), 1));
    }
}
