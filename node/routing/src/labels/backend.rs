//! Labels that say how a service's upstreams are reached, and when one is failing.

use super::intent::{BackendMode, BackendTls, Upstreams};
use super::known::{
    BACKEND_MODE, FAIL_ON, FAIL_TIMEOUT, MAX_FAILS, NETWORK, PORT, PROTOCOL, SSL_BACKEND,
    SSL_BACKEND_CA, SSL_BACKEND_NAME, SSL_BACKEND_TLS_VERIFY,
};
use super::{Asked, Labels, duration, hrm, network};
use crate::fact::EndpointMode;
use crate::names::{Host, NetworkId, Port};
use crate::snapshot::{Dial, RouteHost, UpstreamProtocol};

/// Largest value of `max_fails`.
const MAX_FAILS_MAX: u32 = 1_000_000;

impl Labels<'_> {
    pub(super) fn upstreams(
        &mut self,
        publishes: bool,
        asked: Option<&Asked>,
    ) -> Option<Upstreams> {
        let port = self.port(publishes, asked);
        let network = self.network(publishes);
        let mode = self.backend_mode();
        let tls = self.backend_tls(asked);
        let protocol = self.word(
            PROTOCOL,
            &[
                ("auto", UpstreamProtocol::Auto),
                ("http1", UpstreamProtocol::Http1),
                ("h2c", UpstreamProtocol::Http2),
            ],
        );
        let max_fails = self.max_fails();
        let fail_timeout = self.fail_timeout();
        let fail_on = self.word(FAIL_ON, &[("5xx", ())]);
        let default = Dial::default();
        Some(Upstreams {
            port: port?,
            network: network?,
            mode: mode?,
            tls: tls?,
            protocol: protocol?.unwrap_or(default.protocol),
            max_fails: max_fails?.unwrap_or(default.max_fails),
            fail_timeout: fail_timeout?.unwrap_or(default.fail_timeout),
            fail_on_5xx: fail_on?.is_some(),
        })
    }

    /// `publishes`: labels of Interlock ask for it, whose port has a label of its own.
    fn port(&mut self, publishes: bool, asked: Option<&Asked>) -> Option<Port> {
        match self.parsed(PORT)? {
            Some(port) => Some(port),
            None if publishes => {
                self.trouble(PORT, "", "is missing: no port to dial");
                None
            }
            None => asked?.port,
        }
    }

    fn backend_mode(&mut self) -> Option<BackendMode> {
        match self.text(BACKEND_MODE)? {
            // An early draft of Interlock's documentation says `default`.
            None | Some("task" | "default") => Some(BackendMode::Task),
            Some(text @ "vip") if self.service.endpoint_mode == EndpointMode::Dnsrr => {
                let reason = "the service has no virtual address: its endpoint mode is dnsrr";
                self.trouble(BACKEND_MODE, text, reason);
                None
            }
            Some("vip") => Some(BackendMode::Vip),
            Some(text) => {
                self.trouble(BACKEND_MODE, text, "must be task or vip");
                None
            }
        }
    }

    /// `Some(None)`: each task's only network.
    fn network(&mut self, publishes: bool) -> Option<Option<NetworkId>> {
        let wanted = self.text(NETWORK)?;
        if wanted.is_none() && !publishes {
            let usual = network::choose(self.service, Some(hrm::NETWORK), self.seen.network);
            if let Ok(Some(usual)) = usual {
                return Some(Some(usual));
            }
        }
        match network::choose(self.service, wanted, self.seen.network) {
            Ok(network) => Some(network),
            Err(reason) => {
                self.trouble(NETWORK, wanted.unwrap_or_default(), reason);
                None
            }
        }
    }

    fn backend_tls(&mut self, asked: Option<&Asked>) -> Option<Option<BackendTls>> {
        let wanted = self.boolean(SSL_BACKEND);
        let verified = self.word(
            SSL_BACKEND_TLS_VERIFY,
            &[
                ("required", true),
                ("none", false),
                ("true", true),
                ("verify", true),
                ("false", false),
            ],
        );
        let ca = self.secret(SSL_BACKEND_CA);
        let name = self.parsed::<Host>(SSL_BACKEND_NAME);
        if wanted == Some(false) {
            for label in [SSL_BACKEND_TLS_VERIFY, SSL_BACKEND_CA, SSL_BACKEND_NAME] {
                self.has_no_effect(label, "com.docker.lb.ssl_backend is not true");
            }
        } else if verified == Some(Some(false)) {
            self.has_no_effect(SSL_BACKEND_CA, "ssl_backend_tls_verify turns the check off");
        }
        let (wanted, verified, ca, name) = (wanted?, verified?, ca?, name?);
        if !wanted {
            return Some(None);
        }
        let verified = verified.unwrap_or(true);
        let first = asked?.hosts.iter().find_map(|host| match host {
            RouteHost::Named(host) | RouteHost::Wildcard(host) => Some(host.clone()),
            RouteHost::Default => None,
        });
        let Some(otherwise) = self.service.name.parse().ok().or(first).or_else(|| name.clone())
        else {
            let reason = "is missing: neither the route nor the service has a name to ask for";
            self.trouble(SSL_BACKEND_NAME, "", reason);
            return None;
        };
        Some(Some(BackendTls { verified, ca: ca.filter(|_| verified), name, otherwise }))
    }

    fn max_fails(&mut self) -> Option<Option<u32>> {
        let Some(text) = self.text(MAX_FAILS)? else { return Some(None) };
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse::<u32>().ok().filter(|fails| digits && *fails <= MAX_FAILS_MAX) {
            Some(fails) => Some(Some(fails)),
            None => {
                let reason = format!("must be a whole number from 0 (off) to {MAX_FAILS_MAX}");
                self.trouble(MAX_FAILS, text, reason);
                None
            }
        }
    }

    fn fail_timeout(&mut self) -> Option<Option<std::time::Duration>> {
        let Some(text) = self.text(FAIL_TIMEOUT)? else { return Some(None) };
        match duration::parse(text) {
            Ok(timeout) => Some(Some(timeout)),
            Err(reason) => {
                self.trouble(FAIL_TIMEOUT, text, reason);
                None
            }
        }
    }
}
