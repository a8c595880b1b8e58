//! What the target of a drain means: which tasks, services or swarm nodes.

use std::net::SocketAddr;
use std::sync::Arc;

use super::super::State;
use super::super::upstreams::{At, at};
use super::{Drained, refused};
use crate::command::DrainTarget;
use crate::entry::Rejection;
use crate::fact::SwarmNode;
use crate::names::SwarmNodeId;

impl State {
    /// What an order means now, and the name under which it is kept.
    pub(super) fn resolve(
        &self,
        target: &DrainTarget,
    ) -> Result<(Vec<Drained>, DrainTarget), Rejection> {
        match target {
            DrainTarget::Address(address) => {
                let mut tasks = Vec::new();
                for there in self.at(*address) {
                    match there {
                        At::Task(id) => tasks.push(Drained::Task(id)),
                        At::Virtual(id) => {
                            let name = self.facts.services.get(&id).map(|one| &*one.name);
                            let name = name.unwrap_or_default();
                            return Err(refused(format!(
                                "{address} is the virtual address of service {name}, behind which \
                                 Docker balances: drain the service {name}, or let it have \
                                 backend_mode=task"
                            )));
                        }
                    }
                }
                if tasks.is_empty() {
                    return Err(refused(format!(
                        "no upstream has the address {address}: dovetail routes lists those that \
                         there are"
                    )));
                }
                Ok((tasks, target.clone()))
            }
            DrainTarget::Service(name) => {
                let named = self.facts.services.values().filter(|service| service.name == *name);
                let found: Vec<_> = named.map(|one| Drained::Service(one.id.clone())).collect();
                if found.is_empty() {
                    return Err(refused(format!(
                        "there is no service {name:?}: name it as docker service ls does"
                    )));
                }
                Ok((found, target.clone()))
            }
            DrainTarget::SwarmNode(given) => {
                let node = self.named_node(given)?;
                let name = if node.hostname.is_empty() { &node.id.0 } else { &node.hostname };
                let target = DrainTarget::SwarmNode(Arc::clone(name));
                Ok((vec![Drained::SwarmNode(node.id.clone())], target))
            }
        }
    }

    fn named_node(&self, given: &Arc<str>) -> Result<&SwarmNode, Rejection> {
        if let Some(node) = self.facts.swarm_nodes.get(&SwarmNodeId(Arc::clone(given))) {
            return Ok(node);
        }
        let nodes = self.facts.swarm_nodes.values();
        let named: Vec<_> = nodes.filter(|node| node.hostname == *given).collect();
        match named.as_slice() {
            [node] => Ok(node),
            [] => Err(refused(format!(
                "there is no swarm node {given:?}: name it as docker node ls does, or by its id"
            ))),
            several => {
                let ids: Vec<_> = several.iter().map(|node| node.id.as_str()).collect();
                Err(refused(format!(
                    "several swarm nodes are named {given:?}: say which by its id: {}",
                    ids.join(", ")
                )))
            }
        }
    }

    pub(super) fn hostname(&self, id: &SwarmNodeId) -> Option<&Arc<str>> {
        self.facts.swarm_nodes.get(id).map(|node| &node.hostname)
    }

    /// Who is reached at an address, drained or not.
    fn at(&self, address: SocketAddr) -> impl Iterator<Item = At> {
        self.intents.iter().flat_map(move |(id, intent)| {
            let service = self.facts.services.get(id);
            service.into_iter().flat_map(move |one| at(&self.facts, one, intent, address))
        })
    }

    /// With what else a target is drained, though not by its own order.
    pub(super) fn drained_otherwise(&self, target: &DrainTarget) -> Option<&DrainTarget> {
        let DrainTarget::Address(address) = target else { return None };
        let task = self.at(*address).find_map(|there| match there {
            At::Task(id) => self.facts.tasks.get(&id),
            At::Virtual(_) => None,
        })?;
        self.drains.covering(task).map(|drain| &drain.target)
    }
}
