//! Why a checkpoint cannot be looked at or moved.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::failure::{Class, Classify, TEMPORARY};
use crate::storage::StoreError;

/// Why a checkpoint cannot be looked at or moved.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// What was asked for makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A setting of the client that cannot be used.
    #[error("{0}")]
    Settings(String),
    /// The brokers do not answer, or say no.
    #[error("{what}")]
    Kafka {
        /// What was tried.
        what: String,
        /// What came back.
        #[source]
        source: KafkaError,
    },
    /// There is no such topic or partition.
    #[error("{0}")]
    Missing(String),
    /// Somebody uses the positions.
    #[error("{0}")]
    Active(String),
    /// Somebody moved the positions while they were moved here.
    #[error("{0}")]
    Raced(String),
    /// It cannot be done safely.
    #[error("{0}")]
    Refused(String),
    /// A file that is not what it should be.
    #[error("{file}: {what}")]
    File {
        /// Its path.
        file: String,
        /// What is wrong with it.
        what: String,
    },
    /// A store's failure.
    #[error("{file}")]
    Store {
        /// Where.
        file: String,
        /// What it said.
        #[source]
        source: StoreError,
    },
}

impl CheckpointError {
    /// What was tried, and what the client said of it.
    pub(super) fn kafka(what: impl Into<String>) -> impl FnOnce(KafkaError) -> Self {
        let what = what.into();
        move |source| Self::Kafka { what, source }
    }

    /// Of a file, what is wrong with it.
    pub(super) fn file(file: impl Into<String>, what: impl Into<String>) -> Self {
        Self::File { file: file.into(), what: what.into() }
    }

    /// The way out, where there is one to tell.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Settings(_) => Some("settings are those of librdkafka, or of Kafka's own command-config files"),
            Self::Kafka { source, .. } if is_temporary(source) => {
                Some("are the brokers there, and is their address right? Try again")
            }
            Self::Active(_) => Some("stop its consumers first; `tidegate checkpoint inspect` shows them"),
            Self::Raced(_) => {
                Some("stop whatever moves them, look with `tidegate checkpoint inspect`, then do it again")
            }
            _ => None,
        }
    }
}

impl Classify for CheckpointError {
    fn class(&self) -> Class {
        match self {
            Self::Usage(_) | Self::Settings(_) | Self::Missing(_) | Self::File { .. } => Class::Fatal { exit_code: 2 },
            Self::Active(_) | Self::Refused(_) => Class::Fatal { exit_code: 4 },
            Self::Raced(_) => Class::Fatal { exit_code: 1 },
            Self::Kafka { source, .. } if is_temporary(source) => Class::Retryable,
            Self::Kafka { .. } => Class::Fatal { exit_code: 1 },
            Self::Store { source, .. } => match source.trouble() {
                crate::storage::Trouble::Unreachable => Class::Retryable,
                crate::storage::Trouble::Missing => Class::Fatal { exit_code: 2 },
                _ => Class::Fatal { exit_code: 1 },
            },
        }
    }

    fn exit_code(&self) -> Option<i32> {
        match self.class() {
            Class::Retryable => Some(TEMPORARY),
            Class::Fatal { exit_code } => Some(exit_code),
            _ => None,
        }
    }
}

/// Whether it may pass: nobody answers, or not yet.
fn is_temporary(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{
        AllBrokersDown, BrokerTransportFailure, CoordinatorLoadInProgress, CoordinatorNotAvailable, LeaderNotAvailable,
        NetworkException, NotCoordinator, NotLeaderForPartition, OperationTimedOut, RequestTimedOut, Resolve,
        UnstableOffsetCommit, WaitingForCoordinator,
    };
    if matches!(error, KafkaError::NoMessageReceived) {
        return true;
    }
    error.rdkafka_error_code().is_some_and(|code| {
        matches!(
            code,
            AllBrokersDown
                | BrokerTransportFailure
                | CoordinatorLoadInProgress
                | CoordinatorNotAvailable
                | LeaderNotAvailable
                | NetworkException
                | NotCoordinator
                | NotLeaderForPartition
                | OperationTimedOut
                | RequestTimedOut
                | Resolve
                | UnstableOffsetCommit
                | WaitingForCoordinator
        )
    })
}
