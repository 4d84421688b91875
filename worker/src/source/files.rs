//! Opens a source of files in the format that its spec names, or that its files' endings do.

use std::sync::Arc;

use futures::StreamExt;
use tidegate_common::spec::model::{EventTimeSpec, FilesSpec, Format, OnError};

use super::Source;
use super::error::SourceError;
use super::lines::LinesSource;
use super::parquet::ParquetSource;
use super::store::Store;
use crate::access::Access;

/// Opens the files of `spec`.
pub(crate) async fn open(
    name: &str,
    spec: &FilesSpec,
    event_time: Option<&EventTimeSpec>,
    on_error: OnError,
    access: &Access,
) -> Result<Arc<dyn Source>, SourceError> {
    let store = Store::open(name, &spec.path, spec.storage.as_ref(), access)?;
    let Some(first) = store.files().next().await.transpose()? else {
        return Err(SourceError::Abandoned);
    };
    let format = match spec.format {
        Some(format) => format,
        None => format_of(&first.path).ok_or_else(|| SourceError::Spec {
            source_name: name.to_owned(),
            what: format!(
                "the ending of {} names no format: set files.format to parquet, csv or json, or narrow the path",
                first.path
            ),
        })?,
    };
    match format {
        Format::Parquet if spec.schema.is_some() || spec.csv.is_some() || spec.compression.is_some() => {
            Err(SourceError::Spec {
                source_name: name.to_owned(),
                what: "schema, csv and compression are for CSV and JSON; Parquet files bring their own: remove them"
                    .to_owned(),
            })
        }
        Format::Parquet => Ok(Arc::new(ParquetSource::open(name, store, &first, event_time).await?)),
        Format::Csv | Format::Json => {
            Ok(Arc::new(LinesSource::open(name, store, &first, format, spec, event_time, on_error).await?))
        }
    }
}

/// The format that the ending of `path` names, behind that of a compression.
fn format_of(path: &str) -> Option<Format> {
    let path = path.to_lowercase();
    let plain = [".gz", ".zst"].iter().find_map(|ending| path.strip_suffix(ending)).unwrap_or(&path);
    let (_, ending) = plain.rsplit_once('.')?;
    match ending {
        "parquet" | "parq" | "pq" => Some(Format::Parquet),
        "csv" | "tsv" => Some(Format::Csv),
        "json" | "jsonl" | "ndjson" => Some(Format::Json),
        _ => None,
    }
}
