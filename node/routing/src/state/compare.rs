//! Where what a service asks for is not what its routes are: told to whoever came later.

use std::sync::Arc;

use super::State;
use super::force::{Conflict, HostTls, certificate};
use crate::entry::LogIndex;
use crate::labels::{
    CLIENT_CA_CERT, CONTEXT_ROOT_REWRITE, DEFAULT_BACKEND, EXCLUSIVE, HOSTS, IP_HASH, Intent,
    REDIRECTS, SSL_CERT, SSL_KEY, SSL_ONLY, SSL_PASSTHROUGH, STICKY_SESSION_COOKIE,
};
use crate::names::{ContextRoot, ServiceId};
use crate::problem::Trouble;
use crate::snapshot::{Certificate, RouteHost, RouteKey, RouteOptions, Sticky};

/// A route that a service claims and does not serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptOut {
    pub host: RouteHost,
    pub path: ContextRoot,
    /// The name of the service that came first.
    pub owner: Arc<str>,
}

impl State {
    /// Reports where a service differs from the incumbents of its routes and hosts.
    pub(super) fn compare(&mut self, index: LogIndex, id: &ServiceId) {
        let mut troubles = Vec::new();
        if let Some(intent) = self.intents.get(id) {
            for key in intent.keys() {
                self.compare_on(&key, id, intent, &mut troubles);
            }
        }
        self.report(index, id, troubles, |problems| &mut problems.claims);
    }

    fn compare_on(&self, key: &RouteKey, id: &ServiceId, intent: &Intent, to: &mut Vec<Trouble>) {
        // What Swarm says of a held route is not in force whatever it is.
        if self.rollbacks.get(key).is_some() {
            return;
        }
        let Some(host) = self.hosts.get(&key.host_key()) else { return };
        if let Some((conflict, owner)) = self.kept_out_of(key, host, id, intent) {
            to.push(conflict.told(key, intent, host, &self.name(owner)));
            return;
        }
        let Some((claim, granted)) = self.incumbent(key, host) else { return };
        if claim.service != *id {
            differ_on_route(key, intent, granted, &self.name(&claim.service), to);
        }
        if let (Some((owner, in_force)), Some(own)) = (&host.certificate, certificate(intent))
            && owner != id
        {
            differ_on_host(key, own, in_force, &self.name(owner), to);
        }
    }

    /// Why a service does not serve a route that it claims, and who keeps it out.
    fn kept_out_of<'a>(
        &'a self,
        key: &RouteKey,
        host: &'a HostTls,
        id: &ServiceId,
        intent: &'a Intent,
    ) -> Option<(Conflict, &'a ServiceId)> {
        let claim = self.claims.of(key).iter().find(|claim| claim.service == *id)?;
        if let Some(conflict) = host.keeps_out(intent) {
            let owner = match (conflict, &host.certificate) {
                (Conflict::Authorities, Some((owner, _))) => owner,
                _ => &host.owner,
            };
            return Some((conflict, owner));
        }
        let incumbent = self.incumbent(key, host)?;
        let conflict = self.keeps_out(key, incumbent, (claim, intent))?;
        Some((conflict, &incumbent.0.service))
    }

    /// The routes that a service claims and does not serve, each with whoever came first.
    pub fn kept_out(&self, id: &ServiceId) -> Vec<KeptOut> {
        let Some(intent) = self.intents.get(id) else { return Vec::new() };
        let kept_out = |key: RouteKey| {
            if self.rollbacks.get(&key).is_some() {
                return None;
            }
            let host = self.hosts.get(&key.host_key())?;
            let (_, owner) = self.kept_out_of(&key, host, id, intent)?;
            let owner = self.name(owner).into();
            Some(KeptOut { host: key.host, path: key.path, owner })
        };
        intent.keys().filter_map(kept_out).collect()
    }

    fn name(&self, id: &ServiceId) -> String {
        self.facts.services.get(id).map(|service| service.name.to_string()).unwrap_or_default()
    }
}

impl Conflict {
    fn told(self, key: &RouteKey, intent: &Intent, host: &HostTls, owner: &str) -> Trouble {
        let place = format!("{}{}", key.host, key.path);
        let by_host = |reason: String| match &key.host {
            RouteHost::Default => Trouble::new(DEFAULT_BACKEND, "true", reason),
            host => Trouble::new(HOSTS, &host.to_string(), reason),
        };
        let cert = |one: &Certificate| one.cert.to_string();
        match self {
            Self::PassedThrough => by_host(format!(
                "is not in force for {place}: {owner} came first, and its streams are passed \
                 through ({SSL_PASSTHROUGH})"
            )),
            Self::Decrypted => Trouble::new(
                SSL_PASSTHROUGH,
                "true",
                format!(
                    "is not in force for {place}: {owner} came first to {}, and is not passed \
                     through",
                    key.host
                ),
            ),
            Self::Authorities => {
                let own = certificate(intent).and_then(|own| own.client_ca.as_ref());
                let theirs = host.certificate.as_ref().and_then(|(_, one)| one.client_ca.as_ref());
                let theirs = match theirs {
                    Some(theirs) => format!("one that {theirs:?} signed", theirs = theirs.as_str()),
                    None => "none".into(),
                };
                let value = own.map(ToString::to_string).unwrap_or_default();
                let reason = format!(
                    "the service is not in force for {place}: the certificate of {} is {owner}'s, \
                     and asks clients for {theirs}",
                    key.host
                );
                Trouble::new(CLIENT_CA_CERT, &value, reason)
            }
            Self::Mode => match certificate(intent) {
                Some(own) => {
                    let reason = format!(
                        "is not in force for {place}: {owner} came first and has no certificate"
                    );
                    Trouble::new(SSL_CERT, &cert(own), reason)
                }
                None => by_host(format!(
                    "is not in force for {place}: {owner} came first and has a certificate \
                     ({SSL_CERT})"
                )),
            },
            Self::Exclusive => {
                by_host(format!("{place} belongs to {owner}, which has {EXCLUSIVE}=true"))
            }
            Self::OtherStack => by_host(format!(
                "{place} belongs to {owner}, and services of other stacks may not join it \
                 (MergeHosts = stack)"
            )),
            Self::NoMerge => by_host(format!(
                "{place} belongs to {owner}, and no other service may join it (MergeHosts = none)"
            )),
        }
    }
}

/// What a newcomer asks of a route that its incumbent does not grant.
fn differ_on_route(
    key: &RouteKey,
    newcomer: &Intent,
    incumbent: &Intent,
    owner: &str,
    to: &mut Vec<Trouble>,
) {
    let place = format!("{}{}", key.host, key.path);
    if newcomer.exclusive {
        let reason =
            format!("is not in force for {place}: {owner} came first and is not exclusive");
        to.push(Trouble::new(EXCLUSIVE, "true", reason));
    }
    let asked = newcomer.options.of(&key.host);
    let granted = incumbent.options.of(&key.host);
    if asked == granted {
        return;
    }
    for ((label, asked), (_, granted)) in texts(&asked).into_iter().zip(texts(&granted)) {
        differ(label, asked.as_deref(), granted.as_deref(), owner, &place, to);
    }
}

/// What a service asks of its host's certificate that whose it is does not grant.
fn differ_on_host(
    key: &RouteKey,
    asked: &Certificate,
    granted: &Certificate,
    owner: &str,
    to: &mut Vec<Trouble>,
) {
    let place = format!("all of {}", key.host);
    let texts = |one: &Certificate| {
        let name = |one: &Option<crate::names::SecretName>| one.as_ref().map(ToString::to_string);
        [
            (SSL_CERT, Some(one.cert.to_string())),
            (SSL_KEY, name(&one.key)),
            (CLIENT_CA_CERT, name(&one.client_ca)),
        ]
    };
    for ((label, asked), (_, granted)) in texts(asked).into_iter().zip(texts(granted)) {
        differ(label, asked.as_deref(), granted.as_deref(), owner, &place, to);
    }
}

fn differ(
    label: &str,
    asked: Option<&str>,
    granted: Option<&str>,
    owner: &str,
    place: &str,
    to: &mut Vec<Trouble>,
) {
    if asked == granted {
        return;
    }
    let theirs = match granted {
        Some(value) => format!("whose value {value:?} is"),
        None => "which has none, and that is".into(),
    };
    let reason = format!("differs from the incumbent {owner}, {theirs} in force for {place}");
    to.push(Trouble::new(label, asked.unwrap_or_default(), reason));
}

/// Options as labels would say them.
fn texts(options: &RouteOptions) -> [(&'static str, Option<String>); 5] {
    let flag = |set: bool| set.then(|| "true".to_owned());
    let cookie = match &options.sticky {
        Sticky::Cookie(name) => Some(name.to_string()),
        Sticky::None | Sticky::ClientIp => None,
    };
    [
        (CONTEXT_ROOT_REWRITE, flag(options.rewrite)),
        (SSL_ONLY, flag(options.ssl_only)),
        (STICKY_SESSION_COOKIE, cookie),
        (IP_HASH, flag(options.sticky == Sticky::ClientIp)),
        (REDIRECTS, options.redirect.as_ref().map(ToString::to_string)),
    ]
}
