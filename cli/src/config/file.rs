//! The form of `tidegate.yaml`. Unknown keys are errors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::{Deserialize, Serialize};

use super::catalogs::CatalogSpec;
use crate::output::Format;
use crate::style::Color;

/// The configuration as one file, or the environment, or the command line gives it; all of it may be left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ConfigFile {
    /// The coordinator's address. Default http://127.0.0.1:7411.
    pub coordinator: Option<String>,
    /// Where a coordinator listens, host:port. Default 127.0.0.1:7411.
    pub listen: Option<String>,
    /// The folder of a coordinator's state. Default .tidegate.
    pub state: Option<PathBuf>,
    /// How data is written to stdout. Default table.
    pub output: Option<Format>,
    /// When to use colour. Default auto.
    pub color: Option<Color>,
    /// What to log: a level, or `target=level,…`.
    pub log: Option<String>,
    /// What a worker may use.
    pub worker: WorkerSection,
    /// What a spec may reach on a worker; nothing until it is said.
    pub allow: AllowSection,
    /// What things cost, for estimates.
    pub price: PriceSection,
    /// The catalogs by name; `default` is the one of tables that name none.
    pub catalogs: BTreeMap<String, CatalogSpec>,
}

/// What a worker may use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WorkerSection {
    /// Its name. Default the host's name and the process id.
    pub name: Option<String>,
    /// How many read tasks it takes at once. Default the number of processors.
    pub slots: Option<u32>,
    /// Its memory budget: `512MiB`, `4GiB`. Default 1GiB.
    pub memory: Option<String>,
    /// Where rows wait to be joined, the same for all workers: a folder that they share, or `s3://bucket/prefix`. Default
    /// `shuffle` in the folder of the state.
    pub shuffle: Option<String>,
}

/// What a spec may reach on a worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AllowSection {
    /// Folders below which files may be read and tables written.
    pub paths: Option<Vec<PathBuf>>,
    /// Environment variables that a secret may name.
    pub env: Option<Vec<String>>,
    /// Hosts (`host` or `host:port`) that an endpoint may name.
    pub endpoints: Option<Vec<String>>,
}

/// What things cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PriceSection {
    /// An hour of a worker, in your currency.
    pub worker_hour: Option<f64>,
}

impl ConfigFile {
    /// With its relative paths below `folder`.
    pub(super) fn below(mut self, folder: &Path) -> Self {
        let place = |path: &mut PathBuf| *path = folder.join(&path);
        self.state.as_mut().map(place);
        self.allow.paths.iter_mut().flatten().for_each(place);
        for location in self.worker.shuffle.iter_mut().filter(|location| !location.contains("://")) {
            *location = folder.join(&*location).display().to_string();
        }
        self.catalogs.values_mut().for_each(|catalog| catalog.below(folder));
        self
    }
}

/// The JSON Schema (draft-07) of `tidegate.yaml`, for editors.
pub(crate) fn json_schema() -> String {
    let schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<ConfigFile>();
    format!("{:#}\n", schema.as_value())
}
