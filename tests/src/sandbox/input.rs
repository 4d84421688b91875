//! Input of a test: Parquet files with unique ids, many small row groups, and event times that are nearly in order.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::chance::Chance;

/// One day of event time, in microseconds.
pub const DAY: i64 = 86_400_000_000;
/// 2024-01-01T00:00:00Z, where inputs begin.
pub const BEGIN: i64 = 1_704_067_200_000_000;

/// What a source's files hold.
#[derive(Clone, Debug)]
pub struct Input {
    /// The folder of its files, below the world's.
    pub folder: &'static str,
    /// Rows, spread evenly over the days.
    pub rows: u32,
    /// Days from [`BEGIN`] on.
    pub days: u32,
    /// Files, each with as many days.
    pub files: u32,
    /// Rows of a row group: the reader's unit.
    pub unit: usize,
    /// Chance, and what makes the ids differ from another source's.
    pub seed: u64,
}

impl Input {
    /// Writes the files below `root`; gives their paths.
    pub fn write(&self, root: &Path) -> Vec<PathBuf> {
        let folder = root.join(self.folder);
        fs::create_dir_all(&folder).expect("a folder for the input");
        let mut chance = Chance::new(self.seed);
        let share = self.rows / self.files;
        let files = (0..self.files).map(|file| {
            let rows = if file + 1 == self.files { self.rows - share * file } else { share };
            let path = folder.join(format!("part-{file:03}.parquet"));
            write_file(&path, &self.batch(file * share, rows, &mut chance), self.unit);
            path
        });
        files.collect()
    }

    /// The pattern that means all files.
    pub fn glob(&self, root: &Path) -> String {
        root.join(self.folder).join("*.parquet").display().to_string()
    }

    fn batch(&self, first: u32, rows: u32, chance: &mut Chance) -> RecordBatch {
        let span = i64::from(self.days) * DAY;
        let end = BEGIN + span;
        let mut ids = Vec::new();
        let mut times = Vec::new();
        let mut keys = Vec::new();
        let mut payloads = Vec::new();
        let mut amounts = Vec::new();
        for row in first..first + rows {
            ids.push(i64::try_from(self.seed).expect("a small seed") * 1_000_000_000 + i64::from(row));
            let jitter = i64::try_from(chance.below(3_600_000_000)).expect("below an hour");
            times.push((BEGIN + span / i64::from(self.rows) * i64::from(row) + jitter).min(end - 1));
            keys.push(format!("k{}", chance.below(97)));
            payloads.push(
                (row % 13 != 0).then(|| format!("{:016x}{:016x}{:016x}", chance.next(), chance.next(), chance.next())),
            );
            amounts.push((row % 7 != 0).then(|| f64::from(row) / 4.0));
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(ids)),
            Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")),
            Arc::new(StringArray::from(keys)),
            Arc::new(StringArray::from(payloads)),
            Arc::new(Float64Array::from(amounts)),
        ];
        RecordBatch::try_new(schema(), columns).expect("columns of one length")
    }
}

fn schema() -> Arc<Schema> {
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("ts", utc, false),
        Field::new("key", DataType::Utf8, false),
        Field::new("payload", DataType::Utf8, true),
        Field::new("amount", DataType::Float64, true),
    ]))
}

/// Writes `rows` in row groups of `unit` rows.
pub fn write_file(path: &Path, rows: &RecordBatch, unit: usize) {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(unit))
        .build();
    let file = File::create(path).expect("a file of the input");
    let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties)).expect("a writer");
    // One at a time: the writer calls itself for each row group that a batch is cut into.
    for first in (0..rows.num_rows()).step_by(unit) {
        writer.write(&rows.slice(first, unit.min(rows.num_rows() - first))).expect("rows are written");
    }
    writer.close().expect("a file is closed");
}

/// Overwrites the header of a page in the middle row group; the footer stays as it is.
pub(super) fn spoil(path: &Path) {
    use std::os::unix::fs::FileExt;
    let file = File::options().read(true).write(true).open(path).expect("a file of the input");
    let footer = ArrowReaderMetadata::load(&file, ArrowReaderOptions::default()).expect("a footer");
    let group = footer.metadata().row_group(footer.metadata().num_row_groups() / 2);
    let page = group.column(0).data_page_offset();
    file.write_all_at(&[0xff; 24], u64::try_from(page).expect("an offset")).expect("a file is spoilt");
}
