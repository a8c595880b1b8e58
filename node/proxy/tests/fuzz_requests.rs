//! Parts of a request, mutated for a fixed number of runs: host, target, cookies, chunks of
//! interim answers. Nothing panics, and what is found was there.
//!
//! `FUZZ_SEED` and `FUZZ_RUNS` change what is tried; a failure names its seed and run.

use std::rc::Rc;
use std::time::Instant;

use dovetail_proxy::access_log::LineFormat;
use dovetail_proxy::early::{Ear, Listener};
use dovetail_proxy::stream::Wire;
use dovetail_proxy::{sticky, target};
use dovetail_routing::names::{ContextRoot, CookieName};
use fastrand::Rng;
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue, Uri};

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs `check` on so many inputs, each a seed of the corpus or a mutation of it.
fn fuzz(runs: u64, corpus: &[&[u8]], mut check: impl FnMut(&[u8], &mut Rng)) {
    let (seed, runs) = (from_environment("FUZZ_SEED", 1), from_environment("FUZZ_RUNS", runs));
    for run in 0..runs {
        let mut rng = Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ run);
        let mut bytes = corpus[rng.usize(..corpus.len())].to_vec();
        if run >= corpus.len() as u64 {
            for _ in 0..rng.usize(1..6) {
                mutate(&mut bytes, corpus, &mut rng);
            }
        }
        let checked =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&bytes, &mut rng)));
        assert!(checked.is_ok(), "FUZZ_SEED={seed}, run {run}: {bytes:?}");
    }
}

fn mutate(bytes: &mut Vec<u8>, corpus: &[&[u8]], rng: &mut Rng) {
    const ODD: &[u8] = b"\0\r\n \t:;=,./\\\"'[]{}@?#%$-_*~\x7f\xff";
    let at = rng.usize(..=bytes.len());
    match rng.u8(..6) {
        0 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
        1 if at < bytes.len() => bytes[at] = ODD[rng.usize(..ODD.len())],
        2 => bytes.truncate(at),
        3 => bytes.insert(at, ODD[rng.usize(..ODD.len())]),
        4 if at < bytes.len() => drop(bytes.remove(at)),
        _ => {
            let other = corpus[rng.usize(..corpus.len())];
            bytes.extend_from_slice(&other[rng.usize(..=other.len())..]);
        }
    }
}

#[test]
fn any_text_is_a_host_or_none() {
    let corpus: &[&[u8]] = &[
        b"shop.example",
        b"Shop.EXAMPLE.:8080",
        b"[2001:db8::1]:443",
        b"[::ffff:10.0.0.1]",
        b"127.0.0.1:80",
        b"xn--schn-7qa.example",
        b"a_b.example",
        b"user@shop.example",
    ];
    let mut found = 0;
    fuzz(200_000, corpus, |bytes, _| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let Ok(name) = target::host_name(text) else { return };
        found += 1;
        // A name means the same when it is read again, and is nothing but a name.
        assert_eq!(target::host_name(&name).as_deref(), Ok(&*name));
        assert!(!name.is_empty() && name.len() <= 253);
        assert!(!name.bytes().any(|b| b.is_ascii_uppercase() || b"/@?# \r\n\0\\\"".contains(&b)));
        assert!(text.to_ascii_lowercase().starts_with(&*name), "{text:?} {name:?}");
        if let Some(port) = target::port(text) {
            assert!(text.ends_with(&port.to_string()) || text.contains(":0"), "{text:?} {port}");
        }
    });
    assert!(found > 1_000, "{found}");
}

#[test]
fn what_is_below_a_root_is_a_path_and_the_same_one() {
    let corpus: &[&[u8]] = &[
        b"/app",
        b"/app/",
        b"/app/x/y?z=/app",
        b"/app//evil.example/",
        b"/app/../%2F/;a=b",
        b"/apple?a",
        b"/%61pp/x",
        b"*",
    ];
    let root: ContextRoot = "/app".parse().expect("a root");
    let mut found = 0;
    fuzz(200_000, corpus, |bytes, _| {
        let Ok(uri) = Uri::try_from(bytes) else { return };
        let path = target::path(&uri);
        let below = target::below(&root, &uri);
        assert_eq!(below.is_some(), root.strip(path).is_some(), "{uri}");
        let Some(below) = below else { return };
        found += 1;
        let below = Uri::from(below);
        assert!(below.path().starts_with('/') && !below.path().starts_with("//"), "{below}");
        assert_eq!(below.query(), uri.query());
        // Nothing but slashes was taken away.
        let rest = path.strip_prefix("/app").expect("it is below").trim_start_matches('/');
        assert_eq!(&below.path()[1..], rest);
    });
    assert!(found > 1_000, "{found}");
}

#[test]
fn a_cookie_that_is_found_was_sent() {
    let corpus: &[&[u8]] = &[
        b"session=abc",
        b"a=1; session=abc; b=2",
        b"session=; session=\"x y\"",
        b"xsession=a;session =b;Session=c",
        b";;=;session",
    ];
    let name: CookieName = "session".parse().expect("a name");
    let mut found = 0;
    fuzz(200_000, corpus, |bytes, rng| {
        let mut headers = HeaderMap::new();
        let (one, two) = bytes.split_at(rng.usize(..=bytes.len()));
        for part in [one, two] {
            if let Ok(value) = HeaderValue::from_bytes(part) {
                headers.append(COOKIE, value);
            }
        }
        let Some(value) = sticky::cookie(&headers, &name) else { return };
        found += 1;
        assert!(!value.is_empty() && !value.contains(&b';'), "{value:?}");
        let pair = [b"session=", value].concat();
        let sent = |part: &[u8]| part.windows(pair.len()).any(|window| window == pair);
        assert!(sent(one) || sent(two));
    });
    assert!(found > 1_000, "{found}");
}

#[test]
fn interim_answers_mean_the_same_whole_and_in_pieces() {
    let corpus: &[&[u8]] = &[
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 X\r\nA: b\r\nC: d\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nHTTP/1.1 103 no\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
    ];
    let heard = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (ear, wire) = (Ear::default(), Rc::new(Wire::new(Instant::now())));
        ear.listen(Some(&Listener::Http1(Rc::clone(&wire))));
        pieces.for_each(|piece| ear.hear(piece));
        format!("{:?}", wire.early)
    };
    fuzz(20_000, corpus, |bytes, rng| {
        let whole = heard(&mut std::iter::once(bytes));
        assert_eq!(heard(&mut bytes.chunks(rng.usize(1..9))), whole);
        assert!(!whole.contains("HTTP/1.1 100") && !whole.contains("HTTP/1.1 101"), "{whole}");
    });
}

#[test]
fn any_text_is_a_format_of_lines_or_none() {
    let corpus: &[&[u8]] = &[
        b"'$remote_addr - $remote_user [$time_local] \"$request\" $status';",
        b"escape=json '{\"a\":\"$http_user_agent\",\"b\":\"${sent_http_x}\"}'",
        b"$cookie_a $http_ $sent_http_ $cookie_ ${request_time}",
    ];
    fuzz(50_000, corpus, |bytes, _| {
        if let Ok(text) = std::str::from_utf8(bytes)
            && let Ok(format) = LineFormat::parse(text)
        {
            let mut headers = HeaderMap::new();
            headers.insert("user-agent", HeaderValue::from_static("x"));
            if let Some(mut captured) = format.capture(&headers) {
                format.capture_response(&mut captured, &headers);
            }
        }
    });
}
