//! How many connections each client has, where that is limited.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use crate::proxy_protocol;
use crate::worker::Shared;

/// Bits of an IPv6 address that tell one client from another: a household has a /64.
const IPV6_PREFIX: u32 = 64;

/// By client.
type Open = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// The open connections of each client, for all threads. Looked at once a connection.
#[derive(Debug, Default)]
pub struct Clients(Open);

/// A client's place among its connections, until dropped.
#[derive(Debug)]
pub struct Place(Option<(Open, IpAddr)>);

impl Clients {
    /// A connection from `peer` begins; `client` is the same, or whom it names. `None` when the
    /// client has too many. A trusted proxy that names nobody speaks for many, and may.
    pub fn enter(&self, shared: &Shared, peer: SocketAddr, client: SocketAddr) -> Option<Place> {
        let limit = shared.limits.connections_per_client_max;
        if limit == 0 {
            return Some(Place(None));
        }
        let table = shared.table.pin();
        let is_trusted =
            |ip| table.as_ref().is_some_and(|table| proxy_protocol::is_trusted(table, ip));
        if peer == client && is_trusted(peer.ip()) {
            return Some(Place(None));
        }
        self.enter_as(network(client.ip()), limit)
    }

    fn enter_as(&self, client: IpAddr, limit: usize) -> Option<Place> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(client).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Place(Some((Arc::clone(&self.0), client))))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((open, client)) = self.0.take() else { return };
        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                open.remove(&client);
            }
        }
    }
}

fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => {
            let mask = u128::MAX << (128 - IPV6_PREFIX);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_so_many_places_and_gets_them_back() {
        let clients = Clients::default();
        let (one, two) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = clients.enter_as(one, 2);
        let second = clients.enter_as(one, 2);
        assert!(first.is_some() && second.is_some());
        assert!(clients.enter_as(one, 2).is_none());
        assert!(clients.enter_as(two, 2).is_some(), "others have theirs");
        drop(first);
        assert!(clients.enter_as(one, 2).is_some());
        drop(second);
        assert!(clients.0.lock().expect("not poisoned").is_empty(), "nothing is kept");
    }

    #[test]
    fn a_client_is_an_address_or_a_network_of_64_bits() {
        let of = |text: &str| network(text.parse().expect("an address")).to_string();
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(of("2001:db8:1:2:3::4"), of("2001:db8:1:2:ffff::1"));
        assert_ne!(of("2001:db8:1:2::"), of("2001:db8:1:3::"));
    }
}
