//! A mistake: Docker's events are taken for all that happens, and nothing is listed again.

use std::sync::Arc;

use dovetail_routing::fact::Listing;

/// A change: what was, and what it became.
type Changed = (Arc<Listing>, Arc<Listing>);

/// The first listing, with what events changed in it since.
#[derive(Debug, Default)]
pub(crate) struct Believed {
    listing: Option<Arc<Listing>>,
    /// How many changes of the Swarm were told, or missed.
    seen: usize,
}

impl Believed {
    /// The first listing. What events say from now on is added to it.
    pub(crate) fn listed(&mut self, listing: Arc<Listing>) -> Arc<Listing> {
        self.listing = Some(Arc::clone(&listing));
        listing
    }

    /// The events of what has changed meanwhile were dropped.
    pub(crate) fn miss(&mut self, all: &[Changed]) {
        self.seen = all.len();
    }

    /// What events say that there is; `None` before the first listing.
    pub(crate) fn told(&mut self, all: &[Changed]) -> Option<Arc<Listing>> {
        let new = all.get(self.seen..).unwrap_or_default();
        self.seen = all.len();
        let listing = self.listing.as_mut()?;
        for (before, after) in new {
            add(Arc::make_mut(listing), before, after);
        }
        Some(Arc::clone(listing))
    }
}

/// Adds one change: an event names the objects that it is about, and no others.
fn add(listing: &mut Listing, before: &Listing, after: &Listing) {
    for (id, service) in &after.services {
        if before.services.get(id) != Some(service) {
            listing.services.insert(id.clone(), service.clone());
        }
    }
    for (id, task) in &after.tasks {
        if before.tasks.get(id) != Some(task) {
            listing.tasks.insert(id.clone(), task.clone());
        }
    }
    listing
        .services
        .retain(|id, _| !before.services.contains_key(id) || after.services.contains_key(id));
    listing.tasks.retain(|id, _| !before.tasks.contains_key(id) || after.tasks.contains_key(id));
}
