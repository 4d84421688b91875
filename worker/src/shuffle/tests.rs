//! The shuffle store against plain vectors.
