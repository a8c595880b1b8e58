//! Signing with the certificate's key, and checking a signature made long ago.
//!
//! For what is kept as a file and read without the signer: an exported ledger.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::SignatureScheme;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;

use super::files::{self, own_reason, rfc3339};
use super::verify::identity_of;
use super::{TlsDir, provider, reason};
use crate::identity::Identity;

/// What our keys can sign with, best first; those of TLS, so that nothing is invented.
const SCHEMES: &[SignatureScheme] = &[
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
];

/// Some bytes, signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// A TLS signature scheme (RFC 8446, 4.2.3).
    pub scheme: u16,
    /// Certificates in DER, the signer's first.
    pub chain: Vec<Vec<u8>>,
    pub signature: Vec<u8>,
}

impl TlsDir {
    /// Signs `message` with the key in force. Errors say what is wrong with the key.
    pub fn sign(&self, message: &[u8]) -> Result<Signed, String> {
        let certified = self.with_current(|loaded| Arc::clone(&loaded.certified));
        let Some(signer) = certified.key.choose_scheme(SCHEMES) else {
            return Err("the key is of a kind that signs with none of the known schemes".to_owned());
        };
        Ok(Signed {
            scheme: signer.scheme().into(),
            chain: certified.cert.iter().map(|one| one.to_vec()).collect(),
            signature: signer.sign(message).map_err(|error| error.to_string())?,
        })
    }
}

/// Who signed `message`, if the certificate was one of the authorities in the file `ca`
/// and valid at `at`. Asks nobody, and looks at no clock.
pub fn verify_signed(
    ca: &Path,
    message: &[u8],
    signed: &Signed,
    at: SystemTime,
) -> Result<Identity, String> {
    let authorities = files::certificates(ca).map_err(|error| crate::log::chain(&error))?;
    let roots = files::roots(authorities, ca).map_err(|error| crate::log::chain(&error))?;
    let chain: Vec<_> = signed.chain.iter().map(|der| CertificateDer::from(&der[..])).collect();
    let Some((leaf, intermediates)) = chain.split_first() else {
        return Err("there is no certificate with the signature".to_owned());
    };
    let identity = identity_of(leaf)?;
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| format!("{}: {error}", ca.display()))?
        .verify_client_cert(leaf, intermediates, UnixTime::since_unix_epoch(since))
        .map_err(|error| match &error {
            rustls::Error::InvalidCertificate(
                rustls::CertificateError::UnknownIssuer | rustls::CertificateError::BadSignature,
            ) => format!("{} {}", own_reason(&error), ca.display()),
            error => format!("{}, at {}", reason(error), rfc3339(at)),
        })?;

    let (_, parsed) = x509_parser::parse_x509_certificate(leaf)
        .map_err(|error| format!("the signer's certificate is not X.509: {error}"))?;
    let key = &parsed.public_key().subject_public_key.data;
    let scheme = SignatureScheme::from(signed.scheme);
    let provider = provider();
    let known = provider.signature_verification_algorithms.mapping;
    let algorithms = known.iter().find(|(known, _)| *known == scheme).map(|(_, all)| *all);
    let right = algorithms
        .unwrap_or_default()
        .iter()
        .any(|algorithm| algorithm.verify_signature(key, message, &signed.signature).is_ok());
    if !SCHEMES.contains(&scheme) || !right {
        return Err(format!("the signature is not that of {identity}"));
    }
    Ok(identity)
}
