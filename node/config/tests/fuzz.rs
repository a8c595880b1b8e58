//! No text makes the readers panic: neither random ones nor nearly right ones.

use dovetail_config::access_format::Format;
use dovetail_config::{FLAGS, parse};
use proptest::collection::vec;
use proptest::prelude::*;

const EVERY_KEY: &str = include_str!("files/every_key.toml");
const FORMAT: &str = r#"escape=json '{"a":"${remote_addr}"}' "\t$status\"" ;"#;
const CIPHERS: &str = "HIGH:!aNULL:-AES128:+CHACHA20:ECDHE+AESGCM:@STRENGTH";

/// Bytes put in, overwritten, or taken out, at places of a text.
fn edits() -> impl Strategy<Value = Vec<(u16, char, u8)>> {
    vec((any::<u16>(), prop_oneof![any::<char>(), Just('"'), Just('$'), Just('\\')], 0..3_u8), 1..8)
}

fn edited(text: &str, edits: &[(u16, char, u8)]) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for (at, new, kind) in edits {
        let at = usize::from(*at) % chars.len().max(1);
        match kind {
            0 => chars.insert(at, *new),
            1 if at < chars.len() => chars[at] = *new,
            _ if at < chars.len() => _ = chars.remove(at),
            _ => {}
        }
    }
    chars.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_configuration(changes in edits(), any in any::<String>()) {
        let _ = parse(&any, FLAGS);
        // A place is always one of the text.
        if let Err(error) = parse(&edited(EVERY_KEY, &changes), FLAGS) {
            prop_assert!(error.line >= 1 && error.column >= 1);
            prop_assert!(error.line <= EVERY_KEY.lines().count() + 9);
        }
    }

    #[test]
    fn a_log_format(changes in edits(), any in any::<String>()) {
        for text in [any, edited(FORMAT, &changes)] {
            match Format::parse(&text) {
                Ok(format) => prop_assert!(!format.pieces.is_empty()),
                Err(error) => prop_assert!(error.at <= text.len()),
            }
        }
    }

    #[test]
    fn a_list_of_ciphers(changes in edits(), any in any::<String>()) {
        for list in [any, edited(CIPHERS, &changes)] {
            let quoted = toml_text(&list);
            let text = format!("[Extensions.a.Config]\nSSLCiphers = {quoted}\n");
            if let Ok(keys) = parse(&text, &[]) {
                let suites = &keys.config.expect("cluster keys").proxies[0].1.ssl_ciphers;
                prop_assert!(suites.len() < 10);
            }
        }
    }
}

/// A text as a basic string of TOML.
fn toml_text(text: &str) -> String {
    let escaped = text.chars().map(|c| format!("\\U{:08x}", u32::from(c)));
    format!("\"{}\"", escaped.collect::<String>())
}
