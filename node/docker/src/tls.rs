//! A rustls client for the Engine API from the files that Docker's own client takes.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::config::DockerTls;
use crate::error::TlsFileError;

/// Reads the files anew, so that renewed ones count from the next connection on.
pub(crate) fn client(tls: &DockerTls) -> Result<Arc<ClientConfig>, TlsFileError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsFileError::Refused)?;
    let builder = if tls.allow_insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Unchecked { provider }))
    } else {
        let Some(ca) = &tls.ca else {
            return Err(TlsFileError::Missing(
                "TLSCACert is needed to check the engine's certificate, or AllowInsecure",
            ));
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates("TLSCACert", ca)? {
            roots.add(certificate).map_err(|error| unusable("TLSCACert", ca, &error))?;
        }
        builder.with_root_certificates(roots)
    };
    let mut config = match (&tls.cert, &tls.key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(key)) => {
            let chain = certificates("TLSCert", cert)?;
            let key = PrivateKeyDer::from_pem_slice(&read("TLSKey", key)?)
                .map_err(|error| unusable("TLSKey", key, &error))?;
            builder.with_client_auth_cert(chain, key).map_err(TlsFileError::Refused)?
        }
        (Some(_), None) => return Err(TlsFileError::Missing("TLSCert needs TLSKey beside it")),
        (None, Some(_)) => return Err(TlsFileError::Missing("TLSKey needs TLSCert beside it")),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, TlsFileError> {
    std::fs::read(path).map_err(|error| TlsFileError::Read { key, path: path.into(), error })
}

fn unusable(key: &'static str, path: &Path, error: &dyn std::error::Error) -> TlsFileError {
    TlsFileError::Unusable { key, path: path.into(), reason: error.to_string() }
}

fn certificates(
    key: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    let pem = read(key, path)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(key, path, &error))?;
    if found.is_empty() {
        let reason = "holds no certificate in PEM".to_owned();
        return Err(TlsFileError::Unusable { key, path: path.to_path_buf(), reason });
    }
    Ok(found)
}

/// `AllowInsecure`: any certificate will do. The signature over the handshake is
/// still checked, which costs nothing and keeps the peer the holder of its key.
#[derive(Debug)]
struct Unchecked {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
