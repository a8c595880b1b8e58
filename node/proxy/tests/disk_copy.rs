//! The real executable without any core: it starts from its copy, ends in order, and
//! says in one line what keeps it from starting.

mod common;

use std::process::Command;
use std::time::Duration;

use common::process::{Process, command, free_port, leave_copy};
use common::upstream::App;
use common::{RawClient, get, route, snapshot, until};

#[tokio::test]
async fn a_proxy_serves_from_its_copy_without_any_core() {
    let app = App::start("app").await;
    let routes = vec![route("shop.example", "/", &[app.address])];
    let mut proxy = Process::start(&snapshot(42, routes), &["--name", "p1"]).await;
    let answer = get(proxy.http, "shop.example", "/x?y=1").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "app"));
    assert_eq!(answer.header("x-proxy-id"), Some("p1"));
    assert_eq!(get(proxy.http, "other.example", "/").await.status, 503);

    let lines = proxy.access_log(2).await;
    let line = &lines[0];
    assert_eq!(line["route"], "shop.example/");
    assert_eq!(line["service"], "service-0");
    assert_eq!(line["task"], format!("task-{}", app.address.port()));
    assert_eq!(line["upstream"], app.address.to_string());
    assert_eq!((&line["revision"], &line["status"]), (&42.into(), &200.into()));
    assert_eq!((&line["path"], &line["bytes"]), (&"/x?y=1".into(), &3.into()));
    assert_eq!(lines[1]["error"], "no_route");

    let metrics = get(proxy.admin, "admin", "/metrics").await.body;
    for metric in [
        "dovetail_feed_revision_in_force 42",
        "dovetail_proxy_requests_total{service_cluster=\"\",status_class=\"2xx\",error=\"\"} 1",
        "error=\"no_route\"} 1",
        "dovetail_feed_snapshot_age_seconds",
        "dovetail_proxy_request_duration_seconds",
    ] {
        assert!(metrics.contains(metric), "{metric} is not in\n{metrics}");
    }
    proxy.terminate();
    assert_eq!(proxy.exit_code().await, 0);
}

#[tokio::test]
async fn a_request_under_way_survives_sigterm() {
    let app = App::start("app").await;
    let routes = vec![route("shop.example", "/", &[app.address])];
    let mut proxy = Process::start(&snapshot(1, routes), &["--drain-notice", "300ms"]).await;
    let mut client = RawClient::connect(proxy.http).await;
    client.send("GET /slow/1000 HTTP/1.1\r\nHost: shop.example\r\n\r\n").await;
    until("the request is under way", async || {
        app.connections.load(std::sync::atomic::Ordering::Relaxed) > 0
    })
    .await;
    proxy.terminate();
    let mut during = None;
    until("not ready", async || {
        during = Some(get(proxy.admin, "admin", "/readyz?verbose").await);
        during.as_ref().is_some_and(|answer| answer.status == 503)
    })
    .await;
    assert!(during.is_some_and(|answer| answer.body.contains("draining")));
    assert_eq!(client.answer(false).await.expect("an answer").status, 200);
    assert_eq!(proxy.exit_code().await, 0);
}

#[tokio::test]
async fn a_damaged_copy_is_never_served() {
    let app = App::start("app").await;
    let routes = vec![route("shop.example", "/", &[app.address])];
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    leave_copy(&data, &snapshot(1, routes));
    let copy = data.join("snapshot.copy");
    let mut bytes = std::fs::read(&copy).expect("a copy");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&copy, bytes).expect("written");
    let (http, admin) = (free_port(), free_port());
    let mut child = command(dir.path(), http, admin, &[]).spawn().expect("it starts");
    // After a while it takes requests all the same, and says why it cannot serve them.
    let mut last = None;
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while tokio::net::TcpStream::connect(http).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        last = Some(get(http, "shop.example", "/").await);
    })
    .await;
    let ready = get(admin, "admin", "/readyz?verbose").await;
    let _ = child.kill();
    let _ = child.wait();
    assert!(waited.is_ok());
    let last = last.expect("an answer");
    assert_eq!((last.status, last.header("x-dovetail-error")), (503, Some("no_table")));
    assert_eq!(last.header("retry-after"), Some("1"));
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("[-]routes"), "{}", ready.body);
}

/// Runs the executable to its end and returns its code and what it said.
fn fails(mut command: Command) -> (Option<i32>, String) {
    let output = command.env("DOVETAIL_LOG", "error").output().expect("it runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn what_keeps_it_from_starting_is_one_clear_line() {
    let dir = tempfile::tempdir().expect("a folder");
    let pki = dir.path().join("pki");
    let admin = free_port();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("an address");
    let with = |more: &[&str]| command(dir.path(), free_port(), admin, more);
    let file = dir.path().join("file");
    std::fs::write(&file, "").expect("written");
    let path = |path: &std::path::Path| path.display().to_string();
    let (file, member) = (path(&file), path(&pki.join("member-1")));
    let (nowhere, no_log) = (path(&dir.path().join("nowhere")), path(&dir.path().join("no/file")));
    for (command, code, words) in [
        (command(dir.path(), port, admin, &[]), 1, vec![port.to_string(), "in use".into()]),
        (
            with(&["--https", &port.to_string()]),
            1,
            vec![format!("{port} for HTTPS"), "in use".into()],
        ),
        (with(&["--tls-dir", &nowhere]), 1, vec!["nowhere".into()]),
        (
            with(&["--tls-dir", &member]),
            1,
            vec!["dovetail://member/1".into(), "dovetail://proxy".into()],
        ),
        (with(&["--data-dir", &file]), 1, vec!["file".into()]),
        (with(&["--core", "core-1"]), 2, vec!["core-1".into(), "HOST:PORT".into()]),
        (with(&["--access-log", &no_log]), 1, vec!["no/file".into()]),
    ] {
        let (found, said) = fails(command);
        assert_eq!(found, Some(code), "{said}");
        for word in words {
            assert!(said.contains(&word), "{word:?} is not in {said:?}");
        }
        assert_eq!(said.trim_end().lines().count(), 1, "{said:?}");
    }
    drop(taken);
}
