//! What one member alone knows, as the others ask for it: subscribers and problems.

use dovetail_proto::v1 as pb;

use crate::fleet::Fleet;
use crate::soft::SoftProblems;

/// The soft state of a member that others may ask for. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Local {
    pub fleet: Fleet,
    pub soft: SoftProblems,
}

impl Local {
    /// The answer of a member that has applied the log up to `applied`; problems are
    /// only counted unless asked for.
    pub fn answer(&self, applied: u64, problems: bool) -> pb::LocalResponse {
        pb::LocalResponse {
            applied,
            subscribers: self.fleet.local(problems),
            soft_count: self.soft.len() as u64,
            soft: if problems { self.soft.list() } else { Vec::new() },
        }
    }
}
