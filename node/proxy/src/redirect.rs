//! Requests that the proxy answers with another place to go to.
//!
//! Three rules, in this order. A route's own redirect (`redirects`) applies whatever
//! the scheme, unless the request already came to where it leads. A route for TLS
//! only (`ssl_only`) sends plain HTTP to HTTPS. A route that takes its context root
//! off the path sends `/app` to `/app/`, or relative links would lose the root.
//!
//! A redirect that leads to plain HTTP on a host for TLS only does not apply: the two
//! would send a client back and forth for ever.

use dovetail_routing::snapshot::Redirect;
use http::header::{CONTENT_LENGTH, HeaderValue, LOCATION};
use http::uri::PathAndQuery;
use http::{Method, Response, StatusCode, Uri, response};

use crate::table::RouteEntry;
use crate::target;

/// What of a request decides where it is sent.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'r> {
    /// Whether the client speaks HTTPS, here or to a trusted proxy in front.
    pub https: bool,
    /// The authority as sent; `None` only with HTTP/1.0.
    pub authority: Option<&'r str>,
    /// The name in it.
    pub host: &'r str,
    pub method: &'r Method,
    pub uri: &'r Uri,
}

/// Another place to go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    pub status: StatusCode,
    pub location: HeaderValue,
}

impl Elsewhere {
    /// The answer.
    pub fn response(self) -> response::Parts {
        let mut response = Response::new(());
        *response.status_mut() = self.status;
        response.headers_mut().insert(LOCATION, self.location);
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        response.into_parts().0
    }
}

/// Where a request is sent instead of to the application, if it is. `https_port` is
/// where clients reach TLS.
pub fn elsewhere(entry: &RouteEntry, asked: &Asked<'_>, https_port: u16) -> Option<Elsewhere> {
    let options = &entry.route.options;
    if let Some(redirect) = &options.redirect
        && !is_there(redirect, asked)
        && (redirect.https || !options.ssl_only || !is_host(redirect, asked))
    {
        let scheme = if redirect.https { "https" } else { "http" };
        let (authority, prefix) = (&redirect.authority, &redirect.prefix);
        let start = format!("{scheme}://{authority}{prefix}");
        return to(StatusCode::FOUND, start, asked.uri);
    }
    if options.ssl_only && !asked.https && !asked.host.is_empty() {
        let host = asked.host;
        let start = match https_port {
            443 => format!("https://{host}"),
            port => format!("https://{host}:{port}"),
        };
        // A 302 would make of a POST a GET.
        let status = match *asked.method {
            Method::GET | Method::HEAD => StatusCode::FOUND,
            _ => StatusCode::TEMPORARY_REDIRECT,
        };
        return to(status, start, asked.uri);
    }
    let root = entry.prefix.is_some().then_some(entry.route.path.as_str())?;
    if asked.uri.path() != root || !matches!(*asked.method, Method::GET | Method::HEAD) {
        return None;
    }
    let query = asked.uri.query().map(|query| format!("?{query}"));
    let location = format!("{root}/{}", query.unwrap_or_default());
    let location = HeaderValue::try_from(location).ok()?;
    Some(Elsewhere { status: StatusCode::MOVED_PERMANENTLY, location })
}

fn to(status: StatusCode, mut start: String, uri: &Uri) -> Option<Elsewhere> {
    start.push_str(match uri.path_and_query().map(PathAndQuery::as_str) {
        Some(target) if target.starts_with('/') => target,
        // `OPTIONS *`, and a URL without a path.
        _ => "/",
    });
    Some(Elsewhere { status, location: HeaderValue::try_from(start).ok()? })
}

/// Whether the request came to the scheme and host that a redirect leads to. Ports
/// count only where the redirect names one: what a client knows as 8080 may be 80 here.
fn is_there(redirect: &Redirect, asked: &Asked<'_>) -> bool {
    let port = |authority: &str, https: bool| {
        target::port(authority).unwrap_or(if https { 443 } else { 80 })
    };
    redirect.https == asked.https
        && is_host(redirect, asked)
        && (target::port(&redirect.authority).is_none()
            || port(&redirect.authority, redirect.https)
                == port(asked.authority.unwrap_or_default(), asked.https))
}

fn is_host(redirect: &Redirect, asked: &Asked<'_>) -> bool {
    target::host_name(&redirect.authority).is_ok_and(|name| name == asked.host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::{entry_of, route};
    use dovetail_routing::snapshot::RouteOptions;

    /// `POST https://h/x`, `GET h/x`, …
    fn sent(options: RouteOptions, root: &str, request: &str) -> Option<(u16, String)> {
        let mut route = route("shop.example", &[(10_000, "a")]);
        route.path = root.parse().expect("a context root");
        route.options = options;
        let (method, url) = request.split_once(' ').expect("method and URL");
        let (https, rest) = match url.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, url),
        };
        let (authority, target) = rest.split_at(rest.find('/').expect("a path"));
        let asked = Asked {
            https,
            authority: Some(authority),
            host: &target::host_name(authority).expect("a host"),
            method: &method.parse().expect("a method"),
            uri: &target.parse().expect("a URI"),
        };
        let found = elsewhere(&entry_of(&route), &asked, 8_443)?;
        Some((found.status.as_u16(), found.location.to_str().expect("text").to_owned()))
    }

    fn redirect(target: &str) -> RouteOptions {
        let (scheme, rest) = target.split_once("://").expect("a URL");
        let (authority, prefix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (authority, prefix) = (authority.into(), prefix.into());
        let redirect = Redirect { https: scheme == "https", authority, prefix };
        RouteOptions { redirect: Some(redirect), ..RouteOptions::default() }
    }

    #[test]
    fn a_redirect_keeps_path_and_query_and_applies_to_any_scheme() {
        for (target, request, location) in [
            ("http://new.example", "GET shop.example/", Some("http://new.example/")),
            ("http://new.example", "GET shop.example/a?b=c", Some("http://new.example/a?b=c")),
            ("http://new.example", "POST https://shop.example/a", Some("http://new.example/a")),
            (
                "https://new.example:9/b",
                "GET shop.example//x?",
                Some("https://new.example:9/b//x?"),
            ),
            ("https://shop.example", "GET shop.example:8080/a", Some("https://shop.example/a")),
            ("https://shop.example", "GET https://SHOP.example.:8443/a", None),
            (
                "https://shop.example:9",
                "GET https://shop.example:8443/",
                Some("https://shop.example:9/"),
            ),
            ("https://shop.example:443", "GET https://shop.example/", None),
            ("http://shop.example", "GET shop.example/", None),
        ] {
            let found = sent(redirect(target), "/", request);
            let expected = location.map(|location| (302, location.to_owned()));
            assert_eq!(found, expected, "{request} to {target}");
        }
    }

    #[test]
    fn plain_http_is_sent_to_https_where_asked() {
        let only = || RouteOptions { ssl_only: true, ..RouteOptions::default() };
        let there = |status, target| Some((status, format!("https://shop.example:8443{target}")));
        assert_eq!(sent(only(), "/", "GET shop.example:80/a?b"), there(302, "/a?b"));
        assert_eq!(sent(only(), "/", "HEAD shop.example/"), there(302, "/"));
        assert_eq!(sent(only(), "/", "POST shop.example/a"), there(307, "/a"));
        assert_eq!(sent(only(), "/", "OPTIONS shop.example/"), there(307, "/"));
        assert_eq!(sent(only(), "/", "GET https://shop.example/a"), None);
        // Never back and forth.
        let both = RouteOptions { ssl_only: true, ..redirect("http://shop.example") };
        assert_eq!(sent(both.clone(), "/", "GET shop.example/"), there(302, "/"));
        assert_eq!(sent(both, "/", "GET https://shop.example/"), None);
    }

    #[test]
    fn a_root_that_is_taken_off_gets_its_slash() {
        let rewrite = || RouteOptions { rewrite: true, ..RouteOptions::default() };
        for (root, request, location) in [
            ("/app", "GET shop.example/app", Some("/app/")),
            ("/app", "HEAD shop.example/app?b=c", Some("/app/?b=c")),
            ("/app", "POST shop.example/app", None),
            ("/app", "GET shop.example/app/", None),
            ("/app", "GET shop.example/app/x", None),
            ("/", "GET shop.example/", None),
        ] {
            let expected = location.map(|location| (301, location.to_owned()));
            assert_eq!(sent(rewrite(), root, request), expected, "{request}");
        }
        let plain = RouteOptions::default();
        assert_eq!(sent(plain, "/app", "GET shop.example/app"), None);
    }
}
