//! Who follows this member, and what each one answered: soft state, in no log entry.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dovetail_proto::v1 as pb;
use dovetail_routing::names::ServiceCluster;
use dovetail_routing::snapshot::{Digest, Revision};
use tokio::time::Instant;

use crate::telemetry;

/// How long a subscriber is remembered after its stream ended.
pub const REMEMBERED: Duration = Duration::from_secs(10 * 60);
/// Subscribers that are remembered, connected or not.
pub const SUBSCRIBERS_MAX: usize = 4_096;
/// Bytes of a refusal's reason that are kept.
const NACK_BYTES_MAX: usize = 1_024;

/// The subscribers of this member. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Fleet(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    subscribers: BTreeMap<Key, Subscriber>,
}

/// What makes two streams the same subscriber's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    name: String,
    address: String,
    service_cluster: ServiceCluster,
    from: Option<IpAddr>,
}

/// A subscriber as this member knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscriber {
    /// Empty when neither its certificate nor its hello names it.
    pub name: String,
    /// Where it takes requests, as it says.
    pub address: String,
    pub service_cluster: ServiceCluster,
    /// What it has in force.
    pub revision: Revision,
    pub digest: Digest,
    /// Why it refused the last push; empty when it did not.
    pub nack: String,
    pub connected: bool,
    pub seen: Instant,
    /// The stream that speaks for it: an older one that ends late changes nothing.
    stream: u64,
}

/// The place of one stream in the fleet; dropping it is the end of the stream.
#[derive(Debug)]
pub struct Place {
    fleet: Fleet,
    key: Key,
    stream: u64,
}

/// Too many subscribers are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{SUBSCRIBERS_MAX} subscribers are connected to this member, which is the limit")]
pub struct TooManySubscribers;

impl Fleet {
    /// Without subscribers.
    pub fn new() -> Self {
        Self::default()
    }

    /// A stream of a subscriber begins.
    pub fn connect(
        &self,
        name: &str,
        address: &str,
        service_cluster: &ServiceCluster,
        from: Option<IpAddr>,
        in_force: (Revision, Digest),
    ) -> Result<Place, TooManySubscribers> {
        let key = Key {
            name: name.to_owned(),
            address: address.to_owned(),
            service_cluster: service_cluster.clone(),
            from,
        };
        let mut inner = self.lock();
        inner.forget();
        if !inner.subscribers.contains_key(&key) && inner.subscribers.len() >= SUBSCRIBERS_MAX {
            let gone = inner.subscribers.iter().filter(|(_, known)| !known.connected);
            let oldest = gone.min_by_key(|(_, known)| known.seen).map(|(key, _)| key.clone());
            inner.subscribers.remove(&oldest.ok_or(TooManySubscribers)?);
        }
        inner.next += 1;
        let stream = inner.next;
        let subscriber = Subscriber {
            name: key.name.clone(),
            address: key.address.clone(),
            service_cluster: service_cluster.clone(),
            revision: in_force.0,
            digest: in_force.1,
            nack: String::new(),
            connected: true,
            seen: Instant::now(),
            stream,
        };
        telemetry::subscriber_connected(&subscriber);
        inner.subscribers.insert(key.clone(), subscriber);
        telemetry::subscribers(inner.connected());
        drop(inner);
        Ok(Place { fleet: self.clone(), key, stream })
    }

    /// All that are connected, or were a short time ago, sorted by name and address.
    pub fn subscribers(&self) -> Vec<Subscriber> {
        let mut inner = self.lock();
        inner.forget();
        inner.subscribers.values().cloned().collect()
    }

    /// The subscribers as other members and the admin API get them.
    pub fn local(&self) -> Vec<pb::LocalSubscriber> {
        let local = |subscriber: Subscriber| pb::LocalSubscriber {
            name: subscriber.name,
            address: subscriber.address,
            service_cluster: subscriber.service_cluster.to_string(),
            revision: subscriber.revision.0,
            digest: subscriber.digest.0.to_vec(),
            connected: subscriber.connected,
            nack: subscriber.nack,
        };
        self.subscribers().into_iter().map(local).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn forget(&mut self) {
        let now = Instant::now();
        self.subscribers
            .retain(|_, known| known.connected || now.duration_since(known.seen) < REMEMBERED);
    }

    fn connected(&self) -> usize {
        self.subscribers.values().filter(|known| known.connected).count()
    }
}

impl Place {
    /// The subscriber put a revision in force.
    pub fn acked(&self, revision: Revision, digest: Digest) {
        self.update(|subscriber| {
            subscriber.revision = revision;
            subscriber.digest = digest;
            subscriber.nack.clear();
        });
    }

    /// The subscriber refused a revision.
    pub fn nacked(&self, revision: Revision, reason: &str) {
        let mut end = reason.len().min(NACK_BYTES_MAX);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let reason = &reason[..end];
        telemetry::snapshot_refused(&self.key.name, revision, reason);
        self.update(|subscriber| subscriber.nack = format!("revision {revision}: {reason}"));
    }

    /// The name of the subscriber, for messages.
    pub fn name(&self) -> &str {
        &self.key.name
    }

    fn update(&self, change: impl FnOnce(&mut Subscriber)) {
        let mut inner = self.fleet.lock();
        if let Some(subscriber) = inner.subscribers.get_mut(&self.key)
            && subscriber.stream == self.stream
        {
            subscriber.seen = Instant::now();
            change(subscriber);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.update(|subscriber| {
            subscriber.connected = false;
            telemetry::subscriber_gone(subscriber);
        });
        telemetry::subscribers(self.fleet.lock().connected());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(fleet: &Fleet, name: &str) -> Place {
        let none = (Revision::default(), Digest::default());
        fleet.connect(name, "10.0.0.1:80", &ServiceCluster::default(), None, none).expect("room")
    }

    #[tokio::test(start_paused = true)]
    async fn a_subscriber_is_remembered_for_a_while_after_its_stream() {
        let fleet = Fleet::new();
        let place = connect(&fleet, "edge-1");
        place.acked(Revision(7), Digest([7; 32]));
        drop(place);
        let known = fleet.subscribers();
        assert_eq!((known.len(), known[0].connected, known[0].revision.0), (1, false, 7));
        tokio::time::advance(REMEMBERED).await;
        assert!(fleet.subscribers().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_stream_that_ends_late_changes_nothing() {
        let fleet = Fleet::new();
        let old = connect(&fleet, "edge-1");
        let new = connect(&fleet, "edge-1");
        new.acked(Revision(9), Digest::default());
        old.nacked(Revision(8), "too late");
        drop(old);
        let known = fleet.subscribers();
        assert_eq!(known.len(), 1);
        assert!(known[0].connected && known[0].revision.0 == 9 && known[0].nack.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_subscribers_is_bounded() {
        let fleet = Fleet::new();
        let gone = connect(&fleet, "gone");
        drop(gone);
        let places: Vec<_> =
            (0..SUBSCRIBERS_MAX).map(|number| connect(&fleet, &format!("edge-{number}"))).collect();
        assert_eq!(fleet.subscribers().len(), SUBSCRIBERS_MAX, "the one that is gone made room");
        let none = (Revision::default(), Digest::default());
        let refused = fleet.connect("one more", "", &ServiceCluster::default(), None, none);
        assert_eq!(refused.expect_err("full"), TooManySubscribers);
        drop(places);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_reason_is_cut_at_a_character() {
        let fleet = Fleet::new();
        let place = connect(&fleet, "edge-1");
        place.nacked(Revision(3), &"ä".repeat(NACK_BYTES_MAX));
        assert!(fleet.subscribers()[0].nack.len() <= NACK_BYTES_MAX + 32);
    }
}
