//! What every executable shares: identity, TLS, logs, readiness, drain, configuration.
//!
//! ```text
//!  args ─► config ─► log ─► tls (identity, pki) ─► grpc (channel, incoming)
//!                           ready ─► admin (HTTP)        signal ─► drain ─► exit
//! ```
//!
//! Invariants: one TLS stack (rustls on aws-lc-rs, TLS 1.3 only); a certificate's SAN
//! URI is its identity, and nothing else is; a client accepts only a member as its
//! server; a failed handshake never ends a listener; a broken new certificate never
//! replaces a good old one. Not here: anything of routing, of Docker or of Raft.

pub mod admin;
pub mod config;
pub mod drain;
pub mod exit;
pub mod grpc;
pub mod identity;
pub mod log;
pub mod pki;
pub mod ready;
pub mod signal;
pub mod tls;

pub use log::chain;
