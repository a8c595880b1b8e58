//! Requests of HTTP/2 that would mean something else in HTTP/1.1: none reaches an application.
//!
//! On raw frames, since no library would send them.

mod common;

use common::frames::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Http2, RST_STREAM, frame, request,
};
use common::upstream::App;
use common::{Proxy, get, route, snapshot};

/// A header as it stands, in no table.
fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        // Lengths of 127 and more go on in the next byte.
        match u8::try_from(text.len()).expect("short") {
            short @ ..127 => bytes.push(short),
            long => bytes.extend([127, long - 127]),
        }
        bytes.extend_from_slice(text);
    }
    bytes
}

/// A whole block of headers: method, scheme, path, authority, and more.
fn block(path: &[u8], more: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    block.extend(literal(b":path", path));
    block.extend(literal(b":authority", b"shop.example"));
    for (name, value) in more {
        block.extend(literal(name, value));
    }
    block
}

/// Sends a request by itself; its end must be a reset, a 4xx, or the connection's end.
async fn is_refused(proxy: &Proxy, what: &str, block: &[u8], data: &[u8]) {
    let mut client = Http2::connect(proxy.address, &[]).await;
    client.send(&frame(HEADERS, END_HEADERS, 1, block)).await;
    // It may have ended the connection by now.
    let _ =
        tokio::io::AsyncWriteExt::write_all(&mut client.stream, &frame(DATA, END_STREAM, 1, data))
            .await;
    while let Some(frame) = client.next().await {
        match frame.kind {
            RST_STREAM | GOAWAY => return,
            // 400 and 404 by their index; anything else begins otherwise.
            HEADERS if frame.stream == 1 => {
                let status = frame.payload[0];
                let shown = String::from_utf8_lossy(&frame.payload).into_owned();
                let refused = [0x8c, 0x8d].contains(&status) || shown.contains("error");
                assert!(refused, "{what} was answered {status:#x}");
                return;
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn what_would_be_two_requests_is_none() {
    let app = App::start("app").await;
    let proxy = Proxy::start(&snapshot(1, vec![route("shop.example", "/", &[app.address])]));
    for (name, value) in [
        (&b"x-a"[..], &b"b\r\nX-Smuggled: 1"[..]),
        (b"x-a", b"b\nX-Smuggled: 1"),
        (b"x-a", b"b\rc"),
        (b"x-a", b"b\0c"),
        (b"x-a\r\nx-smuggled", b"1"),
        (b"x-a: b\r\nx-smuggled", b"1"),
        (b"x:a", b"b"),
        (b"x a", b"b"),
        (b"X-A", b"b"),
        (b"", b"b"),
        (b"connection", b"close"),
        (b"connection", b"x-a"),
        (b"keep-alive", b"timeout=5"),
        (b"proxy-connection", b"keep-alive"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"h2c"),
        (b"host", b"other.example"),
        (b":path", b"/other"),
        (b":status", b"200"),
        (b":other", b"x"),
        (b"content-length", b"+3"),
        (b"content-length", b"3, 3"),
        (b"content-length", b"-1"),
        (b"content-length", b"99999999999999999999999"),
    ] {
        let what = String::from_utf8_lossy(&[name, b": ", value].concat()).into_owned();
        is_refused(&proxy, &what, &block(b"/", &[(name, value)]), b"abc").await;
    }
    for path in [&b""[..], b"app", b"app/x", b"/a b", b"/a\r\nX-A: b", b"/a\0", b"http://h/"] {
        let what = String::from_utf8_lossy(path).into_owned();
        is_refused(&proxy, &what, &block(path, &[]), b"").await;
    }
    for (name, authority) in [
        ("user", &b"user@shop.example"[..]),
        ("slash", b"shop.example/x"),
        ("break", b"shop.example\r\nX-A: b"),
        ("two", b"shop.example, other.example"),
        ("space", b"shop example"),
        ("none", b""),
    ] {
        let mut block = vec![0x83, 0x86];
        block.extend(literal(b":path", b"/"));
        block.extend(literal(b":authority", authority));
        is_refused(&proxy, name, &block, b"").await;
    }
    assert_eq!(app.seen().len(), 0, "{:?}", app.seen());
    assert_eq!(get(proxy.address, "shop.example", "/").await.body, "app");
}

#[tokio::test]
async fn a_length_that_the_data_does_not_have_is_no_request() {
    let app = App::start("app").await;
    let proxy = Proxy::start(&snapshot(1, vec![route("shop.example", "/", &[app.address])]));
    for (length, data) in [(&b"3"[..], &b"abcd"[..]), (b"3", b""), (b"5", b"abc"), (b"0", b"a")] {
        let what = format!("{} of {}", data.len(), String::from_utf8_lossy(length));
        is_refused(&proxy, &what, &block(b"/echo", &[(b"content-length", length)]), data).await;
    }
    let twice: [(&[u8], &[u8]); 2] = [(b"content-length", b"3"), (b"content-length", b"4")];
    is_refused(&proxy, "two lengths", &block(b"/echo", &twice), b"abc").await;
    assert_eq!(app.seen().len(), 0, "{:?}", app.seen());
    // As announced, it is one.
    let mut client = Http2::connect(proxy.address, &[]).await;
    let right = block(b"/echo", &[(b"content-length", b"3")]);
    client.send(&frame(HEADERS, END_HEADERS, 1, &right)).await;
    client.send(&frame(DATA, END_STREAM, 1, b"abc")).await;
    let answer = client.find(HEADERS, 1).await.expect("an answer");
    assert_eq!(answer.payload[0], 0x88, "200");
    assert_eq!(app.last().body, "abc");
    assert_eq!(app.last().headers["host"], "shop.example");
}

#[tokio::test]
async fn a_broken_request_breaks_no_other() {
    let app = App::start("app").await;
    let proxy = Proxy::start(&snapshot(1, vec![route("shop.example", "/", &[app.address])]));
    let mut client = Http2::connect(proxy.address, &[]).await;
    let get = |stream, path| {
        frame(HEADERS, END_HEADERS | END_STREAM, stream, &request(2, "shop.example", path))
    };
    client.send(&get(1, "/slow/300")).await;
    let evil = block(b"/", &[(b"connection", b"close")]);
    client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &evil)).await;
    client.send(&get(5, "/")).await;
    assert!(client.find(RST_STREAM, 3).await.is_some());
    for stream in [5, 1] {
        assert_eq!(client.find(HEADERS, stream).await.expect("an answer").payload[0], 0x88);
    }
}
