//! What the program `bench` and the micro-benchmarks in `benches/` share: the requests that are measured, a partition to put
//! them into, and a place on a disk.
//!
//! Everything here is made before a measurement begins; nothing of it is ever measured itself. The measurements are in the
//! binary (`main.rs`: whole processes under load) and in `benches/micro` (single functions of the broker).

pub mod broker;
pub mod requests;
pub mod scratch;
