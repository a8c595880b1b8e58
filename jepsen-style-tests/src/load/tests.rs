//! The load generator against small upstreams: it must see every failure.

use std::net::SocketAddr;

use super::*;
use crate::upstream::Upstream;

/// How long a load may take to be sent.
const DEADLINE: Duration = Duration::from_secs(20);

async fn upstream(name: &str) -> Upstream {
    Upstream::start(name, SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap()
}

#[tokio::test]
async fn every_request_is_answered_and_counted_by_upstream() {
    let (blue, green) = (upstream("blue").await, upstream("green").await);
    let load = Load::start(LoadConfig::of("a", [blue.addr(), green.addr()]));
    load.until_sent(90, DEADLINE).await.unwrap();
    let report = load.finish().await;
    report.verdict().unwrap();
    assert!(report.sent() >= 90, "{report}");
    assert_eq!(report.by_upstream().values().sum::<u64>(), report.sent());
    assert_eq!(report.by_upstream().len(), 2);
}

#[tokio::test]
async fn a_killed_upstream_is_seen_with_its_reason() {
    let blue = upstream("blue").await;
    let load = Load::start(LoadConfig::of("a", [blue.addr()]));
    load.until_sent(10, DEADLINE).await.unwrap();
    blue.kill().await;
    load.until_sent(load.so_far().sent() + 10, DEADLINE).await.unwrap();
    let report = load.finish().await;
    assert!(report.failed() > 0, "{report}");
    assert!(report.verdict().unwrap_err().contains("connect"), "{report}");
}

#[tokio::test]
async fn a_slow_answer_is_a_timeout_and_holds_no_other_request_back() {
    let blue = upstream("blue").await;
    let mut config = LoadConfig::of("a", [blue.addr()]);
    config.path = "/delay/400".into();
    config.timeout = Duration::from_millis(200);
    let load = Load::start(config);
    load.until_sent(40, DEADLINE).await.unwrap();
    let report = load.finish().await;
    assert_eq!(report.failed(), report.sent());
    assert!(blue.requests() > 30, "the rate is kept: {}", blue.requests());
}

#[tokio::test]
async fn latency_is_told_as_it_was() {
    let blue = upstream("blue").await;
    let mut config = LoadConfig::of("a", [blue.addr()]);
    config.path = "/delay/50".into();
    let load = Load::start(config);
    load.until_sent(20, DEADLINE).await.unwrap();
    let report = load.finish().await;
    assert!(report.latency(0.5) >= Duration::from_millis(49), "{report}");
}

#[tokio::test]
async fn a_refusal_counts_with_its_status() {
    let blue = upstream("blue").await;
    let mut config = LoadConfig::of("a", [blue.addr()]);
    config.path = "/status/503".into();
    let load = Load::start(config);
    load.until_sent(10, DEADLINE).await.unwrap();
    let report = load.finish().await;
    assert!(report.failures().iter().all(|failure| failure.reason == "status 503"));
    assert!(report.failed() > 0);
}

#[tokio::test]
async fn nothing_sent_is_no_success() {
    let report = Report::new(Instant::now());
    assert!(report.verdict().is_err());
}
