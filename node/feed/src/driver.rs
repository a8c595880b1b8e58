//! Follows a member over gRPC, and another one when that is better.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use dovetail_process::drain::DrainWatch;
use dovetail_process::grpc;
use dovetail_process::tls::TlsDir;
use dovetail_proto::v1 as pb;
use dovetail_routing::Snapshot;
use dovetail_routing::names::ServiceCluster;
use dovetail_routing::snapshot::SNAPSHOT_FORMAT;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::address::CoreAddresses;
use crate::disk::DiskCopy;
use crate::keeper::Keeper;
use crate::link::{AbortOnDrop, Dialler, Link};
use crate::report::{Problem, Reports};
use crate::subscription::{LeaveReason, Position, Subscription, Verdict};
use crate::traffic::{self, ServiceTraffic};

/// How long a member may be silent; it sends a keep-alive every second.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// How often a subscriber that follows another than its preferred member looks for that.
const LOOK_UP: Duration = Duration::from_secs(15);
/// Pause after every member was tried in vain: doubled each time, with jitter.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The same complaint about the same member is logged once in this time.
const REPEAT_AFTER: Duration = Duration::from_secs(60);

/// Where snapshots are put in force.
pub trait Apply: Send + Sync + 'static {
    /// Puts `snapshot` in force as a whole, or says why it cannot be.
    fn apply(&self, snapshot: &Arc<Snapshot>) -> Result<(), String>;

    /// What each service answered so far on the route of a host and a path, as routes
    /// print them; nothing where it is not counted.
    fn traffic(&self, host: &str, path: &str) -> Vec<ServiceTraffic> {
        let _ = (host, path);
        Vec::new()
    }
}

/// What a subscriber is built from.
#[derive(Clone, Debug)]
pub struct Config {
    pub core: CoreAddresses,
    pub tls: TlsDir,
    pub service_cluster: ServiceCluster,
    /// What operators see: the subscriber's name, where it takes requests, its version.
    pub name: String,
    pub address: String,
    pub version: String,
    /// Where the copy is kept.
    pub disk: DiskCopy,
    /// All that is wrong here, for operators to see: reported when it changes.
    pub problems: watch::Receiver<Arc<[Problem]>>,
}

/// How the subscriber stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub in_force: Option<Position>,
    /// The member that it follows.
    pub following: Option<String>,
    /// When a member last said that nothing newer exists.
    pub confirmed: Option<SystemTime>,
}

/// A subscriber, before it runs.
#[derive(Debug)]
pub struct Feed<A> {
    config: Config,
    apply: Arc<A>,
    subscription: Subscription,
    status: watch::Sender<Status>,
    complaints: BTreeMap<String, (String, Instant)>,
}

/// How following a member ended.
enum Ended {
    /// It cannot be followed; `worked` if it sent at least one usable update.
    Lost { worked: bool, reason: String },
    /// A preferred member can be followed again.
    Better(Box<Link>),
}

impl Config {
    /// Takes the copy on disk, if there is one, and puts it in force.
    pub fn build<A: Apply>(self, apply: Arc<A>) -> (Feed<A>, watch::Receiver<Status>) {
        let mut status = Status::default();
        let path = self.disk.path();
        match self.disk.load(&self.service_cluster) {
            Ok(None) => {}
            Ok(Some(copy)) => match apply.apply(&copy.snapshot) {
                Ok(()) => {
                    let revision = copy.position.revision.0;
                    info!(revision, path = %path.display(), "snapshot copy in force");
                    status.in_force = Some(copy.position);
                    status.confirmed = Some(copy.stored_at);
                }
                Err(reason) => {
                    warn!(%reason, path = %path.display(), "snapshot copy not usable, ignored");
                }
            },
            Err(damage) => {
                let error = dovetail_process::chain(&damage);
                warn!(%error, path = %path.display(), "snapshot copy damaged, ignored");
            }
        }
        describe();
        record(&status);
        let subscription = Subscription::new(self.service_cluster.clone(), status.in_force.clone());
        let status = watch::Sender::new(status);
        let watch = status.subscribe();
        let complaints = BTreeMap::new();
        (Feed { config: self, apply, subscription, status, complaints }, watch)
    }
}

impl<A: Apply> Feed<A> {
    /// Follows the core until the drain begins. What is in force is never cleared.
    pub async fn run(mut self, drain: DrainWatch) {
        let keeper = Keeper::start(self.config.disk.clone());
        let status = self.status.subscribe();
        tokio::select! {
            biased;
            () = drain.begun() => {}
            () = self.follow_the_core(&keeper) => {}
            () = record_age(status) => {}
        }
        // Waits for the disk, off the runtime's thread.
        let _ = tokio::task::spawn_blocking(move || drop(keeper)).await;
    }

    async fn follow_the_core(&mut self, keeper: &Keeper) {
        let addresses = self.config.core.as_slice().to_vec();
        let mut pause = PAUSE_MIN;
        // The member that was left last is asked last.
        let mut left: Option<usize> = None;
        let mut linked: Option<Link> = None;
        loop {
            let mut worked = false;
            let order = (0..addresses.len()).filter(|at| Some(*at) != left).chain(left);
            let order = linked.as_ref().map_or_else(|| order.collect(), |link| vec![link.at]);
            for at in order {
                let ended = self.follow(at, linked.take(), keeper).await;
                self.status.send_modify(|status| status.following = None);
                metrics::gauge!("dovetail_feed_connected").set(0.0);
                match ended {
                    Ended::Better(link) => {
                        worked = true;
                        linked = Some(*link);
                        break;
                    }
                    Ended::Lost { worked: so_far, reason } => {
                        self.complain(&addresses[at], reason);
                        left = Some(at);
                        worked = so_far;
                    }
                }
                if worked {
                    break;
                }
            }
            if worked {
                pause = PAUSE_MIN;
                continue;
            }
            left = None;
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Follows one member until it cannot be followed any more, or need not be.
    async fn follow(&mut self, at: usize, linked: Option<Link>, keeper: &Keeper) -> Ended {
        let opened = match linked {
            Some(link) => Ok(link),
            None => self.dialler().open(at).await,
        };
        let mut link = match opened {
            Ok(link) => link,
            Err(reason) => return Ended::Lost { worked: false, reason },
        };
        let mut update = Some(link.first.take());
        let mut worked = false;
        let mut better: Option<AbortOnDrop<Option<Link>>> = None;
        let mut reports = Reports::new(self.config.problems.clone());
        let mut look = tokio::time::interval_at(tokio::time::Instant::now() + LOOK_UP, LOOK_UP);
        loop {
            if let Some(update) = update.take().flatten() {
                let told = self.traffic_wanted(&update);
                let answer = match self.take(update, keeper) {
                    Ok(answer) => answer,
                    Err(reason) => return Ended::Lost { worked, reason: reason.to_string() },
                };
                if !worked {
                    worked = true;
                    let address = &self.config.core.as_slice()[at];
                    info!(address, "following a member");
                    self.complaints.clear();
                    self.status.send_modify(|status| status.following = Some(address.clone()));
                    metrics::gauge!("dovetail_feed_connected").set(1.0);
                }
                if let Some(request) = answer
                    && link.answers.send(request).await.is_err()
                {
                    let reason = "its stream takes no answers".to_owned();
                    return Ended::Lost { worked, reason };
                }
                for traffic in told {
                    let request = Some(pb::follow_request::Request::Traffic(traffic));
                    if link.answers.send(pb::FollowRequest { request }).await.is_err() {
                        let reason = "its stream takes no counters".to_owned();
                        return Ended::Lost { worked, reason };
                    }
                }
            }
            tokio::select! {
                biased;
                next = tokio::time::timeout(SILENCE_MAX, link.updates.message()) => {
                    let reason = match next {
                        Ok(Ok(Some(next))) => {
                            update = Some(Some(next));
                            continue;
                        }
                        Ok(Ok(None)) => "it ended the stream".to_owned(),
                        Ok(Err(status)) => grpc::describe(&status),
                        Err(_) => format!("it was silent for {SILENCE_MAX:?}"),
                    };
                    return Ended::Lost { worked, reason };
                }
                found = async { match &mut better {
                    Some(job) => (&mut job.0).await,
                    None => std::future::pending().await,
                } } => {
                    better = None;
                    if let Ok(Some(link)) = found && self.is_usable(&link) {
                        return Ended::Better(Box::new(link));
                    }
                }
                report = reports.next() => {
                    let request = Some(pb::follow_request::Request::Report(report));
                    if link.answers.send(pb::FollowRequest { request }).await.is_err() {
                        let reason = "its stream takes no reports".to_owned();
                        return Ended::Lost { worked, reason };
                    }
                }
                _ = look.tick(), if at > 0 && better.is_none() => {
                    let dialler = self.dialler();
                    better = Some(AbortOnDrop(tokio::spawn(async move {
                        for preferred in 0..at {
                            if let Ok(link) = dialler.open(preferred).await {
                                return Some(link);
                            }
                        }
                        None
                    })));
                }
            }
        }
    }

    /// Whether a member that was dialled in passing can be followed.
    fn is_usable(&self, link: &Link) -> bool {
        let first = link.first.clone();
        first.is_some_and(|update| !matches!(self.subscription.receive(update), Verdict::Leave(_)))
    }

    fn dialler(&self) -> Dialler {
        Dialler {
            core: self.config.core.clone(),
            tls: self.config.tls.clone(),
            hello: pb::FollowRequest { request: Some(self.hello()) },
        }
    }

    fn hello(&self) -> pb::follow_request::Request {
        let config = &self.config;
        let position = self.subscription.position();
        pb::follow_request::Request::Hello(pb::Hello {
            name: config.name.clone(),
            service_cluster: config.service_cluster.as_str().to_owned(),
            cluster_id: position.map(|at| at.cluster_id.clone()).unwrap_or_default(),
            revision: position.map_or(0, |at| at.revision.0),
            digest: position.map(|at| at.digest.0.to_vec()).unwrap_or_default(),
            format_newest: SNAPSHOT_FORMAT,
            address: config.address.clone(),
            version: config.version.clone(),
        })
    }

    /// What was counted, if a keep-alive asks for it.
    fn traffic_wanted(&self, update: &pb::Update) -> Vec<pb::Traffic> {
        match &update.update {
            Some(pb::update::Update::KeepAlive(alive)) if !alive.traffic_wanted.is_empty() => {
                let apply = &self.apply;
                traffic::messages(&alive.traffic_wanted, |host, path| apply.traffic(host, path))
            }
            _ => Vec::new(),
        }
    }

    /// Acts on an update; the answer goes back to the member.
    fn take(
        &mut self,
        update: pb::Update,
        keeper: &Keeper,
    ) -> Result<Option<pb::FollowRequest>, LeaveReason> {
        use pb::follow_request::Request;
        let (answer, verdict) = match self.subscription.receive(update) {
            Verdict::Leave(reason) => return Err(reason),
            Verdict::Alive { caught_up } => {
                if caught_up {
                    self.status.send_modify(|status| status.confirmed = Some(SystemTime::now()));
                }
                return Ok(None);
            }
            Verdict::Confirm(ack) => {
                debug!(revision = ack.revision, "snapshot already in force");
                (Request::Ack(ack), "confirmed")
            }
            Verdict::Nack(nack) => (Request::Nack(nack), "refused"),
            Verdict::Swap { position, snapshot, canonical } => match self.apply.apply(&snapshot) {
                Ok(()) => {
                    let ack = self.subscription.in_force(position.clone());
                    let routes = snapshot.routes.len();
                    info!(revision = ack.revision, routes, "snapshot in force");
                    self.status.send_modify(|status| {
                        status.in_force = Some(position.clone());
                        status.confirmed = Some(SystemTime::now());
                    });
                    record(&self.status.borrow());
                    keeper.keep(position, canonical);
                    (Request::Ack(ack), "in_force")
                }
                Err(reason) => {
                    (Request::Nack(self.subscription.refused(&position, reason)), "refused")
                }
            },
        };
        if let Request::Nack(nack) = &answer {
            warn!(revision = nack.revision, reason = nack.reason, "snapshot refused");
        }
        metrics::counter!("dovetail_feed_snapshots_total", "verdict" => verdict).increment(1);
        Ok(Some(pb::FollowRequest { request: Some(answer) }))
    }

    /// Logs why a member is not followed, the same words once in a while.
    fn complain(&mut self, address: &str, reason: String) {
        let known = self.complaints.get(address);
        let repeated =
            known.is_some_and(|(last, at)| *last == reason && at.elapsed() < REPEAT_AFTER);
        if repeated {
            debug!(address, reason, "member not followed");
        } else {
            warn!(address, reason, "member not followed");
            self.complaints.insert(address.to_owned(), (reason, Instant::now()));
        }
    }
}

fn describe() {
    metrics::describe_gauge!("dovetail_feed_revision_in_force", "Revision that decides requests.");
    metrics::describe_gauge!("dovetail_feed_connected", "1 while a member is followed.");
    metrics::describe_gauge!(
        "dovetail_feed_snapshot_age_seconds",
        metrics::Unit::Seconds,
        "Since a member last said that nothing newer than what is in force exists."
    );
    metrics::describe_counter!("dovetail_feed_snapshots_total", "Snapshots received, by verdict.");
    metrics::describe_counter!(
        "dovetail_feed_copy_errors_total",
        "Times that the copy on disk could not be written."
    );
}

fn record(status: &Status) {
    let revision = status.in_force.as_ref().map_or(0, |at| at.revision.0);
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    metrics::gauge!("dovetail_feed_revision_in_force").set(revision as f64);
}

/// Keeps the age of what is in force up to date, also while no member answers.
async fn record_age(status: watch::Receiver<Status>) {
    let gauge = metrics::gauge!("dovetail_feed_snapshot_age_seconds");
    let mut every = tokio::time::interval(Duration::from_secs(1));
    loop {
        every.tick().await;
        let confirmed = status.borrow().confirmed;
        if let Some(age) = confirmed.and_then(|at| at.elapsed().ok()) {
            gauge.set(age.as_secs_f64());
        }
    }
}
