//! The types of event time.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a row's event time comes from. Exactly one of `column` and `path` is given; with Kafka, neither is the
/// record's timestamp.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventTimeSpec {
    /// A column of any timestamp or date type, or an integer with a unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// The unit of an integer column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<TimeUnitSpec>,
    /// The form of the path's date parts: `dt=%Y-%m-%d/hour=%H`; the row's event time is its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The zone of timestamps, dates and paths that carry none. Default UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// Where a file's bounds come from when it brings no statistics; default is to read it once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bounds: Option<BoundsSpec>,
    /// Kafka: how far a record's event time lies at most behind the largest timestamp before it in its partition, and a
    /// column's at most ahead of it. Without it nothing is known of when a record of the range can be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_of_orderness: Option<String>,
    /// Kafka: what becomes of a record that breaks that promise. Default fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_disorder: Option<OnDisorder>,
}

/// What to do with a record whose event time breaks the declared out-of-orderness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnDisorder {
    /// The task fails, naming the record.
    Fail,
    /// It is a row like any other, and counted.
    Allow,
}

/// The unit of an integer event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TimeUnitSpec {
    /// Seconds since 1970.
    Seconds,
    /// Milliseconds since 1970.
    Millis,
    /// Microseconds since 1970.
    Micros,
    /// Nanoseconds since 1970.
    Nanos,
}

/// Where a file's event-time bounds come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BoundsSpec {
    /// From the date parts of its path.
    Path,
    /// A file holds no more than this span from the start that its path names.
    Declared(String),
}
