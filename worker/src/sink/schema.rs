//! What a query's columns are in Iceberg, and whether they fit a table that is there.
//!
//! | Arrow | Iceberg (what a created table gets) |
//! |---|---|
//! | bool | boolean |
//! | int8, int16, int32, uint8, uint16 | int |
//! | int64, uint32 | long |
//! | uint64 | decimal(20, 0) |
//! | float16, float32 / float64 | float / double |
//! | decimal of any width, 0 ≤ scale ≤ precision ≤ 38 | decimal |
//! | date32, date64 (whole days, checked row by row) | date |
//! | time32, time64 (whole microseconds, checked) | time |
//! | timestamp without / with a zone (whole microseconds, checked; format version 3 keeps nanoseconds) | timestamp / timestamptz |
//! | utf8, large, view / binary, large, view | string / binary |
//! | fixed-size binary(n) | fixed(n) |
//! | dictionary, run-end encoded | its values' type |
//! | struct / list of any form / map | struct / list / map |
//!
//! Columns are optional however sure the query is: a later one may be less so. Null, interval, duration, union and
//! wider decimals are refused with the reason.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema as ArrowSchema, TimeUnit};
use iceberg::spec::{
    FormatVersion, ListType, MapType, NestedField, NestedFieldRef, PrimitiveType, Schema, StructType, Type,
};

/// The schema of a table to be created for a query's result; ids are counted from 1. The error names every column
/// that has no type in Iceberg.
pub(super) fn table_schema(query: &ArrowSchema, version: FormatVersion) -> Result<Schema, String> {
    let mut ids = Ids { last: 0, nanoseconds: version >= FormatVersion::V3 };
    let (fields, refused) = ids.fields(query.fields());
    if !refused.is_empty() {
        return Err(refused.join("; "));
    }
    Schema::builder().with_fields(fields).build().map_err(|error| error.to_string())
}

struct Ids {
    last: i32,
    nanoseconds: bool,
}

impl Ids {
    fn next(&mut self) -> i32 {
        self.last += 1;
        self.last
    }

    fn fields(&mut self, fields: &Fields) -> (Vec<NestedFieldRef>, Vec<String>) {
        let mut refused = Vec::new();
        let ids: Vec<i32> = fields.iter().map(|_| self.next()).collect();
        let known = ids.into_iter().zip(fields).filter_map(|(id, field)| match self.type_of(field.data_type()) {
            Ok(r#type) => Some(Arc::new(NestedField::optional(id, field.name(), r#type))),
            Err(why) => {
                refused.push(format!("column {}: {why}", field.name()));
                None
            }
        });
        (known.collect(), refused)
    }

    fn type_of(&mut self, data_type: &DataType) -> Result<Type, String> {
        match data_type {
            DataType::Struct(fields) => match self.fields(fields) {
                (known, refused) if refused.is_empty() => Ok(Type::Struct(StructType::new(known))),
                (_, refused) => Err(refused.join("; ")),
            },
            DataType::List(element)
            | DataType::LargeList(element)
            | DataType::ListView(element)
            | DataType::LargeListView(element)
            | DataType::FixedSizeList(element, _) => {
                let id = self.next();
                let element = self.type_of(element.data_type())?;
                Ok(Type::List(ListType::new(Arc::new(NestedField::list_element(id, element, false)))))
            }
            DataType::Map(entries, _) => {
                let DataType::Struct(pair) = entries.data_type() else { return Err(no_type(data_type)) };
                let [key, value] = pair.as_ref() else { return Err(no_type(data_type)) };
                let (key_id, value_id) = (self.next(), self.next());
                let (key, value) = (self.type_of(key.data_type())?, self.type_of(value.data_type())?);
                Ok(Type::Map(MapType::optional(key_id, key, value_id, value)))
            }
            DataType::Dictionary(_, values) => self.type_of(values),
            DataType::RunEndEncoded(_, values) => self.type_of(values.data_type()),
            _ => primitive(data_type, self.nanoseconds).map(Type::Primitive),
        }
    }
}

fn primitive(data_type: &DataType, nanoseconds: bool) -> Result<PrimitiveType, String> {
    Ok(match data_type {
        DataType::Boolean => PrimitiveType::Boolean,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => PrimitiveType::Int,
        DataType::Int64 | DataType::UInt32 => PrimitiveType::Long,
        DataType::UInt64 => PrimitiveType::Decimal { precision: 20, scale: 0 },
        DataType::Float16 | DataType::Float32 => PrimitiveType::Float,
        DataType::Float64 => PrimitiveType::Double,
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => match u32::try_from(*scale) {
            Ok(scale) if *precision <= 38 && scale <= u32::from(*precision) => {
                PrimitiveType::Decimal { precision: u32::from(*precision), scale }
            }
            _ => {
                return Err(format!(
                    "{data_type} is beyond Iceberg's decimal(38): cast it to a narrower one or to double"
                ));
            }
        },
        DataType::Date32 | DataType::Date64 => PrimitiveType::Date,
        DataType::Time32(_) | DataType::Time64(_) => PrimitiveType::Time,
        DataType::Timestamp(TimeUnit::Nanosecond, None) if nanoseconds => PrimitiveType::TimestampNs,
        DataType::Timestamp(TimeUnit::Nanosecond, Some(_)) if nanoseconds => PrimitiveType::TimestamptzNs,
        DataType::Timestamp(_, None) => PrimitiveType::Timestamp,
        DataType::Timestamp(_, Some(_)) => PrimitiveType::Timestamptz,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => PrimitiveType::String,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => PrimitiveType::Binary,
        DataType::FixedSizeBinary(length) => match u64::try_from(*length) {
            Ok(length) => PrimitiveType::Fixed(length),
            Err(_) => return Err(no_type(data_type)),
        },
        _ => return Err(no_type(data_type)),
    })
}

fn no_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Null => "it is NULL throughout and has no type: give it one with CAST(… AS …)".to_owned(),
        DataType::Interval(_) | DataType::Duration(_) => {
            format!("Iceberg has no {data_type}: cast it to bigint, in a unit of your choice")
        }
        _ => format!("Iceberg has no {data_type}: cast it to a type that it has"),
    }
}

/// What keeps the result of `query` out of a table of this schema: a line for each column, empty where it fits.
pub(super) fn misfits(query: &ArrowSchema, table: &Schema) -> Vec<String> {
    misfits_of(query.fields(), table.as_struct().fields(), "")
}

fn misfits_of(query: &Fields, table: &[NestedFieldRef], prefix: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for field in query {
        let path = format!("{prefix}{}", field.name());
        match table.iter().find(|column| column.name == *field.name()) {
            None => lines.push(format!(
                "column {path} ({}): missing in the table; leave it out of the query or add it to the table",
                field.data_type()
            )),
            Some(column) => lines.extend(misfit(field, &column.field_type, &path)),
        }
    }
    let missing =
        table.iter().filter(|column| column.required && !query.iter().any(|field| field.name() == &column.name));
    lines.extend(missing.map(|column| {
        format!(
            "column {prefix}{} ({}): required by the table and missing in the query; add it to the query",
            column.name, column.field_type
        )
    }));
    lines
}

fn misfit(field: &Field, column: &Type, path: &str) -> Vec<String> {
    match (field.data_type(), column) {
        (DataType::Dictionary(_, values), _) => misfit(&Field::new("", values.as_ref().clone(), true), column, path),
        (DataType::RunEndEncoded(_, values), _) => misfit(values, column, path),
        (DataType::Struct(fields), Type::Struct(columns)) => misfits_of(fields, columns.fields(), &format!("{path}.")),
        (
            DataType::List(element)
            | DataType::LargeList(element)
            | DataType::ListView(element)
            | DataType::LargeListView(element)
            | DataType::FixedSizeList(element, _),
            Type::List(list),
        ) => misfit(element, &list.element_field.field_type, &format!("{path}.element")),
        (DataType::Map(entries, _), Type::Map(map)) => match entries.data_type() {
            DataType::Struct(pair) if pair.len() == 2 => [
                misfit(&pair[0], &map.key_field.field_type, &format!("{path}.key")),
                misfit(&pair[1], &map.value_field.field_type, &format!("{path}.value")),
            ]
            .concat(),
            other => vec![format!("column {path}: {other} are no entries of a map")],
        },
        (data_type, Type::Primitive(column)) if fits(data_type, column) => Vec::new(),
        (data_type, column) => vec![format!(
            "column {path}: the query's {data_type} does not fit the table's {column}; cast it in the query{}",
            zone_hint(data_type, column)
        )],
    }
}

fn zone_hint(data_type: &DataType, column: &Type) -> &'static str {
    match (data_type, column) {
        (DataType::Timestamp(_, None), Type::Primitive(PrimitiveType::Timestamptz)) => {
            " (if it is UTC: arrow_cast(…, 'Timestamp(Microsecond, Some(\"UTC\"))'))"
        }
        (DataType::Timestamp(_, Some(_)), Type::Primitive(PrimitiveType::Timestamp)) => {
            " (to UTC: arrow_cast(…, 'Timestamp(Microsecond, None)'))"
        }
        _ => "",
    }
}

/// Whether every value of `data_type` fits, or those that do not are found row by row.
fn fits(data_type: &DataType, column: &PrimitiveType) -> bool {
    use PrimitiveType as P;
    match column {
        P::Int | P::Long => data_type.is_integer(),
        P::Decimal { scale, .. } => match data_type {
            DataType::Decimal32(_, s)
            | DataType::Decimal64(_, s)
            | DataType::Decimal128(_, s)
            | DataType::Decimal256(_, s) => i64::from(*s) <= i64::from(*scale),
            other => other.is_integer(),
        },
        P::Double => data_type.is_floating(),
        P::Float => matches!(data_type, DataType::Float16 | DataType::Float32),
        P::Timestamp | P::TimestampNs => matches!(data_type, DataType::Timestamp(_, None)),
        P::Timestamptz | P::TimestamptzNs => matches!(data_type, DataType::Timestamp(_, Some(_))),
        P::Uuid => matches!(data_type, DataType::FixedSizeBinary(16)),
        same => primitive(data_type, false).is_ok_and(|own| own == *same),
    }
}
