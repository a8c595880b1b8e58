//! TLS towards upstreams: which certificates are taken, and by whose word.
//!
//! Services that ask for the same share one set of terms, and so sessions that can be
//! resumed. Terms are made again when the file of their authorities changes; what was
//! connected under the old ones is then not used any more.
//!
//! Without authorities of its own a service is checked by those of this machine
//! (`/etc/ssl/certs`, `SSL_CERT_FILE`, `SSL_CERT_DIR`). None are compiled in: an
//! operator's own authorities count, withdrawn ones do not live on in an old image, and
//! where there are none the error says so.

mod verify;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use arc_swap::ArcSwap;
use dovetail_process::tls::provider;
use dovetail_routing::names::{Host, SecretName};
use dovetail_routing::snapshot::UpstreamTls;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use self::verify::{ByAuthorities, TakesAnybody};
use crate::dial::DialError;
use crate::problems::ProxyProblem;
use crate::secrets::{Secrets, Stamp};

const SSL_BACKEND_CA: &str = "dovetail.ssl_backend_ca";

/// Who must answer, and the authorities that are asked; `None` is anybody.
type Key = (Host, Option<Option<SecretName>>);

/// One way of speaking TLS to upstreams.
#[derive(Debug)]
pub struct Terms {
    key: Key,
    current: ArcSwap<Made>,
}

/// Terms, made of the files as they were.
#[derive(Debug)]
struct Made {
    /// For keys of pools: never reused in a process, never 0.
    id: u64,
    stamp: Option<Stamp>,
    result: Result<Configs, Arc<str>>,
}

struct Configs {
    name: ServerName<'static>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

impl fmt::Debug for Configs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Configs({:?})", self.name)
    }
}

impl Terms {
    /// What tells connections under these terms from others.
    pub fn id(&self) -> u64 {
        self.current.load().id
    }

    /// Makes a connection secure, for HTTP/2 or for HTTP/1.1.
    pub async fn secure(
        &self,
        tcp: TcpStream,
        http2: bool,
    ) -> Result<TlsStream<TcpStream>, DialError> {
        let made = self.current.load_full();
        let configs = made.result.as_ref().map_err(|why| DialError::Tls(Arc::clone(why)))?;
        let config = if http2 { &configs.http2 } else { &configs.http1 };
        let handshake = TlsConnector::from(Arc::clone(config)).connect(configs.name.clone(), tcp);
        let stream = handshake.await.map_err(|error| DialError::Tls(error.to_string().into()))?;
        if http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(DialError::Tls("it does not offer HTTP/2 (ALPN)".into()));
        }
        Ok(stream)
    }
}

/// All terms that some table still names.
#[derive(Debug, Default)]
pub struct UpstreamTerms {
    secrets: Secrets,
    known: Mutex<HashMap<Key, Weak<Terms>>>,
    made: AtomicU64,
}

impl UpstreamTerms {
    /// Authorities are read from these secrets.
    pub fn new(secrets: Secrets) -> Self {
        Self { secrets, ..Self::default() }
    }

    /// The terms for a service; `None` for one in plain. Reads files.
    pub fn get(&self, asked: &UpstreamTls) -> Option<Arc<Terms>> {
        let key = match asked {
            UpstreamTls::None => return None,
            UpstreamTls::Verified { name, ca } => (name.clone(), Some(ca.clone())),
            UpstreamTls::Unverified { name } => (name.clone(), None),
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(terms) = known.get(&key).and_then(Weak::upgrade) {
            return Some(terms);
        }
        let current = ArcSwap::from_pointee(self.make(&key));
        let terms = Arc::new(Terms { key: key.clone(), current });
        known.insert(key, Arc::downgrade(&terms));
        Some(terms)
    }

    /// Looks at the files, and makes anew what they changed. Returns whether that was
    /// anything. Reads files.
    pub fn look(&self) -> bool {
        let mut changed = false;
        let mut live = Vec::new();
        self.known.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, terms| {
            let upgraded = terms.upgrade();
            live.extend(upgraded.clone());
            upgraded.is_some()
        });
        for terms in live {
            let stamp = self.stamp(&terms.key);
            if stamp != terms.current.load().stamp {
                terms.current.store(Arc::new(self.make(&terms.key)));
                changed = true;
            }
        }
        changed
    }

    /// What is wrong: authorities that cannot be used. Upstreams whose certificates they
    /// are to check are not reached until they can.
    pub fn problems(&self) -> Vec<ProxyProblem> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut problems: Vec<_> = known
            .values()
            .filter_map(Weak::upgrade)
            .collect::<Vec<_>>()
            .iter()
            .filter_map(|terms| {
                let made = terms.current.load();
                let reason = made.result.as_ref().err()?;
                let secret = terms.key.1.as_ref()?.as_ref();
                Some(ProxyProblem {
                    service: "".into(),
                    host: "".into(),
                    label: SSL_BACKEND_CA.into(),
                    value: secret.map_or("", SecretName::as_str).into(),
                    reason: format!("{reason}; {} is not reached", terms.key.0).into(),
                })
            })
            .collect();
        problems.sort();
        problems
    }

    fn stamp(&self, key: &Key) -> Option<Stamp> {
        let (_, Some(Some(secret))) = key else { return None };
        Some(self.secrets.stamp(secret))
    }

    fn make(&self, key: &Key) -> Made {
        // Before it is read: a change meanwhile is seen at the next look.
        let stamp = self.stamp(key);
        let id = self.made.fetch_add(1, Ordering::Relaxed) + 1;
        Made { id, stamp, result: self.configs(key).map_err(Into::into) }
    }

    fn configs(&self, (name, ca): &Key) -> Result<Configs, String> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let mut http1 = match ca {
            None => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(TakesAnybody))
                .with_no_client_auth(),
            Some(ca) => {
                let verifier = match ca {
                    Some(secret) => ByAuthorities::new(self.authorities(secret)?)
                        .map_err(|error| format!("secret {secret}: {error}"))?,
                    None => ByAuthorities::of_this_machine(machine_authorities()?)?,
                };
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(verifier))
                    .with_no_client_auth()
            }
        };
        let name = ServerName::try_from(name.as_str().to_owned())
            .map_err(|_| format!("{name} is no name that a certificate can have"))?;
        let mut http2 = http1.clone();
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        http2.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Configs { name, http1: Arc::new(http1), http2: Arc::new(http2) })
    }

    fn authorities(&self, secret: &SecretName) -> Result<Vec<CertificateDer<'static>>, String> {
        let pem = self.secrets.read(secret).map_err(|error| dovetail_process::chain(&error))?;
        let authorities = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
        let authorities =
            authorities.map_err(|error| format!("secret {secret} is no PEM: {error}"))?;
        if authorities.is_empty() {
            return Err(format!("secret {secret} holds no PEM certificate"));
        }
        Ok(authorities)
    }
}

/// The authorities of this machine, read once.
fn machine_authorities() -> Result<Arc<RootCertStore>, String> {
    static FOUND: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        // One that cannot be read is as good as absent.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    });
    if found.is_empty() {
        return Err("this machine has no authorities: name one with dovetail.ssl_backend_ca".into());
    }
    Ok(Arc::clone(found))
}
