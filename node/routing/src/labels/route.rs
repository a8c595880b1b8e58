//! Labels that say which requests are a service's, and what becomes of them.

use std::collections::{BTreeMap, BTreeSet};

use super::intent::Options;
use super::known::{
    BACKEND_MODE, CONTEXT_ROOT, CONTEXT_ROOT_REWRITE, HOSTS, IP_HASH, REDIRECTS, SSL_ONLY,
    STICKY_SESSION_COOKIE,
};
use super::{Asked, Labels};
use crate::fact::HOSTS_MAX;
use crate::names::{ContextRoot, CookieName};
use crate::snapshot::{Redirect, RouteHost, Sticky, redirect};

/// Redirects that one service may have.
const REDIRECTS_MAX: usize = 1_000;

impl Labels<'_> {
    pub(super) fn hosts(&mut self) -> Option<BTreeSet<RouteHost>> {
        let Some(text) = self.text(HOSTS)? else { return Some(BTreeSet::new()) };
        let given: Vec<_> = items(text, ',').collect();
        if given.is_empty() {
            self.trouble(HOSTS, text, "names no host");
            return None;
        }
        if given.len() > HOSTS_MAX {
            let reason = format!("names {} hosts, above the limit of {HOSTS_MAX}", given.len());
            self.trouble(HOSTS, text, reason);
            return None;
        }
        let mut hosts = BTreeSet::new();
        let mut refused = false;
        for host in given {
            match host.parse::<RouteHost>() {
                Ok(host) => {
                    hosts.insert(host);
                }
                Err(error) => {
                    self.trouble(HOSTS, host, error.reason());
                    refused = true;
                }
            }
        }
        (!refused).then_some(hosts)
    }

    /// A list of paths, of which nothing but that they are paths is asked.
    pub(super) fn paths(&mut self, label: &str) -> Option<()> {
        let Some(text) = self.text(label)? else { return Some(()) };
        let mut valid = Some(());
        for path in items(text, ',') {
            if let Err(error) = path.parse::<ContextRoot>() {
                self.trouble(label, path, error.reason());
                valid = None;
            }
        }
        valid
    }

    pub(super) fn options(&mut self, asked: Option<&Asked>) -> Option<Options> {
        let rewrite = self.boolean(CONTEXT_ROOT_REWRITE);
        if rewrite == Some(true) && !self.has(CONTEXT_ROOT) {
            self.has_no_effect(CONTEXT_ROOT_REWRITE, "there is no com.docker.lb.context_root");
        }
        let ssl_only = self.boolean(SSL_ONLY);
        let sticky = self.sticky(asked);
        let redirects = self.redirects(asked);
        Some(Options {
            rewrite: rewrite?,
            ssl_only: ssl_only?,
            sticky: sticky?,
            redirects: redirects?,
        })
    }

    fn sticky(&mut self, asked: Option<&Asked>) -> Option<Sticky> {
        let cookie = self.parsed::<CookieName>(STICKY_SESSION_COOKIE);
        let ip_hash = self.boolean(IP_HASH);
        if self.text(BACKEND_MODE) == Some(Some("vip")) {
            let because = "in VIP mode it is Swarm that chooses the task";
            self.has_no_effect(STICKY_SESSION_COOKIE, because);
            if ip_hash == Some(true) {
                self.has_no_effect(IP_HASH, because);
            }
        }
        match (cookie?, ip_hash?) {
            (Some(cookie), true) => {
                let reason = format!("{IP_HASH} is true as well: a route is sticky by one of them");
                self.trouble(STICKY_SESSION_COOKIE, cookie.as_str(), reason);
                None
            }
            (Some(cookie), false) => Some(Sticky::Cookie(cookie)),
            (None, true) => Some(Sticky::ClientIp),
            (None, false) => Some(asked.map(|asked| asked.sticky.clone()).unwrap_or_default()),
        }
    }

    /// Pairs of a host and where its requests are sent: `src,target;src,target;`.
    fn redirects(&mut self, asked: Option<&Asked>) -> Option<BTreeMap<RouteHost, Redirect>> {
        let Some(text) = self.text(REDIRECTS)? else {
            return Some(asked.map(|asked| asked.redirects.clone()).unwrap_or_default());
        };
        let pairs: Vec<_> = items(text, ';').collect();
        if pairs.is_empty() {
            self.trouble(REDIRECTS, text, "names no pair of source and target");
            return None;
        }
        if pairs.len() > REDIRECTS_MAX {
            let reason = format!("has {} pairs, above the limit of {REDIRECTS_MAX}", pairs.len());
            self.trouble(REDIRECTS, text, reason);
            return None;
        }
        let mut redirects = BTreeMap::new();
        let mut valid = true;
        for pair in pairs {
            let added = parse_pair(pair).and_then(|(source, target)| {
                // Without hosts there is nothing to compare with, which was named.
                let covered = asked.is_none_or(|asked| covers(&asked.hosts, &source));
                if !covered {
                    return Err(format!("its source {source} is none of the service's hosts"));
                }
                match redirects.get(&source) {
                    Some(other) if *other != target => {
                        Err(format!("its source {source} is redirected to {other} already"))
                    }
                    _ => {
                        redirects.insert(source, target);
                        Ok(())
                    }
                }
            });
            if let Err(reason) = added {
                self.trouble(REDIRECTS, pair, reason);
                valid = false;
            }
        }
        let hosts = asked.map(|asked| asked.hosts.clone()).unwrap_or_default();
        let sum = redirects.keys().filter(|host| !hosts.contains(*host)).count() + hosts.len();
        if sum > HOSTS_MAX {
            let reason =
                format!("makes {sum} hosts of the service, above the limit of {HOSTS_MAX}");
            self.trouble(REDIRECTS, text, reason);
            return None;
        }
        valid.then_some(redirects)
    }
}

/// The trimmed items of a list, but for empty ones.
pub(super) fn items(list: &str, separator: char) -> impl Iterator<Item = &str> {
    list.split(separator).map(str::trim).filter(|item| !item.is_empty())
}

fn parse_pair(pair: &str) -> Result<(RouteHost, Redirect), String> {
    let Some((source, target)) = pair.split_once(',') else {
        return Err("must be a source and a target with a comma between them".into());
    };
    let (_, host) = redirect::scheme(source.trim());
    let host = host.strip_suffix('/').unwrap_or(host);
    let source = host.parse().map_err(|error: crate::names::InvalidName| {
        format!("its source {host:?} {}", error.reason())
    })?;
    let target = target.trim();
    let target = target.parse().map_err(|error: crate::names::InvalidName| {
        format!("its target {target:?} {}", error.reason())
    })?;
    Ok((source, target))
}

/// Whether a host is among others, or below a wildcard of them.
fn covers(hosts: &BTreeSet<RouteHost>, host: &RouteHost) -> bool {
    if hosts.contains(host) {
        return true;
    }
    let (RouteHost::Named(name) | RouteHost::Wildcard(name)) = host else { return false };
    let mut rest = name.as_str();
    while let Some((_, below)) = rest.split_once('.') {
        if below.parse().is_ok_and(|below| hosts.contains(&RouteHost::Wildcard(below))) {
            return true;
        }
        rest = below;
    }
    false
}
