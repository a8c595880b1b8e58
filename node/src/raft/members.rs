//! Changes of who the members are: learner first, and never without a quorum.
//!
//! A new disk is asked who it is, told which quorum and which id it gets (durably, before the
//! log names it), added as a learner, and promoted once it has what the leader has. Whatever
//! would leave fewer reachable voters than a quorum needs is refused before it begins. An id
//! is never given out twice: it is the index of the entry that ordered the change, plus
//! [`NODE_IDS_FROM`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dovetail_control::ports::{Fence, ProposeError, Slot};
use dovetail_proto::v1 as pb;
use dovetail_raft_store::{LeaderId, MemberNode, Raft, TypeConfig};
use dovetail_routing::LogIndex;
use dovetail_routing::command::{MemberChange, MembersChanged};
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::{ChangeMembers, Precondition, RaftMetrics};

use super::formation::ask;
use super::hub::Hub;
use super::transfer;

/// Ids of members that were taken in later begin above every slot.
pub(crate) const NODE_IDS_FROM: u64 = 1_000;
/// Voters and learners that a quorum has at most.
const MEMBERS_MAX: usize = 5;
/// How long a member may take to have what the leader has.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(7);
/// How long Raft may take to agree on a change of members.
const AGREED_WITHIN: Duration = Duration::from_secs(5);
/// Between two looks at a member's progress.
const LOOK_EVERY: Duration = Duration::from_millis(20);

fn refused(reason: impl Into<String>) -> ProposeError {
    ProposeError::Refused { reason: reason.into() }
}

/// One change, as the leader sees it at its begin.
struct Members<'a> {
    hub: &'a Arc<Hub>,
    raft: &'a Raft,
    fence: Fence,
    metrics: RaftMetrics<TypeConfig>,
    nodes: BTreeMap<u64, MemberNode>,
    voters: BTreeSet<u64>,
}

/// Checks a change, and carries it out when `order` says which entry ordered it.
pub(crate) async fn change(
    hub: &Arc<Hub>,
    fence: Fence,
    change: &MembersChanged,
    order: Option<LogIndex>,
) -> Result<bool, ProposeError> {
    let raft = hub.raft().ok_or(ProposeError::NotLeader { leader: None })?;
    let mut members = Members::new(hub, raft, fence)?;
    if order.is_some() {
        members.settle().await?;
    }
    let slots = &change.members;
    let first = slots.first().copied().unwrap_or_default();
    match change.change {
        MemberChange::Add => members.add(first, &change.address, order).await,
        MemberChange::Promote => members.promote(slots, order.is_some()).await,
        MemberChange::Remove => members.remove(slots, order.is_some()).await,
        MemberChange::Replace => members.replace(first, &change.address, order).await,
        MemberChange::TransferLeader => members.transfer(first, order.is_some()).await,
    }
}

impl<'a> Members<'a> {
    fn new(hub: &'a Arc<Hub>, raft: &'a Raft, fence: Fence) -> Result<Self, ProposeError> {
        let metrics = raft.metrics().borrow_watched().clone();
        if metrics.state != openraft::ServerState::Leader || metrics.current_term != fence.term {
            return Err(ProposeError::NotLeader { leader: None });
        }
        let membership = metrics.membership_config.membership();
        let nodes = membership.nodes().map(|(id, node)| (*id, node.clone())).collect();
        // While two sets of voters have to agree, the last is the one to come.
        let voters = membership.get_joint_config().last().cloned().unwrap_or_default();
        Ok(Self { hub, raft, fence, nodes, voters, metrics })
    }

    /// Completes a change that an earlier leader left half done.
    async fn settle(&mut self) -> Result<(), ProposeError> {
        if self.metrics.membership_config.membership().get_joint_config().len() > 1 {
            let voters = self.voters.clone();
            self.agree(ChangeMembers::ReplaceAllVoters(voters)).await?;
            *self = Self::new(self.hub, self.raft, self.fence)?;
        }
        Ok(())
    }

    /// The newest disk of a slot.
    fn node(&self, slot: Slot) -> Option<(u64, &MemberNode)> {
        let mut of_slot = self.nodes.iter().filter(|(_, node)| node.slot == slot);
        of_slot.next_back().map(|(id, node)| (*id, node))
    }

    fn known(&self, slot: Slot) -> Result<(u64, &MemberNode), ProposeError> {
        self.node(slot).ok_or_else(|| {
            refused(format!("member {slot} is none: dovetail member list shows those that are"))
        })
    }

    async fn add(
        &self,
        slot: Slot,
        address: &str,
        order: Option<LogIndex>,
    ) -> Result<bool, ProposeError> {
        let hello = self.hello(slot, address).await;
        if let Some((_, node)) = self.node(slot) {
            let same = |hello: &pb::MemberHello| incarnation(hello) == node.incarnation;
            if hello.is_ok_and(|hello| same(&hello)) {
                return Ok(false);
            }
            return Err(refused(format!(
                "member {slot} is one already, with another disk: dovetail member replace {slot} \
                 gives its place to a new one"
            )));
        }
        if self.nodes.len() >= MEMBERS_MAX {
            return Err(refused(format!(
                "there are {} members, at most {MEMBERS_MAX} are supported: dovetail member \
                 remove takes one away",
                self.nodes.len()
            )));
        }
        let hello = hello.map_err(|reason| unanswered(slot, address, &reason))?;
        self.take_in(slot, address, &hello, order).await.map(|_| true)
    }

    async fn promote(&self, slots: &[Slot], done: bool) -> Result<bool, ProposeError> {
        let mut ids = BTreeSet::new();
        for slot in slots {
            ids.insert(self.known(*slot)?.0);
        }
        let new: BTreeSet<_> = ids.difference(&self.voters).copied().collect();
        if new.is_empty() {
            return Ok(false);
        }
        self.quorum_of(&self.voters.union(&new).copied().collect()).await?;
        if done {
            for id in &new {
                self.caught_up(*id).await?;
            }
            self.agree(ChangeMembers::AddVoterIds(new)).await?;
        }
        Ok(true)
    }

    async fn remove(&self, slots: &[Slot], done: bool) -> Result<bool, ProposeError> {
        if slots.contains(&self.hub.slot) {
            return Err(refused(format!(
                "member {slot} leads: dovetail member transfer-leader to another one first",
                slot = self.hub.slot
            )));
        }
        let gone: BTreeSet<u64> = self
            .nodes
            .iter()
            .filter(|(_, node)| slots.contains(&node.slot))
            .map(|(id, _)| *id)
            .collect();
        if gone.is_empty() {
            return Ok(false);
        }
        let left: BTreeSet<_> = self.voters.difference(&gone).copied().collect();
        self.quorum_of(&left).await?;
        if done {
            let voters: BTreeSet<_> = gone.intersection(&self.voters).copied().collect();
            let learners: BTreeSet<_> = gone.difference(&self.voters).copied().collect();
            if !voters.is_empty() {
                self.agree(ChangeMembers::RemoveVoters(voters)).await?;
            }
            if !learners.is_empty() {
                self.agree(ChangeMembers::RemoveNodes(learners)).await?;
            }
        }
        Ok(true)
    }

    async fn replace(
        &self,
        slot: Slot,
        address: &str,
        order: Option<LogIndex>,
    ) -> Result<bool, ProposeError> {
        if slot == self.hub.slot {
            return Err(refused(format!(
                "member {slot} leads, with the disk that the quorum knows: there is nothing to \
                 replace"
            )));
        }
        let (newest, node) = self.known(slot)?;
        let address = if address.is_empty() {
            self.hub.address(slot).unwrap_or_else(|| node.address.clone())
        } else {
            address.to_owned()
        };
        let hello = self.hello(slot, &address).await;
        let hello = hello.map_err(|reason| unanswered(slot, &address, &reason))?;
        let old: BTreeSet<u64> = self
            .nodes
            .iter()
            .filter(|(_, one)| one.slot == slot && one.incarnation != incarnation(&hello))
            .map(|(id, _)| *id)
            .collect();
        if old.is_empty() {
            return Err(refused(format!(
                "member {slot} answers with the disk that the quorum knows: there is nothing to \
                 replace"
            )));
        }
        // The new disk may be a learner already: an earlier leader went away in the middle.
        let learner = (!old.contains(&newest)).then_some(newest);
        let voted = old.iter().any(|id| self.voters.contains(id));
        let mut voters: BTreeSet<_> = self.voters.difference(&old).copied().collect();
        if voted {
            self.quorum_with(&voters, 1).await?;
        }
        let Some(order) = order else {
            return match learner {
                Some(_) => Ok(true),
                None => self.take_in(slot, &address, &hello, None).await.map(|_| true),
            };
        };
        let id = match learner {
            Some(id) => id,
            None => self.take_in(slot, &address, &hello, Some(order)).await?,
        };
        self.caught_up(id).await?;
        if voted {
            voters.insert(id);
            self.agree(ChangeMembers::ReplaceAllVoters(voters)).await?;
        }
        let left = self.raft.metrics().borrow_watched().clone();
        let left = left.membership_config.membership().clone();
        let stale: BTreeSet<_> = old.into_iter().filter(|id| left.get_node(id).is_some()).collect();
        if !stale.is_empty() {
            self.agree(ChangeMembers::RemoveNodes(stale)).await?;
        }
        Ok(true)
    }

    async fn transfer(&self, slot: Slot, done: bool) -> Result<bool, ProposeError> {
        if slot == self.hub.slot {
            return Ok(false);
        }
        let (id, node) = self.known(slot)?;
        if !self.voters.contains(&id) {
            return Err(refused(format!(
                "member {slot} is a learner: dovetail member promote {slot} gives it a vote"
            )));
        }
        if !self.reachable(node).await {
            return Err(refused(format!("member {slot} at {} does not answer", node.address)));
        }
        if done {
            self.caught_up(id).await?;
            if !transfer::leadership(self.raft, id).await {
                return Err(ProposeError::Unknown {
                    reason: format!("member {slot} did not lead in time; dovetail status tells"),
                });
            }
        }
        Ok(true)
    }

    /// Tells a new disk who it is, and adds it as a learner; returns its id.
    async fn take_in(
        &self,
        slot: Slot,
        address: &str,
        hello: &pb::MemberHello,
        order: Option<LogIndex>,
    ) -> Result<u64, ProposeError> {
        let theirs = hello.sender.clone().unwrap_or_default();
        if hello.has_data {
            return Err(refused(format!(
                "the disk of member {slot} at {address} holds data of quorum {:?}: a member is \
                 taken in with an empty --data-dir",
                theirs.cluster_id
            )));
        }
        let Some(order) = order else { return Ok(0) };
        let owner = self.hub.owner();
        // A disk that was told before and never got further keeps its id.
        let told = theirs.cluster_id == owner.cluster_id && theirs.node_id >= NODE_IDS_FROM;
        let id = if told { theirs.node_id } else { order.0.saturating_add(NODE_IDS_FROM) };
        if self.nodes.contains_key(&id) {
            return Err(refused(format!(
                "the disk of member {slot} was taken in under an id that another one has: \
                 start it with an empty --data-dir"
            )));
        }
        super::peers::adopt(self.hub, slot, address, id).await.map_err(|reason| {
            refused(format!("member {slot} at {address} was not taken in: {reason}"))
        })?;
        let node =
            MemberNode { slot, incarnation: theirs.incarnation, address: address.to_owned() };
        self.agree(ChangeMembers::AddNodes(BTreeMap::from([(id, node)]))).await?;
        Ok(id)
    }

    /// Has the quorum agree on a change; what is not a voter any more is no member.
    async fn agree(&self, change: ChangeMembers<u64, MemberNode>) -> Result<(), ProposeError> {
        let committed_leader_id = LeaderId { term: self.fence.term, node_id: self.fence.node };
        let preconditions = [Precondition::CommittedLeaderId { committed_leader_id }];
        let agreed = self.raft.change_membership_if(change, false, preconditions);
        match tokio::time::timeout(AGREED_WITHIN, agreed).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => {
                Err(ProposeError::NotLeader { leader: None })
            }
            Ok(Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error)))) => {
                Err(refused(error.to_string()))
            }
            Ok(Err(error)) => Err(ProposeError::Unknown { reason: error.to_string() }),
            Err(_) => Err(ProposeError::Unknown {
                reason: format!("the quorum did not agree within {AGREED_WITHIN:?}"),
            }),
        }
    }

    /// Waits until a member has what the leader had when this began.
    async fn caught_up(&self, id: u64) -> Result<(), ProposeError> {
        let wanted = self.metrics.last_log_index.unwrap_or_default();
        let deadline = Instant::now() + CAUGHT_UP_WITHIN;
        loop {
            let metrics = self.raft.metrics().borrow_watched().clone();
            let Some(replication) = metrics.replication else {
                return Err(ProposeError::NotLeader { leader: None });
            };
            let has = replication.get(&id).and_then(Option::as_ref).map(|log_id| log_id.index);
            if has.is_some_and(|has| has >= wanted) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let slot = self.nodes.get(&id).map_or(id, |node| node.slot);
                return Err(refused(format!(
                    "member {slot} has {} of {wanted} entries after {CAUGHT_UP_WITHIN:?}; it goes \
                     on catching up: give the same command again, with a new request id",
                    has.map_or(0, |has| has.saturating_add(1))
                )));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn quorum_of(&self, voters: &BTreeSet<u64>) -> Result<(), ProposeError> {
        self.quorum_with(voters, 0).await
    }

    /// Refuses a set of voters of whom too few answer; `more` are known to answer.
    async fn quorum_with(&self, voters: &BTreeSet<u64>, more: usize) -> Result<(), ProposeError> {
        let count = voters.len() + more;
        if count == 0 {
            return Err(refused("no voter would be left: a quorum has one, three or five"));
        }
        let asked =
            voters.iter().filter_map(|id| self.nodes.get(id)).map(|node| self.reachable(node));
        let answers = futures_util::future::join_all(asked).await;
        let reachable = answers.into_iter().filter(|answers| *answers).count() + more;
        let needed = count / 2 + 1;
        if reachable < needed {
            return Err(refused(format!(
                "the quorum would be lost: {reachable} of {count} voters would answer, and \
                 {needed} are needed. Start members that are down first, or replace them"
            )));
        }
        Ok(())
    }

    /// Whether a member answers, with the disk that the quorum knows.
    async fn reachable(&self, node: &MemberNode) -> bool {
        if node.slot == self.hub.slot {
            return true;
        }
        let address = self.hub.address(node.slot).unwrap_or_else(|| node.address.clone());
        let hello = self.hello(node.slot, &address).await;
        hello.is_ok_and(|hello| incarnation(&hello) == node.incarnation)
    }

    async fn hello(&self, slot: Slot, address: &str) -> Result<pb::MemberHello, String> {
        ask(self.hub, slot, address).await
    }
}

fn incarnation(hello: &pb::MemberHello) -> &str {
    hello.sender.as_ref().map_or("", |sender| sender.incarnation.as_str())
}

fn unanswered(slot: Slot, address: &str, reason: &str) -> ProposeError {
    refused(format!(
        "member {slot} at {address}: {reason}. Start it there with --id {slot} and an empty \
         --data-dir first"
    ))
}
