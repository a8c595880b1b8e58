//! Who answers: this member, once it knows enough, or the leader in its stead.

use std::future::Future;
use std::time::Duration;

use dovetail_process::identity::Identity;
use dovetail_proto::v1 as pb;
use dovetail_routing::state::State;
use tokio::time::timeout;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Response, Status};

use super::{ANSWER_BYTES_MAX, Admin, ON_BEHALF_OF, is_answer, no_leader};
use crate::observe::Observe;
use crate::ports::{AdminClient, Peers, Quorum, QuorumView, Slot};

/// The longest wait for proof that a read is not stale.
const BARRIER: Duration = Duration::from_secs(3);
/// The longest wait for the leader's answer to a forwarded question.
pub(super) const FORWARD: Duration = Duration::from_secs(2);

impl<Q: Quorum, P: Peers, D: Observe> Admin<Q, P, D> {
    /// Returns once this member's state may answer a linearizable read.
    pub(super) async fn barrier(&self) -> Result<(), Status> {
        self.agrees()?;
        match timeout(BARRIER, self.core.quorum.read_barrier()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(no_leader(&self.view(), &error.to_string())),
            Err(_) => Err(no_leader(&self.view(), "the quorum does not answer")),
        }
    }

    /// An error once this member's state is known to differ from the quorum's.
    pub(super) fn agrees(&self) -> Result<(), Status> {
        match self.core.quorum.diverged() {
            None => Ok(()),
            Some(reason) => Err(no_leader(&self.view(), &reason)),
        }
    }

    /// The leader to forward to: another member, and the caller is none.
    pub(super) fn elsewhere(&self, caller: &Identity, view: &QuorumView) -> Option<Slot> {
        let leader = view.leader.filter(|leader| *leader != view.this)?;
        (caller.slot().is_none() && view.fence.is_none()).then_some(leader)
    }

    /// How old `state` may be, of which an answer tells.
    pub(super) fn freshness(&self, state: &State, stale: bool) -> pb::Freshness {
        let age_ms = if stale { self.core.quorum.leader_silent_ms() } else { 0 };
        pb::Freshness { index: state.applied_index().0, age_ms }
    }

    /// The leader's answer to a question that came to this member; `None` when this member
    /// has to answer itself, since it leads or the leader is out of reach.
    pub(super) async fn ask_leader<T: Clone, A, F>(
        &self,
        caller: &Identity,
        message: &T,
        call: impl FnOnce(AdminClient, Request<T>) -> F,
    ) -> Option<Result<Response<A>, Status>>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let leader = self.elsewhere(caller, &self.view())?;
        let (client, request) = self.forward(leader, caller, message.clone()).ok()?;
        match timeout(FORWARD, call(client, request)).await.ok()? {
            Ok(answer) => Some(Ok(answer)),
            // It may have lost its quorum, or not lead any more.
            Err(status) if status.code() == Code::Unavailable || !is_answer(&status) => None,
            Err(status) => Some(Err(status)),
        }
    }

    /// A client of the leader, for requests on behalf of `caller`.
    pub(super) fn forward<T>(
        &self,
        leader: Slot,
        caller: &Identity,
        message: T,
    ) -> Result<(AdminClient, Request<T>), Status> {
        let unreachable = |reason: &str| no_leader(&self.view(), reason);
        let client = self.core.peers.admin(leader).map_err(|reason| unreachable(&reason))?;
        let client = client.max_decoding_message_size(ANSWER_BYTES_MAX);
        let mut request = Request::new(message);
        // An identity is ASCII: its grammar admits nothing else.
        let author = MetadataValue::try_from(caller.to_string())
            .map_err(|_| Status::internal("the caller's identity is not ASCII"))?;
        request.metadata_mut().insert(ON_BEHALF_OF, author);
        Ok((client, request))
    }
}
