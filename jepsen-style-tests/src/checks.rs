//! What must hold, one property a file, each with a history that it must refuse.
//!
//! A checker takes plain values and knows nobody who made them: a simulation shows it what
//! members did at every step, a run of real processes what clients and disks say at its end.
//! Those that judge a whole history of the latter give a [`Verdict`].

pub mod acknowledged;
pub mod append_order;
pub mod committed;
pub mod converged;
pub mod coverage;
pub mod digests;
pub mod elections;
pub mod endings;
pub mod exactly_once;
pub mod linearizable;
pub mod liveness;
pub mod proxies;
pub mod removals;
pub mod replayed;
pub mod requests;
pub mod set_full;
#[cfg(test)]
mod story;
pub mod transfers;
mod verdict;
pub mod watch;

use std::fmt;

pub use verdict::{Verdict, all};

/// A property was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its name, by which one tells findings apart.
    pub property: &'static str,
    pub what: String,
}

impl Violation {
    pub(crate) fn new(property: &'static str, what: impl Into<String>) -> Self {
        Self { property, what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.property, self.what)
    }
}
