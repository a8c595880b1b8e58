//! The access log as the configuration has it: where lines go, and how they look.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::upstream::App;
use common::{Proxy, RawClient, raw, route, snapshot_with, until};
use dovetail_proxy::access_log::AccessLogTarget;
use dovetail_routing::entry::ProxyOptions;
use dovetail_routing::snapshot::Snapshot;

async fn lines(path: &Path, count: usize) -> Vec<String> {
    let mut found = Vec::new();
    until("the lines are written", async || {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        found = text.lines().map(ToOwned::to_owned).collect();
        found.len() >= count
    })
    .await;
    found
}

#[tokio::test]
async fn lines_look_and_go_as_the_configuration_says() {
    let app = App::start("app").await;
    let directory = tempfile::tempdir().expect("a folder");
    let (one, two) = (directory.path().join("one.log"), directory.path().join("two.log"));
    let nowhere = directory.path().join("no/such/folder.log");
    let with = |revision, path: &Path, format: Option<&str>| -> Arc<Snapshot> {
        let options = ProxyOptions {
            access_log_path: Some(path.display().to_string().into()),
            access_log_format: format.map(Into::into),
            trusted_proxies: vec!["127.0.0.1".parse().expect("a subnet")],
            ..ProxyOptions::default()
        };
        snapshot_with(revision, vec![route("shop.example", "/app", &[app.address])], options)
    };
    let format = "'$remote_addr $remote_user \"$request\" $status $body_bytes_sent \"$http_user_agent\" \
                  $sent_http_x_app $upstream_addr $upstream_status $request_id $host $server_name \
                  $cookie_session $error';";
    let proxy = Proxy::start_with(&with(1, &one, Some(format)), |config| {
        config.access_log = AccessLogTarget::Configured;
    });
    let mut client = RawClient::connect(proxy.address).await;
    client
        .send(
            "GET /app/x?y HTTP/1.1\r\nHost: SHOP.example:80\r\nX-Forwarded-For: 203.0.113.9\r\n\
             User-Agent: a \"quoted\" one\r\nX-Request-Id: id-1\r\nCookie: session=s1\r\n\
             Authorization: Basic YW5uYTpzZWNyZXQ=\r\n\r\n",
        )
        .await;
    assert_eq!(client.answer(false).await.expect("an answer").status, 200);
    assert_eq!(client.get("shop.example", "/none").await.status, 404);
    let refused = raw(proxy.address, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
    let refused = raw(proxy.address, b"GET / HTTP/1.1\r\nHost : a\r\n\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
    let found = lines(&one, 4).await;
    let upstream = app.address;
    assert_eq!(
        found[0],
        format!(
            "203.0.113.9 anna \"GET /app/x?y HTTP/1.1\" 200 3 \"a \\x22quoted\\x22 one\" app \
             {upstream} 200 id-1 shop.example shop.example s1 -"
        )
    );
    assert!(found[1].starts_with("127.0.0.1 - \"GET /none HTTP/1.1\" 404 "), "{}", found[1]);
    assert!(found[1].ends_with(" - unknown_path"), "{}", found[1]);
    assert!(found[2].contains(" 400 ") && found[2].ends_with("bad_host"), "{}", found[2]);
    // What was no request at all is told in the same words.
    assert!(found[3].contains(" 400 ") && found[3].ends_with("framing"), "{}", found[3]);
    // Another file and JSON; then a file that cannot be: a problem, and lines go on.
    proxy.swap(&with(2, &two, None));
    assert_eq!(client.get("shop.example", "/app").await.status, 200);
    assert!(lines(&two, 1).await[0].starts_with('{'));
    proxy.swap(&with(3, &nowhere, Some("$status")));
    assert_eq!(client.get("shop.example", "/app").await.status, 200);
    assert_eq!(lines(&two, 2).await[1], "200");
    let problems = proxy.problems().list();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(
        (&*problems[0].label, &*problems[0].value),
        ("AccessLogPath", &*nowhere.display().to_string())
    );
    proxy.swap(&with(4, Path::new("off"), Some("$status ${")));
    assert_eq!(client.get("shop.example", "/app").await.status, 200);
    let problems = proxy.problems().list();
    assert_eq!(problems.iter().map(|p| &*p.label).collect::<Vec<_>>(), ["MainLogFormat"]);
    proxy.swap(&with(5, &one, Some("$status")));
    assert!(proxy.problems().list().is_empty());
    assert_eq!(client.get("shop.example", "/app").await.status, 200);
    assert_eq!(lines(&one, 5).await[4], "200");
    assert_eq!(lines(&two, 2).await.len(), 2);
}
