//! What a service's labels ask for: raw text in, an [`Intent`] out, all in one place.
//!
//! A label that publishes (`hosts`, `default_backend`, those of the routing mesh of
//! UCP 2) makes the whole set count: one bad value, and the new intent is invalid, so
//! that the last valid one stays in force.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::fact::{LABEL_VALUE_BYTES_MAX, LabelValue, Network, Scale, Service};
use crate::names::{NetworkId, Port, SecretName};
use crate::problem::Trouble;
use crate::snapshot::{Redirect, RouteHost, Sticky};

mod backend;
mod duration;
mod hrm;
mod intent;
mod known;
mod network;
mod route;
mod tls;

pub(crate) use intent::{BackendMode, HostKey, Intent};
pub(crate) use known::{
    BACKEND_MODE, CLIENT_CA_CERT, CONTEXT_ROOT_REWRITE, DEFAULT_BACKEND, EXCLUSIVE, HOSTS, IP_HASH,
    PORT, REDIRECTS, SERVICE_CLUSTER, SSL_CERT, SSL_KEY, SSL_ONLY, SSL_PASSTHROUGH,
    STICKY_SESSION_COOKIE,
};

use known::{CONTEXT_ROOT, Misspelt, STACK, WEBSOCKET_ENDPOINTS};

/// What is recorded of the objects that labels name.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub(crate) network: &'a dyn Fn(&NetworkId) -> Option<&'a Network>,
    /// Whether Docker has a secret of this name.
    pub(crate) secret: &'a dyn Fn(&str) -> bool,
}

/// What reading a service's labels came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// It asks for nothing to be published.
    Withdrawn,
    Valid(Arc<Intent>),
    /// It asks for something that cannot be: what was in force stays.
    Invalid,
}

/// Reads the labels of a service, and says what is wrong with them.
pub(crate) fn read<'a>(service: &'a Service, seen: Seen<'a>) -> (Reading, Vec<Trouble>) {
    let mut labels = Labels { service, seen, troubles: Vec::new() };
    let reading = labels.read();
    (reading, labels.troubles)
}

/// The stack that deployed a service, if one did.
pub(crate) fn stack(service: &Service) -> Option<&str> {
    match service.labels.get(STACK)? {
        LabelValue::Text(stack) => Some(stack.trim()).filter(|stack| !stack.is_empty()),
        LabelValue::Oversized { .. } => None,
    }
}

/// The names under which a service's labels may mean a secret.
pub(crate) fn secrets_named(service: &Service) -> impl Iterator<Item = String> {
    let given = known::OF_SECRETS.iter().filter_map(|label| match service.labels.get(*label)? {
        LabelValue::Text(name) => Some(name.trim()),
        LabelValue::Oversized { .. } => None,
    });
    given.flat_map(|name| [Some(name.to_owned()), in_stack(service, name)]).flatten()
}

/// The name that `docker stack deploy` gives to what a stack's file calls `name`.
fn in_stack(service: &Service, name: &str) -> Option<String> {
    stack(service).map(|stack| format!("{stack}_{name}"))
}

/// What the labels that publish ask for; those of the mesh say more than hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Asked {
    hosts: BTreeSet<RouteHost>,
    default_backend: bool,
    port: Option<Port>,
    passthrough: bool,
    sticky: Sticky,
    redirects: BTreeMap<RouteHost, Redirect>,
}

struct Labels<'a> {
    service: &'a Service,
    seen: Seen<'a>,
    troubles: Vec<Trouble>,
}

// A value is `None` when it is unusable, which was named; `Some(None)` when it is absent.
impl<'a> Labels<'a> {
    fn read(&mut self) -> Reading {
        let (misspelt, troubles) = known::unknown(&self.service.labels);
        self.troubles.extend(troubles);
        let default_backend = self.boolean(DEFAULT_BACKEND);
        let publishes = self.has(HOSTS) || default_backend != Some(false);
        let hrm = self.hrm_labels();
        if !publishes && hrm.is_empty() {
            if misspelt != Misspelt::None && !self.has(DEFAULT_BACKEND) {
                let reason = "is missing, and so is default_backend: nothing new is published";
                self.trouble(HOSTS, "", reason);
            }
            // One letter too few is no wish to be withdrawn.
            return match misspelt {
                Misspelt::Publishing => Reading::Invalid,
                Misspelt::None | Misspelt::Prefix => Reading::Withdrawn,
            };
        }
        if self.service.scale == Scale::Job {
            let label = if publishes { HOSTS } else { hrm[0] };
            self.trouble(label, "", "the service is a job, and jobs are never routed to");
            return Reading::Withdrawn;
        }
        // All are read before any is given up, so that all troubles are named at once.
        let asked =
            if publishes {
                let asked = self.hosts().zip(default_backend).map(|(hosts, default_backend)| {
                    Asked { hosts, default_backend, ..Asked::default() }
                });
                if let Some(asked) = &asked {
                    self.hrm_beside(&hrm, asked);
                }
                asked
            } else {
                self.hrm(&hrm)
            };
        let path = self.parsed(CONTEXT_ROOT).map(Option::unwrap_or_default);
        let service_cluster = self.parsed(SERVICE_CLUSTER).map(Option::unwrap_or_default);
        let exclusive = self.boolean(EXCLUSIVE);
        let upstreams = self.upstreams(publishes, asked.as_ref());
        let options = self.options(asked.as_ref());
        let tls = self.tls(asked.as_ref(), path.as_ref(), options.as_ref());
        let websockets = self.paths(WEBSOCKET_ENDPOINTS);
        let intent = || {
            websockets?;
            let (asked, mut options) = (asked?, options?);
            let (tls, ssl_only) = tls?;
            options.ssl_only |= ssl_only;
            let mut hosts = asked.hosts;
            hosts.extend(
                options.redirects.keys().filter(|host| **host != RouteHost::Default).cloned(),
            );
            Some(Intent {
                service_cluster: service_cluster?,
                hosts: hosts.into_iter().collect(),
                default_backend: asked.default_backend,
                path: path?,
                tls,
                options,
                exclusive: exclusive?,
                upstreams: upstreams?,
            })
        };
        intent().map_or(Reading::Invalid, |intent| Reading::Valid(Arc::new(intent)))
    }

    fn has(&self, label: &str) -> bool {
        self.service.labels.contains_key(label)
    }

    fn trouble(&mut self, label: &str, value: &str, reason: impl Into<String>) {
        self.troubles.push(Trouble::new(label, value, reason));
    }

    /// Names a label with the value that it has.
    fn refuse(&mut self, label: &str, reason: impl Into<String>) {
        let value = self.service.labels.get(label).map(known::shown).unwrap_or_default();
        self.trouble(label, &value, reason);
    }

    /// Names a label that is right, and does nothing beside another.
    fn has_no_effect(&mut self, label: &str, because: &str) {
        if self.has(label) {
            self.refuse(label, format!("has no effect: {because}"));
        }
    }

    /// The trimmed text of a label.
    fn text(&mut self, label: &str) -> Option<Option<&'a str>> {
        match self.service.labels.get(label) {
            None => Some(None),
            Some(LabelValue::Text(text)) if text.len() <= LABEL_VALUE_BYTES_MAX => {
                Some(Some(text.trim()))
            }
            Some(value) => {
                self.trouble(label, &known::shown(value), known::oversized(value));
                None
            }
        }
    }

    /// A label parsed by its type.
    fn parsed<T>(&mut self, label: &str) -> Option<Option<T>>
    where
        T: std::str::FromStr<Err = crate::names::InvalidName>,
    {
        let Some(text) = self.text(label)? else { return Some(None) };
        match text.parse() {
            Ok(parsed) => Some(Some(parsed)),
            Err(error) => {
                self.trouble(label, text, error.reason());
                None
            }
        }
    }

    /// A label whose values are words.
    fn word<T: Copy>(&mut self, label: &str, words: &[(&str, T)]) -> Option<Option<T>> {
        let Some(text) = self.text(label)? else { return Some(None) };
        let found = words.iter().find(|(word, _)| text.eq_ignore_ascii_case(word));
        if found.is_none() {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            let (last, first) = words.split_last().unwrap_or((&"", &[]));
            let reason = match first {
                [] => format!("must be {last}"),
                first => format!("must be {} or {last}", first.join(", ")),
            };
            self.trouble(label, text, reason);
        }
        found.map(|(_, value)| Some(*value))
    }

    /// `false` when it is absent.
    fn boolean(&mut self, label: &str) -> Option<bool> {
        self.word(label, &[("true", true), ("false", false)]).map(Option::unwrap_or_default)
    }

    /// The name of a secret, in a stack also without the stack's name.
    ///
    /// A secret that Docker does not list is named and taken all the same: it may come
    /// after the service that names it.
    fn secret(&mut self, label: &str) -> Option<Option<SecretName>> {
        let Some(given) = self.parsed::<SecretName>(label)? else { return Some(None) };
        if (self.seen.secret)(given.as_str()) {
            return Some(Some(given));
        }
        let in_stack = in_stack(self.service, given.as_str());
        if let Some(name) = in_stack.as_deref().filter(|name| (self.seen.secret)(name))
            && let Ok(name) = name.parse()
        {
            return Some(Some(name));
        }
        let also = in_stack.map(|name| format!(" or of {name}")).unwrap_or_default();
        let reason = format!("Docker lists no secret of this name{also}: it is waited for");
        self.trouble(label, given.as_str(), reason);
        Some(Some(given))
    }
}
