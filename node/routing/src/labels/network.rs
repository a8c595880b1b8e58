//! Which of a service's networks its upstreams are dialled through.

use crate::fact::{Network, Service};
use crate::names::{NetworkId, NetworkName};

/// The recorded networks.
type Networks<'a> = &'a dyn Fn(&NetworkId) -> Option<&'a Network>;

/// Chooses by the label, or without one the only network there is.
///
/// `Ok(None)` when the service names no network of its own: each task's only one
/// is dialled then, or its port on its swarm node.
pub(super) fn choose(
    service: &Service,
    wanted: Option<&str>,
    networks: Networks<'_>,
) -> Result<Option<NetworkId>, String> {
    let ingress = |id: &NetworkId| networks(id).is_some_and(|network| network.ingress);
    let Some(wanted) = wanted else {
        let mut own = service.networks.iter().filter(|id| !ingress(id));
        return match (own.next(), own.next()) {
            (only, None) => Ok(only.cloned()),
            (_, Some(_)) => Err(format!("is missing: {}", listed(service, networks))),
        };
    };
    let wanted: NetworkName =
        wanted.parse().map_err(|error: crate::names::InvalidName| error.reason().to_owned())?;
    let named = |name: &str| {
        let is_it = |id: &&NetworkId| networks(id).is_some_and(|network| &*network.name == name);
        service.networks.iter().find(is_it)
    };
    let in_stack = || named(&super::in_stack(service, wanted.as_str())?);
    match named(wanted.as_str()).or_else(in_stack) {
        Some(id) if ingress(id) => {
            Err("is the ingress network, through which no task is dialled".into())
        }
        Some(id) => Ok(Some(id.clone())),
        None => Err(format!("is none of the service's networks: {}", listed(service, networks))),
    }
}

/// The service's networks in words, by name where it is known.
fn listed(service: &Service, networks: Networks<'_>) -> String {
    /// More are counted, not named.
    const NAMED_MAX: usize = 10;
    let name = |id: &NetworkId| match networks(id) {
        Some(network) => network.name.to_string(),
        None => format!("{id} (not seen yet)"),
    };
    let names: Vec<_> = service.networks.iter().take(NAMED_MAX).map(name).collect();
    match service.networks.len() {
        0 => "the service is on no network".into(),
        1 => format!("the service is on {}", names.join(", ")),
        count if count > NAMED_MAX => {
            format!("the service is on {count} networks, {} …", names.join(", "))
        }
        count => format!("the service is on {count} networks, {}", names.join(", ")),
    }
}
