//! Changes of who the members are: checked, carried out by the leader, and told in the log.
//!
//! Raft holds the members in entries of its own, which have no author. So two commands frame
//! them: one before, which also gives a new disk its id, and one after, which remembers the
//! request id. Between them everything is idempotent: what a leader left half done when it
//! died, the same command completes.

use dovetail_process::identity::Identity;
use dovetail_proto::v1 as pb;
use dovetail_routing::command::{MemberChange, MembersChanged};
use dovetail_routing::entry::{Answered, Command, Payload};
use tonic::{Request, Response, Status};

use super::command::{Change, Order, Taken, author};
use super::{Admin, no_leader, not_written};
use crate::observe::Observe;
use crate::ports::{Fence, Peers, Proposal, ProposeError, Quorum};

/// Members that one command names.
const NAMED_MAX: usize = 5;
/// The greatest slot that `--id` takes.
const SLOT_MAX: u64 = 999;

impl<Q: Quorum, P: Peers, D: Observe> Admin<Q, P, D> {
    pub(super) async fn changed_members(
        &self,
        request: Request<pb::ChangeMembersRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        let author = author(&request, pb::ChangeMembersRequest::ROLE)?;
        let Command::ChangeMembers(changed) = request.get_ref().command()? else {
            return Err(Status::internal("the command is of another kind"));
        };
        check(&changed).map_err(Status::invalid_argument)?;
        let (message, _permit) = match self.take(&author, request).await? {
            Taken::Elsewhere(answer) => return Ok(answer),
            Taken::Here(message, permit) => (message, permit),
        };
        let Ok(_alone) = self.members.try_acquire() else {
            return Err(Status::resource_exhausted(
                "another change of members is under way: try again when it has ended",
            ));
        };
        let view = self.view();
        let fence = view.fence.ok_or_else(|| no_leader(&view, "this member does not lead"))?;
        let proposal = |id: &str| proposal(&author, id, &changed);
        // Under a used request id this is the first answer, or a refusal.
        let rehearsed = self.rehearse(proposal(message.request_id())).await?;
        if rehearsed.first_answer {
            return Ok(Response::new(rehearsed));
        }
        let quorum = &self.core.quorum;
        let would = quorum.change_members(fence, &changed, None).await;
        let would = would.map_err(|error| not_written(&self.view(), &error))?;
        let word = |changed: bool| if changed { "changed" } else { "unchanged" }.to_owned();
        if message.dry_run() {
            return Ok(Response::new(pb::ChangeResponse { applied: word(would), ..rehearsed }));
        }
        let begun = self.told(fence, proposal("")).await?;
        let done = quorum.change_members(fence, &changed, Some(begun.index)).await;
        let done = done.map_err(|error| not_written(&self.view(), &error))?;
        let index = match changed.change {
            // The next leader may be writing already: that it leads is the answer.
            MemberChange::TransferLeader => begun.index,
            _ => self.told(fence, proposal(message.request_id())).await?.index,
        };
        Ok(Response::new(pb::ChangeResponse {
            index: index.0,
            revision: rehearsed.revision,
            applied: word(done),
            ..pb::ChangeResponse::default()
        }))
    }

    async fn told(&self, fence: Fence, proposal: Proposal) -> Result<Answered, Status> {
        let proposed = self.core.quorum.propose(fence, proposal).await;
        proposed.map_err(|error: ProposeError| not_written(&self.view(), &error))
    }
}

fn proposal(author: &Identity, request_id: &str, changed: &MembersChanged) -> Proposal {
    Proposal {
        actor: author.actor().into(),
        request_id: request_id.into(),
        cause: if request_id.is_empty() { "members: begun" } else { "members" }.into(),
        payload: Payload::Command(Command::ChangeMembers(changed.clone())),
    }
}

/// What no member needs to be asked for.
fn check(changed: &MembersChanged) -> Result<(), String> {
    let MembersChanged { change, members, address } = changed;
    if members.is_empty() || members.len() > NAMED_MAX {
        return Err(format!("members: {} are named, it has to be 1 to {NAMED_MAX}", members.len()));
    }
    if let Some(slot) = members.iter().find(|slot| **slot == 0 || **slot > SLOT_MAX) {
        return Err(format!("member {slot}: an id is a whole number from 1 to {SLOT_MAX}"));
    }
    let mut once = members.clone();
    once.sort_unstable();
    once.dedup();
    if once.len() < members.len() {
        return Err("members: one is named twice".to_owned());
    }
    let several = matches!(change, MemberChange::Promote | MemberChange::Remove);
    if !several && members.len() > 1 {
        return Err(format!("members: {} are named, it has to be one", members.len()));
    }
    match change {
        MemberChange::Add if address.is_empty() => {
            Err("address: is missing: a new member is given as ID=HOST:PORT".to_owned())
        }
        MemberChange::Add | MemberChange::Replace if !address.is_empty() => {
            let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
            match port.map(|(_, port)| port.parse::<u16>()) {
                Some(Ok(port)) if port > 0 && address.len() <= 300 => Ok(()),
                _ => Err(format!("address {address:?}: is not HOST:PORT")),
            }
        }
        _ => Ok(()),
    }
}
