//! HTTP/2 to applications: streams both ways, trailers, limits, resets, and gRPC's own errors.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::http2::{Event, Http2App, Http2Client, data, rest, send_all};
use common::upstream::{App, Script, refused};
use common::{Proxy, RawClient, Service, get, route, route_of, snapshot, snapshot_with, until};
use dovetail_routing::entry::ProxyOptions;
use dovetail_routing::snapshot::{Route, UpstreamProtocol};
use h2::Reason;
use http::{HeaderMap, HeaderName, HeaderValue};

const SHOP: &str = "shop.example";

fn http2(mut route: Route) -> Route {
    for service in &mut route.services {
        service.dial.protocol = UpstreamProtocol::Http2;
    }
    route
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| value.to_str().expect("text").to_owned())
}

#[tokio::test]
async fn a_stream_passes_both_ways_as_it_comes_with_trailers() {
    let app = Http2App::start(100).await;
    let proxy = Proxy::start(&snapshot(1, vec![route(SHOP, "/", &[app.address])]));
    let mut client = Http2Client::connect(proxy.address).await;
    let mut begun = client.begin("/echo", false).await;
    // The head of the answer comes before the first message, each message before the next.
    let head = begun.head().await.expect("an answer");
    assert_eq!(head.status(), 200);
    assert_eq!(header(head.headers(), "x-upstream-addr"), Some(app.address.to_string()));
    let mut body = head.into_body();
    for message in ["one", "two", "three"] {
        begun.send.send_data(Bytes::from(message), false).expect("sent");
        assert_eq!(data(&mut body).await.expect("more").expect("data"), message);
    }
    let mut trailers = HeaderMap::new();
    trailers.insert(HeaderName::from_static("x-sum"), HeaderValue::from_static("11"));
    begun.send.send_trailers(trailers).expect("sent");
    let (left, trailers) = rest(&mut body).await.expect("it ends");
    assert_eq!(left, 0);
    assert_eq!(header(&trailers, "x-sum").as_deref(), Some("11"));
    assert_eq!(header(&trailers, "grpc-status").as_deref(), Some("0"));
    let head = app.heads().pop().expect("a request");
    assert_eq!(head.uri().to_string(), "http://shop.example/echo");
    assert_eq!(header(head.headers(), "te").as_deref(), Some("trailers"));
    assert!(!head.headers().contains_key("host") && !head.headers().contains_key("connection"));
    assert_eq!(header(head.headers(), "x-forwarded-for").as_deref(), Some("127.0.0.1"));
}

#[tokio::test]
async fn other_requests_go_over_http_1_1_unless_the_service_says_otherwise() {
    let plain = App::start("app").await;
    let app = Http2App::start(100).await;
    let by_default =
        ProxyOptions { http_version: UpstreamProtocol::Http2, ..ProxyOptions::default() };
    let routes = || {
        vec![
            route("auto.example", "/", &[plain.address]),
            http2(route("two.example", "/", &[app.address])),
            route("default.example", "/", &[app.address]),
        ]
    };
    let proxy = Proxy::start(&snapshot(1, routes()));
    assert_eq!(get(proxy.address, "auto.example", "/").await.body, "app");
    assert_eq!(get(proxy.address, "two.example", "/bytes/70000").await.body.len(), 70_000);
    proxy.swap(&snapshot_with(2, routes(), by_default));
    assert_eq!(get(proxy.address, "default.example", "/").await.status, 200);
    assert_eq!(app.connections(), 1, "routes share the connections to an upstream");
}

#[tokio::test]
async fn an_http_1_1_client_gets_body_and_trailers_of_an_http_2_application() {
    let app = Http2App::start(100).await;
    let proxy = Proxy::start(&snapshot(1, vec![http2(route(SHOP, "/", &[app.address]))]));
    let request = "POST /echo HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\
                   TE: trailers\r\nConnection: close\r\n\r\n\
                   3\r\nabc\r\n0\r\nX-Sum: 3\r\n\r\n";
    let answer = common::raw(proxy.address, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("abc") && answer.contains("grpc-status: 0"), "{answer}");
    let head = app.heads().pop().expect("a request");
    assert!(!head.headers().contains_key("transfer-encoding"), "{head:?}");
}

#[tokio::test]
async fn many_requests_share_a_connection_and_more_are_opened_when_it_is_full() {
    let mut app = Http2App::start(2).await;
    let proxy = Proxy::start(&snapshot(1, vec![route(SHOP, "/", &[app.address])]));
    let mut client = Http2Client::connect(proxy.address).await;
    let mut held = Vec::new();
    for _ in 0..6 {
        let mut begun = client.begin("/hold", false).await;
        // All six are under way at one time, though a connection takes but two.
        begun.head().await.expect("an answer");
        held.push(begun);
    }
    assert_eq!(app.connections(), 3);
    drop(held);
    for _ in 0..6 {
        while !matches!(app.event().await, Event::Reset(Reason::CANCEL)) {}
    }
    for _ in 0..10 {
        client.begin("/", true).await.head().await.expect("an answer");
    }
    assert_eq!(app.connections(), 3, "they are used again");
}

#[tokio::test]
async fn a_burst_opens_one_connection() {
    let app = Http2App::start(200).await;
    let proxy = Proxy::start(&snapshot(1, vec![route(SHOP, "/", &[app.address])]));
    let mut client = Http2Client::connect(proxy.address).await;
    let mut begun = Vec::new();
    for _ in 0..50 {
        begun.push(client.begin("/", true).await);
    }
    for mut begun in begun {
        assert_eq!(begun.head().await.expect("an answer").status(), 200);
    }
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn a_client_that_gives_up_resets_its_stream_and_no_other() {
    let mut app = Http2App::start(100).await;
    let proxy = Proxy::start(&snapshot(1, vec![route(SHOP, "/", &[app.address])]));
    let mut client = Http2Client::connect(proxy.address).await;
    let mut other = client.begin("/echo", false).await;
    let mut body = other.head().await.expect("an answer").into_body();
    for path in ["/hold", "/late"] {
        while app.events.try_recv().is_ok() {}
        let mut begun = client.begin(path, false).await;
        if path == "/hold" {
            begun.head().await.expect("an answer");
        }
        while app.event().await != Event::Begun {}
        // A deadline that passed, for example.
        begun.send.send_reset(Reason::CANCEL);
        drop(begun);
        assert_eq!(app.event().await, Event::Reset(Reason::CANCEL), "{path}");
    }
    other.send.send_data(Bytes::from("still here"), false).expect("sent");
    assert_eq!(data(&mut body).await.expect("more").expect("data"), "still here");
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn the_code_of_an_applications_reset_reaches_the_client() {
    let app = Http2App::start(100).await;
    let proxy = Proxy::start(&snapshot(1, vec![route(SHOP, "/", &[app.address])]));
    let mut client = Http2Client::connect(proxy.address).await;
    for code in [Reason::CANCEL, Reason::ENHANCE_YOUR_CALM, Reason::INTERNAL_ERROR] {
        let path = format!("/broken/{}", u32::from(code));
        let mut begun = client.begin(&path, true).await;
        let mut body = begun.head().await.expect("an answer").into_body();
        assert_eq!(data(&mut body).await.expect("more").expect("data"), "begun");
        let error = data(&mut body).await.expect("an end").expect_err("it is broken");
        assert_eq!(error.reason(), Some(code));
    }
    // Before the head it is an answer of the proxy's, in gRPC's words.
    let head = client.begin("/reset/8", true).await.head().await.expect("an answer");
    assert_eq!(header(head.headers(), "grpc-status").as_deref(), Some("14"));
    assert_eq!(header(head.headers(), "x-dovetail-error").as_deref(), Some("upstream_closed"));
}

#[tokio::test]
async fn a_connection_that_says_goodbye_gets_no_new_request_and_ends_the_old() {
    let mut app = Http2App::start(100).await;
    let proxy = Proxy::start(&snapshot(1, vec![route(SHOP, "/", &[app.address])]));
    let mut client = Http2Client::connect(proxy.address).await;
    let mut old = client.begin("/echo", false).await;
    let mut body = old.head().await.expect("an answer").into_body();
    for round in 1..4 {
        assert_eq!(client.begin("/bye", true).await.head().await.expect("an answer").status(), 200);
        while app.event().await != Event::Ended {}
        until("it has heard the goodbye", async || {
            let head = client.begin("/", true).await.head().await.expect("an answer");
            assert_eq!(header(head.headers(), "grpc-status"), None, "an answer of the application");
            app.connections() == round + 1
        })
        .await;
    }
    old.send.send_data(Bytes::from("still here"), false).expect("sent");
    assert_eq!(data(&mut body).await.expect("more").expect("data"), "still here");
}

#[tokio::test]
async fn a_refused_stream_is_tried_elsewhere_if_it_can_be_repeated() {
    let refusing = Http2App::start(100).await;
    let good = Http2App::start(100).await;
    let upstreams = [refusing.address, good.address];
    let proxy = Proxy::start(&snapshot(1, vec![http2(route(SHOP, "/", &upstreams))]));
    let mut client = RawClient::connect(proxy.address).await;
    // Both refuse this path; each is asked once.
    let answer = client.get(SHOP, "/refuse").await;
    assert_eq!((answer.status, answer.header("x-dovetail-error")), (502, Some("upstream_closed")));
    assert_eq!(refusing.heads().len() + good.heads().len(), 2);
    client.send("POST /refuse HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 1\r\n\r\nx").await;
    assert_eq!(client.answer(false).await.expect("an answer").status, 502);
    assert_eq!(refusing.heads().len() + good.heads().len(), 3);
}

#[tokio::test]
async fn what_cannot_be_served_is_said_in_grpcs_own_words() {
    let app = App::start("app").await;
    let only = Script::start(b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n", true).await;
    let nobody = refused().await;
    let at = |address| snapshot(1, vec![route(SHOP, "/app", &[address])]);
    for (address, path, status, kind) in [
        (app.address, "/", "12", "unknown_path"),
        (nobody, "/app/x", "14", "connect"),
        // It speaks no HTTP/2.
        (only.address, "/app/x", "14", "invalid_response"),
        (app.address, "/app/x", "14", "invalid_response"),
    ] {
        let proxy = Proxy::start(&at(address));
        let mut client = Http2Client::connect(proxy.address).await;
        let head = client.begin(path, true).await.head().await.expect("an answer");
        assert_eq!(head.status(), 200);
        let said = |name| header(head.headers(), name);
        assert_eq!(said("content-type").as_deref(), Some("application/grpc"));
        assert_eq!(said("grpc-status").as_deref(), Some(status), "{kind}");
        assert_eq!(said("x-dovetail-error").as_deref(), Some(kind));
        assert!(said("grpc-message").is_some_and(|message| message.starts_with("the application")
            || message.starts_with("no application")));
        assert!(head.body().is_end_stream(), "trailers only");
        // For everybody else it is HTTP's.
        let head = client.begin_with("/none", true, "text/plain").await.head().await;
        assert_eq!(head.expect("an answer").status(), 404);
    }
}

#[tokio::test]
async fn a_task_that_drains_ends_its_streams_and_gets_no_new_ones() {
    let (old, new) = (Http2App::start(100).await, Http2App::start(100).await);
    let proxy = Proxy::start(&snapshot(1, vec![route(SHOP, "/", &[old.address])]));
    let mut client = Http2Client::connect(proxy.address).await;
    let mut begun = client.begin("/echo", false).await;
    let mut body = begun.head().await.expect("an answer").into_body();
    let services = [Service { weight: 10_000, active: &[new.address], draining: &[old.address] }];
    proxy.swap(&snapshot(2, vec![route_of(SHOP, "/", &services)]));
    for _ in 0..5 {
        let head = client.begin("/", true).await.head().await.expect("an answer");
        let upstream = header(head.headers(), "x-upstream-addr");
        assert_eq!(upstream, Some(new.address.to_string()));
    }
    // Longer than an idle connection to it would be kept.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    begun.send.send_data(Bytes::from("done"), true).expect("sent");
    assert_eq!(data(&mut body).await.expect("more").expect("data"), "done");
    assert_eq!(rest(&mut body).await.expect("it ends").0, 0);
}

#[tokio::test]
async fn pressure_passes_from_end_to_end() {
    const BYTES: usize = 32 * 1_024 * 1_024;
    let app = Http2App::start(100).await;
    let proxy = Proxy::start(&snapshot(1, vec![route(SHOP, "/", &[app.address])]));
    let mut client = Http2Client::connect(proxy.address).await;
    // A client that reads nothing of one answer, and another request beside it.
    let mut slow = client.begin(&format!("/bytes/{BYTES}"), true).await;
    let mut slow_body = slow.head().await.expect("an answer").into_body();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut other = Http2Client::connect(proxy.address).await;
    let mut echo = other.begin("/echo", false).await;
    let mut body = echo.head().await.expect("an answer").into_body();
    let (sent, received) = tokio::join!(
        async {
            send_all(&mut echo.send, Bytes::from(vec![b'x'; BYTES])).await?;
            echo.send.send_data(Bytes::new(), true)
        },
        rest(&mut body),
    );
    sent.expect("sent");
    assert_eq!(received.expect("it ends").0, BYTES);
    assert_eq!(rest(&mut slow_body).await.expect("it ends").0, BYTES);
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn a_silent_application_is_given_up_and_a_busy_upload_is_not() {
    let app = Http2App::start(100).await;
    let options =
        ProxyOptions { read_timeout: Some(Duration::from_millis(400)), ..ProxyOptions::default() };
    let routes = vec![route(SHOP, "/", &[app.address])];
    let proxy = Proxy::start(&snapshot_with(1, routes, options));
    let mut client = Http2Client::connect(proxy.address).await;
    let head = client.begin("/late", true).await.head().await.expect("an answer");
    assert_eq!(header(head.headers(), "x-dovetail-error").as_deref(), Some("response_timeout"));
    // Silent within its answer: the stream is reset, and the connection goes on.
    let mut begun = client.begin("/hold", true).await;
    let mut body = begun.head().await.expect("an answer").into_body();
    assert!(data(&mut body).await.expect("an end").is_err());
    // A client that sends little by little keeps its request alive, before any answer.
    let mut begun = client.begin("/late", false).await;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        begun.send.send_data(Bytes::from("x"), false).expect("it goes on");
    }
    let head = begun.head().await.expect("an answer");
    assert_eq!(header(head.headers(), "x-dovetail-error").as_deref(), Some("response_timeout"));
}
