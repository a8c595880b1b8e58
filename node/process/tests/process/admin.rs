//! The admin endpoint over a socket.

use std::time::Duration;

use dovetail_process::admin::{self, Admin};
use dovetail_process::drain::{Drain, Drained};
use dovetail_process::ready::Readiness;
use http::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The status line's code and the body.
async fn ask(address: &str, request: &str) -> (u16, String) {
    let mut tcp = TcpStream::connect(address).await.expect("TCP");
    let head = format!("{request} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    tcp.write_all(head.as_bytes()).await.expect("written");
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.expect("read");
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    (code, body.unwrap_or_default())
}

#[tokio::test]
async fn the_endpoint_says_how_the_process_is() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        metrics::counter!("dovetail_test_total").increment(3)
    });
    let readiness = Readiness::new();
    let leader = readiness.register("leader");
    let drain = Drain::new();
    let listener = admin::bind(([127, 0, 0, 1], 0).into()).await.expect("listen");
    let address = listener.local_addr().expect("address").to_string();
    let admin =
        Admin::new(readiness.clone()).with_metrics(recorder.handle()).with_hook(|request| {
            (request.uri().path() == "/extra").then(|| admin::text(StatusCode::OK, "more\n"))
        });
    drain.watch().spawn(admin.serve(listener, drain.watch()));

    assert_eq!(ask(&address, "GET /livez").await, (200, "ok\n".to_owned()));
    let (code, text) = ask(&address, "GET /readyz").await;
    assert_eq!((code, text.as_str()), (503, "[-]leader failed: starting\nreadyz check failed\n"));
    assert_eq!(ask(&address, "GET /readyz?exclude=leader").await.0, 200);
    leader.set_ok();
    assert_eq!(ask(&address, "GET /readyz").await, (200, "ok\n".to_owned()));
    let (code, text) = ask(&address, "GET /readyz?verbose").await;
    assert_eq!((code, text.as_str()), (200, "[+]leader ok\nreadyz check passed\n"));

    let (code, text) = ask(&address, "GET /metrics").await;
    assert!(code == 200 && text.contains("dovetail_test_total 3"), "{text}");
    assert_eq!(ask(&address, "GET /extra").await, (200, "more\n".to_owned()));
    assert_eq!(ask(&address, "GET /nothing").await.0, 404);
    assert_eq!(ask(&address, "HEAD /livez").await, (200, String::new()));
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        assert_eq!(ask(&address, &format!("{method} /livez")).await.0, 405, "{method}");
    }

    // An idle connection does not hold up the end.
    let _idle = TcpStream::connect(&address).await.expect("TCP");
    assert_eq!(drain.finish(Duration::from_secs(5)).await, Drained::AllFinished);
    assert!(TcpStream::connect(&address).await.is_err(), "it no longer listens");
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let first = admin::bind(([127, 0, 0, 1], 0).into()).await.expect("listen");
    let addr = first.local_addr().expect("address");
    let error = admin::bind(addr).await.expect_err("in use");
    assert_eq!(
        dovetail_process::chain(&error),
        format!("listen on {addr} for the admin endpoint: Address already in use (os error 98)")
    );
}
