//! The pure core: facts and commands go in, routes come out.
//!
//! ```text
//! Entry ──► State::apply(index, entry) ──► Applied
//!                 │
//!                 └─► State::snapshot(service_cluster) ──► Snapshot ──► digest
//! ```
//!
//! Nothing here reads a clock, a file, the environment or a hash map's order:
//! an entry and its index are the only inputs, so every member that applies the
//! same log holds the same state, and a log can be replayed years later.
//!
//! * [`names`]: parsed types (host, context root, port, ids);
//! * [`fact`]: what Docker showed;
//! * [`canary`]: what moves a share step by step, and the judgement of each step;
//! * [`command`]: what an operator orders;
//! * [`entry`]: one committed log entry and the answer to it;
//! * [`snapshot`]: what a proxy receives, with its canonical bytes and digest;
//! * [`find`]: which route answers a request;
//! * [`intent`]: what routes are without their upstreams;
//! * [`latency`]: response times as they are counted;
//! * [`explain`]: why a request goes where it goes;
//! * [`rules`]: what may change without a new binary;
//! * [`tell`]: what differs between two forms of a route, in words;
//! * [`sticky`]: which upstream a user stays on;
//! * [`state`]: applying entries, deriving snapshots and problems.
//!
//! Not here: protobuf (`proto` converts), Docker's API, storage, time.

pub mod canary;
mod codec;
pub mod command;
pub mod entry;
pub mod explain;
pub mod fact;
pub mod find;
pub mod intent;
mod labels;
pub mod latency;
pub mod names;
pub mod problem;
pub mod rules;
pub mod snapshot;
pub mod state;
pub mod sticky;
pub mod tell;

pub use entry::{Applied, Command, Entry, LogIndex, Payload, Rejection};
pub use rules::RuleSet;
pub use snapshot::{Digest, Revision, Snapshot};
