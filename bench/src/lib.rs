//! What is measured. `benches/` holds the Criterion benches, `peers/` the runs beside other engines; `README.md` says
//! how they are run and what they said.
