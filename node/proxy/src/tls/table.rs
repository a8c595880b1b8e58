//! Which host a handshake is for, and what it gets there.

use std::collections::HashMap;
use std::sync::Arc;

use dovetail_routing::names::SecretName;
use dovetail_routing::snapshot::RouteHost;

use super::TlsConfig;
use crate::table::{RouteEntry, RouteTable};

/// A host's certificate, made ready for handshakes. Shared by all hosts that name the same.
#[derive(Debug)]
pub struct HostTls {
    pub config: TlsConfig,
    /// The authorities that clients' certificates are checked by; `None` where no client is asked.
    pub client_ca: Option<SecretName>,
}

/// What becomes of a connection over TLS.
#[derive(Clone, Debug)]
pub enum Mode {
    Terminate(Arc<HostTls>),
    /// Its bytes go to an upstream of this route.
    Passthrough(Arc<RouteEntry>),
    /// No certificate for this host could be used so far.
    Unusable {
        /// As in [`HostTls`], once there is one.
        client_ca: Option<SecretName>,
    },
}

/// The hosts of one route table that speak TLS.
#[derive(Debug, Default)]
pub struct TlsTable {
    table: Option<Arc<RouteTable>>,
    hosts: HashMap<RouteHost, Mode>,
}

impl TlsTable {
    pub(super) fn new(table: Arc<RouteTable>, hosts: HashMap<RouteHost, Mode>) -> Self {
        Self { table: Some(table), hosts }
    }

    /// The routes that its hosts are those of.
    pub fn routes(&self) -> Option<&Arc<RouteTable>> {
        self.table.as_ref()
    }

    /// What a handshake for `name` gets: a lower-case host without a trailing dot.
    ///
    /// The host that fits best counts, as for requests; where that one speaks no TLS, and
    /// where no name was given, the default backend's.
    pub fn find(&self, name: Option<&str>) -> Option<&Mode> {
        let named = name.and_then(|name| self.named(name));
        named.or_else(|| self.hosts.get(&RouteHost::Default))
    }

    /// Whether a request for `host` may come over a connection whose client was checked by
    /// `client_ca`.
    ///
    /// One handshake serves many hosts, but only those that check clients alike: or else a
    /// name that asks nobody would be a way to one that does.
    pub fn may_serve(&self, host: &str, client_ca: Option<&SecretName>) -> bool {
        let known = self.table.as_ref().and_then(|table| table.host(host)?.first());
        let mode = match known {
            Some(entry) => self.hosts.get(&entry.route.host),
            None => self.hosts.get(&RouteHost::Default),
        };
        match mode {
            Some(Mode::Terminate(tls)) => tls.client_ca.as_ref() == client_ca,
            Some(Mode::Unusable { client_ca: wanted }) => wanted.as_ref() == client_ca,
            // Its requests are the application's own to read.
            Some(Mode::Passthrough(_)) => false,
            None => client_ca.is_none(),
        }
    }

    fn named(&self, name: &str) -> Option<&Mode> {
        let routes = self.table.as_ref()?.host(name)?;
        self.hosts.get(&routes.first()?.route.host)
    }
}
