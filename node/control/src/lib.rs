//! The core's logic: reconciler, feed server, admin server. No disk, no Docker, no Raft.
//!
//! ```text
//!  Observe (Docker) ──► reconcile ──► Quorum::propose ──► log
//!  a file ──► seed ─────────┘              │
//!                                          ▼
//!  proxies ◄── feed ◄──────────── Quorum::state ──► admin ──► operators
//!     └─ acks ─► fleet ──────────────────────────────┘
//! ```
//!
//! * [`ports`]: what it needs of Raft and of the other members;
//! * [`observe`]: what it needs of Docker;
//! * [`reconcile`]: the leader's job: observations become entries;
//! * [`seed`]: a file's cluster keys become an entry;
//! * [`schedule`]: the leader's clock: deadlines, and the steps of canaries;
//! * [`clocks`]: the members' clocks compared, so that a wrong one is not followed;
//! * [`feed`], [`fleet`]: snapshots to the subscribers, and what they answered;
//! * [`traffic`]: what services with a canary answered, as the subscribers counted it;
//! * [`admin`]: what operators ask and order;
//! * [`services`]: all of it as gRPC services; [`vitals`]: readiness and gauges.
//!
//! Invariants: only a leader proposes, and every proposal carries its fence; what
//! was not looked at is never removed; acks and held removals are soft state, and
//! in no entry.

pub mod admin;
pub mod checkpoint;
pub mod clocks;
pub mod feed;
pub mod fleet;
pub mod local;
pub mod observe;
pub mod ports;
pub mod reconcile;
pub mod schedule;
pub mod seed;
pub mod services;
pub mod soft;
pub mod traffic;
pub mod vitals;

mod telemetry;

#[cfg(test)]
mod fakes;
