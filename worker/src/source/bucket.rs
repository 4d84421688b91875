//! Object stores: `s3://`, and `gs://` and `az://` where the build has them. Credentials come by reference only; the
//! worker's own serve a spec only where the worker's environment is open to it (a run in the user's own process).

use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use globset::GlobMatcher;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tidegate_common::spec::model::StorageSpec;
use tidegate_proto::v1::FilePin;

use super::error::SourceError;
use super::store::{pin_of, store_error};
use super::walk;
use crate::access::Access;
use crate::storage::{S3, StoreError, Trouble};

/// A bucket and what is wanted of it.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    source_name: String,
    store: Arc<dyn ObjectStore>,
    /// `s3://bucket/`
    root: String,
    /// Everything wanted lies below this key, or is it.
    base: Path,
    pattern: Option<GlobMatcher>,
}

/// Opens the bucket of `location`.
pub(crate) fn open(
    source_name: &str,
    location: &str,
    storage: Option<&StorageSpec>,
    access: &Access,
) -> Result<Bucket, SourceError> {
    let spec = |what: String| SourceError::Spec { source_name: source_name.to_owned(), what };
    let denied = |what: String| SourceError::Denied { source_name: source_name.to_owned(), what };
    let (scheme, rest) = location.split_once("://").unwrap_or_default();
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(spec(format!("{location} names no bucket: write {scheme}://bucket/path")));
    }
    if storage.is_some() && !matches!(scheme, "s3" | "s3a") {
        return Err(spec(format!("`storage` is for s3://, and {location} is none: remove it")));
    }
    let none = StorageSpec::default();
    let storage = storage.unwrap_or(&none);
    let store: Arc<dyn ObjectStore> = match scheme {
        "s3" | "s3a" => {
            let s3 = S3::of(storage, access).map_err(spec)?;
            allow_host(&s3.host().map_err(spec)?, access).map_err(denied)?;
            Arc::new(s3.open(bucket, None).map_err(|why| spec(format!("{location}: {why}")))?)
        }
        #[cfg(feature = "gcp")]
        "gs" => {
            allow_host("storage.googleapis.com", access).map_err(denied)?;
            let builder = match access.env {
                None => object_store::gcp::GoogleCloudStorageBuilder::from_env(),
                Some(_) => object_store::gcp::GoogleCloudStorageBuilder::new().with_skip_signature(true),
            };
            Arc::new(builder.with_bucket_name(bucket).build().map_err(|e| spec(format!("{location}: {e}")))?)
        }
        #[cfg(feature = "azure")]
        "az" | "abfss" => {
            allow_host("blob.core.windows.net", access).map_err(denied)?;
            let builder = match access.env {
                None => object_store::azure::MicrosoftAzureBuilder::from_env(),
                Some(_) => object_store::azure::MicrosoftAzureBuilder::new().with_skip_signature(true),
            };
            // `abfss://container@account.dfs.core.windows.net` names the account too.
            let builder = builder.with_url(format!("{scheme}://{bucket}"));
            Arc::new(builder.build().map_err(|e| spec(format!("{location}: {e}")))?)
        }
        #[cfg(not(feature = "gcp"))]
        "gs" => return Err(spec(not_built("gs", "gcp"))),
        #[cfg(not(feature = "azure"))]
        "az" | "abfss" => return Err(spec(not_built(scheme, "azure"))),
        other => return Err(spec(format!("{other}:// is no store that is known: use a path, s3://, gs:// or az://"))),
    };
    let (base, rest) = cut_glob(key);
    let pattern = rest.map(walk::glob).transpose().map_err(|what| spec(format!("the glob {location}: {what}")))?;
    let base = Path::parse(base.trim_matches('/')).map_err(|e| spec(format!("{location}: {e}")))?;
    Ok(Bucket { source_name: source_name.to_owned(), store, root: format!("{scheme}://{bucket}/"), base, pattern })
}

/// What this build leaves out, and how to have it.
#[cfg(not(all(feature = "gcp", feature = "azure")))]
fn not_built(scheme: &str, feature: &str) -> String {
    format!(
        "this build cannot read {scheme}://: it was built without the feature `{feature}` (cargo build --features {feature})"
    )
}

impl Bucket {
    /// The store itself.
    pub(crate) fn store(&self) -> Arc<dyn ObjectStore> {
        self.store.clone()
    }

    /// The key of a pinned URL; one of another bucket is refused.
    pub(crate) fn key(&self, url: &str) -> Result<Path, SourceError> {
        let key = url.strip_prefix(&self.root).and_then(|key| Path::parse(key).ok());
        key.ok_or_else(|| SourceError::Changed {
            file: url.to_owned(),
            what: format!("it is not in {}, which the spec names", self.root),
        })
    }

    /// The objects, in the store's order, which is by key.
    pub(crate) fn files(&self) -> BoxStream<'static, Result<FilePin, SourceError>> {
        let this = self.clone();
        futures::stream::once(async move {
            if this.pattern.is_none() && !this.base.as_ref().is_empty() {
                match this.store.head(&this.base).await {
                    Ok(meta) => {
                        let pin = this.pin(&meta);
                        return Ok(futures::stream::once(async { Ok(pin) }).boxed());
                    }
                    Err(object_store::Error::NotFound { .. }) => {}
                    Err(e) => return Err(store_error(&format!("{}{}", this.root, this.base), e)),
                }
            }
            Ok(this.below())
        })
        .try_flatten()
        .boxed()
    }

    fn below(self) -> BoxStream<'static, Result<FilePin, SourceError>> {
        let listed = self.store.list(Some(&self.base));
        listed
            .map(move |meta| {
                let meta = meta.map_err(|e| self.list_error(e))?;
                Ok(self.is_wanted(&meta.location).then(|| self.pin(&meta)))
            })
            .filter_map(|file: Result<Option<FilePin>, SourceError>| futures::future::ready(file.transpose()))
            .boxed()
    }

    /// A store has no folders: what is missing when a list fails is the bucket.
    fn list_error(&self, error: object_store::Error) -> SourceError {
        let error = StoreError::from(error);
        let place = format!("{}{}", self.root, self.base);
        if error.trouble() == Trouble::Missing {
            let what = format!("{place}: there is no such bucket, or not for these credentials: {error}");
            return SourceError::Input { source_name: self.source_name.clone(), what };
        }
        SourceError::Store { file: place, source: error }
    }

    fn is_wanted(&self, key: &Path) -> bool {
        let Some(parts) = key.prefix_match(&self.base) else { return false };
        let parts: Vec<String> = parts.map(|part| part.as_ref().to_owned()).collect();
        let visible = parts.iter().all(|part| !walk::is_hidden(part));
        visible && self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(parts.join("/")))
    }

    fn pin(&self, meta: &object_store::ObjectMeta) -> FilePin {
        pin_of(format!("{}{}", self.root, meta.location), meta)
    }
}

/// The folders before the first part with a glob, and the rest.
fn cut_glob(key: &str) -> (&str, Option<&str>) {
    let Some(at) = key.find(['*', '?', '[', '{']) else { return (key, None) };
    let cut = key.get(..at).and_then(|head| head.rfind('/')).map_or(0, |slash| slash + 1);
    (key.get(..cut).unwrap_or_default(), key.get(cut..))
}

fn allow_host(host: &str, access: &Access) -> Result<(), String> {
    let Some(allowed) = &access.endpoints else { return Ok(()) };
    let bare = host.split(':').next().unwrap_or(host);
    if allowed.iter().any(|a| a == host || a == bare) {
        return Ok(());
    }
    Err(format!("this worker does not allow the endpoint {host}: add it to allow.endpoints"))
}
