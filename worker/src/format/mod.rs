//! STUB
use std::sync::Arc;
use arrow::array::{BinaryArray, RecordBatch, RecordBatchOptions, ArrayRef};
use arrow::datatypes::{Schema, SchemaRef, Field, DataType};
use async_trait::async_trait;
use tidegate_common::spec::model::RecordFormatSpec;
use crate::access::Access;
use crate::failure::{Class, Classify};
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct FormatError(String);
impl Classify for FormatError { fn class(&self) -> Class { Class::Fatal { exit_code: 3 } } }
pub(crate) struct Decoded { pub(crate) rows: RecordBatch, pub(crate) others: Vec<(usize, NoRow)> }
pub(crate) enum NoRow { Tombstone, Skipped, Bad(String) }
#[async_trait]
pub(crate) trait Decoder: Send {
    async fn decode(&mut self, keys: &BinaryArray, values: &BinaryArray) -> Result<Decoded, FormatError>;
}
#[async_trait]
pub(crate) trait Format: Send + Sync {
    fn schema(&self) -> SchemaRef;
    fn name(&self) -> &'static str;
    fn pin(&self) -> Vec<u8> { Vec::new() }
    fn keeps_tombstones(&self) -> bool { false }
    fn decoder(&self, columns: &[usize]) -> Result<Box<dyn Decoder>, FormatError>;
}
struct Raw(SchemaRef);
struct RawDecoder(SchemaRef, Vec<usize>);
impl Format for Raw {
    fn schema(&self) -> SchemaRef { self.0.clone() }
    fn name(&self) -> &'static str { "raw" }
    fn keeps_tombstones(&self) -> bool { true }
    fn decoder(&self, columns: &[usize]) -> Result<Box<dyn Decoder>, FormatError> { Ok(Box::new(RawDecoder(Arc::new(self.0.project(columns).unwrap()), columns.to_vec()))) }
}
#[async_trait]
impl Decoder for RawDecoder {
    async fn decode(&mut self, keys: &BinaryArray, values: &BinaryArray) -> Result<Decoded, FormatError> {
        let columns: Vec<ArrayRef> = self.1.iter().map(|at| -> ArrayRef { if *at == 0 { Arc::new(keys.clone()) } else { Arc::new(values.clone()) } }).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(arrow::array::Array::len(values)));
        Ok(Decoded { rows: RecordBatch::try_new_with_options(self.0.clone(), columns, &options).unwrap(), others: vec![] })
    }
}
pub(crate) async fn open(_t: &str, _s: &RecordFormatSpec, _a: &Access, _p: Option<&[u8]>) -> Result<Arc<dyn Format>, FormatError> {
    Ok(Arc::new(Raw(Arc::new(Schema::new(vec![Field::new("key", DataType::Binary, true), Field::new("value", DataType::Binary, true)])))))
}
