//! Real processes, faults, load and benchmarks.
//!
//! What the tests, `dovetail-demo` and `dovetail-bench` share: start a whole system
//! on one machine, drive its Swarm, put load on it, break it, and look.

pub mod checks;
pub mod cluster;
mod eventually;
pub mod history;
pub mod http;
pub mod load;
pub mod namespaces;
pub mod operator;
pub mod relays;
pub mod status;
pub mod supervisor;
pub mod swarm;
pub mod upstream;

pub use eventually::{NotReached, eventually, reached};
