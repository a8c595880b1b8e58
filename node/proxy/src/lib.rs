//! The built-in proxy: takes requests, finds their route, passes them on.
//!
//! ```text
//!  feed ─► table (swapped whole) ◄─ pinned once per request
//!            │
//!  worker ─► conn ─► stream + framing ─► hyper ─► forward ─► balance ─► pool, dial ─► upstream
//!  (per core)                                       └► respond            body ◄──────────┘
//!                                                        └► record ─► access_log, telemetry
//! ```
//!
//! Invariants: a request sees one table; no request waits for the core, for a lock
//! across an await, or for the access log; a byte that two parsers could read
//! differently is refused; an upstream that drains gets no new request while another
//! is active; nothing that was sent is sent again unless that is safe.
//!
//! A library only so that tests can run the forwarding code in their own process.
//! Not here: what is a route (`routing`), how a table arrives (`feed`), Docker, Raft.

pub mod access_log;
pub mod args;
pub mod attempt;
pub mod balance;
pub mod body;
pub mod budget;
pub mod carrier;
pub mod client_body;
pub mod clients;
pub mod conn;
pub mod dial;
pub mod early;
pub mod forward;
pub mod forwarded;
pub mod frames;
pub mod framing;
pub mod headers;
pub mod http2;
pub mod opening;
pub mod pace;
pub mod passthrough;
pub mod pool;
pub mod problems;
pub mod proxy_protocol;
pub mod record;
pub mod redirect;
pub mod respond;
pub mod run;
pub mod secrets;
pub mod server;
pub mod socket;
pub mod sticky;
pub mod stream;
pub mod table;
pub mod target;
pub mod telemetry;
pub mod tls;
pub mod traffic;
pub mod tunnel;
pub mod upstream;
pub mod upstream_tls;
pub mod wire;
pub mod worker;
