//! Ids and times as messages and back.
