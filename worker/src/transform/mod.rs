//! The SQL of an output: planned once, then run over every batch of its source, or over every slice of several.
//!
//! A [`Query`] over one source is planned from SQL by DataFusion and lowered to a short list of physical expressions that
//! [`Running::push`] evaluates on each batch as it comes: nothing is buffered and nothing is re-cut, so the rows counted
//! in and out belong to the unit that was read. A query that joins is a [`Join`]: it
//! says what it needs of each source, and answers one slice of event time at a time; so does one that groups by windows of
//! event time, over one source or over what it joins. Accepted plan nodes are a closed list (projection, filter, alias,
//! scan, joins with an equality that are bounded in event time, and aggregates of windows above them); order and
//! everything else that needs more than that is refused at plan time, with the place in the SQL and the way out. SQL is hostile: it sees the sources and nothing else, no file, no setting,
//! no catalogue, and its size is bounded before DataFusion sees it.

mod catalog;
mod closed_list;
mod error;
mod groups;
mod joined;
mod limits;
mod parts;
mod program;
mod query;
mod quirks;
mod screen;

#[cfg(test)]
mod tests;

pub use error::{Place, QueryError};
pub use joined::{Effort, InputRows, Join, JoinInput, Sieve, TIME_COLUMN};
pub use program::Running;
pub use query::{Query, SourceTable, read_columns};
