//! Why Kafka could not be asked, and what that means for the task.

use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};

use crate::failure::{Class, Classify, TEMPORARY};

/// Why Kafka could not be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KafkaError {
    /// The client's settings are none.
    #[error("the client cannot be made: {0}; mend `kafka.properties`")]
    Settings(String),
    /// This worker's allow-list does not hold what the spec names, or a secret is not there.
    #[error("{0}")]
    Denied(String),
    /// The brokers do not answer.
    #[error(
        "{servers} does not answer while {doing} ({what}): check `bootstrap.servers`, `security.protocol` and the brokers, or try again"
    )]
    Unreachable {
        /// The brokers.
        servers: String,
        /// What was asked.
        doing: String,
        /// What the client says.
        what: String,
    },
    /// There is no such topic, or partition.
    #[error("there is no topic {topic} at {servers}{}", part(partition))]
    NoTopic {
        /// The topic.
        topic: String,
        /// The brokers.
        servers: String,
        /// The partition, where it is that.
        partition: Option<i32>,
    },
    /// The brokers refuse: credentials, rights.
    #[error("{servers} refuses {doing}: {what}")]
    Refused {
        /// The brokers.
        servers: String,
        /// What was asked.
        doing: String,
        /// What they say, and the way out.
        what: String,
    },
    /// Anything else that the client says.
    #[error("{servers}, {doing}: {what}")]
    Client {
        /// The brokers.
        servers: String,
        /// What was asked.
        doing: String,
        /// What the client says.
        what: String,
    },
}

fn part(partition: &Option<i32>) -> String {
    partition.map(|partition| format!(" with a partition {partition}")).unwrap_or_default()
}

impl Classify for KafkaError {
    fn class(&self) -> Class {
        match self {
            Self::Settings(_) => Class::Fatal { exit_code: 3 },
            Self::Denied(_) | Self::NoTopic { .. } | Self::Refused { .. } => Class::Fatal { exit_code: 4 },
            Self::Unreachable { .. } | Self::Client { .. } => Class::Retryable,
        }
    }

    fn exit_code(&self) -> Option<i32> {
        matches!(self, Self::Unreachable { .. }).then_some(TEMPORARY)
    }
}

/// Codes of refusals that no waiting mends.
const REFUSED: [RDKafkaErrorCode; 7] = [
    RDKafkaErrorCode::Authentication,
    RDKafkaErrorCode::TopicAuthorizationFailed,
    RDKafkaErrorCode::GroupAuthorizationFailed,
    RDKafkaErrorCode::ClusterAuthorizationFailed,
    RDKafkaErrorCode::SaslAuthenticationFailed,
    RDKafkaErrorCode::UnsupportedSASLMechanism,
    RDKafkaErrorCode::IllegalSASLState,
];

const UNKNOWN: [RDKafkaErrorCode; 3] =
    [RDKafkaErrorCode::UnknownTopic, RDKafkaErrorCode::UnknownTopicOrPartition, RDKafkaErrorCode::UnknownPartition];

/// Codes of silence.
const SILENT: [RDKafkaErrorCode; 6] = [
    RDKafkaErrorCode::AllBrokersDown,
    RDKafkaErrorCode::BrokerTransportFailure,
    RDKafkaErrorCode::OperationTimedOut,
    RDKafkaErrorCode::RequestTimedOut,
    RDKafkaErrorCode::Resolve,
    RDKafkaErrorCode::TimedOutQueue,
];

/// Whether the brokers let nobody in.
pub(super) fn is_refusal(code: RDKafkaErrorCode) -> bool {
    REFUSED.contains(&code) || code == RDKafkaErrorCode::SSL
}

/// What to do about a refusal.
pub(super) fn way_out(code: RDKafkaErrorCode) -> &'static str {
    match code {
        RDKafkaErrorCode::SSL => {
            "check `security.protocol`, and give the certificate of the brokers' authority as `ssl.ca.pem`"
        }
        _ => "check the credentials",
    }
}

/// Whether nobody answered.
pub(super) fn is_silence(code: RDKafkaErrorCode) -> bool {
    SILENT.contains(&code)
}

/// What the client's `code` means while `doing` something with `topic`.
pub(super) fn judged(
    code: RDKafkaErrorCode,
    text: String,
    servers: &str,
    doing: &str,
    topic: &str,
    partition: Option<i32>,
) -> KafkaError {
    let (servers, doing) = (servers.to_owned(), doing.to_owned());
    if is_refusal(code) {
        let rights =
            if code == RDKafkaErrorCode::SSL { String::new() } else { format!(", and that they may read {topic}") };
        return KafkaError::Refused { servers, doing, what: format!("{text}; {}{rights}", way_out(code)) };
    }
    if UNKNOWN.contains(&code) {
        return KafkaError::NoTopic { topic: topic.to_owned(), servers, partition };
    }
    if is_silence(code) {
        return KafkaError::Unreachable { servers, doing, what: text };
    }
    KafkaError::Client { servers, doing, what: text }
}

/// The code of an error of the safe wrapper.
pub(super) fn code_of(error: &ClientError) -> RDKafkaErrorCode {
    match error {
        ClientError::AdminOp(code) => *code,
        error => error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown),
    }
}
