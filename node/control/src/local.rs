//! What one member alone knows, as the others ask for it: subscribers and problems.

use std::collections::BTreeMap;
use std::time::Duration;

use dovetail_proto::v1 as pb;
use dovetail_routing::RuleSet;
use futures_util::future::join_all;
use tokio::time::timeout;

use crate::clocks::wall_ms;
use crate::fleet::Fleet;
use crate::ports::{Asked, Peers, Quorum, QuorumView, Slot};
use crate::services::Core;
use crate::soft::SoftProblems;

/// The longest wait for another member's word about itself.
pub const ANSWER: Duration = Duration::from_millis(300);

/// The soft state of a member that others may ask for. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Local {
    pub fleet: Fleet,
    pub soft: SoftProblems,
}

impl Local {
    /// The answer of a member that has applied the log up to `applied`.
    pub fn answer(&self, applied: u64, asked: Asked) -> pb::LocalResponse {
        if asked.clock_only {
            return pb::LocalResponse { clock_ms: wall_ms(), ..pb::LocalResponse::default() };
        }
        pb::LocalResponse {
            applied,
            subscribers: self.fleet.local(asked),
            soft_count: self.soft.len() as u64,
            soft: if asked.problems { self.soft.list() } else { Vec::new() },
            rules_newest: RuleSet::NEWEST.number(),
            clock_ms: wall_ms(),
        }
    }
}

impl<Q: Quorum, P: Peers, D> Core<Q, P, D> {
    /// What each member alone knows, in their order; `None` of one that does not answer.
    pub async fn locals(&self, view: &QuorumView, asked: Asked) -> Vec<Option<pb::LocalResponse>> {
        let answers = view.members.iter().map(|member| async move {
            if member.slot == view.this {
                return Some(self.local().answer(view.applied, asked));
            }
            timeout(ANSWER, self.peers.local(member.slot, asked)).await.ok()?.ok()
        });
        join_all(answers).await
    }
}

/// All subscribers once each: one that moved on is gone from a member and connected
/// to another.
pub(crate) fn merge(
    members: impl IntoIterator<Item = (Slot, Vec<pb::LocalSubscriber>)>,
) -> Vec<(Slot, pb::LocalSubscriber)> {
    let mut all = BTreeMap::<_, (Slot, pb::LocalSubscriber)>::new();
    for (slot, subscribers) in members {
        for (position, one) in subscribers.into_iter().enumerate() {
            // Without a name or an address, two may be different ones: none is left out.
            let nameless = one.name.is_empty() && one.address.is_empty();
            let key = (
                one.service_cluster.clone(),
                one.name.clone(),
                one.address.clone(),
                nameless.then_some((slot, position)),
            );
            match all.get(&key) {
                Some((_, known))
                    if (known.connected, known.revision) >= (one.connected, one.revision) => {}
                _ => {
                    all.insert(key, (slot, one));
                }
            }
        }
    }
    all.into_values().collect()
}
