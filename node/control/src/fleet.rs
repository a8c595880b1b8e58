//! Who follows this member, and what each one answered: soft state, in no log entry.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dovetail_proto::v1 as pb;
use dovetail_routing::names::ServiceCluster;
use dovetail_routing::snapshot::{Digest, Revision};
use tokio::time::Instant;

use crate::ports::Asked;
use crate::telemetry;

/// How long a subscriber is remembered after its stream ended.
pub const REMEMBERED: Duration = Duration::from_secs(10 * 60);
/// Subscribers that are remembered, connected or not.
pub const SUBSCRIBERS_MAX: usize = 4_096;
/// Bytes of a refusal's or a problem's reason that are kept.
const REASON_BYTES_MAX: usize = 1_024;
/// Problems of one subscriber that are kept; more are counted.
pub const PROBLEMS_MAX: usize = 100;
/// Bytes of a problem's service, host, label or value that are kept.
const PROBLEM_TEXT_BYTES_MAX: usize = 256;
/// Bytes of problems that are told at once; of further subscribers they are counted.
const PROBLEM_BYTES_MAX: usize = 2 * 1_024 * 1_024;

/// Services of which one subscriber's counters are kept; with more, none are.
const SERVICES_MAX: usize = 4_096;
/// Bytes of counters that are told at once; those of further subscribers are left out.
const TRAFFIC_BYTES_MAX: usize = 8 * 1_024 * 1_024;

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
#[derive(Clone, Debug, PartialEq)]
pub struct Subscriber {
    /// Empty when neither its certificate nor its hello names it.
    pub name: String,
    /// Where it takes requests, as it says.
    pub address: String,
    pub service_cluster: ServiceCluster,
    /// What it has in force.
    pub revision: Revision,
    pub digest: Digest,
    /// The newest canonical format that it reads.
    pub format_newest: u32,
    /// Why it refused the last push; empty when it did not.
    pub nack: String,
    /// What it said is wrong at it.
    pub problems: Arc<[pb::ProxyProblem]>,
    /// What it said beyond that, counted.
    pub problems_more: u64,
    /// What it counted of services on routes with a canary, and when it had told all.
    pub traffic: Option<(Arc<[pb::ServiceTraffic]>, Instant)>,
    /// What it has told so far of the next round.
    telling: Vec<pb::ServiceTraffic>,
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
            format_newest: 0,
            nack: String::new(),
            problems: Arc::default(),
            problems_more: 0,
            traffic: None,
            telling: Vec::new(),
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
    pub fn local(&self, asked: Asked) -> Vec<pb::LocalSubscriber> {
        let (mut bytes, mut counted) = (0, 0);
        let local = |subscriber: Subscriber| {
            let mut told = pb::LocalSubscriber {
                name: subscriber.name,
                address: subscriber.address,
                service_cluster: subscriber.service_cluster.to_string(),
                revision: subscriber.revision.0,
                digest: subscriber.digest.0.to_vec(),
                format_newest: subscriber.format_newest,
                connected: subscriber.connected,
                nack: subscriber.nack,
                ..pb::LocalSubscriber::default()
            };
            // What was wrong at one that is gone is no longer known.
            if told.connected {
                let (known, more) = (&subscriber.problems, subscriber.problems_more);
                told.problem_count = known.len() as u64 + u64::from(more > 0);
                bytes += known.iter().map(prost::Message::encoded_len).sum::<usize>();
                if asked.problems && bytes <= PROBLEM_BYTES_MAX {
                    told.problems = known.to_vec();
                    told.problems_more = more;
                } else {
                    told.problems_more = known.len() as u64 + more;
                }
                if let Some((services, at)) = subscriber.traffic.filter(|_| asked.traffic) {
                    counted += services.iter().map(prost::Message::encoded_len).sum::<usize>();
                    // Without its figures no canary goes on, which is the safe side.
                    told.traffic = (counted <= TRAFFIC_BYTES_MAX).then(|| pb::LocalTraffic {
                        services: services.to_vec(),
                        age_ms: u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX),
                    });
                }
            }
            told
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

    /// The subscriber's build reads canonical formats up to this one.
    pub fn reads(&self, format_newest: u32) {
        self.update(|subscriber| subscriber.format_newest = format_newest);
    }

    /// The subscriber refused a revision.
    pub fn nacked(&self, revision: Revision, reason: &str) {
        let reason = shortened(reason, REASON_BYTES_MAX);
        telemetry::snapshot_refused(&self.key.name, revision, reason);
        self.update(|subscriber| subscriber.nack = format!("revision {revision}: {reason}"));
    }

    /// The subscriber said what is wrong at it, in place of what it said before.
    pub fn reported(&self, report: pb::Report) {
        let (mut problems, mut more) = (report.problems, report.more);
        if problems.len() > PROBLEMS_MAX {
            more = more.saturating_add((problems.len() - PROBLEMS_MAX) as u64);
            problems.truncate(PROBLEMS_MAX);
        }
        for problem in &mut problems {
            let pb::ProxyProblem { service, host, label, value, reason } = problem;
            for text in [service, host, label, value] {
                text.truncate(shortened(text, PROBLEM_TEXT_BYTES_MAX).len());
            }
            reason.truncate(shortened(reason, REASON_BYTES_MAX).len());
        }
        telemetry::subscriber_reported(&self.key.name, problems.len(), more);
        self.update(|subscriber| {
            subscriber.problems = problems.into();
            subscriber.problems_more = more;
        });
    }

    /// The subscriber said what it counted; the last message of a round puts it in place.
    pub fn counted(&self, traffic: pb::Traffic) {
        self.update(|subscriber| {
            let room = SERVICES_MAX.saturating_sub(subscriber.telling.len());
            let fits = traffic.services.len() <= room;
            subscriber.telling.extend(traffic.services.into_iter().take(room));
            if traffic.complete || !fits {
                let told = std::mem::take(&mut subscriber.telling);
                subscriber.traffic = fits.then(|| (told.into(), Instant::now()));
            }
        });
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

/// At most `bytes_max` bytes of `text`, cut between characters.
fn shortened(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
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
        place.nacked(Revision(3), &"ä".repeat(REASON_BYTES_MAX));
        assert!(fleet.subscribers()[0].nack.len() <= REASON_BYTES_MAX + 32);
    }

    fn problem(reason: &str) -> pb::ProxyProblem {
        pb::ProxyProblem { reason: reason.to_owned(), ..pb::ProxyProblem::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_report_replaces_the_last_one_and_ends_with_the_stream() {
        let fleet = Fleet::new();
        let place = connect(&fleet, "edge-1");
        place.reported(pb::Report { problems: vec![problem("a"), problem("b")], more: 0 });
        assert_eq!(fleet.local(Asked::PROBLEMS)[0].problems.len(), 2);
        place.reported(pb::Report { problems: vec![problem("c")], more: 7 });
        let told = fleet.local(Asked::PROBLEMS).remove(0);
        assert_eq!((told.problems, told.problems_more), (vec![problem("c")], 7));
        let counted = fleet.local(Asked::default()).remove(0);
        assert_eq!((counted.problems.len(), counted.problem_count), (0, 2));
        drop(place);
        assert_eq!(fleet.local(Asked::PROBLEMS)[0].problem_count, 0, "nobody knows any more");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_of_a_report_is_bounded() {
        let fleet = Fleet::new();
        let places: Vec<_> = (0..50).map(|n| connect(&fleet, &format!("edge-{n}"))).collect();
        let long = pb::ProxyProblem {
            value: "ä".repeat(PROBLEM_TEXT_BYTES_MAX),
            ..problem(&"x".repeat(2 * REASON_BYTES_MAX))
        };
        for place in &places {
            place.reported(pb::Report { problems: vec![long.clone(); PROBLEMS_MAX + 5], more: 1 });
        }
        let told = fleet.local(Asked::PROBLEMS);
        let kept = &told[0].problems;
        assert_eq!((kept.len(), told[0].problems_more), (PROBLEMS_MAX, 6));
        assert!(kept[0].value.len() <= PROBLEM_TEXT_BYTES_MAX);
        assert!(kept[0].reason.len() <= REASON_BYTES_MAX);
        let bytes: usize = told.iter().map(prost::Message::encoded_len).sum();
        assert!(bytes < PROBLEM_BYTES_MAX + 64 * 1_024, "{bytes}");
        assert_eq!(told[49].problems_more, PROBLEMS_MAX as u64 + 6, "counted, not told");
    }

    #[tokio::test(start_paused = true)]
    async fn counters_count_once_all_of_them_were_told() {
        let fleet = Fleet::new();
        let place = connect(&fleet, "edge-1");
        let told = || {
            let asked = Asked { traffic: true, ..Asked::default() };
            fleet.local(asked).remove(0).traffic
        };
        let part = |requests, complete| pb::Traffic {
            services: vec![pb::ServiceTraffic { requests, ..pb::ServiceTraffic::default() }],
            complete,
        };
        let requests = |told: pb::LocalTraffic| {
            told.services.iter().map(|one| one.requests).collect::<Vec<_>>()
        };
        place.counted(part(1, false));
        assert_eq!(told(), None, "there is more to come");
        place.counted(part(2, true));
        tokio::time::advance(Duration::from_millis(700)).await;
        assert_eq!(told().map(|told| told.age_ms), Some(700));
        place.counted(part(3, false));
        assert_eq!(told().map(requests), Some(vec![1, 2]), "the last round stands");
        place.counted(part(4, true));
        assert_eq!(told().map(requests), Some(vec![3, 4]));
        assert_eq!(fleet.local(Asked::default())[0].traffic, None, "nobody asked");

        let many = vec![pb::ServiceTraffic::default(); SERVICES_MAX + 1];
        place.counted(pb::Traffic { services: many, complete: true });
        assert_eq!(told(), None, "half of it would be as good as wrong");
        drop(place);
        assert_eq!(told(), None);
    }
}
