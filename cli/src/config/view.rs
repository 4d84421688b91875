//! The configuration as `config view` shows it.

use serde::Serialize;

use super::{Config, Setting};
use crate::output::Format;

/// One value.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Entry {
    /// Its key: `worker.slots`.
    pub key: String,
    /// The value; `null` where there is none.
    pub value: serde_json::Value,
    /// Where it comes from.
    pub origin: String,
}

/// Every value, by key.
pub(crate) fn entries(config: &Config) -> Vec<Entry> {
    let mut entries = vec![
        entry("coordinator", &config.coordinator, |url| redacted(url).into()),
        entry("listen", &config.listen, |at| at.to_string().into()),
        entry("state", &config.state, |path| path.display().to_string().into()),
        entry("output", &config.output, |format: &Format| serde_json::json!(format)),
        entry("color", &config.color, |color| serde_json::json!(color)),
        entry("log", &config.log, |log| serde_json::json!(log)),
        entry("worker.name", &config.worker_name, |name| serde_json::json!(name)),
        entry("worker.slots", &config.worker_slots, |slots| (*slots).into()),
        entry("worker.memory", &config.worker_memory, |bytes| (*bytes).into()),
        entry("worker.shuffle", &config.worker_shuffle, |location| redacted(location).into()),
        entry("allow.paths", &config.allow_paths, |paths| serde_json::json!(paths)),
        entry("allow.env", &config.allow_env, |names| serde_json::json!(names)),
        entry("allow.endpoints", &config.allow_endpoints, |hosts| serde_json::json!(hosts)),
        entry("price.worker_hour", &config.price_worker_hour, |price| serde_json::json!(price)),
    ];
    for (name, catalog) in &config.catalogs {
        let origin = catalog.origin.to_string();
        let entry = |(key, value)| Entry { key: format!("catalogs.{name}.{key}"), value, origin: origin.clone() };
        entries.extend(catalog.value.entries().into_iter().map(entry));
    }
    entries.sort_by(|a, b| a.key.cmp(&b.key));
    entries
}

fn entry<T>(key: &str, setting: &Setting<T>, value: impl Fn(&T) -> serde_json::Value) -> Entry {
    Entry { key: key.to_owned(), value: value(&setting.value), origin: setting.origin.to_string() }
}

/// `url` without the user and password that it may hold.
pub(crate) fn redacted(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let Some((_, host)) = authority.rsplit_once('@') else { return url.to_owned() };
    let separator = if scheme.is_empty() { "" } else { "://" };
    format!("{scheme}{separator}***@{host}{path}")
}
