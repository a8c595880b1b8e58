//! What an operator should see: which service, which label, which value, and why.

use std::sync::Arc;

use crate::entry::LogIndex;

/// Something wrong that did not take down a good route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The service's name; empty when it is about no service.
    pub service: Arc<str>,
    /// The label; empty when it is about no label.
    pub label: Arc<str>,
    /// The label's value, shortened to 256 bytes.
    pub value: Arc<str>,
    pub reason: Arc<str>,
    /// The index of the entry with which it began.
    pub since_index: LogIndex,
}
