//! Applying entries: facts and commands in, snapshots and problems out.

/// Everything that the log has said so far. Cheap to clone: maps are persistent.
#[derive(Clone, Debug, Default)]
pub struct State {}
