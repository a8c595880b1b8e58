//! The first bytes of a connection, mutated for a fixed number of runs: nothing panics,
//! nothing is held beyond its bound, and pieces mean what the whole means.
//!
//! `FUZZ_SEED` and `FUZZ_RUNS` change what is tried; a failure names its seed and run.

use std::sync::Arc;

use dovetail_proxy::frames::Frames;
use dovetail_proxy::proxy_protocol::{self, HEADER_BYTES_MAX};
use dovetail_proxy::tls::hello::{HELLO_BYTES_MAX, HelloReader};
use fastrand::Rng;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs `check` on so many inputs, each a seed of the corpus or a mutation of it.
fn fuzz(runs: u64, corpus: &[Vec<u8>], mut check: impl FnMut(&[u8], &mut Rng)) {
    let (seed, runs) = (from_environment("FUZZ_SEED", 1), from_environment("FUZZ_RUNS", runs));
    for run in 0..runs {
        let mut rng = Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ run);
        let mut bytes = corpus[rng.usize(..corpus.len())].clone();
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

fn mutate(bytes: &mut Vec<u8>, corpus: &[Vec<u8>], rng: &mut Rng) {
    let at = rng.usize(..=bytes.len());
    match rng.u8(..6) {
        0 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
        1 if at < bytes.len() => {
            bytes[at] = *rng.choice(&[0, 1, 22, 255, b'\r', b' ']).unwrap_or(&0)
        }
        2 => bytes.truncate(at),
        3 => bytes.splice(at..at, std::iter::repeat_with(|| rng.u8(..)).take(9)).for_each(drop),
        4 if at < bytes.len() => drop(bytes.remove(at)),
        _ => {
            let other = &corpus[rng.usize(..corpus.len())];
            bytes.extend_from_slice(&other[rng.usize(..=other.len())..]);
        }
    }
}

/// ClientHellos as rustls makes them, for names of several lengths.
fn hellos() -> Vec<Vec<u8>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let config = Arc::new(config);
    let names = ["a.example".to_owned(), "SHOP.example.".to_owned(), "x".repeat(60) + ".example"];
    let hello = |name: String| {
        let name = ServerName::try_from(name).expect("a name");
        let mut client = ClientConnection::new(Arc::clone(&config), name).expect("a client");
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).expect("a vector takes all");
        }
        bytes
    };
    let mut hellos: Vec<_> = names.into_iter().map(hello).collect();
    // One record in two, and one with the next flight behind it.
    let whole = hellos[0].clone();
    let (first, second) = whole[5..].split_at(40);
    let record = |part: &[u8]| {
        let length = u16::try_from(part.len()).expect("short").to_be_bytes();
        [&[22, 3, 1][..], &length, part].concat()
    };
    hellos.push([record(first), record(second)].concat());
    hellos.push([&whole[..], &[20, 3, 3, 0, 1, 1]].concat());
    hellos
}

#[test]
fn any_bytes_are_a_hello_or_none_whole_or_in_pieces() {
    let corpus = hellos();
    let mut named = 0;
    fuzz(20_000, &corpus, |bytes, rng| {
        let whole = HelloReader::default().feed(bytes);
        let mut reader = HelloReader::default();
        let mut rest = bytes;
        let pieces = loop {
            let (piece, after) = rest.split_at(rng.usize(..=rest.len().min(900)));
            rest = after;
            match reader.feed(piece) {
                Ok(None) if !rest.is_empty() => {}
                ended => break ended,
            }
        };
        match (whole, pieces) {
            (Ok(None), Ok(None)) => assert!(bytes.len() <= HELLO_BYTES_MAX),
            (Ok(Some(whole)), Ok(Some(pieces))) => {
                assert_eq!(whole.name, pieces.name);
                assert_eq!(&*whole.raw, bytes, "an upstream sees what came");
                assert!(bytes.starts_with(&pieces.raw));
                let name = whole.name.unwrap_or_default();
                assert!(!name.ends_with('.') && !name.contains(|c: char| c.is_ascii_uppercase()));
                named += usize::from(!name.is_empty());
            }
            (Err(_), Err(_)) => {}
            // What stands behind a hello may be bad, and is not looked at yet; and a whole
            // buffer is refused where its first piece was not yet too long.
            (Err(_), Ok(_)) | (Ok(_), Err(_)) => {}
            (whole, pieces) => panic!("{whole:?} is not {pieces:?}"),
        }
    });
    assert!(named > 1_000, "only {named} hellos had a name");
}

#[test]
fn any_bytes_are_a_proxy_header_or_none() {
    let mut version_2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    version_2.extend([203, 0, 113, 9, 192, 0, 2, 1, 1, 1, 1, 187]);
    let corpus = [
        b"PROXY TCP4 203.0.113.9 192.0.2.1 4444 443\r\nGET / HTTP/1.1\r\n".to_vec(),
        b"PROXY TCP6 2001:db8::9 ::1 4444 443\r\n".to_vec(),
        b"PROXY UNKNOWN and whatever\r\n".to_vec(),
        version_2,
    ];
    let mut found = 0;
    fuzz(100_000, &corpus, |bytes, _| {
        let whole = proxy_protocol::parse(bytes);
        if let Ok(Some(header)) = &whole {
            assert!((1..=bytes.len().min(HEADER_BYTES_MAX)).contains(&header.length));
            // What stands behind it changes nothing.
            let alone = proxy_protocol::parse(&bytes[..header.length]).expect("valid");
            assert_eq!(alone, Some(*header));
            found += 1;
        }
        if matches!(whole, Ok(None)) {
            assert!(bytes.len() < HEADER_BYTES_MAX);
        }
    });
    assert!(found > 1_000, "only {found} were headers");
}

#[test]
fn any_bytes_are_frames() {
    let corpus = [
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), vec![0; 9], vec![0, 0, 4, 3, 0, 0, 0, 0, 1]]
            .concat(),
        vec![255; 60],
    ];
    let now = std::time::Instant::now();
    fuzz(20_000, &corpus, |bytes, rng| {
        let (mut whole, mut pieces) = (Frames::new(now), Frames::new(now));
        let at = rng.usize(..=bytes.len());
        let by_pieces =
            pieces.feed(&bytes[..at], now).and_then(|()| pieces.feed(&bytes[at..], now));
        assert_eq!(whole.feed(bytes, now), by_pieces);
    });
}
