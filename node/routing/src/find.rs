//! Which route answers a request: exact host, else the longest wildcard, then the
//! longest context root.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use crate::snapshot::{Route, RouteHost, Snapshot};

/// What a request's host and path lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The route at this position of [`Snapshot::routes`].
    Route(usize),
    /// The host has routes, but none whose context root covers the path: 404.
    UnknownPath,
    /// The host has no route, and no default backend covers the path: 503.
    UnknownHost,
}

/// A snapshot compiled for lookup.
#[derive(Clone, Debug, Default)]
pub struct RouteIndex {
    snapshot: Arc<Snapshot>,
    /// The positions at which each host's routes start, sorted by host.
    hosts: Vec<usize>,
    /// The same of each wildcard.
    wildcards: Vec<usize>,
    /// The position of the first route of a wildcard.
    below: usize,
    /// The position of the first default route.
    defaults: usize,
}

impl RouteIndex {
    /// Compiles a snapshot, whose routes are sorted by host and path.
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        let routes = &snapshot.routes;
        let below = routes.partition_point(|route| matches!(route.host, RouteHost::Named(_)));
        let defaults = routes.partition_point(|route| route.host != RouteHost::Default);
        let starts = |position: &usize| {
            *position == 0 || routes[*position].host != routes[*position - 1].host
        };
        let hosts = (0..below).filter(starts).collect();
        let wildcards = (below..defaults).filter(starts).collect();
        Self { hosts, wildcards, below, defaults, snapshot }
    }

    /// The snapshot that it was compiled from.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Finds the route for a lower-case `host` without port, and a path.
    ///
    /// Only the host that fits best counts: where it has no route for the path, no
    /// wildcard and no default backend is asked.
    pub fn find(&self, host: &str, path: &str) -> Found {
        let routes = &self.snapshot.routes;
        match self.host(host) {
            Some(of_host) => {
                longest(routes, of_host, path).map_or(Found::UnknownPath, Found::Route)
            }
            None => longest(routes, self.defaults..routes.len(), path)
                .map_or(Found::UnknownHost, Found::Route),
        }
    }

    /// The positions of all routes of a lower-case host, or of the wildcard that covers it.
    pub fn host(&self, host: &str) -> Option<Range<usize>> {
        let exact = self.range(&self.hosts, self.below, host);
        if exact.is_some() || self.wildcards.is_empty() {
            return exact;
        }
        let mut rest = host;
        while let Some((_, below)) = rest.split_once('.') {
            let found = self.range(&self.wildcards, self.defaults, below);
            if found.is_some() {
                return found;
            }
            rest = below;
        }
        None
    }

    /// The positions of the routes for hosts that are not known.
    pub fn default_host(&self) -> Range<usize> {
        self.defaults..self.snapshot.routes.len()
    }

    fn range(&self, starts: &[usize], end: usize, host: &str) -> Option<Range<usize>> {
        let by_host = |start: &usize| match &self.snapshot.routes[*start].host {
            RouteHost::Named(name) | RouteHost::Wildcard(name) => name.as_str().cmp(host),
            RouteHost::Default => Ordering::Greater,
        };
        let at = starts.binary_search_by(by_host).ok()?;
        Some(starts[at]..starts.get(at + 1).copied().unwrap_or(end))
    }
}

/// The route with the longest context root that covers the path, of one host's sorted routes.
///
/// Roots that cover a path begin it, so whatever sorts between such a root and the
/// path begins with that root, too. So a candidate that does not cover the path
/// still bounds the roots that do: they lie within what both have in common. Each
/// step drops a segment at least, however many routes the host has.
fn longest(routes: &[Route], range: Range<usize>, path: &str) -> Option<usize> {
    let mut below = path;
    loop {
        let after = routes[range.clone()].partition_point(|route| route.path.as_str() <= below);
        let position = range.start + after.checked_sub(1)?;
        let root = &routes[position].path;
        if root.strip(path).is_some() {
            return Some(position);
        }
        below = common_segments(root.as_str(), below)?;
    }
}

/// The longest beginning of `path` in whole segments that `root` begins with, too;
/// `None` when it would be all of `path`, or nothing.
fn common_segments<'p>(root: &str, path: &'p str) -> Option<&'p str> {
    let common = root.bytes().zip(path.bytes()).take_while(|(a, b)| a == b).count();
    let is_whole = path.as_bytes().get(common) == Some(&b'/') && common > 0;
    let end = if is_whole {
        common
    } else {
        path.as_bytes()[..common].iter().rposition(|byte| *byte == b'/')?
    };
    match end {
        // Only the whole host is left.
        0 if path.len() > 1 => Some("/"),
        end if end < path.len() && end > 0 => path.get(..end),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::ContextRoot;
    use crate::snapshot::{RouteOptions, Tls};

    fn index(routes: &[(&str, &str)]) -> RouteIndex {
        let route = |(host, path): &(&str, &str)| Route {
            host: match *host {
                "*" => RouteHost::Default,
                host => host.parse().expect("a host"),
            },
            path: path.parse::<ContextRoot>().expect("a context root"),
            tls: Tls::None,
            options: RouteOptions::default(),
            services: Vec::new(),
        };
        let mut routes: Vec<_> = routes.iter().map(route).collect();
        routes.sort_by(|a, b| (&a.host, &a.path).cmp(&(&b.host, &b.path)));
        RouteIndex::new(Arc::new(Snapshot { routes, ..Snapshot::default() }))
    }

    fn found(index: &RouteIndex, host: &str, path: &str) -> String {
        match index.find(host, path) {
            Found::Route(position) => {
                let route = &index.snapshot().routes[position];
                format!("{}{}", route.host, route.path)
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn the_longest_context_root_of_the_exact_host_wins() {
        let index = index(&[
            ("shop.example", "/app"),
            ("shop.example", "/app/admin"),
            ("shop.example", "/app-b"),
            ("www.example", "/"),
            ("www.example", "/app"),
        ]);
        for (host, path, expected) in [
            ("shop.example", "/app", "shop.example/app"),
            ("shop.example", "/app/x", "shop.example/app"),
            ("shop.example", "/app/admin/x", "shop.example/app/admin"),
            ("shop.example", "/app/administrator", "shop.example/app"),
            ("shop.example", "/app-b/x", "shop.example/app-b"),
            ("shop.example", "/apple", "UnknownPath"),
            ("shop.example", "/", "UnknownPath"),
            ("www.example", "/apple", "www.example/"),
            ("www.example", "/app/", "www.example/app"),
            ("example", "/", "UnknownHost"),
            ("", "/", "UnknownHost"),
        ] {
            assert_eq!(found(&index, host, path), expected, "{host}{path}");
        }
    }

    #[test]
    fn a_default_backend_takes_unknown_hosts_and_never_unknown_paths() {
        let index = index(&[("*", "/"), ("shop.example", "/app")]);
        assert_eq!(found(&index, "other.example", "/x"), "*/");
        assert_eq!(found(&index, "shop.example", "/x"), "UnknownPath");
    }

    #[test]
    fn the_longest_wildcard_covers_what_is_not_named_itself() {
        let index = index(&[
            ("*", "/"),
            ("*.example", "/"),
            ("*.shop.example", "/app"),
            ("www.shop.example", "/"),
        ]);
        for (host, path, expected) in [
            ("www.shop.example", "/x", "www.shop.example/"),
            ("a.shop.example", "/app", "*.shop.example/app"),
            ("a.b.shop.example", "/app", "*.shop.example/app"),
            ("a.shop.example", "/x", "UnknownPath"),
            ("shop.example", "/", "*.example/"),
            ("xshop.example", "/", "*.example/"),
            ("example", "/", "*/"),
            ("other", "/", "*/"),
            (".example", "/", "*.example/"),
        ] {
            assert_eq!(found(&index, host, path), expected, "{host}{path}");
        }
    }

    /// What [`longest`] must agree with: every route is tried.
    fn tried(index: &RouteIndex, path: &str) -> Option<usize> {
        let routes = &index.snapshot().routes;
        (0..routes.len()).rev().find(|&position| routes[position].path.strip(path).is_some())
    }

    #[test]
    fn the_search_agrees_with_trying_every_route() {
        let segments = ["a", "a-b", "ab", "b"];
        let mut paths = vec!["/".to_owned()];
        for one in segments {
            paths.push(format!("/{one}"));
            for two in segments {
                paths.push(format!("/{one}/{two}"));
                paths.extend(segments.map(|three| format!("/{one}/{two}/{three}")));
            }
        }
        // Every fifth, seventh … path is published; every path is asked for.
        for step in [1, 2, 3, 5, 7, 11, 20] {
            for start in 0..step {
                let roots = paths.iter().skip(start).step_by(step);
                let index = index(&roots.map(|root| ("h", root.as_str())).collect::<Vec<_>>());
                for path in &paths {
                    for path in [path.clone(), format!("{path}/"), format!("{path}x")] {
                        let routes = &index.snapshot().routes;
                        let found = longest(routes, 0..routes.len(), &path);
                        assert_eq!(found, tried(&index, &path), "{path} in {step}+{start}");
                    }
                }
            }
        }
        for path in ["", "x", "//", "/é/x", "*"] {
            let index = index(&[("h", "/"), ("h", "/a")]);
            assert_eq!(longest(&index.snapshot().routes, 0..2, path), tried(&index, path));
        }
    }

    #[test]
    fn an_empty_snapshot_knows_no_host() {
        assert_eq!(RouteIndex::default().find("shop.example", "/"), Found::UnknownHost);
    }
}
