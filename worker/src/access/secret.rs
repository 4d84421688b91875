//! Secrets by reference, resolved on the worker that uses them; a value is never shown or stored.

use tidegate_common::spec::model::Secret;

use super::allow::Allowed;
use crate::access::Access;

/// The value of `secret`; the error names the reference, never the value.
pub(crate) fn resolve(secret: &Secret, access: &Access) -> Result<String, String> {
    match (&secret.from_env, &secret.from_file) {
        (Some(name), None) => {
            if access.env.as_ref().is_some_and(|allowed| !allowed.contains(name)) {
                return Err(format!("this worker does not allow the environment variable {name}: add it to allow.env"));
            }
            std::env::var(name).map_err(|_| format!("the environment variable {name} is not set on this worker"))
        }
        (None, Some(path)) => {
            let real = Allowed::new(access).resolve(std::path::Path::new(path))?;
            let text = std::fs::read_to_string(&real).map_err(|e| format!("the secret's file {path}: {e}"))?;
            Ok(text.trim_end_matches(['\r', '\n']).to_owned())
        }
        _ => Err("a secret names exactly one of from_env and from_file".to_owned()),
    }
}
