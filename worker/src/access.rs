//! What a spec may reach on this worker: paths, environment variables, endpoints. Specs are hostile.

mod allow;
mod secret;

use std::path::PathBuf;

pub(crate) use self::allow::{Allowed, NOT_THERE, cannot_open};
pub(crate) use self::secret::resolve as resolve_secret;

/// The allow-list of a worker; empty by default.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Folders below which files may be read and tables written; `None` is whatever the user may read (`--local`).
    pub paths: Option<Vec<PathBuf>>,
    /// Environment variables that a secret may name; `None` is any.
    pub env: Option<Vec<String>>,
    /// Hosts (`host` or `host:port`) that an endpoint may name; `None` is any.
    pub endpoints: Option<Vec<String>>,
}

impl Access {
    /// Whatever the user may reach: for a run in the user's own process.
    pub fn local() -> Self {
        Self::default()
    }

    /// Nothing at all, until it is allowed.
    pub fn none() -> Self {
        Self { paths: Some(Vec::new()), env: Some(Vec::new()), endpoints: Some(Vec::new()) }
    }
}
