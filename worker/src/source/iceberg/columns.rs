//! Where a table's columns stand in one of its files: by field id, or by the table's name mapping.

use arrow::datatypes::{DataType, Field};
use iceberg::spec::{PrimitiveType, Transform, Type};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;

use super::Shared;
use crate::source::error::SourceError;
use crate::source::parquet::{ParquetFile, plain};

/// A file's columns, by their place in the source's schema.
#[derive(Clone, Debug)]
pub(super) struct Places(Vec<Option<usize>>);

impl Places {
    /// Finds them in `file`.
    ///
    /// # Errors
    /// Where only a guess could tell a column or its values.
    pub(super) fn of(shared: &Shared, file: &ParquetFile) -> Result<Self, SourceError> {
        let theirs = file.schema().fields();
        let ids: Vec<Option<i32>> = theirs.iter().map(|field| id_of(field)).collect();
        let named = ids.iter().filter(|id| id.is_some()).count();
        let is_mapped = named == 0 && shared.mapping.is_some();
        if named < ids.len() && !is_mapped {
            let (file, table) = (file.name(), shared.table.identifier());
            return Err(shared.input(format!(
                "{file} of {table} has columns without field ids, and which is which would be a guess: set the table's \
                 property schema.name-mapping.default, or write the file again"
            )));
        }
        let place = |id: i32| match &shared.mapping {
            Some(mapping) if is_mapped => {
                let names = mapping.fields().iter().find(|field| field.field_id() == Some(id))?.names();
                theirs.iter().position(|field| names.contains(field.name()))
            }
            _ => ids.iter().position(|held| *held == Some(id)),
        };
        let fields = shared.fields.as_struct().fields().iter();
        let places = Self(fields.map(|field| place(field.id)).collect());
        places.check(shared, file)?;
        Ok(places)
    }

    /// Where the column at `column` stands; none where the file is older than it.
    pub(super) fn of_column(&self, column: usize) -> Option<usize> {
        self.0.get(column).copied().flatten()
    }

    /// All of them, when the file's columns are the table's in all but order, and so can be read as they stand.
    pub(super) fn unchanged(&self, shared: &Shared, file: &ParquetFile) -> Option<Vec<usize>> {
        let theirs = file.schema().fields();
        let same = |(field, place): (&std::sync::Arc<Field>, &Option<usize>)| {
            let place = (*place)?;
            let held = theirs.get(place)?;
            let fits = !field.data_type().is_nested()
                && id_of(held).is_some()
                && held.name() == field.name()
                && is_same(&plain(held.data_type()), field.data_type());
            fits.then_some(place)
        };
        shared.schema.fields().iter().zip(&self.0).map(same).collect()
    }

    /// Refuses a file that was adopted without its partition's columns: their values stand in the metadata alone, and
    /// Iceberg's reader would give nulls.
    pub(super) fn check_constants(&self, shared: &Shared, file: &str, spec_id: i32) -> Result<(), SourceError> {
        let spec = shared.table.metadata().partition_spec_by_id(spec_id);
        let constants = spec.iter().flat_map(|spec| spec.fields()).filter(|by| by.transform == Transform::Identity);
        for constant in constants {
            let mut columns = shared.fields.as_struct().fields().iter().zip(&self.0);
            if let Some((field, None)) = columns.find(|(field, _)| field.id == constant.source_id) {
                return Err(shared.input(format!(
                    "{file} leaves out the partition column {}: its value stands in the metadata alone, which cannot \
                     be read yet; write the file again with the column",
                    field.name
                )));
            }
        }
        Ok(())
    }

    /// Iceberg's reader gives nulls for a type that it cannot promote.
    fn check(&self, shared: &Shared, file: &ParquetFile) -> Result<(), SourceError> {
        let theirs = file.schema().fields();
        let columns = shared.fields.as_struct().fields().iter().zip(shared.schema.fields()).zip(&self.0);
        for ((field, arrow), place) in columns {
            match place.and_then(|place| theirs.get(place)) {
                Some(held) if arrow.data_type().is_nested() == held.data_type().is_nested() => {
                    let (from, to) = (plain(held.data_type()), arrow.data_type());
                    if !to.is_nested() && !is_same(&from, to) && !is_promoted(&from, to, &field.field_type) {
                        return Err(misfit(shared, file, &field.name, &from, to));
                    }
                }
                Some(held) => {
                    return Err(misfit(shared, file, &field.name, held.data_type(), arrow.data_type()));
                }
                None => {}
            }
        }
        Ok(())
    }
}

fn misfit(shared: &Shared, file: &ParquetFile, name: &str, from: &DataType, to: &DataType) -> SourceError {
    shared.input(format!(
        "column {name} is {from} in {} and {to} in the table, and the one does not become the other: write the file again",
        file.name()
    ))
}

/// The field id that a file gives its column.
pub(super) fn id_of(field: &Field) -> Option<i32> {
    field.metadata().get(PARQUET_FIELD_ID_META_KEY)?.parse().ok()
}

/// Zones have several names for UTC, and Iceberg has no other zone.
fn is_same(held: &DataType, wanted: &DataType) -> bool {
    match (held, wanted) {
        (DataType::Timestamp(held, Some(_)), DataType::Timestamp(wanted, Some(_))) => held == wanted,
        _ => held.equals_datatype(wanted),
    }
}

/// The promotions that Iceberg's reader knows, and its readings of physical types.
fn is_promoted(held: &DataType, wanted: &DataType, kind: &Type) -> bool {
    match (held, wanted) {
        (DataType::Int32, DataType::Int64) | (DataType::Float32, DataType::Float64) => true,
        (DataType::Decimal128(from, scale), DataType::Decimal128(to, same)) => from <= to && scale == same,
        (DataType::FixedSizeBinary(16), _) => matches!(kind, Type::Primitive(PrimitiveType::Uuid)),
        _ => false,
    }
}
