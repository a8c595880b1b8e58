//! What the reconciler needs of Docker; `node` implements it over `dovetail-docker`.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use dovetail_routing::fact::{Change, DockerEvent, Listing};
use tokio::sync::watch;
use tokio::time::Instant;

/// Everything that Docker showed, as of one look.
///
/// A level, never a delta: whoever misses one misses nothing.
#[derive(Clone, Debug)]
pub struct Observation {
    pub listing: Arc<Listing>,
    /// Every kind of object was freshly listed, so that absence means something.
    pub full: bool,
    /// Grows with every observation.
    pub sequence: u64,
    /// When the look began, before its first request: what it lacks was absent
    /// after this moment.
    pub began: Instant,
    /// The hints that led to the look; empty for a look by the clock.
    pub events: Vec<DockerEvent>,
}

/// The Swarm, as this member's Docker shows it.
pub trait Observe: Send + Sync + 'static {
    /// The newest observation; `None` until the first look succeeded. A look that
    /// failed leaves the one before in place.
    fn observations(&self) -> watch::Receiver<Option<Arc<Observation>>>;

    /// Whether the object of a removal is still there, asked for by its id: `false`
    /// (Docker answered 404) is proof that it is gone.
    fn exists(&self, removed: &Change) -> impl Future<Output = Result<bool, String>> + Send;

    /// Asks for a full look that begins after this call.
    fn look(&self);

    /// Whether this member proposes what it sees: a leader looks often.
    fn set_active(&self, active: bool);

    /// How long ago Docker was last read in full.
    fn age(&self) -> Option<Duration>;

    /// Docker's last error, while it does not answer.
    fn error(&self) -> Option<String>;
}
