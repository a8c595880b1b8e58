//! Clients that cost much and ask little: what they get is the end of their connection.

mod common;

use std::time::Duration;

use common::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, Http2, PING, PRIORITY,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, request,
};
use common::process::Process;
use common::tls::{Authority, SecretsDir, connect, terminated};
use common::upstream::App;
use common::{Proxy, get, route, snapshot, until};

/// A proxy whose clients have little time.
fn hurried(app: &App) -> Proxy {
    let routes = vec![route("shop.example", "/", &[app.address])];
    Proxy::start_with(&snapshot(1, routes), |config| {
        config.limits.head_timeout = Duration::from_millis(500);
        config.limits.client_timeout = Duration::from_millis(500);
    })
}

fn get_request(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &request(2, "shop.example", path))
}

/// Streams that are opened and reset at once, ten thousand times.
fn rapid_resets() -> Vec<Vec<u8>> {
    let streams = (0..10_000_u32).map(|number| 2 * number + 1);
    streams
        .map(|stream| {
            let reset = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
            [get_request(stream, "/slow/200"), reset].concat()
        })
        .collect()
}

#[tokio::test]
async fn rapid_resets_end_the_connection_and_spare_the_application() {
    let app = App::start("app").await;
    let (authority, secrets) = (Authority::new("authority"), SecretsDir::new());
    secrets.put("shop", &authority.issue(&["shop.example"]));
    let routes = vec![terminated(route("shop.example", "/", &[app.address]), "shop")];
    let proxy = Proxy::start_with(&snapshot(1, routes), |config| {
        config.https = Some(([127, 0, 0, 1], 0).into());
        config.secrets = secrets.secrets();
    });
    let bytes = rapid_resets().concat();
    let mut plain = Http2::connect(proxy.address, &[]).await;
    plain.pour(&bytes, 1).await;
    let code = plain.end().await;
    // The end may come as a reset, which takes the GOAWAY with it.
    assert!(matches!(code, Some(ENHANCE_YOUR_CALM) | None), "{code:?}");
    let client = authority.client(&["h2"], None);
    let stream = connect(proxy.https, &client, "shop.example").await.expect("a connection");
    let mut sealed = Http2::begin(stream, &[]).await;
    sealed.pour(&bytes, 1).await;
    let code = sealed.end().await;
    assert!(matches!(code, Some(ENHANCE_YOUR_CALM) | None), "{code:?}");
    assert!(app.count() < 500, "{} requests came through", app.count());
    assert_eq!(get(proxy.address, "shop.example", "/").await.body, "app");
}

#[tokio::test]
async fn resets_one_by_one_have_a_budget_too() {
    let app = App::start("app").await;
    let proxy = hurried(&app);
    let mut client = Http2::connect(proxy.address, &[]).await;
    let mut ended = false;
    // Each is looked at before it is reset: the library has nothing against that.
    for number in 0..5_000_u32 {
        let stream = 2 * number + 1;
        let reset = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        if !client.pour(&get_request(stream, "/slow/200"), 1).await {
            ended = true;
            break;
        }
        tokio::task::yield_now().await;
        if !client.pour(&reset, 1).await {
            ended = true;
            break;
        }
    }
    if !ended {
        client.end().await;
    }
    assert!(app.count() < 3_000, "{} requests came through", app.count());
    assert_eq!(get(proxy.address, "shop.example", "/").await.body, "app");
}

/// What frames cost that ask for nothing: the connection ends, and memory does not grow.
#[tokio::test]
async fn control_frames_are_a_flood_and_cost_no_memory() {
    let app = App::start("app").await;
    let routes = vec![route("shop.example", "/", &[app.address])];
    let proxy = Process::start(&snapshot(1, routes), &[]).await;
    let post = frame(HEADERS, END_HEADERS, 1, &request(3, "shop.example", "/echo"));
    let before = proxy.resident_bytes();
    for (what, first, bytes) in [
        ("SETTINGS", vec![], frame(SETTINGS, 0, 0, &[])),
        ("large SETTINGS", vec![], frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0].repeat(100))),
        ("PING", vec![], frame(PING, 0, 0, &[0; 8])),
        ("PING ACK", vec![], frame(PING, 1, 0, &[0; 8])),
        ("PRIORITY", vec![], frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 16])),
        ("unknown", vec![], frame(99, 0, 0, &[0; 100])),
        ("empty DATA", post.clone(), frame(DATA, 0, 1, &[])),
        ("padded DATA", post.clone(), frame(DATA, 8, 1, &[255; 256])),
    ] {
        let mut client = Http2::connect(proxy.http, &[]).await;
        client.send(&first).await;
        // Nothing is read meanwhile: what the proxy answers has nowhere to go.
        let taken = client.pour(&bytes.repeat(100), 5_000).await;
        assert!(!taken, "{what}: half a million were taken");
        client.end().await;
        assert_eq!(get(proxy.http, "shop.example", "/").await.body, "app", "{what}");
    }
    let grown = proxy.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more");
    let metrics = get(proxy.admin, "admin", "/metrics").await.body;
    assert!(metrics.contains("connections_ended_total{reason=\"flood\"}"), "{metrics}");
}

#[tokio::test]
async fn a_head_without_end_is_given_up() {
    let app = App::start("app").await;
    let routes = vec![route("shop.example", "/", &[app.address])];
    let proxy = Process::start(&snapshot(1, routes), &[]).await;
    let before = proxy.resident_bytes();
    let open = frame(HEADERS, END_STREAM, 1, &request(2, "shop.example", "/"));
    let name = [&[0x40, 3][..], b"x-a", &[100], &[b'v'; 100]].concat();
    for (what, piece) in [
        ("empty", frame(CONTINUATION, 0, 1, &[])),
        ("full", frame(CONTINUATION, 0, 1, &name.repeat(100))),
    ] {
        let mut client = Http2::connect(proxy.http, &[]).await;
        client.send(&open).await;
        // More than sockets hold by themselves.
        let taken = client.pour(&piece.repeat(100), 10_000).await;
        assert!(!taken, "{what}: a million were taken");
        client.end().await;
    }
    let grown = proxy.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more");
    assert_eq!(app.count(), 0);
    assert_eq!(get(proxy.http, "shop.example", "/").await.body, "app");
}

#[tokio::test]
async fn a_list_of_headers_has_a_size_however_it_is_packed() {
    let app = App::start("app").await;
    let proxy = hurried(&app);
    let mut client = Http2::connect(proxy.address, &[]).await;
    // One large header goes into the table of names; then it is named a thousand times.
    let value = [b'v'; 2_000];
    let mut block = request(2, "shop.example", "/");
    block.extend([0x40, 3]);
    block.extend(b"x-a");
    block.extend([0x7f, 0xd1, 0x0e]);
    block.extend(value);
    block.extend([0xbe; 1_000]);
    client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).await;
    let answer = client.next().await;
    let mut answer = answer.expect("a frame");
    while answer.stream != 1 && answer.kind != common::frames::GOAWAY {
        answer = client.next().await.expect("a frame");
    }
    // 431, a reset, or the end of the connection: never a request.
    assert_eq!(app.count(), 0, "{answer:?}");
    assert_eq!(get(proxy.address, "shop.example", "/").await.body, "app");
}

#[tokio::test]
async fn a_window_that_hardly_opens_ends_the_connection() {
    let app = App::start("app").await;
    let proxy = hurried(&app);
    for window in [0, 1] {
        let mut client = Http2::connect(proxy.address, &[(4, window)]).await;
        client.send(&get_request(1, "/bytes/1000000")).await;
        let response = client.find(HEADERS, 1).await;
        assert!(response.is_some(), "the head needs no window");
        // It shows life all the time, and takes a byte now and then.
        let update = frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes());
        let mut open = true;
        until("the connection ended", async || {
            open = open && client.pour(&update, 1).await;
            !open
        })
        .await;
    }
    // One that takes what it asked for may be as slow as it likes between requests.
    let mut client = Http2::connect(proxy.address, &[]).await;
    for stream in [1, 3] {
        client.send(&get_request(stream, "/slow/700")).await;
        assert!(client.find(DATA, stream).await.is_some());
    }
}

#[tokio::test]
async fn a_body_that_stops_is_given_up_alone() {
    let app = App::start("app").await;
    let proxy = hurried(&app);
    let mut client = Http2::connect(proxy.address, &[]).await;
    let post = |stream| frame(HEADERS, END_HEADERS, stream, &request(3, "shop.example", "/echo"));
    client.send(&post(1)).await;
    client.send(&frame(DATA, 0, 1, b"some")).await;
    let answer = client.find(HEADERS, 1).await.expect("an answer");
    // `:status` 408 is in no table: a literal with the name of index 8.
    assert!(answer.payload.windows(3).any(|three| three == b"408") || answer.payload.len() > 8);
    client.send(&post(3)).await;
    client.send(&frame(DATA, END_STREAM, 3, b"all")).await;
    let echo = client.find(DATA, 3).await.expect("an answer");
    assert_eq!(echo.payload, b"all");
}
