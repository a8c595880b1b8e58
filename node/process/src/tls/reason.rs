//! What went wrong in a handshake, in words for an operator.

use rustls::{AlertDescription, CertificateError, Error};

/// The reason of a TLS error, with the peer as its subject.
pub fn reason(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => certificate_reason(error),
        Error::NoCertificatesPresented => "it showed no certificate".to_owned(),
        Error::AlertReceived(alert) => alert_reason(*alert),
        Error::InvalidMessage(_) | Error::InappropriateMessage { .. } => {
            "it does not speak TLS".to_owned()
        }
        Error::PeerIncompatible(error) => format!("it speaks another TLS than 1.3: {error:?}"),
        Error::NoApplicationProtocol => "it does not speak HTTP/2 over TLS".to_owned(),
        error => error.to_string(),
    }
}

fn certificate_reason(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is not signed by ca.pem".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet".to_owned()
        }
        CertificateError::NotValidForName => {
            "its certificate is not valid for this name".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<_> = presented.iter().filter_map(|name| plain_name(name)).collect();
            format!("its certificate is for {}, not for {}", names.join(", "), expected.to_str())
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is not for this purpose".to_owned()
        }
        CertificateError::Other(other) => other.0.to_string(),
        error => format!("its certificate is bad: {error}"),
    }
}

fn alert_reason(alert: AlertDescription) -> String {
    match alert {
        // The latter when the two authorities have the same name.
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "it refused our certificate: not signed by its ca.pem".to_owned()
        }
        AlertDescription::CertificateExpired => {
            "it refused our certificate: expired, by its clock".to_owned()
        }
        AlertDescription::CertificateRequired => {
            "it refused us: it wants a client certificate".to_owned()
        }
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::AccessDenied => format!("it refused our certificate: {alert:?}"),
        alert => format!("it ended the handshake: {alert:?}"),
    }
}

/// `DnsName("a")` and `IpAddress(10.0.0.1)` as the name alone; other kinds say nothing here.
fn plain_name(presented: &str) -> Option<&str> {
    let (kind, rest) = presented.split_once('(')?;
    if !matches!(kind, "DnsName" | "IpAddress") {
        return None;
    }
    Some(rest.strip_suffix(')')?.trim_matches('"'))
}
