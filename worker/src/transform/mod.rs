//! The SQL of an output: planned once, then run over every batch of its source.
//!
//! A [`Query`] is planned from SQL by DataFusion and lowered to a short list of physical expressions that
//! [`Running::push`] evaluates on each batch as it comes: nothing is buffered and nothing is re-cut, so the rows counted
//! in and out belong to the unit that was read. Accepted plan nodes are a closed list (projection, filter, alias, one
//! scan); joins, aggregates, order and everything else that needs more than one row at a time is refused at plan time,
//! with the place in the SQL and the way out. SQL is hostile: it sees the sources and nothing else, no file, no setting,
//! no catalogue, and its size is bounded before DataFusion sees it.

mod catalog;
mod closed_list;
mod error;
mod joined;
mod limits;
mod program;
mod query;
mod screen;

#[cfg(test)]
mod tests;

pub use error::{Place, QueryError};
pub use joined::{Effort, InputRows, Join, JoinInput, Sieve, TIME_COLUMN};
pub use program::Running;
pub use query::{Query, SourceTable, read_columns};
