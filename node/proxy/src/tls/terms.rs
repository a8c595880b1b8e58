//! What all hosts of the proxy have in common in a handshake: versions, ciphers, tickets.

use std::sync::Arc;

use dovetail_routing::entry::{ProxyOptions, SslProtocols, SslVerify};
use dovetail_routing::names::SecretName;
use rustls::crypto::CryptoProvider;
use rustls::server::{NoClientAuth, NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use rustls::{NamedGroup, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};

use super::pair::Pair;
use super::provider;
use super::table::HostTls;

/// The options that a handshake depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    protocols: SslProtocols,
    ciphers: Vec<Arc<str>>,
    verify: SslVerify,
}

impl Settings {
    pub(super) fn of(options: &ProxyOptions) -> Self {
        Self {
            protocols: options.ssl_protocols,
            ciphers: options.ssl_ciphers.clone(),
            verify: options.ssl_verify,
        }
    }
}

/// Settings, made ready for building configurations.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) settings: Settings,
    provider: Arc<CryptoProvider>,
    /// Ciphers that are configured, and that the library does not have.
    pub(super) unknown_ciphers: Vec<Arc<str>>,
}

impl Terms {
    pub(super) fn new(settings: Settings) -> Self {
        let mut provider = provider();
        // The hybrid group first, as browsers have it: what is recorded today stays secret.
        provider.kx_groups.sort_by_key(|group| group.name() != NamedGroup::X25519MLKEM768);
        // AES with 128 bits first: what every machine of today has in hardware.
        let mut offered = provider.cipher_suites.clone();
        offered.sort_by_key(|suite| !iana_name(suite).contains("AES_128"));
        let of_name =
            |name: &Arc<str>| offered.iter().copied().find(|suite| iana_name(suite) == **name);
        let unknown_ciphers =
            settings.ciphers.iter().filter(|name| of_name(name).is_none()).cloned().collect();
        let mut suites: Vec<_> = settings.ciphers.iter().filter_map(of_name).collect();
        // NGINX's option never reached TLS 1.3: a version that the list does not name
        // keeps the library's own ciphers.
        for version in [&TLS13, &TLS12] {
            let is_of = |suite: &SupportedCipherSuite| suite.version().version == version.version;
            if !suites.iter().any(is_of) {
                suites.extend(offered.iter().copied().filter(is_of));
            }
        }
        provider.cipher_suites = suites;
        Self { settings, provider: Arc::new(provider), unknown_ciphers }
    }

    fn versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        static TLS12_ONLY: &[&SupportedProtocolVersion] = &[&TLS12];
        static TLS13_ONLY: &[&SupportedProtocolVersion] = &[&TLS13];
        match self.settings.protocols {
            SslProtocols::Both => rustls::ALL_VERSIONS,
            SslProtocols::Tls12 => TLS12_ONLY,
            SslProtocols::Tls13 => TLS13_ONLY,
        }
    }

    /// The authorities by which clients are checked, of those that a label names.
    pub(super) fn asked(&self, client_ca: Option<&SecretName>) -> Option<SecretName> {
        client_ca.filter(|_| self.settings.verify != SslVerify::None).cloned()
    }

    /// Makes of a pair what a handshake needs.
    ///
    /// `shared_tickets` is for hosts that ask clients for no certificate. All others have
    /// tickets of their own, so that no session begun elsewhere is taken up there.
    pub(super) fn host(
        &self,
        pair: &Pair,
        shared_tickets: &Arc<dyn ProducesTickets>,
    ) -> Result<HostTls, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(self.versions())?;
        let client_ca = self.asked(pair.client_ca.as_ref());
        let (verifier, ticketer) = match &pair.authorities {
            Some(authorities) if client_ca.is_some() => {
                let verifier = WebPkiClientVerifier::builder_with_provider(
                    Arc::clone(authorities),
                    Arc::clone(&self.provider),
                );
                let verifier = match self.settings.verify {
                    SslVerify::Optional => verifier.allow_unauthenticated(),
                    _ => verifier,
                };
                let verifier =
                    verifier.build().map_err(|error| rustls::Error::General(error.to_string()))?;
                (verifier, tickets()?)
            }
            _ => (Arc::new(NoClientAuth) as _, Arc::clone(shared_tickets)),
        };
        let mut config = builder
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from((*pair.key).clone())));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ignore_client_order = true;
        // Sessions are in the tickets alone; a memory for each of 10,000 hosts would be large.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = ticketer;
        config.send_tls13_tickets = 1;
        Ok(HostTls { config: Arc::new(config), client_ca })
    }
}

/// Keys for session tickets, which rotate by themselves.
pub(super) fn tickets() -> Result<Arc<dyn ProducesTickets>, rustls::Error> {
    rustls::crypto::aws_lc_rs::Ticketer::new()
}

/// The name in IANA's registry.
fn iana_name(suite: &SupportedCipherSuite) -> String {
    let name = format!("{:?}", suite.suite());
    name.replacen("TLS13_", "TLS_", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suites(ciphers: &[&str]) -> (Vec<String>, Vec<Arc<str>>) {
        let ciphers = ciphers.iter().map(|name| (*name).into()).collect();
        let terms = Terms::new(Settings { ciphers, ..Settings::default() });
        (terms.provider.cipher_suites.iter().map(iana_name).collect(), terms.unknown_ciphers)
    }

    #[test]
    fn ciphers_are_offered_by_their_names_in_order() {
        let (offered, unknown) = suites(&[
            "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
            "TLS_CHACHA20_POLY1305_SHA256",
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            "TLS_RSA_WITH_AES_128_CBC_SHA",
        ]);
        assert_eq!(
            offered,
            [
                "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
                "TLS_CHACHA20_POLY1305_SHA256",
                "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            ]
        );
        assert_eq!(unknown, ["TLS_RSA_WITH_AES_128_CBC_SHA".into()]);
    }

    #[test]
    fn a_version_that_no_cipher_is_named_for_keeps_its_own() {
        let (offered, unknown) = suites(&["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]);
        let tls13 = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"];
        assert!(tls13.iter().all(|name| offered.iter().any(|known| known == name)), "{offered:?}");
        assert_eq!(offered.iter().filter(|name| name.contains("ECDHE")).count(), 1);
        assert!(unknown.is_empty());
    }
}
