//! Reading and checking the three files.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::verify::{IdentifiedClients, MembersOnly, identity_of};
use super::{TlsError, provider, reason};
use crate::identity::Identity;

pub(super) const CA: &str = "ca.pem";
pub(super) const CERT: &str = "cert.pem";
pub(super) const KEY: &str = "key.pem";
/// Far above any chain of certificates.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A folder that was read and found good.
pub(super) struct Loaded {
    pub(super) identity: Identity,
    pub(super) server: Arc<ServerConfig>,
    pub(super) client: Arc<ClientConfig>,
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) expiry: SystemTime,
    /// The files as they were *before* they were read: a change meanwhile is seen later.
    pub(super) stamp: Stamp,
}

/// By what a change of the files is noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp([Option<(SystemTime, u64)>; 3]);

impl Stamp {
    pub(super) fn of(dir: &Path) -> Self {
        Self([CA, CERT, KEY].map(|name| {
            // Follows links, which is how Kubernetes and Docker replace files.
            let metadata = fs::metadata(dir.join(name)).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        }))
    }
}

pub(super) fn load(dir: &Path) -> Result<Loaded, TlsError> {
    let stamp = Stamp::of(dir);
    let (ca_path, cert_path, key_path) = (dir.join(CA), dir.join(CERT), dir.join(KEY));
    let authorities = certificates(&ca_path)?;
    let chain = certificates(&cert_path)?;
    let key = key(&key_path)?;
    let Some((leaf, intermediates)) = chain.split_first() else {
        return Err(no_certificate(cert_path));
    };

    let (not_before, expiry) = validity(&cert_path, leaf)?;
    let now = SystemTime::now();
    if expiry < now {
        return Err(TlsError::Expired { path: cert_path, when: rfc3339(expiry) });
    }
    if not_before > now {
        return Err(TlsError::NotYetValid { path: cert_path, when: rfc3339(not_before) });
    }
    let identity = identity_of(leaf)
        .map_err(|reason| TlsError::Identity { path: cert_path.clone(), reason })?;
    let certified = Arc::new(certified_key(chain.clone(), key, &cert_path, &key_path)?);

    let roots = Arc::new(roots(authorities, &ca_path)?);
    let in_ca = |reason: String| TlsError::Certificate { path: ca_path.clone(), reason };
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider())
        .build()
        .map_err(|error| in_ca(error.to_string()))?;
    let servers = WebPkiServerVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|error| in_ca(error.to_string()))?;
    clients.verify_client_cert(leaf, intermediates, UnixTime::now()).map_err(|error| {
        TlsError::NotSigned {
            cert: cert_path.clone(),
            reason: own_reason(&error),
            ca: ca_path.clone(),
        }
    })?;

    let resolver = Arc::new(SingleCertAndKey::from(CertifiedKey::clone(&certified)));
    let in_cert = |error: rustls::Error| TlsError::Certificate {
        path: cert_path.clone(),
        reason: reason(&error),
    };
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(in_cert)?
        .with_client_cert_verifier(Arc::new(IdentifiedClients(clients)))
        .with_cert_resolver(Arc::clone(&resolver) as _);
    server.alpn_protocols = vec![b"h2".to_vec()];
    // Each connection proves anew who it is; a resumed one would not.
    server.send_tls13_tickets = 0;
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(in_cert)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(MembersOnly(servers)))
        .with_client_cert_resolver(resolver);
    client.alpn_protocols = vec![b"h2".to_vec()];
    client.resumption = Resumption::disabled();

    let (server, client) = (Arc::new(server), Arc::new(client));
    Ok(Loaded { identity, server, client, certified, expiry, stamp })
}

/// A point in time as an operator reads it.
pub(super) fn rfc3339(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(&Rfc3339).unwrap_or_else(|_| format!("{time:?}"))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |error| TlsError::Read { path: path.to_owned(), error };
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(TlsError::TooLong { path: path.to_owned(), limit: FILE_BYTES_MAX });
    }
    Ok(bytes)
}

pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::NotPem {
            path: path.to_owned(),
            what: "certificate",
            reason: error.to_string(),
        })?;
    if certificates.is_empty() {
        return Err(no_certificate(path.to_owned()));
    }
    Ok(certificates)
}

fn no_certificate(path: PathBuf) -> TlsError {
    TlsError::NotPem {
        path,
        what: "certificate",
        reason: "there is no -----BEGIN CERTIFICATE-----".to_owned(),
    }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| TlsError::NotPem {
        path: path.to_owned(),
        what: "private key",
        reason: error.to_string(),
    })
}

fn validity(
    path: &Path,
    certificate: &CertificateDer<'_>,
) -> Result<(SystemTime, SystemTime), TlsError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|error| {
        TlsError::Certificate { path: path.to_owned(), reason: format!("not X.509: {error}") }
    })?;
    let at = |seconds: i64| UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap_or(0));
    let validity = parsed.validity();
    Ok((at(validity.not_before.timestamp()), at(validity.not_after.timestamp())))
}

fn certified_key(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    cert_path: &Path,
    key_path: &Path,
) -> Result<CertifiedKey, TlsError> {
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::KeyMismatch { key: key_path.to_owned(), cert: cert_path.to_owned() }
        }
        error => TlsError::Key { path: key_path.to_owned(), reason: error.to_string() },
    })
}

pub(super) fn roots(
    authorities: Vec<CertificateDer<'static>>,
    path: &Path,
) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(|error| TlsError::Certificate {
            path: path.to_owned(),
            reason: format!("not the certificate of an authority: {error}"),
        })?;
    }
    Ok(roots)
}

/// Why our own certificate does not fit our own authority, with `ca.pem` to follow.
pub(super) fn own_reason(error: &rustls::Error) -> String {
    use rustls::CertificateError::{BadSignature, UnknownIssuer};
    match error {
        rustls::Error::InvalidCertificate(UnknownIssuer | BadSignature) => {
            "the certificate is not signed by".to_owned()
        }
        error => format!("{}, checked against", reason(error)),
    }
}
