//! OpenSSL's list of ciphers, over the suites that are offered here.
//!
//! ```text
//! HIGH:!aNULL:!MD5     ECDHE+AESGCM:+AES128     ECDHE-RSA-AES256-GCM-SHA384
//! ```
//!
//! A word adds what it selects, `!word` takes it out for good, `-word` takes it out,
//! `+word` moves it to the end, `a+b` is what both select, `@STRENGTH` sorts. Names of
//! suites may be OpenSSL's or the standard's (IANA).

/// A version of TLS; each suite belongs to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Tls12,
    Tls13,
}

struct Suite {
    /// The standard's name.
    iana: &'static str,
    openssl: &'static str,
    version: Version,
    /// Words of OpenSSL that select it, besides those that select all.
    words: &'static [&'static str],
    bits: u16,
}

const ECDSA: &str = "aECDSA";
const RSA: &str = "aRSA";

const fn suite(
    iana: &'static str,
    openssl: &'static str,
    version: Version,
    words: &'static [&'static str],
    bits: u16,
) -> Suite {
    Suite { iana, openssl, version, words, bits }
}

/// What rustls has with aws-lc-rs, in its order.
const OFFERED: [Suite; 9] = [
    suite(
        "TLS_AES_256_GCM_SHA384",
        "TLS_AES_256_GCM_SHA384",
        Version::Tls13,
        &["AESGCM", "AES256", "SHA384"],
        256,
    ),
    suite(
        "TLS_AES_128_GCM_SHA256",
        "TLS_AES_128_GCM_SHA256",
        Version::Tls13,
        &["AESGCM", "AES128", "SHA256"],
        128,
    ),
    suite(
        "TLS_CHACHA20_POLY1305_SHA256",
        "TLS_CHACHA20_POLY1305_SHA256",
        Version::Tls13,
        &["CHACHA20", "SHA256"],
        256,
    ),
    suite(
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        Version::Tls12,
        &[ECDSA, "AESGCM", "AES256", "SHA384"],
        256,
    ),
    suite(
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        Version::Tls12,
        &[ECDSA, "AESGCM", "AES128", "SHA256"],
        128,
    ),
    suite(
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        Version::Tls12,
        &[ECDSA, "CHACHA20", "SHA256"],
        256,
    ),
    suite(
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        Version::Tls12,
        &[RSA, "AESGCM", "AES256", "SHA384"],
        256,
    ),
    suite(
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        Version::Tls12,
        &[RSA, "AESGCM", "AES128", "SHA256"],
        128,
    ),
    suite(
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        "ECDHE-RSA-CHACHA20-POLY1305",
        Version::Tls12,
        &[RSA, "CHACHA20", "SHA256"],
        256,
    ),
];

/// Words that select every suite here: all are strong, and authenticated.
const ALL: &[&str] = &["ALL", "HIGH", "DEFAULT", "FIPS", "COMPLEMENTOFNULL"];
/// Words that select every suite of TLS 1.2 here.
const ALL_TLS12: &[&str] = &["ECDHE", "EECDH", "kECDHE", "kEECDH", "ECDH", "TLSv1.2"];
/// Words of OpenSSL that select nothing here: weak, unauthenticated or plain.
const NOTHING: &[&str] = &[
    "3DES",
    "ADH",
    "AECDH",
    "AES128-CBC",
    "AESCCM",
    "AESCCM8",
    "ARIA",
    "ARIA128",
    "ARIA256",
    "ARIAGCM",
    "CAMELLIA",
    "CAMELLIA128",
    "CAMELLIA256",
    "CBC",
    "COMPLEMENTOFALL",
    "COMPLEMENTOFDEFAULT",
    "DES",
    "DES-CBC3-SHA",
    "DH",
    "DHE",
    "DSS",
    "EDH",
    "EXP",
    "EXPORT",
    "EXPORT40",
    "EXPORT56",
    "GOST",
    "GOST89MAC",
    "GOST94",
    "IDEA",
    "LOW",
    "MD5",
    "MEDIUM",
    "NULL",
    "PSK",
    "RC2",
    "RC4",
    "RSA",
    "SEED",
    "SHA",
    "SHA1",
    "SRP",
    "SSLv2",
    "SSLv3",
    "TLSv1",
    "TLSv1.0",
    "aDSS",
    "aNULL",
    "aPSK",
    "eNULL",
    "kDHE",
    "kDHEPSK",
    "kECDHEPSK",
    "kEDH",
    "kPSK",
    "kRSA",
    "kRSAPSK",
    "kSRP",
];

/// What a list came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    /// By the standard's names; empty when it is all in the library's own order, and
    /// `None` when nothing is left.
    pub(super) suites: Option<Vec<&'static str>>,
    /// Words that add nothing, or that nobody has.
    pub(super) unknown: Vec<String>,
}

/// Reads a list.
///
/// As with OpenSSL, a list that selects no suite of TLS 1.3 says nothing about that
/// version: its suites stay, but for those that the list takes out for good.
pub(super) fn choose(list: &str) -> Chosen {
    let mut suites: Vec<usize> = Vec::new();
    let mut banned: Vec<usize> = Vec::new();
    let mut unknown = Vec::new();
    for word in list.split([':', ',', ';', ' ', '\t', '\n', '\r']).filter(|word| !word.is_empty()) {
        if let Some(command) = word.strip_prefix('@') {
            match command {
                "STRENGTH" => suites.sort_by_key(|at| std::cmp::Reverse(OFFERED[*at].bits)),
                _ => unknown.push(word.to_owned()),
            }
            continue;
        }
        let (sign, name) = match word.split_at_checked(1) {
            Some((sign @ ("!" | "-" | "+"), name)) => (sign, name),
            _ => ("", word),
        };
        let selected = selected(name);
        match sign {
            "!" => {
                suites.retain(|at| !selected.contains(at));
                banned.extend(&selected);
            }
            "-" => suites.retain(|at| !selected.contains(at)),
            "+" => suites.sort_by_key(|at| selected.contains(at)),
            _ => {
                let new = |at: &&usize| !suites.contains(at) && !banned.contains(at);
                let new: Vec<_> = selected.iter().filter(new).copied().collect();
                suites.extend(new);
            }
        }
        if selected.is_empty() && (sign.is_empty() || !is_a_name(name)) {
            unknown.push(word.to_owned());
        }
    }
    let is_tls13 = |at: &usize| OFFERED[*at].version == Version::Tls13;
    if !suites.iter().any(is_tls13) && !suites.is_empty() {
        let kept = (0..OFFERED.len()).filter(|at| is_tls13(at) && !banned.contains(at));
        suites.splice(0..0, kept);
    }
    let all = suites.iter().copied().eq(0..OFFERED.len());
    let names = || suites.iter().map(|at| OFFERED[*at].iana).collect();
    let suites = match suites.is_empty() {
        true => None,
        false if all => Some(Vec::new()),
        false => Some(names()),
    };
    Chosen { suites, unknown }
}

/// Whether one of the suites is of this version.
pub(super) fn has(suites: &[std::sync::Arc<str>], version: Version) -> bool {
    OFFERED
        .iter()
        .any(|known| known.version == version && suites.iter().any(|s| **s == *known.iana))
}

/// The positions of the suites that a word selects; of those that all parts of `a+b` select.
fn selected(name: &str) -> Vec<usize> {
    let selects = |at: &usize| name.split('+').all(|part| OFFERED[*at].is(part));
    (0..OFFERED.len()).filter(selects).collect()
}

/// Whether somebody has suites of this name: it is OpenSSL's word, or has a suite's form.
fn is_a_name(name: &str) -> bool {
    name.split('+').all(|part| {
        part.contains('-')
            || part.starts_with("TLS_")
            || OFFERED.iter().any(|suite| suite.is(part))
            || NOTHING.iter().any(|word| word.eq_ignore_ascii_case(part))
    })
}

impl Suite {
    fn is(&self, word: &str) -> bool {
        let is = |known: &&str| known.eq_ignore_ascii_case(word);
        is(&self.iana)
            || is(&self.openssl)
            || ALL.iter().any(is)
            || self.words.iter().any(is)
            || (word.eq_ignore_ascii_case("AES") && self.words.contains(&"AESGCM"))
            || match self.version {
                Version::Tls12 => {
                    ALL_TLS12.iter().any(is)
                        || (word.eq_ignore_ascii_case("ECDSA") && self.words.contains(&ECDSA))
                }
                Version::Tls13 => word.eq_ignore_ascii_case("TLSv1.3"),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TLS13: [&str; 3] =
        ["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"];

    fn chosen(list: &str) -> Vec<&'static str> {
        choose(list).suites.expect("something is left")
    }

    #[test]
    fn usual_lists_leave_the_librarys_own() {
        for list in
            ["HIGH:!aNULL:!MD5", "DEFAULT", "ALL:!EXPORT:!LOW", "HIGH !aNULL !kRSA @SECLEVEL=2"]
        {
            assert!(chosen(list).is_empty(), "{list}");
        }
        assert!(choose("HIGH:!aNULL:!MD5").unknown.is_empty());
    }

    #[test]
    fn names_are_openssls_or_the_standards() {
        let rsa = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256";
        for list in ["ECDHE-RSA-AES128-GCM-SHA256", rsa, "kECDHE+aRSA+AES128"] {
            let mut wanted = TLS13.to_vec();
            wanted.push(rsa);
            assert_eq!(chosen(list), wanted, "{list}");
        }
        assert_eq!(chosen("TLS_AES_128_GCM_SHA256"), ["TLS_AES_128_GCM_SHA256"]);
    }

    #[test]
    fn signs_take_out_and_move() {
        assert!(chosen("HIGH:!CHACHA20").iter().all(|name| !name.contains("CHACHA20")));
        let back = chosen("HIGH:!CHACHA20:CHACHA20");
        assert!(back.iter().all(|name| !name.contains("CHACHA20")), "out for good");
        assert_eq!(chosen("HIGH:-CHACHA20:CHACHA20").len(), 9);
        let moved = chosen("HIGH:+AES256");
        assert!(moved[6..].iter().all(|name| name.contains("AES_256")), "{moved:?}");
        let strong = chosen("AES128:CHACHA20:@STRENGTH");
        assert!(strong[..3].iter().all(|name| name.contains("CHACHA20")), "{strong:?}");
        assert!(chosen("ECDHE:!TLSv1.3").iter().all(|name| name.starts_with("TLS_ECDHE")));
    }

    #[test]
    fn what_nobody_has_is_named_and_nothing_left_is_told() {
        let some = choose("HIGH:ECDHE-RSA-AES128-SHA:!RC5x:+RC4:@BOGUS");
        assert_eq!(some.unknown, ["ECDHE-RSA-AES128-SHA", "!RC5x", "@BOGUS"]);
        for list in ["", "RC4", "HIGH:!ALL", "AES256:-AES256", "aNULL"] {
            assert_eq!(choose(list).suites, None, "{list:?}");
        }
    }

    #[test]
    fn each_version_has_suites() {
        let suites = ["TLS_AES_128_GCM_SHA256".into()];
        assert!(has(&suites, Version::Tls13) && !has(&suites, Version::Tls12));
    }
}
