//! What to do about an update, decided without a socket, a clock or a disk.

use std::sync::Arc;

use bytes::Bytes;
use dovetail_proto::v1 as pb;
use dovetail_routing::names::ServiceCluster;
use dovetail_routing::{Digest, Revision, Snapshot};

/// How long a member may not have heard from its leader and still be followed.
pub(crate) const LEADER_SILENT_MS_MAX: u64 = 2_000;
/// Longest canonical bytes that are decoded.
pub(crate) const CANONICAL_BYTES_MAX: usize = 64 * 1_024 * 1_024;

/// Which snapshot: of which quorum, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    pub cluster_id: String,
    pub revision: Revision,
    pub digest: Digest,
}

/// What the subscriber must do about an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Put the snapshot in force, then report with [`Subscription::in_force`], or
    /// [`Subscription::refused`].
    Swap { position: Position, snapshot: Arc<Snapshot>, canonical: Bytes },
    /// It is in force already: acknowledge it again, since the member waits for an answer.
    Confirm(pb::Ack),
    /// The member lives; `caught_up` if nothing newer than what is in force exists.
    Alive { caught_up: bool },
    /// Tell the sender that it was refused; keep what is in force.
    Nack(pb::Nack),
    /// Follow another member.
    Leave(LeaveReason),
}

/// Why a member is not followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaveReason {
    #[error("it belongs to no quorum yet")]
    NotFormed,
    #[error("it has not heard from a leader for {0} ms")]
    LeaderSilent(u64),
    #[error("it belongs to cluster {theirs}, which was not restored from {ours}")]
    OtherCluster { ours: String, theirs: String },
}

/// One service cluster's feed, as a subscriber sees it.
#[derive(Clone, Debug)]
pub struct Subscription {
    service_cluster: ServiceCluster,
    in_force: Option<Position>,
}

impl Subscription {
    /// Follows `service_cluster`; `in_force` came from the copy on disk, if there is one.
    pub fn new(service_cluster: ServiceCluster, in_force: Option<Position>) -> Self {
        Self { service_cluster, in_force }
    }

    /// What decides requests now.
    pub fn position(&self) -> Option<&Position> {
        self.in_force.as_ref()
    }

    /// Decides about an update.
    pub fn receive(&self, update: pb::Update) -> Verdict {
        let pb::Update { cluster_id, ancestors, update } = update;
        if cluster_id.is_empty() {
            return Verdict::Leave(LeaveReason::NotFormed);
        }
        if let Some(ours) = &self.in_force
            && ours.cluster_id != cluster_id
            && !ancestors.contains(&ours.cluster_id)
        {
            return Verdict::Leave(LeaveReason::OtherCluster {
                ours: ours.cluster_id.clone(),
                theirs: cluster_id,
            });
        }
        match update {
            Some(pb::update::Update::Snapshot(update)) => self.snapshot(cluster_id, update),
            Some(pb::update::Update::KeepAlive(alive)) => self.keep_alive(&cluster_id, &alive),
            // A kind of a newer member: nothing that concerns us.
            None => Verdict::Alive { caught_up: false },
        }
    }

    fn keep_alive(&self, cluster_id: &str, alive: &pb::KeepAlive) -> Verdict {
        if alive.leader_silent_ms > LEADER_SILENT_MS_MAX {
            return Verdict::Leave(LeaveReason::LeaderSilent(alive.leader_silent_ms));
        }
        let caught_up = self
            .in_force
            .as_ref()
            .is_some_and(|ours| ours.cluster_id == cluster_id && ours.revision.0 == alive.revision);
        Verdict::Alive { caught_up }
    }

    fn snapshot(&self, cluster_id: String, update: pb::SnapshotUpdate) -> Verdict {
        let revision = Revision(update.revision);
        let nack = |reason: String| Verdict::Nack(pb::Nack { revision: revision.0, reason });
        let Ok(digest) = <[u8; 32]>::try_from(&*update.digest).map(Digest) else {
            return nack(format!("the digest has {} bytes, not 32", update.digest.len()));
        };
        if let Some(ours) = &self.in_force {
            if revision == ours.revision && ours.cluster_id == cluster_id && digest != ours.digest {
                return nack(format!(
                    "revision {revision} has digest {digest}, but {} is in force for it",
                    ours.digest
                ));
            }
            if revision == ours.revision && ours.cluster_id == cluster_id {
                return Verdict::Confirm(ack(ours));
            }
            if revision <= ours.revision {
                return nack(format!("revision {} is in force and not older", ours.revision));
            }
        }
        if update.canonical.len() > CANONICAL_BYTES_MAX {
            return nack(format!(
                "{} bytes are above the limit of {CANONICAL_BYTES_MAX}",
                update.canonical.len()
            ));
        }
        let found = Snapshot::digest_of(&update.canonical);
        if found != digest {
            return nack(format!("digest mismatch: {digest} announced, {found} received"));
        }
        let snapshot = match Snapshot::decode(&update.canonical) {
            Ok(snapshot) => snapshot,
            Err(error) => return nack(error.to_string()),
        };
        if snapshot.revision != revision {
            return nack(format!("revision {revision} announced, {} received", snapshot.revision));
        }
        if snapshot.service_cluster != self.service_cluster {
            return nack(format!(
                "service cluster {:?} received, {:?} asked for",
                snapshot.service_cluster.as_str(),
                self.service_cluster.as_str()
            ));
        }
        Verdict::Swap {
            position: Position { cluster_id, revision, digest },
            snapshot: Arc::new(snapshot),
            canonical: update.canonical,
        }
    }

    /// Records that the snapshot at `position` now decides requests, and yields the
    /// ack to send.
    pub fn in_force(&mut self, position: Position) -> pb::Ack {
        let ack = ack(&position);
        self.in_force = Some(position);
        ack
    }

    /// The snapshot could not be put in force; yields the nack to send.
    pub fn refused(&self, position: &Position, reason: String) -> pb::Nack {
        pb::Nack { revision: position.revision.0, reason }
    }
}

fn ack(position: &Position) -> pb::Ack {
    pb::Ack { revision: position.revision.0, digest: position.digest.0.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(cluster: &str, ancestors: &[&str], revision: u64) -> pb::Update {
        let snapshot = Snapshot { revision: Revision(revision), ..Snapshot::default() };
        let canonical = Bytes::from(snapshot.encode());
        let digest = Snapshot::digest_of(&canonical).0.to_vec();
        pb::Update {
            cluster_id: cluster.into(),
            ancestors: ancestors.iter().map(ToString::to_string).collect(),
            update: Some(pb::update::Update::Snapshot(pb::SnapshotUpdate {
                revision,
                digest,
                canonical,
            })),
        }
    }

    fn change(mut update: pb::Update, change: impl FnOnce(&mut pb::SnapshotUpdate)) -> pb::Update {
        if let Some(pb::update::Update::Snapshot(snapshot)) = &mut update.update {
            change(snapshot);
        }
        update
    }

    /// A subscription with revision 5 of cluster `a` in force.
    fn subscription() -> Subscription {
        let mut subscription = Subscription::new(ServiceCluster::default(), None);
        let Verdict::Swap { position, .. } = subscription.receive(update("a", &[], 5)) else {
            panic!("the first snapshot is taken");
        };
        assert_eq!(subscription.in_force(position).revision, 5);
        subscription
    }

    #[test]
    fn a_newer_revision_is_put_in_force() {
        let Verdict::Swap { position, snapshot, .. } = subscription().receive(update("a", &[], 6))
        else {
            panic!("it is newer");
        };
        assert_eq!((position.revision, snapshot.revision), (Revision(6), Revision(6)));
    }

    #[test]
    fn a_proxy_never_goes_back() {
        let Verdict::Confirm(ack) = subscription().receive(update("a", &[], 5)) else {
            panic!("it is in force");
        };
        assert_eq!(ack.revision, 5);
        // Named by its own revision, so that the member knows which push is answered.
        let Verdict::Nack(nack) = subscription().receive(update("a", &[], 4)) else {
            panic!("it is older");
        };
        assert_eq!(nack.revision, 4);
        assert!(nack.reason.contains("revision 5 is in force"), "{}", nack.reason);
    }

    #[test]
    fn a_restored_quorum_is_followed_and_no_other() {
        assert!(matches!(
            subscription().receive(update("b", &["x", "a"], 1_000_000_005)),
            Verdict::Swap { .. }
        ));
        for alien in [update("b", &[], 99), update("b", &["x"], 99)] {
            assert_eq!(
                subscription().receive(alien),
                Verdict::Leave(LeaveReason::OtherCluster { ours: "a".into(), theirs: "b".into() })
            );
        }
        // Not even to a restored quorum does it go back.
        for revision in [5, 4] {
            let restored = update("b", &["a"], revision);
            assert!(matches!(subscription().receive(restored), Verdict::Nack(_)));
        }
    }

    #[test]
    fn what_does_not_hold_together_is_refused_with_a_reason() {
        let newer = || update("a", &[], 6);
        for (given, reason) in [
            (change(newer(), |update| update.digest[0] ^= 1), "digest mismatch"),
            (change(newer(), |update| update.digest.truncate(3)), "3 bytes"),
            (change(newer(), |update| update.revision = 7), "revision 7 announced"),
            (
                change(newer(), |update| {
                    update.canonical = Bytes::from_static(b"nonsense");
                    update.digest = Snapshot::digest_of(b"nonsense").0.to_vec();
                }),
                "byte",
            ),
            (change(update("a", &[], 5), |update| update.digest[0] ^= 1), "in force"),
        ] {
            let Verdict::Nack(nack) = subscription().receive(given) else {
                panic!("taken, but should be refused: {reason}");
            };
            assert!(nack.reason.contains(reason), "{}", nack.reason);
        }
        let other = Subscription::new("west".parse().expect("a name"), None);
        assert!(matches!(other.receive(newer()), Verdict::Nack(_)));
    }

    #[test]
    fn a_member_without_a_leader_is_left() {
        let alive = |revision, leader_silent_ms| pb::Update {
            cluster_id: "a".into(),
            ancestors: vec![],
            update: Some(pb::update::Update::KeepAlive(pb::KeepAlive {
                revision,
                leader_silent_ms,
                traffic_wanted: Vec::new(),
            })),
        };
        let subscription = subscription();
        for (given, verdict) in [
            (alive(5, 0), Verdict::Alive { caught_up: true }),
            (alive(6, 2_000), Verdict::Alive { caught_up: false }),
            (alive(5, 2_001), Verdict::Leave(LeaveReason::LeaderSilent(2_001))),
        ] {
            assert_eq!(subscription.receive(given), verdict);
        }
        let unformed = pb::Update::default();
        assert_eq!(subscription.receive(unformed), Verdict::Leave(LeaveReason::NotFormed));
    }
}
