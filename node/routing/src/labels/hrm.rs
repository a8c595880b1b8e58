//! Labels of the routing mesh of UCP 2 (HRM), Interlock's predecessor.
//!
//! Each label `com.docker.ucp.mesh.http[.N]` is a route of its own, with a scheme and a
//! port. A service of ours has one port and one kind of TLS, so that labels which ask
//! for several are named, not guessed at.

use std::collections::{BTreeMap, BTreeSet};

use super::known::{PORT, is_hrm};
use super::route::items;
use super::{Asked, Labels};
use crate::fact::HOSTS_MAX;
use crate::names::{CookieName, InvalidName, Port};
use crate::snapshot::{Redirect, RouteHost, Sticky};

/// The network on which the mesh reached services, if not told otherwise.
pub(super) const NETWORK: &str = "ucp-hrm";

/// What one label asks for.
#[derive(Debug)]
struct Route<'a> {
    label: &'a str,
    /// `sni://`, not `http://`.
    passthrough: bool,
    host: RouteHost,
    port: Option<Port>,
    cookie: Option<CookieName>,
    redirect: Option<Redirect>,
}

impl<'a> Labels<'a> {
    /// The labels of this kind that the service has.
    pub(super) fn hrm_labels(&self) -> Vec<&'a str> {
        self.service.labels.keys().map(|label| &**label).filter(|label| is_hrm(label)).collect()
    }

    /// What these labels ask for together.
    pub(super) fn hrm(&mut self, labels: &[&'a str]) -> Option<Asked> {
        if labels.len() > HOSTS_MAX {
            let count = labels.len();
            let reason = format!("is one of {count} such labels, above the limit of {HOSTS_MAX}");
            self.refuse(labels[0], reason);
            return None;
        }
        let routes: Vec<_> = labels.iter().map(|label| self.hrm_route(label)).collect();
        let routes = routes.into_iter().collect::<Option<Vec<_>>>()?;
        // A route that redirects needs no upstream, and so no scheme or port of its own.
        let serving: Vec<_> = routes.iter().filter(|route| route.redirect.is_none()).collect();
        let serving = if serving.is_empty() { routes.iter().collect() } else { serving };
        let passthrough = self.one_of(
            &serving,
            |route| route.passthrough,
            |one, other, label| {
                let scheme = |passthrough| if passthrough { "sni" } else { "http" };
                let (one, other) = (scheme(one), scheme(other));
                format!("asks for {other}, {label} for {one}: a service is published with one")
            },
        );
        let cookie = self.one_of(
            &serving,
            |route| route.cookie.clone(),
            |one, other, label| {
                let name = |cookie: Option<CookieName>| {
                    cookie.map_or("none".to_owned(), |name| name.as_str().to_owned())
                };
                let (one, other) = (name(one), name(other));
                format!("asks for sticky_sessions {other}, {label} for {one}: a service has one")
            },
        );
        let port = self.hrm_port(&serving);
        let redirects = self.hrm_redirects(&routes);
        let hosts: BTreeSet<_> = routes.iter().map(|route| route.host.clone()).collect();
        Some(Asked {
            default_backend: hosts.contains(&RouteHost::Default),
            hosts: hosts.into_iter().filter(|host| *host != RouteHost::Default).collect(),
            passthrough: passthrough?,
            sticky: cookie?.map_or(Sticky::None, Sticky::Cookie),
            port: port?,
            redirects: redirects?,
        })
    }

    /// Names labels of the mesh that publish what Interlock's labels beside them do not.
    ///
    /// UCP 3 wrote the new labels beside the old ones, which then mean nothing more.
    pub(super) fn hrm_beside(&mut self, labels: &[&'a str], asked: &Asked) {
        let before = self.troubles.len();
        let also = self.hrm(labels);
        self.troubles.truncate(before);
        let agrees = also.is_some_and(|also| {
            also.hosts.is_subset(&asked.hosts) && (asked.default_backend || !also.default_backend)
        });
        if !labels.is_empty() && !agrees {
            let reason = "is left aside: there are com.docker.lb labels, which publish other hosts";
            self.refuse(labels[0], reason);
        }
    }

    /// What all routes have in common; of the first that differs it is told why it cannot.
    fn one_of<T: Clone + PartialEq>(
        &mut self,
        routes: &[&Route<'a>],
        of: impl Fn(&Route<'a>) -> T,
        differ: impl Fn(T, T, &str) -> String,
    ) -> Option<T> {
        let (first, others) = routes.split_first()?;
        match others.iter().find(|other| of(other) != of(first)) {
            None => Some(of(first)),
            Some(other) => {
                self.refuse(other.label, differ(of(first), of(other), first.label));
                None
            }
        }
    }

    /// The port of the routes; `Some(None)` when a label of Interlock's says it.
    fn hrm_port(&mut self, routes: &[&Route<'a>]) -> Option<Option<Port>> {
        if self.has(PORT) {
            return Some(None);
        }
        let targets: BTreeSet<_> = self.service.host_ports.iter().map(|port| port.target).collect();
        let only = targets.first().filter(|_| targets.len() == 1);
        let only = only.and_then(|target| Port::new(*target));
        if let Some(without) = routes.iter().find(|route| route.port.or(only).is_none()) {
            self.refuse(without.label, "internal_port is missing: no port to dial");
            return None;
        }
        let shown = |port: Option<Port>| port.map(|port| port.to_string()).unwrap_or_default();
        self.one_of(
            routes,
            |route| route.port.or(only),
            |one, other, label| {
                let (one, other) = (shown(one), shown(other));
                format!("asks for port {other}, {label} for {one}: a service is dialled at one")
            },
        )
    }

    /// Where the routes redirect, by host.
    fn hrm_redirects(&mut self, routes: &[Route<'a>]) -> Option<BTreeMap<RouteHost, Redirect>> {
        // TLS of a host can be passed through while its plain HTTP is redirected.
        let plain = routes.iter().filter(|route| !route.passthrough);
        let mut by_host: BTreeMap<&RouteHost, &Route<'_>> = BTreeMap::new();
        for route in plain {
            if let Some(other) =
                by_host.get(&route.host).filter(|one| one.redirect != route.redirect)
            {
                let reason =
                    format!("does with {} something other than {}", route.host, other.label);
                self.refuse(route.label, reason);
                return None;
            }
            by_host.insert(&route.host, route);
        }
        let redirect =
            |(host, route): (&RouteHost, &Route<'_>)| Some((host.clone(), route.redirect.clone()?));
        Some(by_host.into_iter().filter_map(redirect).collect())
    }

    fn hrm_route(&mut self, label: &'a str) -> Option<Route<'a>> {
        let text = self.text(label)??;
        match parse(label, text) {
            Ok(route) => Some(route),
            Err(reason) => {
                self.trouble(label, text, reason);
                None
            }
        }
    }
}

/// Reads `external_route=http://HOST,internal_port=PORT` and what else may stand there.
fn parse<'a>(label: &'a str, text: &str) -> Result<Route<'a>, String> {
    const KEYS: [&str; 5] =
        ["external_route", "internal_port", "sticky_sessions", "redirect", "include_forwarded_for"];
    let mut given = BTreeMap::new();
    for pair in items(text, ',') {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(format!("{pair:?} is no key=value"));
        };
        let (key, value) = (key.trim(), value.trim());
        if !KEYS.contains(&key) {
            return Err(format!("{key:?} is no key: those are {}", KEYS.join(", ")));
        }
        if given.insert(key, value).is_some() {
            return Err(format!("{key} is given twice"));
        }
    }
    let of = |key| move |error: InvalidName| format!("{key} {}", error.reason());
    let Some(external) = given.get("external_route") else {
        return Err("external_route is missing: no host to publish".into());
    };
    let (passthrough, host) = match external.split_once("://") {
        Some(("http", host)) => (false, host),
        Some(("sni", host)) => (true, host),
        _ => return Err("external_route must begin with http:// or sni://".into()),
    };
    let host = match host.strip_suffix('/').unwrap_or(host) {
        "" => RouteHost::Default,
        host => host.parse().map_err(of("external_route"))?,
    };
    let port = given.get("internal_port").map(|port| port.parse());
    let port = port.transpose().map_err(of("internal_port"))?;
    let cookie = given.get("sticky_sessions").map(|cookie| cookie.parse());
    let cookie = cookie.transpose().map_err(of("sticky_sessions"))?;
    let redirect = given.get("redirect").map(|target| target.parse());
    let redirect = redirect.transpose().map_err(of("redirect"))?;
    if passthrough && (cookie.is_some() || redirect.is_some()) {
        return Err("sticky_sessions and redirect cannot be with sni://".into());
    }
    // The address is always passed on, so that true and false come to the same.
    if let Some(given) = given.get("include_forwarded_for")
        && !["true", "false"].contains(given)
    {
        return Err("include_forwarded_for must be true or false".into());
    }
    Ok(Route { label, passthrough, host, port, cookie, redirect })
}
