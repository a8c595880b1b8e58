//! TLS towards clients: which certificate a handshake gets, or where its raw stream goes.
//!
//! ```text
//!  accept ─► hello ─► table (by SNI) ─► terminate: the host's ServerConfig ─► handshake ─► conn
//!            (bounded)      ▲         └► pass through: the bytes as they came ─► passthrough
//!                        keeper ◄─ snapshot, and the files of secrets once a second
//! ```
//!
//! Invariants: files are read, checked and turned into configurations by one writer, never
//! on a thread that serves requests; a pair that cannot be used never replaces one that
//! can; no session crosses from one policy on client certificates to another.
//! Not here: TLS towards upstreams, TLS between Dovetail's own processes (`process`).

pub mod certificates;
pub mod handshake;
pub mod hello;
mod keeper;
mod pair;
mod table;
mod terms;

pub use certificates::Certificates;
pub use table::{HostTls, Mode, TlsTable};

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// The one cryptographic library.
fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

/// A configuration that terminates TLS.
pub type TlsConfig = Arc<rustls::ServerConfig>;
