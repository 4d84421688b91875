//! From the layers to the configuration: each value is that of the first layer that has one.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::ValueEnum;
use tidegate_common::spec::parse_bytes;

use super::file::{AllowSection, ConfigFile, PriceSection, WorkerSection};
use super::{CatalogSpec, Config, DEFAULT_CATALOG, Origin, Setting, SqliteSpec};
use crate::exit::Error;

/// The file that is looked for in the current folder.
const PROJECT_FILE: &str = "tidegate.yaml";
const PREFIX: &str = "TIDEGATE_";

/// Where files and variables are looked for.
pub(crate) struct Places<'a> {
    /// The current folder.
    pub folder: PathBuf,
    /// Looks an environment variable up.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// `--config`.
    pub config: Option<PathBuf>,
}

/// One layer.
struct Layer {
    origin: Origin,
    file: ConfigFile,
}

/// Puts the configuration together; `flags` is what the command line says.
///
/// # Errors
/// A file that cannot be read or has unknown keys, and values that make no sense, with where they come from.
pub(crate) fn load(flags: ConfigFile, places: &Places<'_>) -> Result<Config, Error> {
    let mut layers = vec![Layer { origin: Origin::Flag, file: flags.below(&places.folder) }];
    layers.push(Layer { origin: Origin::Env(String::new()), file: environment(places.env)?.below(&places.folder) });
    let named = places.config.clone().or_else(|| (places.env)("TIDEGATE_CONFIG").map(PathBuf::from));
    match named {
        Some(path) => {
            let path = places.folder.join(path);
            let missing = || Error::usage(format!("there is no configuration file {}", path.display()));
            layers.push(read(&path)?.ok_or_else(missing)?);
        }
        None => layers.extend(read(&places.folder.join(PROJECT_FILE))?),
    }
    if let Some(path) = user_file(places.env) {
        layers.extend(read(&path)?);
    }
    Layers(layers).config(places)
}

/// The user's own file: `$XDG_CONFIG_HOME/tidegate/config.yaml`, or below `~/.config`.
fn user_file(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let set = |name| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // a relative XDG folder is to be ignored, says its specification
    let folder = set("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
    let folder = folder.or_else(|| set("HOME").map(|home| home.join(".config")))?;
    Some(folder.join("tidegate").join("config.yaml"))
}

fn read(path: &Path) -> Result<Option<Layer>, Error> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::usage(format!("{} cannot be read", path.display())).because(error)),
    };
    let file = if text.trim().is_empty() { Ok(ConfigFile::default()) } else { serde_saphyr::from_str(&text) };
    let file: ConfigFile = file.map_err(|bad| {
        let at = bad.location().map(|at| (at.line(), at.column()));
        let why = bad.without_snippet().to_string();
        let (at, told) = at.map_or_else(Default::default, |(line, column)| {
            (format!(":{line}:{column}"), format!(" at line {line}, column {column}"))
        });
        let why = why.strip_suffix(&told).unwrap_or(&why);
        Error::usage(format!("{}{at}: {why}", path.display()))
            .hint("`tidegate schema config` prints what may stand there")
    })?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    Ok(Some(Layer { origin: Origin::File(path.to_path_buf()), file: file.below(folder) }))
}

/// The variable of a key: `worker.slots` is `TIDEGATE_WORKER_SLOTS`.
fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_uppercase())
}

fn environment(env: &dyn Fn(&str) -> Option<String>) -> Result<ConfigFile, Error> {
    let get = |key: &str| env(&variable(key)).filter(|value| !value.is_empty());
    let list =
        |key: &str| get(key).map(|value| value.split(',').map(|item| item.trim().to_owned()).collect::<Vec<_>>());
    Ok(ConfigFile {
        coordinator: get("coordinator"),
        listen: get("listen"),
        state: get("state").map(PathBuf::from),
        output: choice("output", get("output"))?,
        color: choice("color", get("color"))?,
        log: get("log"),
        worker: WorkerSection {
            name: get("worker.name"),
            slots: number("worker.slots", get("worker.slots"))?,
            memory: get("worker.memory"),
            shuffle: get("worker.shuffle"),
        },
        allow: AllowSection {
            paths: list("allow.paths").map(|paths| paths.into_iter().map(PathBuf::from).collect()),
            env: list("allow.env"),
            endpoints: list("allow.endpoints"),
        },
        price: PriceSection { worker_hour: number("price.worker_hour", get("price.worker_hour"))? },
        catalogs: BTreeMap::new(),
    })
}

fn number<T: FromStr>(key: &str, value: Option<String>) -> Result<Option<T>, Error>
where
    T::Err: Display,
{
    let read = |text: String| text.parse().map_err(|bad| Error::usage(format!("{} is {text:?}: {bad}", variable(key))));
    value.map(read).transpose()
}

fn choice<T: ValueEnum>(key: &str, value: Option<String>) -> Result<Option<T>, Error> {
    let read = |text: String| {
        T::from_str(&text, false).map_err(|_| {
            let known = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
            let known: Vec<String> = known.map(|value| value.get_name().to_owned()).collect();
            Error::usage(format!("{} is {text:?}: expected one of {}", variable(key), known.join(", ")))
        })
    };
    value.map(read).transpose()
}

/// The layers, strongest first.
struct Layers(Vec<Layer>);

impl Layers {
    fn find<T>(&self, key: &str, get: impl Fn(&ConfigFile) -> Option<T>) -> Option<Setting<T>> {
        self.0.iter().find_map(|layer| {
            let origin = match &layer.origin {
                Origin::Env(_) => Origin::Env(variable(key)),
                other => other.clone(),
            };
            get(&layer.file).map(|value| Setting { value, origin })
        })
    }

    fn or<T>(&self, key: &str, get: impl Fn(&ConfigFile) -> Option<T>, default: T) -> Setting<T> {
        self.find(key, get).unwrap_or(Setting { value: default, origin: Origin::Default })
    }

    fn maybe<T>(&self, key: &str, get: impl Fn(&ConfigFile) -> Option<T>) -> Setting<Option<T>> {
        let found = self.find(key, get).map(|found| Setting { value: Some(found.value), origin: found.origin });
        found.unwrap_or(Setting { value: None, origin: Origin::Default })
    }

    fn config(&self, places: &Places<'_>) -> Result<Config, Error> {
        let state = self.or("state", |file| file.state.clone(), places.folder.join(".tidegate"));
        let listen = self.or("listen", |file| file.listen.clone(), "127.0.0.1:7411".to_owned());
        let memory = self.or("worker.memory", |file| file.worker.memory.clone(), "1GiB".to_owned());
        let beside = state.value.join("shuffle").display().to_string();
        let slots = self.or("worker.slots", |file| file.worker.slots, processors());
        if slots.value == 0 {
            return Err(senseless("worker.slots", &slots, "a worker has at least one"));
        }
        Ok(Config {
            coordinator: self.or(
                "coordinator",
                |file| file.coordinator.clone(),
                format!("http://{}", crate::client::DEFAULT_ADDRESS),
            ),
            listen: checked("listen", &listen, |text| text.parse().map_err(|_| "expected host:port".to_owned()))?,
            output: self.or("output", |file| file.output, Default::default()),
            color: self.or("color", |file| file.color, Default::default()),
            log: self.maybe("log", |file| file.log.clone()),
            worker_name: self.maybe("worker.name", |file| file.worker.name.clone()),
            worker_slots: slots,
            worker_memory: checked("worker.memory", &memory, |text| parse_bytes(text).map_err(|bad| bad.to_string()))?,
            worker_shuffle: self.or("worker.shuffle", |file| file.worker.shuffle.clone(), beside),
            allow_paths: self.or("allow.paths", |file| file.allow.paths.clone(), Vec::new()),
            allow_env: self.or("allow.env", |file| file.allow.env.clone(), Vec::new()),
            allow_endpoints: self.or("allow.endpoints", |file| file.allow.endpoints.clone(), Vec::new()),
            price_worker_hour: self.maybe("price.worker_hour", |file| file.price.worker_hour),
            catalogs: self.catalogs(&state.value)?,
            state,
        })
    }

    fn catalogs(&self, state: &Path) -> Result<BTreeMap<String, Setting<CatalogSpec>>, Error> {
        let local = SqliteSpec::local(&state.join("catalog.db"), &state.join("warehouse"));
        let default = Setting { value: CatalogSpec::Sqlite(local), origin: Origin::Default };
        let mut catalogs = BTreeMap::from([(DEFAULT_CATALOG.to_owned(), default)]);
        for layer in self.0.iter().rev() {
            catalogs.extend(
                layer
                    .file
                    .catalogs
                    .iter()
                    .map(|(name, spec)| (name.clone(), Setting { value: spec.clone(), origin: layer.origin.clone() })),
            );
        }
        for (name, catalog) in &catalogs {
            let bad = |(key, why)| Error::usage(format!("catalogs.{name}.{key} ({}): {why}", catalog.origin));
            catalog.value.check().map_err(bad)?;
        }
        Ok(catalogs)
    }
}

fn processors() -> u32 {
    std::thread::available_parallelism().ok().and_then(|many| u32::try_from(many.get()).ok()).unwrap_or(1)
}

fn checked<T>(
    key: &str,
    setting: &Setting<String>,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Setting<T>, Error> {
    let value = read(&setting.value).map_err(|why| senseless(key, setting, &why))?;
    Ok(Setting { value, origin: setting.origin.clone() })
}

fn senseless<T: Display>(key: &str, setting: &Setting<T>, why: &str) -> Error {
    Error::usage(format!("{key} is {} ({}): {why}", setting.value, setting.origin))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
