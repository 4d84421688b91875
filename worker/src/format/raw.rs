//! Records as they stand: the columns `key` and `value`, the very buffers that came, but for values that are too long.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;

use super::{Decoded, Decoder, Format, FormatError, MAX_VALUE, NoRow, project, too_long};

/// The format `raw`.
pub(super) struct Raw {
    schema: SchemaRef,
}

impl Raw {
    pub(super) fn new() -> Self {
        let columns = ["key", "value"].map(|name| Field::new(name, DataType::Binary, true));
        Self { schema: Arc::new(Schema::new(columns.to_vec())) }
    }
}

impl Format for Raw {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn name(&self) -> &'static str {
        "raw"
    }

    fn decoder(&self, columns: &[usize]) -> Result<Box<dyn Decoder>, FormatError> {
        Ok(Box::new(RawDecoder { schema: project(&self.schema, columns)?, wanted: columns.to_vec() }))
    }
}

struct RawDecoder {
    schema: SchemaRef,
    wanted: Vec<usize>,
}

#[async_trait]
impl Decoder for RawDecoder {
    async fn decode(&mut self, keys: &BinaryArray, values: &BinaryArray) -> Result<Decoded, FormatError> {
        let long = values.offsets().lengths().enumerate().filter(|(_, bytes)| *bytes > MAX_VALUE);
        let others: Vec<(usize, NoRow)> = long.map(|(at, bytes)| (at, NoRow::Bad(too_long(bytes)))).collect();
        let both: [ArrayRef; 2] = [Arc::new(keys.clone()), Arc::new(values.clone())];
        let columns = self.wanted.iter().filter_map(|at| both.get(*at).cloned()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(arrow::array::Array::len(values)));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options);
        let rows = rows.map_err(FormatError::rows)?;
        if others.is_empty() {
            return Ok(Decoded { rows, others });
        }
        let mut is_row = vec![true; rows.num_rows()];
        others.iter().for_each(|(at, _)| is_row[*at] = false);
        let rows = filter_record_batch(&rows, &BooleanArray::from(is_row)).map_err(FormatError::rows)?;
        Ok(Decoded { rows, others })
    }
}
