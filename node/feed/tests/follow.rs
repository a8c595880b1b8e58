//! Members that die, fall silent or lose their leader, over real mTLS: the subscriber
//! is soon on another, and what is in force stays.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dovetail_feed::{Apply, Config, DiskCopy, Problem, ServiceTraffic, Status as FeedStatus};
use dovetail_process::drain::Drain;
use dovetail_process::grpc::incoming;
use dovetail_process::pki;
use dovetail_process::tls::TlsDir;
use dovetail_proto::v1 as pb;
use dovetail_proto::v1::feed_server::{Feed, FeedServer};
use dovetail_routing::latency::Latencies;
use dovetail_routing::{Revision, Snapshot};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::Stream;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

const DEADLINE: Duration = Duration::from_secs(10);

/// What a member does.
#[derive(Clone, Debug)]
struct Manner {
    cluster_id: String,
    revision: u64,
    leader_silent_ms: u64,
    /// Sends nothing at all.
    silent: bool,
    /// The digest that it announces is wrong.
    lies: bool,
    /// The hosts of which it wants to hear counters.
    wanted: Vec<&'static str>,
}

/// A member that serves one snapshot in the manner it is told.
struct Member {
    address: SocketAddr,
    manner: watch::Sender<Manner>,
    heard: Arc<Mutex<Vec<pb::follow_request::Request>>>,
    job: JoinHandle<()>,
}

struct Serving {
    manner: watch::Receiver<Manner>,
    heard: Arc<Mutex<Vec<pb::follow_request::Request>>>,
}

fn updates(manner: &Manner, pushed: &mut u64) -> Vec<pb::Update> {
    let Manner { cluster_id, revision, leader_silent_ms, lies, .. } = manner.clone();
    let update = |update| pb::Update {
        cluster_id: cluster_id.clone(),
        ancestors: vec![],
        update: Some(update),
    };
    let route = |host: &str| pb::RouteRef {
        host: host.to_owned(),
        path: "/".to_owned(),
        ..pb::RouteRef::default()
    };
    let alive = pb::KeepAlive {
        revision,
        leader_silent_ms,
        traffic_wanted: manner.wanted.iter().map(|host| route(host)).collect(),
    };
    let mut updates = vec![update(pb::update::Update::KeepAlive(alive))];
    if *pushed < revision {
        *pushed = revision;
        let snapshot = Snapshot { revision: Revision(revision), ..Snapshot::default() };
        let canonical = Bytes::from(snapshot.encode());
        let mut digest = Snapshot::digest_of(&canonical).0.to_vec();
        digest[0] ^= u8::from(lies);
        let snapshot = pb::SnapshotUpdate { revision, digest, canonical };
        updates.push(update(pb::update::Update::Snapshot(snapshot)));
    }
    updates
}

#[tonic::async_trait]
impl Feed for Serving {
    type FollowStream = Pin<Box<dyn Stream<Item = Result<pb::Update, Status>> + Send>>;

    async fn follow(
        &self,
        request: Request<Streaming<pb::FollowRequest>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let mut inbound = request.into_inner();
        let heard = Arc::clone(&self.heard);
        let hello = inbound.message().await?.and_then(|said| said.request);
        let Some(pb::follow_request::Request::Hello(hello)) = hello else {
            return Err(Status::invalid_argument("no hello"));
        };
        let mut pushed = hello.revision;
        heard.lock().expect("whole").push(pb::follow_request::Request::Hello(hello));
        tokio::spawn(async move {
            while let Ok(Some(said)) = inbound.message().await {
                heard.lock().expect("whole").extend(said.request);
            }
        });
        let (sender, receiver) = mpsc::channel(16);
        let mut manner = self.manner.clone();
        tokio::spawn(async move {
            loop {
                let now = manner.borrow_and_update().clone();
                if !now.silent {
                    for update in updates(&now, &mut pushed) {
                        if sender.send(Ok(update)).await.is_err() {
                            return;
                        }
                    }
                }
                let pause = tokio::time::sleep(Duration::from_millis(500));
                tokio::select! {
                    changed = manner.changed() => if changed.is_err() { return },
                    () = pause => {}
                    () = sender.closed() => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver).map(|update| update))))
    }
}

impl Member {
    async fn start(pki: &Path, slot: u64, revision: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let tls = TlsDir::load(&pki.join(format!("member-{slot}"))).expect("a certificate");
        let manner = watch::Sender::new(Manner {
            cluster_id: "c1".into(),
            revision,
            leader_silent_ms: 0,
            silent: false,
            lies: false,
            wanted: Vec::new(),
        });
        let heard = Arc::default();
        let serving = Serving { manner: manner.subscribe(), heard: Arc::clone(&heard) };
        let job = tokio::spawn(async move {
            let router = tonic::transport::Server::builder().add_service(FeedServer::new(serving));
            let _ = router.serve_with_incoming(incoming(listener, tls)).await;
        });
        Self { address, manner, heard, job }
    }

    fn change(&self, change: impl FnOnce(&mut Manner)) {
        self.manner.send_modify(change);
    }

    fn heard(&self) -> Vec<pb::follow_request::Request> {
        self.heard.lock().expect("whole").clone()
    }

    /// Dies at once, with all its connections.
    fn die(self) {
        self.job.abort();
        // Its streams end with the last sender.
        drop(self.manner);
    }
}

#[derive(Default)]
struct InForce(Mutex<Vec<u64>>);

impl Apply for InForce {
    fn apply(&self, snapshot: &Arc<Snapshot>) -> Result<(), String> {
        if snapshot.revision == Revision(13) {
            return Err("13 is not wanted".to_owned());
        }
        self.0.lock().expect("whole").push(snapshot.revision.0);
        Ok(())
    }

    fn traffic(&self, host: &str, path: &str) -> Vec<ServiceTraffic> {
        if (host, path) != ("shop.example", "/") {
            return Vec::new();
        }
        let latencies = Latencies::new([(9, 3)]);
        vec![ServiceTraffic { service: "web".into(), start: 7, requests: 3, errors: 1, latencies }]
    }
}

/// A subscriber of these members, in the order of preference.
struct Subscriber {
    in_force: Arc<InForce>,
    status: watch::Receiver<FeedStatus>,
    problems: watch::Sender<Arc<[Problem]>>,
    drain: Drain,
}

impl Subscriber {
    fn start(dir: &Path, members: &[&Member]) -> Self {
        let core: Vec<_> = members.iter().map(|member| member.address.to_string()).collect();
        let problems = watch::Sender::new(Arc::default());
        let config = Config {
            core: core.join(",").parse().expect("addresses"),
            tls: TlsDir::load(&dir.join("pki/proxy")).expect("a certificate"),
            service_cluster: "".parse().expect("the default"),
            name: "p1".into(),
            address: "127.0.0.1:80".into(),
            version: "0".into(),
            disk: DiskCopy::open(&dir.join("data")).expect("a folder"),
            problems: problems.subscribe(),
        };
        let in_force = Arc::<InForce>::default();
        let (feed, status) = config.build(Arc::clone(&in_force));
        let drain = Drain::new();
        drain.watch().spawn(feed.run(drain.watch()));
        Self { in_force, status, problems, drain }
    }

    async fn follows(&mut self, member: &Member) -> Duration {
        let address = member.address.to_string();
        let began = Instant::now();
        let wanted = |status: &FeedStatus| status.following.as_ref() == Some(&address);
        tokio::time::timeout(DEADLINE, self.status.wait_for(wanted))
            .await
            .expect("followed in time")
            .expect("it runs");
        began.elapsed()
    }

    async fn has(&mut self, revision: u64) {
        let wanted = |status: &FeedStatus| {
            status.in_force.as_ref().is_some_and(|at| at.revision == Revision(revision))
        };
        tokio::time::timeout(DEADLINE, self.status.wait_for(wanted))
            .await
            .expect("in force in time")
            .expect("it runs");
    }

    fn revisions(&self) -> Vec<u64> {
        self.in_force.0.lock().expect("whole").clone()
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(DEADLINE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "not in time: {what}");
}

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    pki::init(&dir.path().join("pki"), 3, &[]).expect("certificates");
    dir
}

#[tokio::test]
async fn what_is_wrong_is_told_to_whatever_member_is_followed() {
    let dir = folder();
    let pki = dir.path().join("pki");
    let first = Member::start(&pki, 1, 5).await;
    let second = Member::start(&pki, 2, 5).await;
    let mut subscriber = Subscriber::start(dir.path(), &[&first, &second]);
    subscriber.follows(&first).await;
    let none = || Arc::from("");
    let problem = |reason: &str| Problem {
        service: none(),
        host: none(),
        label: none(),
        value: none(),
        reason: reason.into(),
    };
    let told = |member: &Member, reason: &str| {
        member.heard().iter().any(|said| {
            let pb::follow_request::Request::Report(report) = said else { return false };
            report.problems.len() == 1 && report.problems[0].reason == reason
        })
    };
    subscriber.problems.send_replace(Arc::from([problem("it expired")]));
    until("the first member is told", || told(&first, "it expired")).await;
    first.die();
    subscriber.follows(&second).await;
    until("the second member is told", || told(&second, "it expired")).await;
    subscriber.problems.send_replace(Arc::from([problem("it is not there")]));
    until("it is told anew", || told(&second, "it is not there")).await;
}

#[tokio::test]
async fn a_proxy_whose_member_dies_is_on_another_within_a_second() {
    let dir = folder();
    let pki = dir.path().join("pki");
    let first = Member::start(&pki, 1, 5).await;
    let second = Member::start(&pki, 2, 5).await;
    let mut subscriber = Subscriber::start(dir.path(), &[&first, &second]);
    subscriber.follows(&first).await;
    subscriber.has(5).await;
    until("the ack", || {
        first
            .heard()
            .iter()
            .any(|said| matches!(said, pb::follow_request::Request::Ack(ack) if ack.revision == 5))
    })
    .await;
    first.die();
    let took = subscriber.follows(&second).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    // It said what it has, and was sent nothing twice.
    let hello = second.heard().into_iter().find_map(|said| match said {
        pb::follow_request::Request::Hello(hello) => Some(hello),
        _ => None,
    });
    assert_eq!(hello.map(|hello| (hello.cluster_id, hello.revision)), Some(("c1".into(), 5)));
    second.change(|manner| manner.revision = 6);
    subscriber.has(6).await;
    assert_eq!(subscriber.revisions(), [5, 6]);
    subscriber.drain.finish(DEADLINE).await;
}

#[tokio::test]
async fn a_silent_member_and_one_without_a_leader_are_left() {
    let dir = folder();
    let pki = dir.path().join("pki");
    let first = Member::start(&pki, 1, 5).await;
    let second = Member::start(&pki, 2, 5).await;
    let mut subscriber = Subscriber::start(dir.path(), &[&first, &second]);
    subscriber.follows(&first).await;
    first.change(|manner| manner.silent = true);
    let took = subscriber.follows(&second).await;
    assert!(took < Duration::from_millis(3_500), "{took:?}");
    first.change(|manner| manner.silent = false);
    second.change(|manner| manner.leader_silent_ms = 2_001);
    subscriber.follows(&first).await;
    // Nobody has a leader: what is in force stays.
    first.change(|manner| manner.leader_silent_ms = 9_000);
    let alone = subscriber.status.wait_for(|status| status.following.is_none()).await;
    drop(alone.expect("it runs"));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(subscriber.revisions(), [5]);
    first.change(|manner| (manner.leader_silent_ms, manner.revision) = (0, 7));
    subscriber.has(7).await;
}

#[tokio::test]
async fn what_is_refused_is_answered_and_changes_nothing() {
    let dir = folder();
    let pki = dir.path().join("pki");
    let member = Member::start(&pki, 1, 5).await;
    let mut subscriber = Subscriber::start(dir.path(), &[&member]);
    subscriber.has(5).await;
    member.change(|manner| (manner.revision, manner.lies) = (6, true));
    let nacked = |revision| move |said: &pb::follow_request::Request| matches!(said, pb::follow_request::Request::Nack(nack) if nack.revision == revision);
    until("a wrong digest is refused", || member.heard().iter().any(nacked(6))).await;
    member.change(|manner| (manner.revision, manner.lies) = (13, false));
    until("what cannot be applied is refused", || member.heard().iter().any(nacked(13))).await;
    member.change(|manner| manner.revision = 14);
    subscriber.has(14).await;
    assert_eq!(subscriber.revisions(), [5, 14]);
    // Another quorum, with a greater revision, is not even listened to.
    member.change(|manner| (manner.cluster_id, manner.revision) = ("c2".into(), 99));
    let alone = subscriber.status.wait_for(|status| status.following.is_none()).await;
    drop(alone.expect("it runs"));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(subscriber.revisions(), [5, 14]);
}

#[tokio::test]
async fn counters_are_told_when_they_are_asked_for() {
    let dir = folder();
    let member = Member::start(&dir.path().join("pki"), 1, 5).await;
    let mut subscriber = Subscriber::start(dir.path(), &[&member]);
    subscriber.has(5).await;
    let told = || {
        member.heard().into_iter().find_map(|said| match said {
            pb::follow_request::Request::Traffic(traffic) => Some(traffic),
            _ => None,
        })
    };
    member.change(|manner| manner.revision = 6);
    subscriber.has(6).await;
    assert_eq!(told(), None, "nobody asked");
    member.change(|manner| manner.wanted = vec!["gone.example", "shop.example"]);
    until("it tells", || told().is_some()).await;
    let traffic = told().expect("told");
    let counted: Vec<_> = traffic
        .services
        .iter()
        .map(|one| (one.host.as_str(), one.service.as_str(), one.requests, one.errors))
        .collect();
    assert_eq!(counted, [("shop.example", "web", 3, 1)]);
    assert!(traffic.complete);
    subscriber.drain.finish(DEADLINE).await;
}

#[tokio::test]
async fn a_subscriber_starts_from_its_copy_when_nobody_answers() {
    let dir = folder();
    let pki = dir.path().join("pki");
    let member = Member::start(&pki, 1, 5).await;
    let mut subscriber = Subscriber::start(dir.path(), &[&member]);
    subscriber.has(5).await;
    subscriber.drain.finish(DEADLINE).await;
    let address = member.address;
    member.die();
    let nobody = Member::start(&pki, 2, 0).await;
    nobody.change(|manner| manner.silent = true);
    let subscriber = Subscriber::start(dir.path(), &[&nobody]);
    assert_eq!(subscriber.revisions(), [5], "at once, without {address}");
}

#[tokio::test]
#[ignore = "takes as long as a subscriber stays with another member before it looks: 15 s"]
async fn the_preferred_member_is_followed_again() {
    let dir = folder();
    let pki = dir.path().join("pki");
    let first = Member::start(&pki, 1, 5).await;
    let second = Member::start(&pki, 2, 5).await;
    let mut subscriber = Subscriber::start(dir.path(), &[&first, &second]);
    subscriber.follows(&first).await;
    first.change(|manner| manner.leader_silent_ms = 5_000);
    subscriber.follows(&second).await;
    first.change(|manner| manner.leader_silent_ms = 0);
    let address = first.address.to_string();
    let back = subscriber.status.wait_for(|status| status.following.as_ref() == Some(&address));
    let back = tokio::time::timeout(Duration::from_secs(30), back).await;
    assert!(back.is_ok_and(|back| back.is_ok()));
}
