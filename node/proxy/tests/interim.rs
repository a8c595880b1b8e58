//! Interim answers: what of 1xx reaches which client, and in which order.

mod common;

use std::time::Duration;

use common::frames::{
    DATA, END_HEADERS, END_STREAM, Frame, HEADERS, Http2, RST_STREAM, frame, request,
};
use common::http2::{Http2App, Http2Client};
use common::upstream::{App, Script};
use common::{Proxy, RawClient, raw, route, snapshot};
use dovetail_routing::snapshot::UpstreamProtocol;
use tokio::net::TcpStream;

const HINTS: &[u8] = b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\n\
    Link: </style.css>; rel=preload\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n\
    HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn early_hints_reach_clients_of_http_1_1_before_the_answer() {
    let script = Script::start(HINTS, false).await;
    let proxy = Proxy::start(&snapshot(1, vec![route("shop.example", "/", &[script.address])]));
    let mut client = RawClient::connect(proxy.address).await;
    // Again and again: on connections that are used again, on both sides.
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n").await;
        let mut answers = Vec::new();
        for _ in 0..3 {
            answers.push(client.answer(false).await.expect("an answer"));
        }
        let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, [102, 103, 200]);
        assert_eq!(answers[1].header("link"), Some("</style.css>; rel=preload"));
        assert_eq!(answers[1].header("x-hop"), None, "{:?}", answers[1]);
        assert_eq!(answers[1].header("x-upstream-addr"), None, "it is passed on, not answered");
        assert_eq!(answers[2].body, "ok");
    }
    assert_eq!(script.connections.load(std::sync::atomic::Ordering::Relaxed), 1);
    // Never to one that does not know them.
    let request = b"GET / HTTP/1.0\r\nHost: shop.example\r\n\r\n";
    let answer = raw(proxy.address, request).await;
    assert!(answer.starts_with("HTTP/1.0 200 ") && !answer.contains("103"), "{answer}");
}

#[tokio::test]
async fn pipelined_answers_stay_in_order_whatever_comes_between() {
    let script = Script::start(HINTS, false).await;
    let app = App::start("app").await;
    let routes = vec![
        route("hints.example", "/", &[script.address]),
        route("shop.example", "/", &[app.address]),
    ];
    let proxy = Proxy::start(&snapshot(1, routes));
    let get = |host: &str, target: &str| format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let mut client = RawClient::connect(proxy.address).await;
    // The first answer is too large for the kernel to take while nobody reads it.
    let all = get("shop.example", "/bytes/20000000")
        + &get("hints.example", "/").repeat(3)
        + &get("shop.example", "/last");
    client.send(all).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let first = client.answer(false).await.expect("an answer");
    assert_eq!((first.status, first.body.len()), (200, 20_000_000));
    let (mut early, mut bodies) = (0, Vec::new());
    while bodies.len() < 4 {
        let answer = client.answer(false).await.expect("an answer");
        match answer.status {
            102 | 103 => early += 1,
            200 => bodies.push(answer.body),
            status => panic!("{status}"),
        }
    }
    assert_eq!(bodies, ["ok", "ok", "ok", "app"]);
    assert!(early <= 6, "{early}");
}

/// A request without a body, as `stream` of a client that writes its frames by hand.
fn get_frame(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &request(2, "shop.example", path))
}

/// The frames of a stream, to the one that ends it.
async fn frames(client: &mut Http2<TcpStream>, stream: u32) -> Vec<Frame> {
    let mut frames = Vec::<Frame>::new();
    while !frames.last().is_some_and(|last| last.kind == RST_STREAM || last.flags & END_STREAM != 0)
    {
        let next = client.next().await.expect("a frame");
        if next.stream == stream {
            frames.push(next);
        }
    }
    frames
}

/// Whether a block of headers begins with this status, as one who says it first writes it.
fn says(block: &[u8], status: u16) -> bool {
    block.starts_with(match status {
        100 => &[0x48, 0x82, 0x08, 0x01],
        102 => &[0x48, 0x82, 0x08, 0x05],
        103 => &[0x48, 0x82, 0x08, 0x19],
        200 => &[0x88],
        _ => panic!("{status}"),
    })
}

fn statuses(heads: &[http::Response<()>]) -> Vec<u16> {
    heads.iter().map(|head| head.status().as_u16()).collect()
}

#[tokio::test]
async fn early_hints_are_frames_of_their_own_before_the_answer() {
    let script = Script::start(HINTS, false).await;
    let proxy = Proxy::start(&snapshot(1, vec![route("shop.example", "/", &[script.address])]));
    let mut client = Http2::connect(proxy.address, &[]).await;
    client.send(&get_frame(1, "/")).await;
    let frames = frames(&mut client, 1).await;
    let kinds: Vec<_> = frames.iter().map(|frame| (frame.kind, frame.flags)).collect();
    let head = (HEADERS, END_HEADERS);
    assert_eq!(kinds, [head, head, head, (DATA, END_STREAM)]);
    assert!([102, 103, 200].iter().zip(&frames).all(|(&status, head)| says(&head.payload, status)));
    assert_eq!(frames[3].payload, b"ok");
}

#[tokio::test]
async fn early_hints_reach_clients_of_http_2_from_applications_of_both_versions() {
    let (script, app) = (Script::start(HINTS, false).await, Http2App::start(100).await);
    let mut multiplexed = route("shop.example", "/hints", &[app.address]);
    multiplexed.services[0].dial.protocol = UpstreamProtocol::Http2;
    let routes = vec![route("shop.example", "/", &[script.address]), multiplexed];
    let proxy = Proxy::start(&snapshot(1, routes));
    let mut client = Http2Client::connect(proxy.address).await;
    for (path, expected) in
        [("/", &[102, 103][..]), ("/hints", &[102, 103, 103]), ("/", &[102, 103])]
    {
        let mut begun = client.begin_with(path, true, "text/plain").await;
        let (early, answer) = begun.heads().await;
        assert_eq!(statuses(&early), expected, "{path}");
        let hints = early[1].headers();
        assert!(hints["link"].to_str().expect("text").starts_with("</style.css>"), "{hints:?}");
        for absent in ["x-hop", "connection", "x-upstream-addr", "date"] {
            assert!(!hints.contains_key(absent), "{absent}: it is passed on, not answered");
        }
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), 200, "{path}");
        assert!(answer.headers().contains_key("date"));
    }
}

#[tokio::test]
async fn what_goes_wrong_after_early_hints_is_still_answered() {
    let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n";
    let (script, app) = (Script::start(hints, true).await, Http2App::start(100).await);
    let mut multiplexed = route("shop.example", "/hints", &[app.address]);
    multiplexed.services[0].dial.protocol = UpstreamProtocol::Http2;
    let routes = vec![route("shop.example", "/", &[script.address]), multiplexed];
    let proxy = Proxy::start(&snapshot(1, routes));
    let mut client = Http2Client::connect(proxy.address).await;
    for path in ["/", "/hints/reset"] {
        let mut begun = client.begin_with(path, true, "text/plain").await;
        let (early, answer) = begun.heads().await;
        assert_eq!(statuses(&early), [103], "{path}");
        assert_eq!(answer.expect("an answer").status(), 502, "{path}");
    }
}

#[tokio::test]
async fn an_application_that_only_hints_fills_no_memory() {
    let hint = format!("HTTP/1.1 103 Early Hints\r\nX-A: {}\r\n\r\n", "x".repeat(1_000));
    let all = hint.repeat(1_000) + "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let script = Script::start(all.leak().as_bytes(), false).await;
    let proxy = Proxy::start(&snapshot(1, vec![route("shop.example", "/", &[script.address])]));
    let mut client = Http2Client::connect(proxy.address).await;
    let (early, answer) = client.begin_with("/", true, "text/plain").await.heads().await;
    // 16 KiB of them, as headers are counted.
    assert_eq!(statuses(&early), [103; 15]);
    assert_eq!(answer.expect("an answer").status(), 200);
}

#[tokio::test]
async fn a_client_of_http_2_hears_100_if_it_waits_for_it_and_never_else() {
    let unasked = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let (script, app) = (Script::start(unasked, false).await, App::start("app").await);
    let routes = vec![
        route("shop.example", "/", &[app.address]),
        route("shop.example", "/unasked", &[script.address]),
    ];
    let proxy = Proxy::start(&snapshot(1, routes));
    let mut client = Http2::connect(proxy.address, &[]).await;
    client.send(&get_frame(1, "/unasked")).await;
    let answer = frames(&mut client, 1).await;
    assert!(answer.len() == 1 && says(&answer[0].payload, 200), "{answer:?}");
    // The body is asked for when the application asks for it.
    let mut expecting = request(3, "shop.example", "/echo");
    expecting.extend([&[0x0f, 20, 12][..], b"100-continue"].concat());
    client.send(&frame(HEADERS, END_HEADERS, 3, &expecting)).await;
    let wanted = client.find(HEADERS, 3).await.expect("a head");
    assert!(says(&wanted.payload, 100) && wanted.flags & END_STREAM == 0, "{wanted:?}");
    client.send(&frame(DATA, END_STREAM, 3, b"body")).await;
    let echo = frames(&mut client, 3).await;
    assert!(says(&echo[0].payload, 200), "{echo:?}");
    assert_eq!(echo[1].payload, b"body");
    // A body that is on its way is not asked for.
    let all = [frame(HEADERS, END_HEADERS, 5, &expecting), frame(DATA, END_STREAM, 5, b"body")];
    client.send(&all.concat()).await;
    let echo = frames(&mut client, 5).await;
    assert_eq!(echo[0].kind, HEADERS);
    assert_eq!(echo[1].payload, b"body", "{echo:?}");
    // Nor is one that the application does not want.
    let mut early = request(3, "shop.example", "/early");
    early.extend([&[0x0f, 20, 12][..], b"100-continue"].concat());
    client.send(&frame(HEADERS, END_HEADERS, 7, &early)).await;
    let refused = client.find(HEADERS, 7).await.expect("a head");
    let data = client.find(DATA, 7).await.expect("the answer's body");
    assert!(!refused.payload.is_empty() && data.payload == b"no thanks", "{refused:?} {data:?}");
}
