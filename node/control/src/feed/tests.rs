//! The feed over connections in memory.

use dovetail_process::drain::Drain;
use dovetail_routing::Payload;
use dovetail_routing::command::Share;
use dovetail_routing::entry::{Applied, ClusterConfig, Command, ProxyOptions};
use dovetail_routing::names::ContextRoot;
use dovetail_routing::snapshot::RouteKey;
use pb::feed_client::FeedClient;
use pb::feed_server::FeedServer;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::service::Routes;

use super::*;
use crate::fakes::{Dial, FakePeers, FakeQuorum, eventually, listing, proposal, serve};
use crate::ports::Asked;

struct Stage {
    quorum: Arc<FakeQuorum>,
    fleet: Fleet,
    drain: Drain,
    dial: Dial,
}

fn stage_with(gate: Gate) -> Stage {
    let (quorum, fleet, drain) = (FakeQuorum::follower(), Fleet::new(), Drain::new());
    let feed = Feed::new(Arc::clone(&quorum), fleet.clone(), gate, drain.watch());
    let dial = serve(Routes::new(FeedServer::new(feed)));
    Stage { quorum, fleet, drain, dial }
}

fn stage() -> Stage {
    stage_with(Gate::open())
}

impl Stage {
    /// Publishes so many services, and returns the new revision.
    fn publish(&self, services: u8) -> u64 {
        let names: Vec<_> = (0..services).map(|number| format!("s{number}")).collect();
        let all: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
        self.quorum.know(&listing(&all));
        self.quorum.current().revision(&ServiceCluster::default()).0
    }

    /// Changes the options of all proxies, which is a new revision each time.
    fn reconfigure(&self, seconds: u64) -> u64 {
        let options = ProxyOptions {
            read_timeout: Some(Duration::from_secs(seconds)),
            ..ProxyOptions::default()
        };
        let source = Digest([u8::try_from(seconds).expect("small"); 32]);
        let proxies = vec![(ServiceCluster::default(), options)];
        let config = ClusterConfig { source, poll_interval: None, proxies };
        self.quorum.write(proposal(Payload::Command(Command::ApplyConfig(config))));
        self.quorum.current().revision(&ServiceCluster::default()).0
    }

    async fn follow(&self, identity: &str, hello: pb::Hello) -> Result<Proxy, Status> {
        let (says, requests) = mpsc::channel(16);
        says.send(said(Said::Hello(hello))).await.expect("room");
        let mut client = FeedClient::new(self.dial.channel(identity));
        let updates = client.follow(ReceiverStream::new(requests)).await?.into_inner();
        Ok(Proxy { says, updates })
    }

    async fn proxy(&self) -> Proxy {
        self.follow("dovetail://proxy", hello()).await.expect("admitted")
    }

    async fn refused(&self, identity: &str, hello: pb::Hello) -> Code {
        self.follow(identity, hello).await.err().expect("refused").code()
    }
}

fn said(request: Said) -> pb::FollowRequest {
    pb::FollowRequest { request: Some(request) }
}

fn hello() -> pb::Hello {
    let (name, address) = ("edge-1".to_owned(), "10.0.0.7:80".to_owned());
    pb::Hello { name, address, ..pb::Hello::default() }
}

struct Proxy {
    says: mpsc::Sender<pb::FollowRequest>,
    updates: Streaming<pb::Update>,
}

impl Proxy {
    /// The next snapshot, whatever keep-alives come before.
    async fn snapshot(&mut self) -> pb::SnapshotUpdate {
        loop {
            let update = self.updates.message().await.expect("no error").expect("no end");
            assert_eq!(update.cluster_id, "c1");
            if let Some(pb::update::Update::Snapshot(snapshot)) = update.update {
                return snapshot;
            }
        }
    }

    async fn ack(&self, snapshot: &pb::SnapshotUpdate) {
        let (revision, digest) = (snapshot.revision, snapshot.digest.clone());
        self.says.send(said(Said::Ack(pb::Ack { revision, digest }))).await.expect("room");
    }

    /// The next message, which has to be a keep-alive.
    /// The next keep-alive, whatever comes before it.
    async fn alive(&mut self) -> pb::KeepAlive {
        loop {
            let update = self.updates.message().await.expect("no error").expect("no end");
            if let Some(pb::update::Update::KeepAlive(keep_alive)) = update.update {
                return keep_alive;
            }
        }
    }

    async fn keep_alive(&mut self) -> pb::KeepAlive {
        match self.updates.message().await.expect("no error").expect("no end").update {
            Some(pb::update::Update::KeepAlive(keep_alive)) => keep_alive,
            other => panic!("{other:?} is no keep-alive"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_gets_the_snapshot_in_force_and_then_every_newer_one() {
    let stage = stage();
    let first = stage.publish(1);
    let mut proxy = stage.proxy().await;
    let snapshot = proxy.snapshot().await;
    assert_eq!(snapshot.revision, first);
    let published = stage.quorum.current().published(&ServiceCluster::default());
    assert_eq!(snapshot.canonical, &*published.canonical);
    assert_eq!(snapshot.digest, published.digest.0);
    proxy.ack(&snapshot).await;
    eventually("the ack is known", || stage.fleet.local(Asked::default())[0].revision == first)
        .await;

    sleep(Duration::from_millis(100)).await;
    let second = stage.publish(2);
    let at = Instant::now();
    assert_eq!(proxy.snapshot().await.revision, second);
    assert!(at.elapsed() < MERGE, "the first change after a quiet period is not held back");
}

#[tokio::test(start_paused = true)]
async fn one_push_is_out_at_a_time_and_newer_ones_merge() {
    let stage = stage();
    stage.publish(1);
    let mut proxy = stage.proxy().await;
    let first = proxy.snapshot().await;
    for seconds in 1..=5 {
        stage.reconfigure(seconds);
    }
    for _ in 0..3 {
        proxy.keep_alive().await;
    }
    proxy.ack(&first).await;
    let newest = stage.quorum.current().revision(&ServiceCluster::default()).0;
    assert_eq!(proxy.snapshot().await.revision, newest);
}

#[tokio::test(start_paused = true)]
async fn what_is_in_force_is_not_sent_again() {
    let stage = stage();
    let revision = stage.publish(1);
    let digest = stage.quorum.current().published(&ServiceCluster::default()).digest;
    let in_force =
        pb::Hello { cluster_id: "c1".to_owned(), revision, digest: digest.0.to_vec(), ..hello() };
    let mut proxy =
        stage.follow("dovetail://proxy/edge-1", in_force.clone()).await.expect("admitted");
    stage.quorum.silent_ms.store(1_500, std::sync::atomic::Ordering::Relaxed);
    let at = Instant::now();
    proxy.keep_alive().await;
    let keep_alive = proxy.keep_alive().await;
    assert_eq!((keep_alive.revision, keep_alive.leader_silent_ms), (revision, 1_500));
    assert_eq!(at.elapsed().as_secs(), 1);
    // A proxy that is ahead never goes back, so it is not asked to.
    let ahead = pb::Hello { revision: revision + 9, ..in_force };
    let mut proxy = stage.follow("dovetail://proxy", ahead).await.expect("admitted");
    proxy.keep_alive().await;
    proxy.keep_alive().await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_recorded_and_the_next_snapshot_is_sent() {
    let stage = stage();
    let first = stage.publish(1);
    let mut proxy = stage.proxy().await;
    assert_eq!(proxy.snapshot().await.revision, first);
    let nack = pb::Nack { revision: first, reason: "no room".to_owned() };
    proxy.says.send(said(Said::Nack(nack))).await.expect("room");
    eventually("the refusal is known", || !stage.fleet.local(Asked::default())[0].nack.is_empty())
        .await;
    assert_eq!(stage.fleet.local(Asked::default())[0].nack, format!("revision {first}: no room"));
    proxy.keep_alive().await;
    proxy.keep_alive().await;
    let second = stage.publish(2);
    let snapshot = proxy.snapshot().await;
    assert_eq!(snapshot.revision, second);
    proxy.ack(&snapshot).await;
    eventually("the refusal is over", || stage.fleet.local(Asked::default())[0].nack.is_empty())
        .await;
}

#[tokio::test(start_paused = true)]
async fn only_subscribers_that_their_certificate_allows_are_admitted() {
    let stage = stage();
    stage.publish(1);
    let blue = || pb::Hello { service_cluster: "blue".to_owned(), ..hello() };
    for (identity, hello, code) in [
        ("dovetail://operator/anna?role=admin", hello(), Code::PermissionDenied),
        ("dovetail://member/2", hello(), Code::PermissionDenied),
        ("dovetail://proxy/edge-2", hello(), Code::PermissionDenied),
        ("dovetail://proxy?service_cluster=red", blue(), Code::PermissionDenied),
        (
            "dovetail://proxy",
            pb::Hello { name: "a\nb".to_owned(), ..hello() },
            Code::InvalidArgument,
        ),
        ("dovetail://proxy", pb::Hello { name: "a".repeat(256), ..hello() }, Code::InvalidArgument),
        (
            "dovetail://proxy",
            pb::Hello { service_cluster: "a b".to_owned(), ..hello() },
            Code::InvalidArgument,
        ),
        (
            "dovetail://proxy",
            pb::Hello { cluster_id: "c1".to_owned(), digest: vec![1], ..hello() },
            Code::InvalidArgument,
        ),
    ] {
        assert_eq!(stage.refused(identity, hello).await, code, "{identity}");
    }
    assert!(stage.follow("dovetail://proxy?service_cluster=blue", blue()).await.is_ok());
    assert!(stage.follow("dovetail://extension/edge-1", hello()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_report_is_kept_until_the_next_one() {
    let stage = stage();
    stage.publish(1);
    let mut proxy = stage.proxy().await;
    proxy.snapshot().await;
    let problem = pb::ProxyProblem { reason: "it expired".to_owned(), ..Default::default() };
    let report = |problems| said(Said::Report(pb::Report { problems, more: 0 }));
    proxy.says.send(report(vec![problem])).await.expect("room");
    eventually("it is known", || stage.fleet.local(Asked::PROBLEMS)[0].problems.len() == 1).await;
    proxy.says.send(report(Vec::new())).await.expect("room");
    eventually("it is over", || stage.fleet.local(Asked::PROBLEMS)[0].problems.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_proxy_is_asked_for_counters_of_routes_with_a_canary() {
    let stage = stage();
    stage.publish(2);
    let mut proxy = stage.proxy().await;
    proxy.snapshot().await;
    assert!(proxy.alive().await.traffic_wanted.is_empty());
    let route = RouteKey {
        service_cluster: ServiceCluster::default(),
        host: "s0.example".parse().expect("a host"),
        path: ContextRoot::root(),
    };
    let shares = vec![Share { service: "s0".into(), weight: 10_000 }];
    let command = Command::SetCanary { route, shares, expected: None };
    let applied = stage.quorum.write(proposal(Payload::Command(command))).applied;
    assert!(!matches!(applied, Applied::Rejected(_)), "{applied:?}");
    let wanted = loop {
        let wanted = proxy.alive().await.traffic_wanted;
        if !wanted.is_empty() {
            break wanted;
        }
    };
    assert_eq!((wanted[0].host.as_str(), wanted[0].path.as_str()), ("s0.example", "/"));
    let counted = pb::ServiceTraffic { requests: 3, ..pb::ServiceTraffic::default() };
    let traffic = pb::Traffic { services: vec![counted], complete: true };
    proxy.says.send(said(Said::Traffic(traffic))).await.expect("room");
    eventually("it is known", || {
        let asked = Asked { traffic: true, ..Asked::default() };
        stage.fleet.local(asked)[0].traffic.is_some()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_says_nonsense_is_ended_with_the_reason() {
    let stage = stage();
    stage.publish(1);
    let mut proxy = stage.proxy().await;
    proxy.snapshot().await;
    proxy.says.send(said(Said::Hello(hello()))).await.expect("room");
    let status = loop {
        match proxy.updates.message().await {
            Ok(update) => assert!(update.is_some(), "it ends with a reason"),
            Err(status) => break status,
        }
    };
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "a second hello"));
    eventually("it is gone", || !stage.fleet.local(Asked::default())[0].connected).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_the_streams_cleanly() {
    let stage = stage();
    stage.publish(1);
    let mut proxy = stage.proxy().await;
    proxy.snapshot().await;
    stage.drain.finish(Duration::from_secs(1)).await;
    while let Some(update) = proxy.updates.message().await.expect("a clean end") {
        assert!(matches!(update.update, Some(pb::update::Update::KeepAlive(_))));
    }
    let refused = FeedClient::new(stage.dial.channel("dovetail://proxy"));
    let status = { refused }.follow(tokio_stream::iter([said(Said::Hello(hello()))])).await;
    assert_eq!(status.expect_err("ending").code(), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_before_docker_was_seen() {
    let stage = stage();
    let mut proxy = stage.proxy().await;
    for _ in 0..3 {
        assert_eq!(proxy.keep_alive().await.revision, 0);
    }
    let first = stage.publish(1);
    assert_eq!(proxy.snapshot().await.revision, first);
}

#[tokio::test(start_paused = true)]
async fn a_member_serves_once_it_has_caught_up() {
    let quorum = FakeQuorum::follower();
    let drain = Drain::new();
    quorum.cut_off.store(true, std::sync::atomic::Ordering::Relaxed);
    let (gate, opening) = gate(Arc::clone(&quorum), Arc::new(FakePeers::default()), drain.watch());
    drain.watch().spawn(opening);
    let stage = stage_with(gate.clone());
    assert_eq!(stage.refused("dovetail://proxy", hello()).await, Code::Unavailable);
    sleep(Duration::from_secs(5)).await;
    assert!(!gate.is_open());
    quorum.cut_off.store(false, std::sync::atomic::Ordering::Relaxed);
    eventually("the gate is open", || gate.is_open()).await;
    assert!(stage.follow("dovetail://proxy", hello()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn without_a_quorum_an_old_state_is_served_after_a_while() {
    let quorum = FakeQuorum::follower();
    let drain = Drain::new();
    quorum.cut_off.store(true, std::sync::atomic::Ordering::Relaxed);
    quorum.know(&listing(&[("web", 1)]));
    let (gate, opening) = gate(quorum, Arc::new(FakePeers::default()), drain.watch());
    drain.watch().spawn(opening);
    sleep(Duration::from_secs(9)).await;
    assert!(!gate.is_open());
    eventually("the gate is open", || gate.is_open()).await;
}

#[tokio::test(start_paused = true)]
async fn a_follower_has_caught_up_when_it_is_where_its_leader_was() {
    let quorum = FakeQuorum::follower();
    let drain = Drain::new();
    quorum.cut_off.store(true, std::sync::atomic::Ordering::Relaxed);
    let peers = Arc::new(FakePeers::default());
    let local = pb::LocalResponse { applied: 1, ..pb::LocalResponse::default() };
    peers.locals.lock().expect("not poisoned").insert(2, local);
    let (gate, opening) = gate(Arc::clone(&quorum), peers, drain.watch());
    drain.watch().spawn(opening);
    sleep(Duration::from_secs(3)).await;
    assert!(!gate.is_open());
    quorum.know(&listing(&[("web", 1)]));
    let at = Instant::now();
    eventually("the gate is open", || gate.is_open()).await;
    assert!(at.elapsed() < Duration::from_secs(2));
}
