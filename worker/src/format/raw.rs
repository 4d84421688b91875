//! Records as they stand: the columns `key` and `value`, the very buffers that came.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;

use super::{Decoded, Decoder, Format, FormatError, project};

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
        let both: [ArrayRef; 2] = [Arc::new(keys.clone()), Arc::new(values.clone())];
        let columns = self.wanted.iter().filter_map(|at| both.get(*at).cloned()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(arrow::array::Array::len(values)));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options);
        Ok(Decoded { rows: rows.map_err(FormatError::rows)?, others: Vec::new() })
    }
}
