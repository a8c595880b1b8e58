//! Which upstream a user stays on: the same on every proxy, with nothing shared.
//!
//! Rendezvous hashing. Every service, and then every upstream of the chosen service,
//! draws a number for the user; the best one wins. So an upstream that goes away
//! moves its own users only, each to whoever came second for that user, and one that
//! comes takes its part evenly from the others. Services draw by their shares: a user
//! changes sides only as far as the shares change.
//!
//! The numbers must be equal on every machine and in every release. Names and users
//! are hashed with BLAKE3, whose output is specified for good and which is linked
//! anyway; that is once per user's request, and once per upstream and table. Per
//! candidate only two integers are mixed. Logarithms are made of the basic operations
//! alone, which IEEE 754 rounds alike everywhere; a library's `ln` is free to differ.

use std::net::IpAddr;

use dovetail_routing::names::CookieName;
use dovetail_routing::snapshot::Sticky;
use http::HeaderMap;
use http::header::COOKIE;

use crate::table::{Options, RouteEntry};

/// The number of a name or a user.
pub fn number(bytes: &[u8]) -> u64 {
    let hash = blake3::hash(bytes);
    hash.as_bytes().iter().take(8).rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// The user of a request, if the route keeps users and the request says who it is.
///
/// The whole address of a client counts: it is not shortened to a network.
pub fn user(
    entry: &RouteEntry,
    options: &Options,
    headers: &HeaderMap,
    client: IpAddr,
) -> Option<u64> {
    match &entry.route.options.sticky {
        Sticky::None if !options.ip_hash => None,
        Sticky::Cookie(name) => cookie(headers, name).map(number),
        Sticky::None | Sticky::ClientIp => Some(match client.to_canonical() {
            IpAddr::V4(v4) => number(&v4.octets()),
            IpAddr::V6(v6) => number(&v6.octets()),
        }),
    }
}

/// The value of a cookie: the first one of this name that is not empty.
pub fn cookie<'h>(headers: &'h HeaderMap, name: &CookieName) -> Option<&'h [u8]> {
    let pairs = headers.get_all(COOKIE).iter();
    pairs.flat_map(|value| value.as_bytes().split(|&byte| byte == b';')).find_map(|pair| {
        let pair = pair.trim_ascii();
        let value = pair.strip_prefix(name.as_str().as_bytes())?.strip_prefix(b"=")?;
        (!value.is_empty()).then_some(value)
    })
}

/// What `place` draws for `user`: any two places draw independently.
fn draw(user: u64, place: u64) -> u64 {
    mix(mix(user ^ place.rotate_left(32)).wrapping_add(place))
}

/// The finaliser of SplitMix64: every bit of the input reaches every bit of the output.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// How far a service is from winning: an exponential variable whose rate is its share.
#[expect(clippy::cast_precision_loss, reason = "53 bits fit a double")]
fn distance(user: u64, service: u64, share: u16) -> f64 {
    // Evenly spread over (0, 1].
    let fraction = (draw(user, service) >> 11) + 1;
    let exponent = fraction.ilog2();
    let mantissa = fraction as f64 / (1_u64 << exponent) as f64;
    (f64::from(53 - exponent) * std::f64::consts::LN_2 - ln(mantissa)) / f64::from(share.max(1))
}

/// The natural logarithm of a number from 1 to 2: `2 artanh((x-1)/(x+1))`.
fn ln(x: f64) -> f64 {
    let ratio = (x - 1.0) / (x + 1.0);
    let square = ratio * ratio;
    let (mut sum, mut power, mut odd) = (0.0, ratio, 1.0);
    while odd < 25.0 {
        sum += power / odd;
        power *= square;
        odd += 2.0;
    }
    2.0 * sum
}

impl RouteEntry {
    /// The position of the upstream that `user` is to have, of those that are eligible.
    pub(crate) fn rendezvous(&self, user: u64, eligible: impl Fn(usize) -> bool) -> Option<usize> {
        let mut nearest: Option<(f64, usize)> = None;
        let mut positions = (0..self.candidates.len()).peekable();
        // The candidates of a service stand together.
        while let Some(&first) = positions.peek() {
            let service = self.candidates[first].service;
            let mut best: Option<(u64, usize)> = None;
            while let Some(position) =
                positions.next_if(|&position| self.candidates[position].service == service)
            {
                if !eligible(position) {
                    continue;
                }
                let drawn = draw(user, self.candidates[position].upstream.place);
                if best.is_none_or(|(most, _)| drawn > most) {
                    best = Some((drawn, position));
                }
            }
            let Some((_, position)) = best else { continue };
            let share = self.route.services[service].weight;
            let distance = distance(user, self.places[service], share);
            if nearest.is_none_or(|(least, _)| distance < least) {
                nearest = Some((distance, position));
            }
        }
        nearest.map(|(_, position)| position)
    }
}

#[cfg(test)]
mod tests;
