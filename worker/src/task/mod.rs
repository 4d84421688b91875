//! What a worker does with a lease: the kinds of task.

pub mod enumerate;
pub mod pack;
