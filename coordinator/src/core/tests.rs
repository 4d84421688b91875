//! The core as its specification reads.
