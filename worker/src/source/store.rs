//! Where a source's files are: a folder of this machine or a bucket, listed in a stable order and read by pin.
//!
//! It refuses paths outside the worker's allow-list, links that lead out of it, relative paths, and files that are
//! no longer what was pinned.

use std::ops::Range;
use std::path::Path as DiskPath;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt};
use tidegate_common::spec::model::StorageSpec;
use tidegate_proto::v1::FilePin;

use super::error::SourceError;
use super::{bucket, walk};
use crate::access::{Access, Allowed};
use crate::storage::Lake;

/// Gaps between two wanted ranges up to this many bytes are read along with them.
const COALESCE: u64 = 1 << 20;

/// The place that a source's `path` names, opened.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    source_name: String,
    location: String,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Disk {
        allowed: Allowed,
        disk: Arc<LocalFileSystem>,
    },
    Bucket(bucket::Bucket),
    /// Wherever the files of a catalog's table stand.
    Lake {
        allowed: Allowed,
        disk: Arc<LocalFileSystem>,
        lake: Lake,
    },
}

impl Store {
    /// Opens the place that `location` names: an absolute path or a URL, of a file, a folder or a glob.
    pub(crate) fn open(
        source_name: &str,
        location: &str,
        storage: Option<&StorageSpec>,
        access: &Access,
    ) -> Result<Self, SourceError> {
        let spec = |what: String| SourceError::Spec { source_name: source_name.to_owned(), what };
        let location = location.strip_prefix("file://").unwrap_or(location);
        let kind = if location.contains("://") {
            Kind::Bucket(bucket::open(source_name, location, storage, access)?)
        } else if storage.is_some() {
            return Err(spec(format!("`storage` is for object stores, and {location} is on a disk: remove it")));
        } else if !DiskPath::new(location).is_absolute() {
            return Err(spec(format!(
                "{location} is relative, and a worker has no folder to take it from: write it whole"
            )));
        } else {
            Kind::Disk { allowed: Allowed::new(access), disk: Arc::new(LocalFileSystem::new()) }
        };
        Ok(Self { source_name: source_name.to_owned(), location: location.to_owned(), kind })
    }

    /// Opens the place where a table's files stand: on this machine within what `access` allows, else in the buckets
    /// that the table's catalog reaches.
    pub(crate) fn of_table(source_name: &str, table: &str, lake: Lake, access: &Access) -> Self {
        let kind = Kind::Lake { allowed: Allowed::new(access), disk: Arc::new(LocalFileSystem::new()), lake };
        Self { source_name: source_name.to_owned(), location: table.to_owned(), kind }
    }

    /// What was asked for, as it was written.
    pub(crate) fn location(&self) -> &str {
        &self.location
    }

    /// The files, in a stable order; names that begin with `_` or `.` are no data. Ends with an error when there is none.
    pub(crate) fn files(&self) -> BoxStream<'static, Result<FilePin, SourceError>> {
        let listed = match &self.kind {
            Kind::Disk { allowed, .. } => walk::files(&self.source_name, &self.location, allowed.clone()),
            Kind::Bucket(bucket) => bucket.files(),
            Kind::Lake { .. } => futures::stream::empty().boxed(),
        };
        let nothing = SourceError::Input {
            source_name: self.source_name.clone(),
            what: format!("{} matches no file (names that begin with _ or . are not read)", self.location),
        };
        let mut nothing = Some(nothing);
        let last = futures::stream::once(async { None });
        listed
            .map(Some)
            .chain(last)
            .filter_map(move |file| {
                let next = match file {
                    Some(file) => {
                        nothing = None;
                        Some(file)
                    }
                    None => nothing.take().map(Err),
                };
                futures::future::ready(next)
            })
            .boxed()
    }

    /// Pins the file at `path`, an absolute path of this machine or a URL, as it is now.
    pub(crate) async fn pin(&self, path: &str) -> Result<FilePin, SourceError> {
        let pin = FilePin { path: path.to_owned(), ..Default::default() };
        let (store, key) = self.place_of(&pin)?;
        let meta = store.head(&key).await.map_err(|e| store_error(path, e))?;
        // The inode in a disk's etag is not shared by copies on other machines.
        let is_disk = !path.contains("://");
        Ok(pin_of(path.to_owned(), &ObjectMeta { e_tag: if is_disk { None } else { meta.e_tag.clone() }, ..meta }))
    }

    fn place_of(&self, pin: &FilePin) -> Result<(Arc<dyn ObjectStore>, Path), SourceError> {
        let denied = |what| SourceError::Denied { source_name: self.source_name.clone(), what };
        match &self.kind {
            Kind::Bucket(bucket) => Ok((bucket.store(), bucket.key(&pin.path)?)),
            Kind::Lake { lake, .. } if pin.path.contains("://") => lake.object(&pin.path).map_err(denied),
            Kind::Disk { allowed, disk } | Kind::Lake { allowed, disk, .. } => {
                let real = allowed.resolve(DiskPath::new(&pin.path)).map_err(denied)?;
                let path = Path::from_absolute_path(&real).map_err(|e| store_error(&pin.path, e.into()))?;
                Ok((disk.clone(), path))
            }
        }
    }

    /// Opens the file that `pin` names for reading, checking that it is still the one that was pinned.
    pub(crate) async fn open_pinned(&self, pin: &FilePin) -> Result<PinnedFile, SourceError> {
        let (store, path) = self.place_of(pin)?;
        let meta = store.head(&path).await.map_err(|e| match e {
            object_store::Error::NotFound { .. } => changed(pin, "it is gone".to_owned()),
            e => store_error(&pin.path, e),
        })?;
        check_pin(pin, &meta)?;
        Ok(PinnedFile { name: pin.path.clone().into(), store, path, size: meta.size, etag: meta.e_tag })
    }
}

/// One file, opened; every read asserts that it has not been replaced since.
#[derive(Clone, Debug)]
pub(crate) struct PinnedFile {
    name: Arc<str>,
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
    etag: Option<String>,
}

impl PinnedFile {
    /// Its path or URL.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The bytes of `range`.
    pub(crate) async fn bytes(&self, range: Range<u64>) -> object_store::Result<Bytes> {
        let wanted = range.end.saturating_sub(range.start);
        let bytes = self.store.get_opts(&self.path, self.options(range)).await?.bytes().await?;
        if bytes.len() as u64 != wanted {
            let source = format!("{} bytes came back where {wanted} were asked for", bytes.len()).into();
            return Err(object_store::Error::Generic { store: "range", source });
        }
        Ok(bytes)
    }

    /// The bytes of several ranges; neighbours are fetched in one request.
    pub(crate) async fn ranges(&self, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        object_store::coalesce_ranges(ranges, |range| self.bytes(range), COALESCE).await
    }

    /// The bytes of `range`, as they arrive.
    pub(crate) async fn stream(
        &self,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, SourceError>>, SourceError> {
        let name = self.name.clone();
        let got = self.store.get_opts(&self.path, self.options(range)).await.map_err(|e| store_error(&name, e))?;
        Ok(got.into_stream().map_err(move |e| store_error(&name, e)).boxed())
    }

    fn options(&self, range: Range<u64>) -> GetOptions {
        GetOptions { if_match: self.etag.clone(), range: Some(range.into()), ..Default::default() }
    }
}

/// The store's failure at `file`; a condition that did not hold means that the file was replaced.
pub(crate) fn store_error(file: &str, source: object_store::Error) -> SourceError {
    match source {
        object_store::Error::Precondition { .. } => {
            SourceError::Changed { file: file.to_owned(), what: "it was replaced while it was read".to_owned() }
        }
        source => SourceError::Store { file: file.to_owned(), source: source.into() },
    }
}

/// What `meta` says, as a pin. On a disk the etag holds the inode, which copies on other machines do not share.
pub(crate) fn pin_of(path: String, meta: &ObjectMeta) -> FilePin {
    FilePin {
        path,
        size: meta.size,
        etag: meta.e_tag.clone().unwrap_or_default(),
        modified: meta.last_modified.timestamp_micros(),
    }
}

fn check_pin(pin: &FilePin, meta: &ObjectMeta) -> Result<(), SourceError> {
    if meta.size != pin.size {
        return Err(changed(pin, format!("it held {} bytes and holds {}", pin.size, meta.size)));
    }
    let now = meta.e_tag.as_deref().unwrap_or_default();
    if !pin.etag.is_empty() {
        if now == pin.etag {
            return Ok(());
        }
        return Err(changed(pin, format!("its etag was {} and is {now}", pin.etag)));
    }
    let modified = meta.last_modified.timestamp_micros();
    if modified != pin.modified {
        let say = tidegate_common::time::EventTime::from_micros;
        return Err(changed(pin, format!("it was written at {} and again at {}", say(pin.modified), say(modified))));
    }
    Ok(())
}

fn changed(pin: &FilePin, what: String) -> SourceError {
    SourceError::Changed { file: pin.path.clone(), what }
}

#[cfg(test)]
mod tests;
