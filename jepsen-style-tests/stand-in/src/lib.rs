//! A stand-in for the Docker Engine of a Swarm manager, scripted.
//!
//! It speaks enough of the Engine API that `docker -H tcp://…` (`service ls`,
//! `service ps`, `node ls`, `network ls`, `events`, `version`, `info`) and any
//! client library take it for an engine. What a Swarm would do by itself, a
//! script does here: in process through [`StandIn`], or over HTTP below
//! `/_stand-in/` (see [`control`]). No container is run: a task's addresses are
//! given by the caller, such as loopback addresses where real upstreams listen.
//!
//! ```text
//! dovetail-stand-in --listen 127.0.0.1:2375 [--unix PATH] [--control IP:PORT] [--api 1.41]
//! ```
//!
//! prints its Docker URL as the first line. Every change raises the
//! `Version.Index` of what it touches and emits the events that a real engine
//! emits: of services, nodes, networks, secrets and configs, **never of tasks**.
//!
//! Faults ([`Fault`]): hang, slow answers, error answers, wrong JSON, stale
//! answers, a Swarm without a leader, lost events, an engine that goes away and
//! comes back, another swarm.

mod change;
pub mod control;
mod engine;
mod events;
mod faults;
mod filters;
mod json;
mod model;
mod rolling;
mod server;
mod spec;
mod stand_in;

pub use crate::events::Event;
pub use crate::faults::{Fault, FaultRule};
pub use crate::model::{Meta, Model, Named, Network, Node, Service, Task, UpdateStatus};
pub use crate::rolling::{Order, Rolling};
pub use crate::spec::{EndpointMode, HostPort, Mode, ServiceSpec, TaskState, Timing};
pub use crate::stand_in::{Options, StandIn, StandInError};
