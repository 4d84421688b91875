//! `worker`: slots for a coordinator, until it is told to stop or drained.

use std::sync::Arc;

use tidegate_common::fence::Fences;
use tidegate_worker::access::Access;
use tidegate_worker::shuffle::ShuffleStore;
use tidegate_worker::sink::{CatalogConfig, Catalogs};
use tidegate_worker::worker::{self, WorkerConfig, WorkerError};

use super::Context;
use super::stop::Stop;
use crate::client;
use crate::config::{Config, DEFAULT_CATALOG, redacted};
use crate::exit::{Error, Exit, Outcome};

/// Runs a worker.
pub(super) async fn worker(context: &Context) -> Outcome {
    let config = &context.config;
    let url = &config.coordinator.value;
    // a worker may be there before its coordinator
    let channel = client::endpoint(url)?.connect_lazy();
    let access = Access {
        paths: Some(config.allow_paths.value.clone()),
        env: Some(config.allow_env.value.clone()),
        endpoints: Some(config.allow_endpoints.value.clone()),
    };
    let mut stop = Stop::new()?;
    let name = config.worker_name.value.clone().unwrap_or_else(own_name);
    context.say(&format!("worker {name} with {} slots for {}", config.worker_slots.value, redacted(url)));
    if config.allow_paths.value.is_empty() {
        context.say("warning: no folder is allowed: specs reach no local file here until --allow-path or allow.paths");
    }
    let working = worker_config(config, name, access)?;
    let (drain, drained) = tokio::sync::oneshot::channel::<()>();
    let shutdown = async move {
        // a sender that is dropped says the same
        let _ = drained.await;
    };
    let mut working = std::pin::pin!(worker::run(working, channel, shutdown));
    tokio::select! {
        ended = &mut working => return ended.map(|()| Exit::Done).map_err(failed),
        _ = stop.asked() => {}
    }
    context.say("draining: readers hand in at their next unit boundary; once more to force");
    drop(drain);
    tokio::select! {
        ended = working => ended.map(|()| Exit::Done).map_err(failed),
        exit = stop.asked() => Ok(exit),
    }
}

/// The configuration of a worker that may reach what `access` says.
///
/// # Errors
/// The shuffle store is none.
pub(crate) fn worker_config(config: &Config, name: String, access: Access) -> Result<WorkerConfig, Error> {
    let shuffle = ShuffleStore::open(&config.worker_shuffle.value);
    let no_store = |bad| Error::usage("`worker.shuffle` names no place where rows can wait").because(bad);
    Ok(WorkerConfig {
        name,
        slots: usize::try_from(config.worker_slots.value).unwrap_or(usize::MAX),
        memory_bytes: config.worker_memory.value,
        access,
        catalogs: Arc::new(Catalogs::new(catalogs(config))),
        default_catalog: DEFAULT_CATALOG.to_owned(),
        shuffle: shuffle.map_err(no_store)?,
        fences: Fences::from_env(),
    })
}

/// The catalogs of the configuration, by name.
pub(super) fn catalogs(config: &Config) -> impl Iterator<Item = (String, CatalogConfig)> {
    config.catalogs.iter().map(|(name, catalog)| (name.clone(), catalog.value.of_worker(name)))
}

/// The host's name and the process id.
fn own_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| std::env::var("HOSTNAME").ok());
    let host = host.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    format!("{}-{}", host.as_deref().unwrap_or("worker"), std::process::id())
}

fn failed(error: WorkerError) -> Error {
    Error::new(Exit::Failed, "the worker has stopped").because(error)
}
