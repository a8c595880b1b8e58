//! The quorum and its subscribers, as the leader or one member sees them.

use std::sync::Arc;

use dovetail_proto::v1 as pb;
use dovetail_routing::snapshot::Digest;

use super::{Admin, problems};
use crate::local::merge;
use crate::observe::Observe;
use crate::ports::{Asked, Member, Peers, Quorum, QuorumView, Slot};

impl<Q: Quorum, P: Peers, D: Observe> Admin<Q, P, D> {
    /// What this member knows by itself.
    pub(super) fn local_status(
        &self,
        view: &QuorumView,
        leader: Option<Slot>,
    ) -> pb::StatusResponse {
        let mut status = self.base_status(view, leader, "local");
        let local = self.core.local().answer(view.applied, Asked::default());
        status.members = view
            .members
            .iter()
            .map(|member| {
                let this = member.slot == view.this;
                member_of(member, leader, this.then_some(&local))
            })
            .collect();
        status.problems += problems::count([(view.this, &local)]);
        status.proxies = proxies([(view.this, local.subscribers)]);
        status
    }

    /// The leader's view: every member is asked, side by side.
    pub(super) async fn leader_status(&self, view: &QuorumView) -> pb::StatusResponse {
        let answers = self.core.locals(view, Asked::default()).await;
        let mut status = self.base_status(view, Some(view.this), "leader");
        status.docker_age_seconds = self.core.docker.age().map(|age| age.as_secs_f64());
        status.docker_error = self.core.docker.error().unwrap_or_default();
        let members = view.members.iter().zip(&answers);
        status.members = members
            .map(|(member, answer)| member_of(member, Some(view.this), answer.as_ref()))
            .collect();
        let heard = || view.members.iter().zip(&answers);
        status.problems += problems::count(
            heard().filter_map(|(member, answer)| Some((member.slot, answer.as_ref()?))),
        );
        let subscribers = view.members.iter().zip(answers);
        status.proxies = proxies(
            subscribers.filter_map(|(member, answer)| Some((member.slot, answer?.subscribers))),
        );
        status
    }

    fn base_status(
        &self,
        view: &QuorumView,
        leader: Option<Slot>,
        whose: &str,
    ) -> pb::StatusResponse {
        let state = Arc::clone(&self.core.quorum.state().borrow());
        let service_clusters = state
            .service_clusters()
            .iter()
            .map(|name| {
                let published = state.published(name);
                pb::ServiceClusterStatus {
                    name: name.to_string(),
                    revision: published.snapshot.revision.0,
                    digest: published.digest.to_string(),
                }
            })
            .collect();
        pb::StatusResponse {
            cluster_id: view.cluster_id.clone(),
            leader: leader.unwrap_or_default(),
            term: view.term,
            index: view.applied,
            service_clusters,
            members: Vec::new(),
            proxies: Vec::new(),
            problems: state.problems().len() as u64,
            view: whose.to_owned(),
            docker_age_seconds: None,
            docker_error: String::new(),
            rolled_back: state.rollbacks().count() as u64,
            rules: state.rules().number(),
        }
    }
}

fn member_of(
    member: &Member,
    leader: Option<Slot>,
    local: Option<&pb::LocalResponse>,
) -> pb::Member {
    let role = match member.voter {
        _ if Some(member.slot) == leader => "leader",
        true => "follower",
        false => "learner",
    };
    pb::Member {
        id: member.slot,
        address: member.address.clone(),
        role: role.to_owned(),
        applied: local.map_or(0, |local| local.applied),
        reachable: local.is_some(),
        incarnation: member.incarnation.clone(),
        // A build that does not say knows the first.
        rules_newest: local.map_or(0, |local| local.rules_newest.max(1)),
    }
}

fn proxies(members: impl IntoIterator<Item = (Slot, Vec<pb::LocalSubscriber>)>) -> Vec<pb::Proxy> {
    merge(members).into_iter().map(|(slot, subscriber)| proxy_of(slot, subscriber)).collect()
}

fn proxy_of(member: Slot, subscriber: pb::LocalSubscriber) -> pb::Proxy {
    let digest = <[u8; 32]>::try_from(subscriber.digest.as_slice()).map(Digest);
    pb::Proxy {
        name: subscriber.name,
        address: subscriber.address,
        service_cluster: subscriber.service_cluster,
        revision: subscriber.revision,
        digest: digest.map(|digest| digest.to_string()).unwrap_or_default(),
        connected: subscriber.connected,
        member,
        nack: subscriber.nack,
    }
}
