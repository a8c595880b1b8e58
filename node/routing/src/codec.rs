//! Canonical bytes: fixed order, fixed widths, lengths before contents.

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}: {reason}")]
pub struct InvalidBytes {
    what: &'static str,
    at: usize,
    reason: Box<str>,
}
