//! Who is in force on a route: what its host decides, its incumbent, who may join.
//!
//! TLS belongs to the host: its oldest claim decides whether it is passed through, and
//! the oldest incumbent that asks for a certificate decides which. What is left of a
//! route's claims follows the oldest of them, the incumbent.

use super::State;
use super::claims::Claim;
use super::cluster::merge_hosts;
use super::line::LineService;
use crate::entry::MergeHosts;
use crate::labels::{self, HostKey, Intent};
use crate::names::ServiceId;
use crate::snapshot::{Certificate, RouteKey, RouteOptions, Tls};

/// What the claims to all paths of a host say of its TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostTls {
    /// The service with the oldest claim.
    pub(super) owner: ServiceId,
    pub(super) passthrough: bool,
    /// The one in force, and whose it is.
    pub(super) certificate: Option<(ServiceId, Certificate)>,
}

/// Why a claim is not in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conflict {
    /// The host is passed through, which the service does not ask for.
    PassedThrough,
    /// The service asks for passthrough, and the host is not passed through.
    Decrypted,
    /// The service asks for certificates of clients that the host does not ask for.
    Authorities,
    /// The service asks for a certificate, the incumbent does not, or the other way.
    Mode,
    Exclusive,
    OtherStack,
    NoMerge,
}

impl HostTls {
    /// Whether the host keeps a service from all of its paths.
    pub(super) fn keeps_out(&self, intent: &Intent) -> Option<Conflict> {
        if is_passthrough(intent) != self.passthrough {
            return Some(if self.passthrough {
                Conflict::PassedThrough
            } else {
                Conflict::Decrypted
            });
        }
        // To serve it without asking would open what it wants to be closed.
        let own = certificate(intent).and_then(|own| own.client_ca.as_ref());
        let (_, in_force) = self.certificate.as_ref()?;
        (own.is_some() && own != in_force.client_ca.as_ref()).then_some(Conflict::Authorities)
    }
}

pub(super) fn is_passthrough(intent: &Intent) -> bool {
    intent.tls == Tls::Passthrough
}

/// The certificate that a service asks for.
pub(super) fn certificate(intent: &Intent) -> Option<&Certificate> {
    match &intent.tls {
        Tls::Terminate(certificate) => Some(certificate),
        Tls::None | Tls::Passthrough => None,
    }
}

/// A service on a route, and what it asks for.
pub(super) type Served<'a> = (&'a ServiceId, &'a Intent);

/// A claim and what its service asks for.
pub(super) type Claimed<'a> = (&'a Claim, &'a Intent);

impl State {
    /// Works out a host's TLS again, and tells whether it differs.
    pub(super) fn settle(&mut self, host: &HostKey) -> bool {
        let new = self.host_tls(host);
        if self.hosts.get(host) == new.as_ref() {
            return false;
        }
        match new {
            Some(new) => self.hosts.insert(host.clone(), new),
            None => self.hosts.remove(host),
        };
        true
    }

    /// What the claims to a host's routes make of its TLS, but for routes that `skipped`
    /// names; of one kind, where that is settled.
    pub(super) fn claimed_tls(
        &self,
        host: &HostKey,
        skipped: impl Fn(&RouteKey) -> bool,
        passthrough: Option<bool>,
    ) -> Option<HostTls> {
        let claimed = || self.claims.on_host(host).map(|(key, _)| key);
        let routes = || claimed().filter(|key| !skipped(key));
        let (claim, intent) =
            routes().filter_map(|key| self.claimed(key).next()).min_by_key(|(claim, _)| *claim)?;
        let passthrough = passthrough.unwrap_or(is_passthrough(intent));
        let incumbents = routes().filter_map(|key| {
            self.claimed(key).find(|(_, intent)| is_passthrough(intent) == passthrough)
        });
        let asking = incumbents.filter_map(|(claim, intent)| Some((claim, certificate(intent)?)));
        let certificate = asking
            .min_by_key(|(claim, _)| *claim)
            .map(|(claim, certificate)| (claim.service.clone(), certificate.clone()));
        Some(HostTls { owner: claim.service.clone(), passthrough, certificate })
    }

    /// The claims to a route with their intents, by age.
    fn claimed<'a>(&'a self, key: &RouteKey) -> impl Iterator<Item = Claimed<'a>> {
        let claims = self.claims.of(key).iter();
        claims.filter_map(|claim| Some((claim, &**self.intents.get(&claim.service)?)))
    }

    /// The oldest claim to a route that its host does not keep out.
    pub(super) fn incumbent(&self, key: &RouteKey, host: &HostTls) -> Option<Claimed<'_>> {
        self.claimed(key).find(|(_, intent)| host.keeps_out(intent).is_none())
    }

    /// Whether the incumbent keeps another service out of its route.
    pub(super) fn keeps_out(
        &self,
        key: &RouteKey,
        incumbent: Claimed<'_>,
        other: Claimed<'_>,
    ) -> Option<Conflict> {
        let ((owner, granted), (claim, asked)) = (incumbent, other);
        if owner.service == claim.service {
            return None;
        }
        if certificate(granted).is_some() != certificate(asked).is_some() {
            return Some(Conflict::Mode);
        }
        if granted.exclusive {
            return Some(Conflict::Exclusive);
        }
        let stack = |id: &ServiceId| self.facts.services.get(id).and_then(|one| labels::stack(one));
        match merge_hosts(self.config.as_deref(), &key.service_cluster) {
            MergeHosts::All => None,
            MergeHosts::Stack => {
                let own = stack(&owner.service);
                (own.is_none() || own != stack(&claim.service)).then_some(Conflict::OtherStack)
            }
            MergeHosts::None => Some(Conflict::NoMerge),
        }
    }

    /// What a route is, and who serves it: nobody when no claim is in force.
    pub(super) fn in_force(&self, key: &RouteKey) -> Option<(Tls, RouteOptions, Vec<LineService>)> {
        if let Some(held) = self.rollbacks.get(key) {
            return self.held_in_force(key, &held.intent);
        }
        let (tls, options, serving) = self.asked(key, self.hosts.get(&key.host_key())?)?;
        let services = serving.into_iter().map(|one| self.line_service(key, one)).collect();
        Some((tls, options, services))
    }

    /// What the claims to a route make of it, under its host's TLS.
    pub(super) fn asked<'a>(
        &'a self,
        key: &'a RouteKey,
        host: &HostTls,
    ) -> Option<(Tls, RouteOptions, Vec<Served<'a>>)> {
        let incumbent = self.incumbent(key, host)?;
        let (_, granted) = incumbent;
        let tls = match (&granted.tls, &host.certificate) {
            (Tls::Terminate(_), Some((_, certificate))) => Tls::Terminate(certificate.clone()),
            (tls, _) => tls.clone(),
        };
        let fitting = self.claimed(key).filter(|(_, intent)| host.keeps_out(intent).is_none());
        let serving = fitting.filter(|one| self.keeps_out(key, incumbent, *one).is_none());
        let serving = serving.map(|(claim, intent)| (&claim.service, intent)).collect();
        Some((tls, granted.options.of(&key.host), serving))
    }

    /// A service as it serves a route.
    pub(super) fn line_service(&self, key: &RouteKey, (id, intent): Served<'_>) -> LineService {
        let name = self.facts.services.get(id).map(|service| service.name.clone());
        LineService {
            id: id.clone(),
            name: name.unwrap_or_default(),
            weight: 0,
            dial: intent.upstreams.dial(&key.host),
            upstreams: self.upstreams.get(id).cloned().unwrap_or_default(),
        }
    }
}
