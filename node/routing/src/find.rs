//! Which route answers a request: exact host, longest context root.

use std::sync::Arc;

use crate::snapshot::Snapshot;

/// What a request's host and path lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The route at this position of [`Snapshot::routes`].
    Route(usize),
    /// The host has routes, but none whose context root covers the path: 404.
    UnknownPath,
    /// The host has no route, and there is no default backend: 503.
    UnknownHost,
}

/// A snapshot compiled for lookup.
#[derive(Clone, Debug)]
pub struct RouteIndex {
    snapshot: Arc<Snapshot>,
}

impl RouteIndex {
    /// Compiles a snapshot, whose routes are sorted by host and path.
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        Self { snapshot }
    }

    /// The snapshot that it was compiled from.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Finds the route for a lower-case `host` without port, and a path.
    pub fn find(&self, _host: &str, _path: &str) -> Found {
        Found::UnknownHost
    }
}
