//! The configuration: what flags, environment and files say, put together.
//!
//! Flags win over `TIDEGATE_*`, those over `./tidegate.yaml` (or `--config`), that over the user's own file, that over
//! the defaults. Every value remembers where it comes from. Relative paths of a file are below its folder, all others
//! below the current one. Secrets are only ever named (`from_env`, `from_file`), never held.

mod catalogs;
mod file;
mod layers;
mod view;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

pub(crate) use catalogs::{CatalogSpec, SqliteSpec};
pub(crate) use file::{ConfigFile, json_schema};
pub(crate) use layers::{Places, load};
pub(crate) use view::{entries, redacted};

use crate::output::Format;
use crate::style::Color;

/// The catalog of tables that name none.
pub(crate) const DEFAULT_CATALOG: &str = "default";

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The command line.
    Flag,
    /// This environment variable.
    Env(String),
    /// This file.
    File(PathBuf),
    /// Nobody said otherwise.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Env(name) => write!(f, "env {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting<T> {
    /// The value.
    pub value: T,
    /// Where it comes from.
    pub origin: Origin,
}

/// The configuration of this process.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    /// The coordinator's address.
    pub coordinator: Setting<String>,
    /// Where a coordinator listens.
    pub listen: Setting<SocketAddr>,
    /// The folder of a coordinator's state.
    pub state: Setting<PathBuf>,
    /// How data is written to stdout.
    pub output: Setting<Format>,
    /// When to use colour.
    pub color: Setting<Color>,
    /// What to log; `None` is what the command makes of it.
    pub log: Setting<Option<String>>,
    /// The worker's name; `None` is the host's name and the process id.
    pub worker_name: Setting<Option<String>>,
    /// How many read tasks a worker takes at once, at least 1.
    pub worker_slots: Setting<u32>,
    /// A worker's memory budget in bytes.
    pub worker_memory: Setting<u64>,
    /// Where rows wait to be joined: a folder or a URL.
    pub worker_shuffle: Setting<String>,
    /// Folders below which a spec may read and write on a worker.
    pub allow_paths: Setting<Vec<PathBuf>>,
    /// Environment variables that a spec's secrets may name.
    pub allow_env: Setting<Vec<String>>,
    /// Hosts that a spec's endpoints may name.
    pub allow_endpoints: Setting<Vec<String>>,
    /// What an hour of a worker costs, in whatever currency; `None` where nobody has said.
    pub price_worker_hour: Setting<Option<f64>>,
    /// The catalogs, by name; `default` is the one of tables that name none.
    pub catalogs: BTreeMap<String, Setting<CatalogSpec>>,
}

impl Config {
    /// Puts state, catalog, warehouse and what waits to be joined into `folder`, whatever was configured.
    pub(crate) fn use_folder(&mut self, folder: &std::path::Path) {
        self.state.value = folder.join("state");
        self.worker_shuffle.value = folder.join("shuffle").display().to_string();
        let local = SqliteSpec::local(&folder.join("catalog.db"), &folder.join("warehouse"));
        let setting = Setting { value: CatalogSpec::Sqlite(local), origin: Origin::Default };
        self.catalogs = BTreeMap::from([(DEFAULT_CATALOG.to_owned(), setting)]);
    }
}
