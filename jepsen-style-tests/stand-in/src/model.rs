//! The Swarm as the stand-in would have it: plain data, replaced whole.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use time::OffsetDateTime;

use crate::spec::{HostPort, ServiceSpec, TaskState};

/// What every object of a Swarm carries.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    /// `Version.Index`.
    pub version: u64,
    pub created: OffsetDateTime,
    pub updated: OffsetDateTime,
}

#[derive(Clone, Debug)]
pub struct Network {
    pub id: String,
    pub meta: Meta,
    pub name: String,
    pub ingress: bool,
    /// Its subnet is `10.NUMBER.0.0/16`.
    pub number: u8,
}

#[derive(Clone, Debug)]
pub struct Node {
    pub id: String,
    pub meta: Meta,
    pub hostname: String,
    pub manager: bool,
    pub leader: bool,
    /// `ready`, `down`, `disconnected`, `unknown`.
    pub state: String,
    /// `active`, `pause`, `drain`.
    pub availability: String,
    pub address: IpAddr,
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
pub struct Service {
    pub id: String,
    pub meta: Meta,
    pub spec: ServiceSpec,
    /// `ForceUpdate`: how often its tasks were all replaced.
    pub force: u64,
    /// By network id.
    pub vips: Vec<(String, IpAddr)>,
    pub update: Option<UpdateStatus>,
}

#[derive(Clone, Debug)]
pub struct UpdateStatus {
    /// `updating`, `paused`, `completed`, `rollback_started`, …
    pub state: String,
    pub message: String,
    pub started: OffsetDateTime,
    pub completed: Option<OffsetDateTime>,
}

#[derive(Clone, Debug)]
pub struct Task {
    pub id: String,
    pub meta: Meta,
    pub service: String,
    pub slot: u64,
    pub node: String,
    pub desired: TaskState,
    pub state: TaskState,
    pub state_at: OffsetDateTime,
    /// By network id.
    pub addresses: Vec<(String, IpAddr)>,
    pub host_ports: Vec<HostPort>,
    pub image: String,
}

impl Task {
    /// Whether its container runs, wanted or not.
    pub fn runs(&self) -> bool {
        self.state == TaskState::Running
    }

    /// Whether it has ended.
    pub fn ended(&self) -> bool {
        self.state > TaskState::Running
    }

    /// Whether Swarm wants it to run.
    pub fn wanted(&self) -> bool {
        self.desired <= TaskState::Running
    }
}

/// A secret or a config: its name only.
#[derive(Clone, Debug)]
pub struct Named {
    pub id: String,
    pub meta: Meta,
    pub name: String,
}

/// One state of the whole Swarm. Objects are shared between states.
#[derive(Clone, Debug)]
pub struct Model {
    pub swarm: String,
    /// Raised by every change.
    pub index: u64,
    pub networks: BTreeMap<String, Arc<Network>>,
    pub nodes: BTreeMap<String, Arc<Node>>,
    pub services: BTreeMap<String, Arc<Service>>,
    pub tasks: BTreeMap<String, Arc<Task>>,
    pub secrets: BTreeMap<String, Arc<Named>>,
    pub configs: BTreeMap<String, Arc<Named>>,
    /// Feeds ids and made-up addresses.
    counter: u64,
    seed: u64,
}

impl Model {
    pub(crate) fn new(seed: u64) -> Self {
        let mut model = Self {
            swarm: String::new(),
            index: 10,
            networks: BTreeMap::new(),
            nodes: BTreeMap::new(),
            services: BTreeMap::new(),
            tasks: BTreeMap::new(),
            secrets: BTreeMap::new(),
            configs: BTreeMap::new(),
            counter: 0,
            seed,
        };
        model.swarm = model.next_id();
        model
    }

    /// An id as Swarm makes them: 25 letters and digits, the same for the same seed.
    pub(crate) fn next_id(&mut self) -> String {
        const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let mut id = String::with_capacity(25);
        while id.len() < 25 {
            self.counter += 1;
            let mut bits = mixed(self.seed.wrapping_mul(0x1000_0001).wrapping_add(self.counter));
            for _ in 0..12.min(25 - id.len()) {
                id.push(char::from(DIGITS[(bits % 36) as usize]));
                bits /= 36;
            }
        }
        id
    }

    /// An address of `network` that nothing has had yet.
    pub(crate) fn next_address(&mut self, network: &Network) -> IpAddr {
        self.counter += 1;
        let host = 2 + self.counter % 65_000;
        let [high, low] = u16::try_from(host).unwrap_or(2).to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(10, network.number, high, low))
    }

    /// The service of that name or id.
    pub fn service(&self, name: &str) -> Option<&Arc<Service>> {
        self.services.get(name).or_else(|| self.services.values().find(|s| s.spec.name == name))
    }

    /// The network of that name or id.
    pub fn network(&self, name: &str) -> Option<&Arc<Network>> {
        self.networks.get(name).or_else(|| self.networks.values().find(|n| n.name == name))
    }

    /// The node of that hostname or id.
    pub fn node(&self, name: &str) -> Option<&Arc<Node>> {
        self.nodes.get(name).or_else(|| self.nodes.values().find(|n| n.hostname == name))
    }

    /// The tasks of a service id by slot, new ones after the old ones of a slot.
    pub fn tasks_of(&self, service: &str) -> Vec<&Arc<Task>> {
        let mut tasks: Vec<_> = self.tasks.values().filter(|t| t.service == service).collect();
        tasks.sort_by_key(|task| (task.slot, task.meta.created, task.meta.version));
        tasks
    }
}

/// SplitMix64's finish: neighbours in, strangers out.
fn mixed(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
