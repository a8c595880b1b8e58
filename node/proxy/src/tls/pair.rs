//! A certificate with its key, and the authorities for clients: read, and checked before use.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dovetail_routing::names::SecretName;
use dovetail_routing::snapshot::{Certificate, RouteHost};
use rustls::RootCertStore;
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::extensions::GeneralName;

use super::provider;
use crate::secrets::Secrets;

const CERT: &str = "com.docker.lb.ssl_cert";
const KEY: &str = "com.docker.lb.ssl_key";
const CLIENT_CA: &str = "com.docker.lb.client_ca_cert";

/// A certificate that can be used.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) key: Arc<CertifiedKey>,
    /// Who may sign certificates of clients; `None` where none is asked for.
    pub(super) authorities: Option<Arc<RootCertStore>>,
    pub(super) client_ca: Option<SecretName>,
    /// When it ends to be valid.
    pub(super) expiry: SystemTime,
    /// The names that it is for, in lower case.
    names: Vec<Box<str>>,
}

/// Why a pair cannot be used, in terms of the labels that name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) label: &'static str,
    pub(super) secret: SecretName,
    pub(super) reason: String,
    /// When it may turn good by itself.
    pub(super) until: Option<SystemTime>,
}

impl Pair {
    /// Reads the secrets that `certificate` names, and checks them as of `now`. Blocks.
    pub(super) fn load(
        secrets: &Secrets,
        certificate: &Certificate,
        now: SystemTime,
    ) -> Result<Self, Fault> {
        let in_cert = |reason| Fault::new(CERT, &certificate.cert, reason);
        let cert_pem = read(secrets, CERT, &certificate.cert)?;
        let chain = certificates(&cert_pem).map_err(in_cert)?;
        let leaf = chain.first().ok_or_else(|| in_cert("it holds no PEM certificate".into()))?;
        let Facts { names, not_before, expiry } = facts(leaf).map_err(in_cert)?;
        if expiry < now {
            return Err(in_cert(format!("the certificate expired at {}", rfc3339(expiry))));
        }
        if not_before > now {
            let reason = format!("the certificate is not valid before {}", rfc3339(not_before));
            return Err(Fault { until: Some(not_before), ..in_cert(reason) });
        }
        let key = match &certificate.key {
            Some(name) => {
                let in_key = |reason| Fault::new(KEY, name, reason);
                let key = private_key(&read(secrets, KEY, name)?).map_err(in_key)?;
                certified(chain, key, &certificate.cert).map_err(in_key)?
            }
            None => {
                let key = private_key(&cert_pem).map_err(in_cert)?;
                certified(chain, key, &certificate.cert).map_err(in_cert)?
            }
        };
        let authorities = match &certificate.client_ca {
            Some(name) => {
                let roots = roots(&read(secrets, CLIENT_CA, name)?);
                Some(Arc::new(roots.map_err(|reason| Fault::new(CLIENT_CA, name, reason))?))
            }
            None => None,
        };
        let client_ca = certificate.client_ca.clone();
        Ok(Self { key: Arc::new(key), authorities, client_ca, expiry, names })
    }

    /// What clients will not like about it, on `host` and as of `now`: it is used all the same.
    pub(super) fn complaint(&self, host: &RouteHost, now: SystemTime) -> Option<String> {
        if self.expiry < now {
            return Some(format!("the certificate expired at {}", rfc3339(self.expiry)));
        }
        let host = match host {
            RouteHost::Default => return None,
            named => named.to_string(),
        };
        if self.names.is_empty() {
            let reason =
                "the certificate has no subject alternative name, and clients look at those alone";
            return Some(reason.to_owned());
        }
        if self.names.iter().any(|name| covers(name, &host)) {
            return None;
        }
        let names = self.names.iter().take(5).map(AsRef::as_ref).collect::<Vec<&str>>().join(", ");
        let more = if self.names.len() > 5 { ", …" } else { "" };
        Some(format!("the certificate is for {names}{more}, not for {host}"))
    }
}

impl Fault {
    fn new(label: &'static str, secret: &SecretName, reason: String) -> Self {
        Self { label, secret: secret.clone(), reason, until: None }
    }
}

fn read(secrets: &Secrets, label: &'static str, name: &SecretName) -> Result<Vec<u8>, Fault> {
    secrets.read(name).map_err(|error| Fault::new(label, name, dovetail_process::chain(&error)))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("it is no PEM: {error}"))
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        PemError::NoItemsFound => "it holds no PEM key without a passphrase".to_owned(),
        error => format!("its key is no PEM: {error}"),
    })
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    cert: &SecretName,
) -> Result<CertifiedKey, String> {
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            format!("the key does not match the first certificate of secret {cert}")
        }
        error => format!("the key cannot be used: {error}"),
    })
}

fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(pem)? {
        let added = roots.add(authority);
        added.map_err(|error| format!("it is not the certificate of an authority: {error}"))?;
    }
    if roots.is_empty() { Err("it holds no PEM certificate".to_owned()) } else { Ok(roots) }
}

/// What a certificate says of itself.
struct Facts {
    names: Vec<Box<str>>,
    not_before: SystemTime,
    expiry: SystemTime,
}

fn facts(leaf: &CertificateDer<'_>) -> Result<Facts, String> {
    let parsed = x509_parser::parse_x509_certificate(leaf);
    let (_, parsed) = parsed.map_err(|error| format!("it is no X.509 certificate: {error}"))?;
    let names = parsed.subject_alternative_name().map_err(|error| error.to_string())?;
    let names = names.iter().flat_map(|extension| &extension.value.general_names);
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase().into()),
        _ => None,
    });
    let at = |seconds: i64| UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap_or(0));
    let validity = parsed.validity();
    Ok(Facts {
        names: names.collect(),
        not_before: at(validity.not_before.timestamp()),
        expiry: at(validity.not_after.timestamp()),
    })
}

/// Whether a certificate's name is for `host` (RFC 9525 §6.3): a wildcard stands for one label.
fn covers(name: &str, host: &str) -> bool {
    match (name.strip_prefix("*."), host.split_once('.')) {
        _ if name == host => true,
        (Some(parent), Some((label, rest))) => parent == rest && label != "*",
        _ => false,
    }
}

fn rfc3339(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(&Rfc3339).unwrap_or_else(|_| format!("{time:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_in_a_certificate_stands_for_one_label() {
        for (name, host, covered) in [
            ("shop.example", "shop.example", true),
            ("*.example", "shop.example", true),
            ("*.example", "a.shop.example", false),
            ("*.example", "example", false),
            ("*.example", "*.example", true),
            ("*.example", "*.shop.example", false),
            ("shop.example", "*.shop.example", false),
            ("other.example", "shop.example", false),
        ] {
            assert_eq!(covers(name, host), covered, "{name} {host}");
        }
    }
}
