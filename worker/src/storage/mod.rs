//! Object stores: how they are reached, for sources and for Iceberg's library alike.
//!
//! Settings hold secrets that are resolved already and never show them. What it refuses: plain http to another machine
//! unless that is meant, and the worker's own credentials for a spec where its environment is closed to specs.

mod disk;
mod lake;
mod renew;
mod s3;

pub use self::lake::Lake;
pub(crate) use self::lake::PART;
pub(crate) use self::renew::Renew;
pub(crate) use self::s3::{S3, is_loopback};

/// What is the matter with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It does not answer, or not in time: try again.
    Unreachable,
    /// It answers, and does not let this be done.
    Refused,
    /// What is asked for is not there.
    Missing,
    /// Anything else.
    Other,
}

/// A store's error in words for people: what S3 says is an XML document, of which the code and the message are kept.
#[derive(Debug)]
pub struct StoreError(pub(crate) object_store::Error);

impl StoreError {
    /// What is the matter.
    pub(crate) fn trouble(&self) -> Trouble {
        use object_store::Error::{Generic, NotFound, PermissionDenied, Unauthenticated};
        match &self.0 {
            PermissionDenied { .. } | Unauthenticated { .. } => Trouble::Refused,
            NotFound { .. } => Trouble::Missing,
            Generic { .. } if chain_of(&self.0).any(is_lost) => Trouble::Unreachable,
            // A list that fails does not tell its status but in its words.
            Generic { source, .. } => {
                let said = source.to_string();
                let is = |status: &str| said.contains(&format!("status code: {status}"));
                if is("403") || is("401") {
                    Trouble::Refused
                } else if is("404") {
                    Trouble::Missing
                } else {
                    Trouble::Other
                }
            }
            _ => Trouble::Other,
        }
    }
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.trouble() {
            Trouble::Refused => "the store refuses the credentials, check `storage` and what they may do: ",
            Trouble::Unreachable => "the store does not answer, check `storage.endpoint` or try again: ",
            Trouble::Missing | Trouble::Other => "",
        })?;
        let said = crate::failure::chain(&self.0);
        match (element(&said, "Code"), element(&said, "Message")) {
            (Some(code), Some(message)) => write!(f, "{code}: {message}"),
            _ => f.write_str(&said),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<object_store::Error> for StoreError {
    fn from(error: object_store::Error) -> Self {
        Self(error)
    }
}

fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once("</").map(|(content, _)| content)
}

/// Whether a store that does not answer is at the root of `error`.
pub(crate) fn is_unreachable(error: &(dyn std::error::Error + 'static)) -> bool {
    chain_of(error).filter_map(|error| error.downcast_ref()).any(|e: &StoreError| e.trouble() == Trouble::Unreachable)
}

fn chain_of<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// No answer came back at all.
fn is_lost(error: &(dyn std::error::Error + 'static)) -> bool {
    error.is::<object_store::client::HttpError>()
}

#[cfg(test)]
mod tests;
