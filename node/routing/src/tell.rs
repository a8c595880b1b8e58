//! What differs between two forms of a route, in words.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::snapshot::{Route, RouteKey, RouteOptions, RouteService, Sticky, Tls, UpstreamState};
use crate::state::State;

/// Addresses named in one sentence; the rest is counted.
const NAMED_MAX: usize = 4;

/// The routes that are not the same in two states, each with what differs.
pub fn differences(before: &State, after: &State) -> Vec<(RouteKey, Vec<String>)> {
    let mut pairs = BTreeMap::<RouteKey, [Option<Route>; 2]>::new();
    for (side, state) in [before, after].into_iter().enumerate() {
        for service_cluster in state.service_clusters() {
            for route in &state.snapshot(&service_cluster).routes {
                let key = RouteKey {
                    service_cluster: service_cluster.clone(),
                    host: route.host.clone(),
                    path: route.path.clone(),
                };
                pairs.entry(key).or_default()[side] = Some(route.clone());
            }
        }
    }
    let told = pairs.into_iter().filter(|(_, [before, after])| before != after);
    told.map(|(key, [before, after])| (key, difference(before.as_ref(), after.as_ref()))).collect()
}

/// What became of a route, in short sentences; empty when nothing differs.
pub fn difference(before: Option<&Route>, after: Option<&Route>) -> Vec<String> {
    match (before, after) {
        (None, None) => Vec::new(),
        (None, Some(after)) => vec![format!("published by {}", names(after))],
        (Some(before), None) => vec![format!("no longer published (was by {})", names(before))],
        (Some(before), Some(after)) => {
            let mut told = Vec::new();
            services(before, after, &mut told);
            if before.tls != after.tls {
                told.push(format!("TLS {} became {}", tls(&before.tls), tls(&after.tls)));
            }
            options(&before.options, &after.options, &mut told);
            upstreams(before, after, &mut told);
            told
        }
    }
}

fn names(route: &Route) -> String {
    list(route.services.iter().map(|service| service.name.to_string()).collect())
}

fn list(mut words: Vec<String>) -> String {
    let more = words.len().saturating_sub(NAMED_MAX);
    words.truncate(NAMED_MAX);
    if more > 0 {
        words.push(format!("{more} more"));
    }
    words.join(", ")
}

fn services(before: &Route, after: &Route, told: &mut Vec<String>) {
    let named = |route: &Route| {
        route.services.iter().map(|one| Arc::clone(&one.name)).collect::<BTreeSet<Arc<str>>>()
    };
    let (old, new) = (named(before), named(after));
    let came: Vec<_> = new.difference(&old).map(ToString::to_string).collect();
    let went: Vec<_> = old.difference(&new).map(ToString::to_string).collect();
    if !came.is_empty() {
        told.push(format!("{} joined", list(came)));
    }
    if !went.is_empty() {
        told.push(format!("{} left", list(went)));
    }
    let first = |route: &Route| route.services.first().map(|one| Arc::clone(&one.name));
    if let (Some(old), Some(new)) = (first(before), first(after))
        && old != new
    {
        told.push(format!("the incumbent is {new}, was {old}"));
    }
    let weights = |route: &Route| {
        let shown = |one: &RouteService| format!("{} {}", one.name, one.weight);
        route.services.iter().map(shown).collect::<Vec<_>>()
    };
    if weights(before) != weights(after) && (before.services.len() > 1 || after.services.len() > 1)
    {
        told.push(format!("weights are {} (were {})", list(weights(after)), list(weights(before))));
    }
    if old == new && before.services.iter().zip(&after.services).any(|(a, b)| a.dial != b.dial) {
        told.push("upstreams are spoken to in another way".into());
    }
}

fn tls(tls: &Tls) -> String {
    match tls {
        Tls::None => "none".into(),
        Tls::Passthrough => "passthrough".into(),
        Tls::Terminate(certificate) => {
            let of_clients = match &certificate.client_ca {
                Some(authority) => format!(", clients by {authority}"),
                None => String::new(),
            };
            format!("certificate {}{of_clients}", certificate.cert)
        }
    }
}

fn options(before: &RouteOptions, after: &RouteOptions, told: &mut Vec<String>) {
    let mut switched = |was: bool, is: bool, what: &str| {
        if was != is {
            told.push(format!("{what} {}", if is { "on" } else { "off" }));
        }
    };
    switched(before.rewrite, after.rewrite, "context root rewrite");
    switched(before.ssl_only, after.ssl_only, "redirect to HTTPS");
    if before.redirect != after.redirect {
        told.push(match &after.redirect {
            Some(redirect) => format!("redirected to {redirect}"),
            None => "redirected no longer".into(),
        });
    }
    if before.sticky != after.sticky {
        told.push(match &after.sticky {
            Sticky::None => "users are kept on no upstream".into(),
            Sticky::Cookie(name) => format!("users are kept by cookie {}", name.as_str()),
            Sticky::ClientIp => "users are kept by their address".into(),
        });
    }
}

fn upstreams(before: &Route, after: &Route, told: &mut Vec<String>) {
    let in_state = |route: &Route, state: UpstreamState| {
        let all = route.services.iter().flat_map(|service| &service.upstreams);
        all.filter(|one| one.state == state).map(|one| one.address).collect::<BTreeSet<_>>()
    };
    let states = |route: &Route| {
        (in_state(route, UpstreamState::Active), in_state(route, UpstreamState::Draining))
    };
    let ((old, old_draining), (new, new_draining)) = (states(before), states(after));
    let mut tell = |addresses: Vec<String>, what: &str| {
        if !addresses.is_empty() {
            told.push(format!("upstream {} {what}", list(addresses)));
        }
    };
    tell(new.difference(&old).map(ToString::to_string).collect(), "takes requests");
    tell(new_draining.difference(&old_draining).map(ToString::to_string).collect(), "drains");
    let gone = |address: &&std::net::SocketAddr| {
        !new.contains(*address) && !new_draining.contains(*address)
    };
    tell(old.union(&old_draining).filter(gone).map(ToString::to_string).collect(), "is gone");
}
