//! Who a client is, as far as those say whose word is taken, and what applications hear of it.
//!
//! Without trusted proxies the client is the other end of the connection, and what it
//! says about itself is replaced. The word of a trusted proxy is kept and continued:
//! `X-Forwarded-For` gets its address, `X-Forwarded-Proto`, `-Host`, `-Port` and
//! `Forwarded` stay as they came. The client is then the last address of the list
//! that is not a trusted proxy's: whoever stands further left was named by a stranger.
//!
//! The trusted one is whom the connection is *from*: with a PROXY header that is the
//! client it names, since a header of the request is that client's word, not the load
//! balancer's.

use std::net::{IpAddr, SocketAddr};

use http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};

use crate::conn::Downstream;
use crate::headers::{
    X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT, X_FORWARDED_PREFIX, X_FORWARDED_PROTO,
    X_FORWARDED_SERVER, X_REAL_IP, X_REQUEST_ID,
};
use crate::table::Options;
use crate::target;

/// Headers that tell an application who the client is. CGI-like servers read
/// `X_Real_IP` as `X-Real-IP`, so the spelling with underscores is dropped too.
const FROM_THE_PROXY: [HeaderName; 9] = [
    FORWARDED,
    X_FORWARDED_FOR,
    X_FORWARDED_HOST,
    X_FORWARDED_PORT,
    X_FORWARDED_PREFIX,
    X_FORWARDED_PROTO,
    X_FORWARDED_SERVER,
    X_REAL_IP,
    X_REQUEST_ID,
];

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Whether what the request says about that is believed.
    pub trusted: bool,
    /// Whether the client speaks HTTPS, to this proxy or to a trusted one.
    pub https: bool,
    /// The client; without its port where a trusted proxy names it.
    pub client: SocketAddr,
}

impl Origin {
    /// Where a request over `down` comes from.
    pub fn of(down: &Downstream, options: &Options, headers: &HeaderMap) -> Self {
        let is_trusted = |address| options.trusted_proxies.iter().any(|s| s.contains(address));
        let https = down.tls.is_some();
        if !is_trusted(down.client.ip()) {
            return Self { trusted: false, https, client: down.client };
        }
        let client = last_stranger(headers, is_trusted);
        let client = client.map_or(down.client, |address| SocketAddr::new(address, 0));
        let proto = headers.get(X_FORWARDED_PROTO).map(HeaderValue::as_bytes);
        let is_https =
            |proto: &[u8]| [&b"https"[..], b"wss"].iter().any(|s| proto.eq_ignore_ascii_case(s));
        let https = proto.map_or(https, is_https);
        Self { trusted: true, https, client }
    }
}

/// The rightmost address of `X-Forwarded-For` that is not trusted, or else the
/// leftmost that can be read.
fn last_stranger(headers: &HeaderMap, is_trusted: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let mut last = None;
    for value in headers.get_all(X_FORWARDED_FOR).iter().rev() {
        for hop in value.as_bytes().rsplit(|&byte| byte == b',') {
            let Some(address) = hop_address(hop.trim_ascii()) else { return last };
            last = Some(address);
            if !is_trusted(address) {
                return last;
            }
        }
    }
    last
}

/// An address, with or without a port.
fn hop_address(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?;
    let address: IpAddr = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0.parse().ok()?,
        None => match text.parse() {
            Ok(address) => address,
            Err(_) => text.parse::<SocketAddr>().ok()?.ip(),
        },
    };
    Some(address.to_canonical())
}

/// Removes what only a trusted proxy may say about a client.
pub fn strip(headers: &mut HeaderMap, trusted: bool) {
    if !trusted {
        for name in [FORWARDED, X_FORWARDED_PORT, X_FORWARDED_PREFIX, X_FORWARDED_SERVER] {
            headers.remove(name);
        }
    }
    drop_where(headers, |name| {
        let plain = name.replace('_', "-");
        FROM_THE_PROXY.iter().any(|owned| owned.as_str() == plain)
    });
}

/// Removes all headers with an underscore.
pub fn strip_underscored(headers: &mut HeaderMap) {
    drop_where(headers, |_| true);
}

/// Removes the headers with an underscore for which `drops` holds.
fn drop_where(headers: &mut HeaderMap, drops: impl Fn(&str) -> bool) {
    if headers.keys().any(|name| name.as_str().contains('_')) {
        let dropped = |name: &&HeaderName| name.as_str().contains('_') && drops(name.as_str());
        for name in headers.keys().filter(dropped).cloned().collect::<Vec<_>>() {
            headers.remove(name);
        }
    }
}

/// Says who the client is. `host` is what it asked for.
pub fn tell(
    headers: &mut HeaderMap,
    down: &Downstream,
    origin: &Origin,
    host: Option<&HeaderValue>,
) {
    if origin.trusted {
        let mut hops: Vec<&[u8]> =
            headers.get_all(X_FORWARDED_FOR).iter().map(HeaderValue::as_bytes).collect();
        hops.push(down.client_ip.as_bytes());
        let hops = HeaderValue::from_bytes(&hops.join(&b", "[..]));
        headers.insert(X_FORWARDED_FOR, hops.unwrap_or_else(|_| down.client_ip.clone()));
        let real = HeaderValue::try_from(origin.client.ip().to_canonical().to_string());
        headers.insert(X_REAL_IP, real.unwrap_or_else(|_| down.client_ip.clone()));
    } else {
        headers.insert(X_FORWARDED_FOR, down.client_ip.clone());
        headers.insert(X_REAL_IP, down.client_ip.clone());
    }
    let mut say = |name: HeaderName, value: HeaderValue| {
        if !(origin.trusted && headers.contains_key(&name)) {
            headers.insert(name, value);
        }
    };
    say(X_FORWARDED_PROTO, HeaderValue::from_static(if origin.https { "https" } else { "http" }));
    let port = host.and_then(|host| target::port(host.to_str().unwrap_or_default()));
    say(
        X_FORWARDED_PORT,
        match port {
            Some(port) => down.worker.ports.value(port),
            None => HeaderValue::from_static(if origin.https { "443" } else { "80" }),
        },
    );
    match host {
        Some(host) => say(X_FORWARDED_HOST, host.clone()),
        None if origin.trusted => {}
        None => {
            headers.remove(X_FORWARDED_HOST);
        }
    }
}

/// Says which context root was taken off the path, after the roots that a trusted
/// proxy took off before.
pub fn tell_prefix(headers: &mut HeaderMap, root: &HeaderValue) {
    let before = headers.get(X_FORWARDED_PREFIX).map(HeaderValue::as_bytes).unwrap_or_default();
    let before = before.strip_suffix(b"/").unwrap_or(before);
    let all = if before.is_empty() {
        root.clone()
    } else {
        let joined = HeaderValue::from_bytes(&[before, root.as_bytes()].concat());
        joined.unwrap_or_else(|_| root.clone())
    };
    headers.insert(X_FORWARDED_PREFIX, all);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name: HeaderName = name.parse().expect("a name");
            headers.append(name, HeaderValue::from_static(value));
        }
        headers
    }

    fn names(headers: &HeaderMap) -> Vec<String> {
        let mut names: Vec<String> = headers.keys().map(ToString::to_string).collect();
        names.sort();
        names
    }

    #[test]
    fn a_client_cannot_speak_for_the_proxy() {
        let all = [
            ("forwarded", "for=1.2.3.4"),
            ("x-forwarded-port", "1"),
            ("x-forwarded-prefix", "/x"),
            ("X_Forwarded_For", "1.2.3.4"),
            ("x_real-ip", "1.2.3.4"),
            ("my_header", "kept"),
        ];
        let mut headers = map(&all);
        strip(&mut headers, false);
        assert_eq!(names(&headers), ["my_header"]);
        strip_underscored(&mut headers);
        assert_eq!(names(&headers), Vec::<String>::new());
        // A trusted proxy can, but not in disguise.
        let mut headers = map(&all);
        strip(&mut headers, true);
        let kept = ["forwarded", "my_header", "x-forwarded-port", "x-forwarded-prefix"];
        assert_eq!(names(&headers), kept);
    }

    #[test]
    fn the_client_is_the_last_address_that_no_trusted_proxy_has() {
        for (lists, client) in [
            (&["203.0.113.9"][..], Some("203.0.113.9")),
            (&["6.6.6.6, 203.0.113.9, 10.0.0.2"], Some("203.0.113.9")),
            (&["6.6.6.6", "203.0.113.9", "10.0.0.2, 10.0.0.3"], Some("203.0.113.9")),
            (&["10.0.0.2,10.0.0.3"], Some("10.0.0.2")),
            (&["203.0.113.9:4711, [::ffff:10.0.0.2]:80"], Some("203.0.113.9")),
            (&["[2001:db8::1]"], Some("2001:db8::1")),
            (&["6.6.6.6, unknown, 10.0.0.2"], Some("10.0.0.2")),
            (&["6.6.6.6, "], None),
            (&["shop.example"], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for list in lists {
                headers.append(X_FORWARDED_FOR, HeaderValue::from_static(list));
            }
            let trusted: dovetail_routing::entry::Subnet = "10.0.0.0/8".parse().expect("a subnet");
            let found = last_stranger(&headers, |address| trusted.contains(address));
            assert_eq!(found, client.map(|c| c.parse().expect("an address")), "{lists:?}");
        }
    }

    #[test]
    fn roots_that_were_taken_off_add_up() {
        for (before, all) in [(None, "/app"), (Some("/outer"), "/outer/app"), (Some("/"), "/app")] {
            let mut headers = HeaderMap::new();
            if let Some(before) = before {
                headers.insert(X_FORWARDED_PREFIX, HeaderValue::from_static(before));
            }
            tell_prefix(&mut headers, &HeaderValue::from_static("/app"));
            assert_eq!(headers[X_FORWARDED_PREFIX], all);
        }
    }
}
