//! Who is let in: by name and authority as everywhere, and by identity.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use x509_parser::extensions::GeneralName;

use crate::identity::{Identity, SCHEME};

/// Why a certificate, good in itself, is refused for who holds it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    /// The server is not a member.
    #[error("its certificate is {0}, not a member")]
    NotAMember(Identity),
    /// The certificate has no identity, or a broken one.
    #[error("its certificate has no identity: {0}")]
    NoIdentity(String),
}

/// The one `dovetail://` URI of a certificate.
pub(super) fn identity_of(certificate: &CertificateDer<'_>) -> Result<Identity, String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|error| format!("not X.509: {error}"))?;
    let names = parsed
        .subject_alternative_name()
        .map_err(|error| format!("its subject alternative names cannot be read: {error}"))?;
    let names = names.map(|extension| &extension.value.general_names[..]).unwrap_or_default();
    let mut identities = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) if uri.starts_with(SCHEME) => Some(*uri),
        _ => None,
    });
    match (identities.next(), identities.next()) {
        (Some(uri), None) => uri.parse().map_err(|error| format!("{error}")),
        (Some(_), Some(_)) => Err(format!("more than one {SCHEME} URI among its names")),
        (None, _) => Err(format!("no {SCHEME} URI among its subject alternative names")),
    }
}

fn refuse(refused: Refused) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refused))))
}

/// Accepts as a server only a member, and only for the name that was dialled.
#[derive(Debug)]
pub(super) struct MembersOnly(pub(super) Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for MembersOnly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified =
            self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let identity = identity_of(end_entity);
        match (verified, identity) {
            (Ok(verified), Ok(Identity::Member { .. })) => Ok(verified),
            (Ok(_), Ok(other)) => Err(refuse(Refused::NotAMember(other))),
            (Ok(_), Err(reason)) => Err(refuse(Refused::NoIdentity(reason))),
            // Our own leaves that are no member's are no server's either: say the former.
            (
                Err(Error::InvalidCertificate(
                    CertificateError::InvalidPurpose
                    | CertificateError::InvalidPurposeContext { .. },
                )),
                Ok(other),
            ) if other.slot().is_none() => Err(refuse(Refused::NotAMember(other))),
            (Err(error), _) => Err(error),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Accepts as a client whoever has an identity; what it may call is asked later.
#[derive(Debug)]
pub(super) struct IdentifiedClients(pub(super) Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for IdentifiedClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.0.verify_client_cert(end_entity, intermediates, now)?;
        match identity_of(end_entity) {
            Ok(_) => Ok(verified),
            Err(reason) => Err(refuse(Refused::NoIdentity(reason))),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
