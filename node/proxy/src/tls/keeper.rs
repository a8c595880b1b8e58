//! The one writer: which certificates are wanted, which are in force, and what is wrong.
//!
//! A host keeps the certificate in force until another one can be used, across
//! snapshots and across files: nothing that is only wrong now takes a host down.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use dovetail_routing::names::SecretName;
use dovetail_routing::snapshot::{Certificate, RouteHost, Tls};
use rustls::server::ProducesTickets;

use super::pair::{Fault, Pair};
use super::table::{HostTls, Mode, TlsTable};
use super::terms::{Settings, Terms, tickets};
use crate::problems::ProxyProblem;
use crate::secrets::{Secrets, Stamp};
use crate::table::{RouteEntry, RouteTable};

/// A pair in force, and what was made of it.
#[derive(Clone, Debug)]
struct InForce {
    pair: Arc<Pair>,
    tls: Arc<HostTls>,
}

/// A certificate that some host wants, as its files were when they were last read.
#[derive(Debug)]
struct Wanted {
    stamps: Vec<Stamp>,
    found: Result<InForce, Fault>,
}

#[derive(Debug)]
pub(super) struct Keeper {
    secrets: Secrets,
    terms: Terms,
    shared_tickets: Option<Arc<dyn ProducesTickets>>,
    wanted: HashMap<Certificate, Wanted>,
    in_force: HashMap<RouteHost, InForce>,
}

/// The routes of one host that decide on its TLS.
struct HostRoutes<'t> {
    entry: &'t Arc<RouteEntry>,
    certificate: Option<&'t Certificate>,
}

impl Keeper {
    pub(super) fn new(secrets: Secrets) -> Self {
        Self {
            secrets,
            terms: Terms::new(Settings::default()),
            shared_tickets: None,
            wanted: HashMap::new(),
            in_force: HashMap::new(),
        }
    }

    /// Brings everything to what `table` and the files say. Returns nothing when there
    /// is nothing new: the files are as they were, and so is the table.
    pub(super) fn compile(
        &mut self,
        table: &Arc<RouteTable>,
        is_new: bool,
        now: SystemTime,
    ) -> Option<(TlsTable, Vec<ProxyProblem>)> {
        let hosts = tls_hosts(table);
        let settings = Settings::of(&table.snapshot().options);
        let other_terms = settings != self.terms.settings;
        if other_terms {
            self.terms = Terms::new(settings);
        }
        let mut changed = is_new || other_terms;
        let certificates: BTreeSet<&Certificate> =
            hosts.iter().filter_map(|host| host.certificate).collect();
        self.wanted.retain(|certificate, _| certificates.contains(certificate));
        for certificate in certificates {
            changed |= self.load(certificate, now);
        }
        if !changed {
            return None;
        }
        if other_terms {
            self.make_anew();
        }
        Some(self.put_in_force(table, &hosts, now))
    }

    /// Reads a certificate's files, if they may have changed. Returns whether they were read.
    fn load(&mut self, certificate: &Certificate, now: SystemTime) -> bool {
        // Before they are read: a change meanwhile is seen at the next look.
        let stamps = self.stamps(certificate);
        if let Some(known) = self.wanted.get(certificate)
            && known.stamps == stamps
        {
            let due = match &known.found {
                Ok(_) => None,
                Err(fault) => fault.until,
            };
            if due.is_none_or(|due| due > now) {
                return false;
            }
        }
        let found = Pair::load(&self.secrets, certificate, now).and_then(|pair| {
            let pair = Arc::new(pair);
            let tls = self.make(&pair).map_err(|error| Fault {
                label: "com.docker.lb.ssl_cert",
                secret: certificate.cert.clone(),
                reason: error.to_string(),
                until: None,
            })?;
            Ok(InForce { pair, tls })
        });
        self.wanted.insert(certificate.clone(), Wanted { stamps, found });
        true
    }

    fn stamps(&self, certificate: &Certificate) -> Vec<Stamp> {
        let Certificate { cert, key, client_ca } = certificate;
        let names = [Some(cert), key.as_ref(), client_ca.as_ref()];
        names.into_iter().flatten().map(|name: &SecretName| self.secrets.stamp(name)).collect()
    }

    fn make(&mut self, pair: &Pair) -> Result<Arc<HostTls>, rustls::Error> {
        let shared = match &self.shared_tickets {
            Some(shared) => shared,
            None => self.shared_tickets.insert(tickets()?),
        };
        self.terms.host(pair, shared).map(Arc::new)
    }

    /// The terms are others: what was made of the pairs is made again.
    fn make_anew(&mut self) {
        let mut wanted = std::mem::take(&mut self.wanted);
        let mut made: HashMap<*const Pair, Arc<HostTls>> = HashMap::new();
        let mut in_force = std::mem::take(&mut self.in_force);
        let found = wanted.values_mut().filter_map(|wanted| wanted.found.as_mut().ok());
        for known in found.chain(in_force.values_mut()) {
            let at = Arc::as_ptr(&known.pair);
            let tls = match made.get(&at) {
                Some(tls) => Some(Arc::clone(tls)),
                None => self.make(&known.pair).ok(),
            };
            // What was made before is better than nothing.
            if let Some(tls) = tls {
                made.insert(at, Arc::clone(&tls));
                known.tls = tls;
            }
        }
        self.wanted = wanted;
        self.in_force = in_force;
    }

    fn put_in_force(
        &mut self,
        table: &Arc<RouteTable>,
        hosts: &[HostRoutes<'_>],
        now: SystemTime,
    ) -> (TlsTable, Vec<ProxyProblem>) {
        let mut problems = Vec::new();
        for name in &self.terms.unknown_ciphers {
            problems.push(ProxyProblem {
                service: "".into(),
                host: "".into(),
                label: "SSLCiphers".into(),
                value: Arc::clone(name),
                reason: "no such cipher is offered: it is left out".into(),
            });
        }
        let mut before = std::mem::take(&mut self.in_force);
        let mut modes = HashMap::with_capacity(hosts.len());
        for HostRoutes { entry, certificate } in hosts {
            let host = &entry.route.host;
            let Some(certificate) = certificate else {
                modes.insert(host.clone(), Mode::Passthrough(Arc::clone(entry)));
                continue;
            };
            let service = entry.route.services.first().map_or("", |service| &*service.name);
            let problem = |label: &str, value: &SecretName, reason: String| ProxyProblem {
                service: service.into(),
                host: host.to_string().into(),
                label: label.into(),
                value: value.as_str().into(),
                reason: reason.into(),
            };
            let kept = before.remove(host);
            let in_force = match self.wanted.get(*certificate).map(|wanted| &wanted.found) {
                Some(Ok(found)) => {
                    if let Some(complaint) = found.pair.complaint(host, now) {
                        let reason = format!("{complaint}; it is used all the same");
                        problems.push(problem("com.docker.lb.ssl_cert", &certificate.cert, reason));
                    }
                    Some(found.clone())
                }
                Some(Err(fault)) => {
                    // What is to check its clients by others is not served by a check that
                    // is weaker: here alone the change that cannot be made closes the host.
                    let wanted = &certificate.client_ca;
                    let kept =
                        kept.filter(|kept| wanted.is_none() || kept.pair.client_ca == *wanted);
                    let instead = match kept {
                        Some(_) => "the certificate before stays in force",
                        None => "TLS for this host is refused",
                    };
                    let reason = format!("{}; {instead}", fault.reason);
                    problems.push(problem(fault.label, &fault.secret, reason));
                    kept
                }
                None => kept,
            };
            let mode = match in_force {
                Some(found) => {
                    let mode = Mode::Terminate(Arc::clone(&found.tls));
                    self.in_force.insert(host.clone(), found);
                    mode
                }
                None => {
                    Mode::Unusable { client_ca: self.terms.asked(certificate.client_ca.as_ref()) }
                }
            };
            modes.insert(host.clone(), mode);
        }
        (TlsTable::new(Arc::clone(table), modes), problems)
    }

    /// When the first of the certificates in force expires, or has.
    pub(super) fn first_expiry(&self) -> Option<SystemTime> {
        self.in_force.values().map(|known| known.pair.expiry).min()
    }

    /// The first moment after `after` at which a certificate in force expires.
    pub(super) fn next_expiry(&self, after: SystemTime) -> Option<SystemTime> {
        let expiries = self.in_force.values().map(|known| known.pair.expiry);
        expiries.filter(|expiry| *expiry > after).min()
    }
}

/// The hosts that speak TLS. Any of a host's routes may say so: it is the host's.
fn tls_hosts(table: &RouteTable) -> Vec<HostRoutes<'_>> {
    let of_one_host = |a: &Arc<RouteEntry>, b: &Arc<RouteEntry>| a.route.host == b.route.host;
    let decide = |routes: &'_ [Arc<RouteEntry>]| {
        routes.iter().position(|entry| entry.route.tls != Tls::None)
    };
    let groups = table.entries().chunk_by(of_one_host);
    groups
        .filter_map(|routes| {
            let entry = &routes[decide(routes)?];
            let certificate = match &entry.route.tls {
                Tls::Terminate(certificate) => Some(certificate),
                Tls::None | Tls::Passthrough => None,
            };
            Some(HostRoutes { entry, certificate })
        })
        .collect()
}
