//! The core as its specification reads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod adoption;
mod bench;
mod cancelling;
mod dead_letters;
mod expected;
mod hand_in;
mod joining;
mod journal;
mod late;
mod regenerate;
mod replacing;
mod running;
mod staging;
