//! Which upstream a user stays on: the same on every proxy, with nothing shared.
//!
//! How it is chosen, `dovetail_routing::sticky` says, which the core explains requests by, too.

use std::net::IpAddr;

use dovetail_routing::names::CookieName;
use dovetail_routing::snapshot::Sticky;
pub use dovetail_routing::sticky::number;
use dovetail_routing::sticky::{self, user_at};
use http::HeaderMap;
use http::header::COOKIE;

use crate::table::{Options, RouteEntry};

/// The user of a request, if the route keeps users and the request says who it is.
pub fn user(
    entry: &RouteEntry,
    options: &Options,
    headers: &HeaderMap,
    client: IpAddr,
) -> Option<u64> {
    match &entry.route.options.sticky {
        Sticky::None if !options.ip_hash => None,
        Sticky::Cookie(name) => cookie(headers, name).map(number),
        Sticky::None | Sticky::ClientIp => Some(user_at(client)),
    }
}

/// The value of a cookie: the first one of this name that is not empty.
pub fn cookie<'h>(headers: &'h HeaderMap, name: &CookieName) -> Option<&'h [u8]> {
    sticky::cookie(headers.get_all(COOKIE).iter().map(http::HeaderValue::as_bytes), name)
}

impl RouteEntry {
    /// The position of the upstream that `user` is to have, of those that are eligible.
    pub(crate) fn rendezvous(&self, user: u64, eligible: impl Fn(usize) -> bool) -> Option<usize> {
        let mut position = 0;
        // The candidates of a service stand together.
        let services = self.candidates.chunk_by(|one, next| one.service == next.service);
        sticky::rendezvous(
            user,
            services.map(|candidates| {
                let service = candidates[0].service;
                let positions = position..position + candidates.len();
                position = positions.end;
                let eligible = &eligible;
                let upstreams = positions.zip(candidates).filter(move |(at, _)| eligible(*at));
                let places = upstreams.map(|(at, candidate)| (candidate.upstream.place, at));
                (self.places[service], self.route.services[service].weight, places)
            }),
        )
    }
}

#[cfg(test)]
mod tests;
