//! Which upstream a user stays on: the same on every proxy, with nothing shared.
//!
//! Rendezvous hashing. Every service, and then every upstream of the chosen service,
//! draws a number for the user; the best one wins. So an upstream that goes away
//! moves its own users only, each to whoever came second for that user, and one that
//! comes takes its part evenly from the others. Services draw by their shares: a user
//! changes sides only as far as the shares change.
//!
//! The numbers must be equal on every machine and in every release. Names and users
//! are hashed with BLAKE3, whose output is specified for good; who picks for many requests
//! keeps the numbers, and mixes two integers per candidate. Logarithms are made of the
//! basic operations alone, which IEEE 754 rounds alike everywhere; a library's `ln` is
//! free to differ.

use std::net::{IpAddr, SocketAddr};

use crate::names::{CookieName, TaskId};
use crate::snapshot::{Route, RouteService, Upstream, UpstreamState};

/// The number of a name or a user.
pub fn number(bytes: &[u8]) -> u64 {
    let hash = blake3::hash(bytes);
    hash.as_bytes().iter().take(8).rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// The user that a client's address stands for.
///
/// The whole address counts: it is not shortened to a network.
pub fn user_at(client: IpAddr) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(v4) => number(&v4.octets()),
        IpAddr::V6(v6) => number(&v6.octets()),
    }
}

/// The value of a cookie in the values of `Cookie` headers: the first one of this name that is
/// not empty. It is the user's number once it is given to [`number`].
pub fn cookie<'h>(
    headers: impl IntoIterator<Item = &'h [u8]>,
    name: &CookieName,
) -> Option<&'h [u8]> {
    let pairs = headers.into_iter().flat_map(|value| value.split(|&byte| byte == b';'));
    pairs.into_iter().find_map(|pair| {
        let pair = pair.trim_ascii();
        let value = pair.strip_prefix(name.as_str().as_bytes())?.strip_prefix(b"=")?;
        (!value.is_empty()).then_some(value)
    })
}

/// The number of an upstream: its task's, or its address's where there is none.
pub fn place_of(task: Option<&TaskId>, address: SocketAddr) -> u64 {
    match task {
        Some(task) => number(task.as_str().as_bytes()),
        None => number(address.to_string().as_bytes()),
    }
}

/// Whom `user` gets: of each service its number, its share and the numbers of its upstreams
/// that are eligible, each with what it stands for.
pub fn rendezvous<T>(
    user: u64,
    services: impl IntoIterator<Item = (u64, u16, impl IntoIterator<Item = (u64, T)>)>,
) -> Option<T> {
    let mut nearest: Option<(f64, T)> = None;
    for (service, share, upstreams) in services {
        let mut best: Option<(u64, T)> = None;
        for (place, upstream) in upstreams {
            let drawn = draw(user, place);
            if best.as_ref().is_none_or(|(most, _)| drawn > *most) {
                best = Some((drawn, upstream));
            }
        }
        let Some((_, upstream)) = best else { continue };
        let distance = distance(user, service, share);
        if nearest.as_ref().is_none_or(|(least, _)| distance < *least) {
            nearest = Some((distance, upstream));
        }
    }
    nearest.map(|(_, upstream)| upstream)
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

impl Route {
    /// Where `user` is kept by every proxy that does not find that upstream failing: on an
    /// active upstream, else on a draining one.
    pub fn kept(&self, user: u64) -> Option<(&RouteService, &Upstream)> {
        let of = |state: UpstreamState| {
            let services = self
                .services
                .iter()
                .filter(move |service| service.weight > 0 || state == UpstreamState::Draining);
            rendezvous(
                user,
                services.map(|service| {
                    let upstreams = service.upstreams.iter().filter(move |one| one.state == state);
                    let upstreams = upstreams
                        .map(move |one| (place_of(one.task.as_ref(), one.address), (service, one)));
                    (number(service.name.as_bytes()), service.weight, upstreams)
                }),
            )
        };
        of(UpstreamState::Active).or_else(|| of(UpstreamState::Draining))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_the_same_for_ever() {
        // Written down once: a proxy of another release, or on another machine, must agree.
        let numbers = (number(b"session-1"), draw(1, 2), distance(1, 2, 5_000).to_bits());
        assert_eq!(
            numbers,
            (2_668_808_626_255_430_155, 16_180_857_581_155_539_855, 4_538_357_581_176_071_691)
        );
        for step in 0..=100 {
            let x = 1.0 + f64::from(step) / 100.0;
            assert!((ln(x) - x.ln()).abs() < 1e-12, "ln {x}");
        }
    }
}
