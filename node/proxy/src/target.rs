//! What a request asks for: host and path, read once and never reinterpreted.
//!
//! Policy for paths: routes are looked up on the very bytes that are forwarded. No
//! percent-decoding, no removal of `.`, `..` or `//`; the application sees what the
//! client sent. So `/app/../admin` is looked up, and forwarded, under `/app`; `%2F` is
//! no slash and `/%61pp` is not `/app`.
//!
//! Where a route takes its context root off, the rest is forwarded as it is, `..` and
//! `%2F` included. Only the slashes that it begins with become one: of `/app//x` the
//! rest would be `//x`, which many read as the host `x` instead of a path. It is never
//! empty: `/app` becomes `/`.

use std::borrow::Cow;

use bytes::Bytes;
use dovetail_routing::names::ContextRoot;
use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Uri, Version};

/// Longest host name, in bytes (RFC 1035 §2.3.4).
const HOST_BYTES_MAX: usize = 253;

/// Why no host can be told from a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHost {
    #[error("the request has no Host")]
    Missing,
    #[error("the request has more than one Host")]
    Duplicate,
    #[error("the Host is not a host name with an optional port")]
    Malformed,
    #[error("the Host differs from the request's own authority")]
    Differs,
    #[error("the request target is neither a path nor a URL of http")]
    Target,
}

/// The authority that a request is for, as sent: the request target's, else the Host header's.
///
/// An HTTP/1.0 request may have none.
pub fn authority<'r>(
    uri: &'r Uri,
    version: Version,
    headers: &'r HeaderMap,
) -> Result<Option<&'r str>, InvalidHost> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(InvalidHost::Duplicate);
    }
    let host = match host {
        Some(value) => Some(text(value)?),
        None => None,
    };
    match (uri.authority(), host) {
        // Authority-form is for CONNECT alone.
        (Some(_), _) if !matches!(uri.scheme_str(), Some("http" | "https")) => {
            Err(InvalidHost::Target)
        }
        (Some(authority), host) => {
            let authority = authority.as_str();
            if version >= Version::HTTP_2 {
                // RFC 9113 §8.3.1: they must not disagree.
                if host.is_some_and(|host| !host.eq_ignore_ascii_case(authority)) {
                    return Err(InvalidHost::Differs);
                }
            } else if version == Version::HTTP_11 && host.is_none() {
                return Err(InvalidHost::Missing);
            }
            Ok(Some(authority))
        }
        (None, Some(host)) => Ok(Some(host)),
        (None, None) if version <= Version::HTTP_10 => Ok(None),
        (None, None) => Err(InvalidHost::Missing),
    }
}

fn text(value: &HeaderValue) -> Result<&str, InvalidHost> {
    value.to_str().map_err(|_| InvalidHost::Malformed)
}

/// The name in an authority: lower case, without port and trailing dot.
pub fn host_name(authority: &str) -> Result<Cow<'_, str>, InvalidHost> {
    let (name, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or(InvalidHost::Malformed)?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| InvalidHost::Malformed)?;
            (
                &authority[..address.len() + 2],
                port.strip_prefix(':').or(port.is_empty().then_some("")),
            )
        }
        None => match authority.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (authority, Some("")),
        },
    };
    let port = port.ok_or(InvalidHost::Malformed)?;
    if port.len() > 5 || !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(InvalidHost::Malformed);
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() || name.ends_with('.') || name.len() > HOST_BYTES_MAX {
        return Err(InvalidHost::Malformed);
    }
    let bracketed = name.starts_with('[');
    let mut upper = false;
    for byte in name.bytes() {
        upper |= byte.is_ascii_uppercase();
        // RFC 3986 reg-name, and the brackets of an address checked above.
        let valid = byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&byte);
        if !(valid || bracketed && b"[:]".contains(&byte)) {
            return Err(InvalidHost::Malformed);
        }
    }
    Ok(if upper { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) })
}

/// The port in an authority that [`host_name`] takes.
pub fn port(authority: &str) -> Option<u16> {
    authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok())
}

/// What of the target lies below a context root that covers it, with the query.
pub fn below(root: &ContextRoot, uri: &Uri) -> Option<PathAndQuery> {
    let below = root.strip(path(uri))?.trim_start_matches('/');
    let query = uri.query();
    let mut target = Vec::with_capacity(below.len() + query.map_or(0, str::len) + 2);
    target.push(b'/');
    target.extend_from_slice(below.as_bytes());
    if let Some(query) = query {
        target.push(b'?');
        target.extend_from_slice(query.as_bytes());
    }
    PathAndQuery::from_maybe_shared(Bytes::from(target)).ok()
}

/// The path that decides the route. `OPTIONS *` is about the whole host.
pub fn path(uri: &Uri) -> &str {
    match uri.path() {
        "*" | "" => "/",
        path => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_without_case_port_and_dot() {
        for (authority, name) in [
            ("shop.example", Some("shop.example")),
            ("Shop.EXAMPLE", Some("shop.example")),
            ("shop.example:8080", Some("shop.example")),
            ("shop.example:", Some("shop.example")),
            ("shop.example.", Some("shop.example")),
            ("shop.example.:80", Some("shop.example")),
            ("[::1]:80", Some("[::1]")),
            ("[::1]", Some("[::1]")),
            ("127.0.0.1:80", Some("127.0.0.1")),
            ("", None),
            (".", None),
            ("shop.example..", None),
            (":80", None),
            ("shop example", None),
            ("shop/example", None),
            ("shop@example", None),
            ("shop:80:80", None),
            ("shop:abc", None),
            ("shop:123456", None),
            ("[::1", None),
            ("[::1]x", None),
            ("[shop]", None),
            ("a[b", None),
        ] {
            assert_eq!(host_name(authority).ok().as_deref(), name, "{authority:?}");
        }
    }

    fn asked(
        uri: &str,
        version: Version,
        hosts: &[&'static str],
    ) -> Result<Option<String>, InvalidHost> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_static(host));
        }
        let uri: Uri = uri.parse().expect("a URI");
        authority(&uri, version, &headers).map(|found| found.map(str::to_owned))
    }

    #[test]
    fn the_request_target_wins_over_the_host_header() {
        let v11 = Version::HTTP_11;
        assert_eq!(asked("/", v11, &["a"]), Ok(Some("a".into())));
        assert_eq!(asked("http://b:1/x", v11, &["a"]), Ok(Some("b:1".into())));
        assert_eq!(asked("/", v11, &[]), Err(InvalidHost::Missing));
        assert_eq!(asked("http://b/", v11, &[]), Err(InvalidHost::Missing));
        assert_eq!(asked("/", v11, &["a", "a"]), Err(InvalidHost::Duplicate));
        assert_eq!(asked("/", Version::HTTP_10, &[]), Ok(None));
        let v2 = Version::HTTP_2;
        assert_eq!(asked("http://b/", v2, &[]), Ok(Some("b".into())));
        assert_eq!(asked("http://b/", v2, &["B"]), Ok(Some("b".into())));
        assert_eq!(asked("http://b/", v2, &["a"]), Err(InvalidHost::Differs));
    }

    #[test]
    fn paths_are_looked_up_as_they_are_forwarded() {
        for (uri, expected) in [
            ("/app/../admin", "/app/../admin"),
            ("/a%2Fb//c", "/a%2Fb//c"),
            ("*", "/"),
            ("http://h", "/"),
            ("/a?b=c", "/a"),
        ] {
            assert_eq!(path(&uri.parse().expect("a URI")), expected, "{uri}");
        }
    }

    #[test]
    fn what_lies_below_a_root_is_a_path_and_never_a_host() {
        for (root, uri, expected) in [
            ("/app", "/app", Some("/")),
            ("/app", "/app/", Some("/")),
            ("/app", "/app?b=/app", Some("/?b=/app")),
            ("/app", "/app/x/?", Some("/x/?")),
            ("/app", "/app//evil.example/x", Some("/evil.example/x")),
            ("/app", "/app///", Some("/")),
            ("/app", "/app/a//b", Some("/a//b")),
            ("/app", "/app/../x", Some("/../x")),
            ("/app", "/app/%2F/%2e%2e", Some("/%2F/%2e%2e")),
            ("/app", "/apple", None),
            ("/app", "/%61pp/x", None),
            ("/a/b", "/a/b/c", Some("/c")),
        ] {
            let (root, uri) = (root.parse().expect("a root"), uri.parse().expect("a URI"));
            let found = below(&root, &uri);
            assert_eq!(found.as_ref().map(PathAndQuery::as_str), expected, "{uri}");
        }
    }

    #[test]
    fn a_port_stands_behind_the_last_colon() {
        for (authority, expected) in [
            ("shop.example:8080", Some(8_080)),
            ("shop.example", None),
            ("shop.example:", None),
            ("[::1]:80", Some(80)),
            ("[::1]", None),
            ("shop.example:99999", None),
        ] {
            assert_eq!(port(authority), expected, "{authority}");
        }
    }
}
