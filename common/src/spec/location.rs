//! Where files are: local paths and the URLs of stores, judged by their text alone.
//!
//! `..` is refused in every path, relative, absolute or URL: whether `a/../b` is `b` depends on links that only the
//! disk knows, and what a worker may read is decided by prefix. A relative path therefore never leaves the
//! folder of its spec. Refused too: secrets in URLs, schemes without a reader, control characters.

use super::error::{SpecError, SpecErrors, quoted, shown};
use super::model::{KafkaSpec, Secret, Spec};

/// Schemes that a path may have.
const SCHEMES: [&str; 5] = ["s3", "gs", "az", "abfss", "file"];
const LONGEST: usize = 4_096;

/// Makes every relative path of `spec` (`files.path`, `from_file`) absolute, below `folder`.
///
/// `folder` is the absolute path of the folder that holds the spec. Nothing is looked up on a disk.
///
/// # Errors
/// Every path that is refused, and a folder that is not absolute or holds `..` or a glob's characters.
pub fn absolutise(spec: &mut Spec, folder: &str) -> Result<(), SpecErrors> {
    absolutise_all(spec, folder).map_err(|found| SpecErrors::new(found, ""))
}

pub(super) fn absolutise_all(spec: &mut Spec, folder: &str) -> Result<(), Vec<SpecError>> {
    let mut found = Vec::new();
    for (name, source) in &mut spec.sources {
        if let Some(kafka) = &mut source.kafka {
            found.extend(absolutise_kafka(&[name, "kafka"], kafka, folder));
        }
        if let Some(hybrid) = &mut source.hybrid {
            found.extend(absolutise_kafka(&[name, "hybrid", "live", "kafka"], &mut hybrid.live.kafka, folder));
        }
        let Some(files) = &mut source.files else { continue };
        let path = |keys: &[&str]| {
            let above = ["sources", name, "files"];
            above.iter().chain(keys).map(|key| (*key).to_owned()).collect::<Vec<_>>()
        };
        match below(folder, &files.path) {
            Ok(absolute) => files.path = absolute,
            Err(error) => found.push(error.of(path(&["path"]))),
        }
        let Some(storage) = &mut files.storage else { continue };
        let secrets = [
            ("access_key_id", &mut storage.access_key_id),
            ("secret_access_key", &mut storage.secret_access_key),
            ("session_token", &mut storage.session_token),
        ];
        for (key, secret) in secrets {
            let Some(Secret { from_file: Some(file), .. }) = secret else { continue };
            match below(folder, file) {
                Ok(absolute) => *file = absolute,
                Err(error) => found.push(error.of(path(&["storage", key, "from_file"]))),
            }
        }
    }
    if found.is_empty() { Ok(()) } else { Err(found) }
}

/// The files that a Kafka source names: of secrets and schemas.
fn absolutise_kafka(place: &[&str], kafka: &mut KafkaSpec, folder: &str) -> Vec<SpecError> {
    let mut files: Vec<(Vec<&str>, &mut String)> = Vec::new();
    for (key, secret) in &mut kafka.secrets {
        files.extend(secret.from_file.as_mut().map(|file| (vec!["secrets", key, "from_file"], file)));
    }
    let format = &mut kafka.format;
    for (key, file) in [("avro_schema", &mut format.avro_schema), ("descriptor_set", &mut format.descriptor_set)] {
        files.extend(file.as_mut().map(|file| (vec!["format", key], file)));
    }
    if let Some(registry) = &mut format.schema_registry {
        for (key, secret) in [("user", &mut registry.user), ("password", &mut registry.password)] {
            let file = secret.as_mut().and_then(|secret| secret.from_file.as_mut());
            files.extend(file.map(|file| (vec!["format", "schema_registry", key, "from_file"], file)));
        }
    }
    let mut found = Vec::new();
    for (keys, file) in files {
        match below(folder, file) {
            Ok(absolute) => *file = absolute,
            Err(error) => {
                let path = ["sources"].into_iter().chain(place.iter().copied()).chain(keys).map(str::to_owned);
                found.push(error.of(path.collect()));
            }
        }
    }
    found
}

/// `path`, below `folder` when it is relative.
fn below(folder: &str, path: &str) -> Result<String, SpecError> {
    if path.contains("://") || path.starts_with('/') {
        return check_location(path);
    }
    check_text(path)?;
    if path == "~" || path.starts_with("~/") {
        return Err(SpecError::new("`~` is not expanded").hint("write `${HOME}/…`"));
    }
    let folder_is_plain = folder.starts_with('/') && !folder.contains(['*', '?', '[', ']', '{', '}', '\\']);
    if !folder_is_plain || check_text(folder).is_err() {
        let message = format!("a relative path cannot be resolved against the folder {}", quoted(folder));
        return Err(SpecError::new(message).hint("move the spec to an absolute folder without any of `..*?[]{}\\`"));
    }
    Ok(normal(&format!("{folder}/{path}")))
}

/// Checks an absolute path or URL, and gives its normal form.
pub(super) fn check_location(path: &str) -> Result<String, SpecError> {
    check_text(path)?;
    let Some((scheme, rest)) = path.split_once("://") else {
        if path.starts_with('/') {
            return Ok(normal(path));
        }
        let error = SpecError::new(format!("the path {} is relative", quoted(path)));
        return Err(error.hint("a spec without a folder needs absolute paths"));
    };
    if !SCHEMES.contains(&scheme) {
        let error = SpecError::new(format!("no reader for {}", quoted(&format!("{scheme}://"))));
        return Err(error.hint("expected a path, s3://, gs://, az://, abfss:// or file://"));
    }
    let (authority, key) = rest.split_once('/').unwrap_or((rest, ""));
    if path.contains('\\') {
        return Err(SpecError::new("a URL holds no backslash"));
    }
    match (scheme, authority) {
        ("file", "") => Ok(format!("file://{}", normal(&format!("/{key}")))),
        ("file", _) => Err(SpecError::new("a file:// URL names no host").hint("write `file:///path`")),
        (_, "") => Err(SpecError::new(format!("{} names no bucket", quoted(path)))),
        (_, bucket) if bucket.contains(['*', '?', '[', ']', '{', '}', ':', '#', '%']) => {
            Err(SpecError::new(format!("{} is not a bucket", quoted(bucket))))
        }
        _ => Ok(path.to_owned()),
    }
}

/// Checks the address of a store: `https://host[:port][/…]`, and `http://` where that is allowed.
pub(super) fn check_endpoint(endpoint: &str, allow_http: bool) -> Result<(), SpecError> {
    check_text(endpoint)?;
    let rest = match endpoint.split_once("://") {
        Some(("https", rest)) => rest,
        Some(("http", rest)) if allow_http => rest,
        Some(("http", _)) => {
            let error = SpecError::new("the endpoint is not encrypted");
            return Err(error.hint("write https://, or `allow_http: true` if that is meant"));
        }
        _ => {
            return Err(SpecError::new(format!("{} is not an endpoint", quoted(endpoint))).hint("write `https://host`"));
        }
    };
    if rest.is_empty() || rest.starts_with(['/', ':', '?', '#', '\\']) {
        return Err(SpecError::new(format!("{} names no host", quoted(endpoint))));
    }
    Ok(())
}

/// Whether this is Azure's `abfss://container@account.dfs.core.windows.net`, which holds no user.
fn is_container(scheme: &str, authority: &str) -> bool {
    let name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    let (container, host) = authority.split_once('@').unwrap_or_default();
    let account = host.strip_suffix(".dfs.core.windows.net");
    scheme == "abfss" && name(container) && account.is_some_and(name)
}

/// What no path or URL may be. A user and password are looked for first, since later errors show the text.
fn check_text(path: &str) -> Result<(), SpecError> {
    let url = path.split_once("://").map(|(scheme, rest)| (scheme, rest.split('/').next().unwrap_or_default()));
    if url.is_some_and(|(scheme, authority)| authority.contains('@') && !is_container(scheme, authority)) {
        let error = SpecError::new("a URL must not hold a user or password: specs are stored in clear");
        return Err(error.hint("name the credentials under `storage`, by `from_env` or `from_file`"));
    }
    if path.trim().is_empty() {
        return Err(SpecError::new("the path is empty"));
    }
    if path.len() > LONGEST {
        return Err(SpecError::new(format!("the path has more than {LONGEST} bytes")));
    }
    if path.chars().any(char::is_control) {
        return Err(SpecError::new(format!("the path `{}` holds a control character", shown(path))));
    }
    let decoded = path.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/").replace("%5c", "\\");
    if decoded.split(['/', '\\', '{', '}', ',']).any(|part| part.trim() == "..") {
        let error = SpecError::new(format!("the path {} climbs with `..`", quoted(path)));
        return Err(error.hint("name the place itself, by an absolute path or from the spec's folder down"));
    }
    Ok(())
}

/// An absolute path without `.` and empty steps; a trailing `/` is dropped.
fn normal(path: &str) -> String {
    let steps: Vec<&str> = path.split('/').filter(|step| !matches!(*step, "" | ".")).collect();
    format!("/{}", steps.join("/"))
}
