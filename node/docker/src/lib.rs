//! The Docker Engine API, turned into facts; the only owner of bollard.
//!
//! [`Docker`] asks, [`Watcher`] keeps looking. Labels stay raw: `routing` alone
//! parses them. Docker's events are hints that say when to look, never what is
//! there; what a [`Listing`](dovetail_routing::fact::Listing) does not show was
//! either looked for in that round or is carried over from the last one.

mod cadence;
mod client;
mod config;
mod convert;
mod error;
mod events;
mod list;
mod names;
mod patience;
mod telemetry;
mod tls;
mod transport;
mod watch;
mod wire;

pub use crate::cadence::WatchConfig;
pub use crate::client::{Docker, Listed, Unreadable};
pub use crate::config::{DockerConfig, DockerTls, DockerUrl, InvalidDockerUrl};
pub use crate::error::{DockerError, TlsFileError};
pub use crate::watch::{DockerHealth, Seen, WatchHandle, Watcher};
