//! Who claimed a route, and since when: the oldest claim is the incumbent's.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::OrdMap;

use crate::entry::LogIndex;
use crate::labels::{Intent, RouteKey};
use crate::names::ServiceId;

/// One service's claim to one route. Claims compare by age; equal ages by the
/// service's creation, then its id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    /// The entry that first showed it valid.
    pub(super) since: LogIndex,
    pub(super) created_at: Arc<str>,
    pub(super) service: ServiceId,
}

/// All claims by route, each route's sorted. No route is without a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Claims(pub(super) OrdMap<RouteKey, Vec<Claim>>);

impl Claims {
    /// The claims to a route, the incumbent's first.
    pub(super) fn of(&self, key: &RouteKey) -> &[Claim] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// Ends the claims of `old` that `new` does not repeat, and begins the new ones.
    ///
    /// Returns the routes of both: whatever they show may differ.
    pub(super) fn replace(
        &mut self,
        service: &ServiceId,
        created_at: &Arc<str>,
        index: LogIndex,
        old: Option<&Intent>,
        new: Option<&Intent>,
    ) -> BTreeSet<RouteKey> {
        let before: BTreeSet<_> = old.into_iter().flat_map(Intent::keys).collect();
        let mut after: BTreeSet<_> = new.into_iter().flat_map(Intent::keys).collect();
        for key in before.difference(&after) {
            let mut left = self.of(key).to_vec();
            left.retain(|claim| claim.service != *service);
            if left.is_empty() {
                self.0.remove(key);
            } else {
                self.0.insert(key.clone(), left);
            }
        }
        for key in after.difference(&before) {
            let claim = Claim {
                since: index,
                created_at: Arc::clone(created_at),
                service: service.clone(),
            };
            let mut claims = self.of(key).to_vec();
            let position = claims.partition_point(|other| *other < claim);
            claims.insert(position, claim);
            self.0.insert(key.clone(), claims);
        }
        after.extend(before);
        after
    }
}

crate::codec::fields! { Claim { since created_at service } }
