//! Where the engine listens and how to reach it, parsed once.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Docker's own ports for TCP without and with TLS.
const PORT_PLAIN: u16 = 2375;
const PORT_TLS: u16 = 2376;

/// What a connection to the engine is built from.
#[derive(Clone, Debug)]
pub struct DockerConfig {
    pub url: DockerUrl,
    /// TLS on TCP when present.
    pub tls: Option<DockerTls>,
    /// The longest that any one call may take, connecting included; lists get more once
    /// they have shown to need it.
    pub timeout: Duration,
}

/// Files of TLS material for the Engine API; read anew for each connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DockerTls {
    /// `TLSCACert`: who signed the engine's certificate.
    pub ca: Option<PathBuf>,
    /// `TLSCert`: who we are; needs `key`.
    pub cert: Option<PathBuf>,
    /// `TLSKey`.
    pub key: Option<PathBuf>,
    /// `AllowInsecure`: the engine's certificate is not checked.
    pub allow_insecure: bool,
}

/// `unix:///PATH` or `tcp://HOST[:PORT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DockerUrl {
    Unix(PathBuf),
    Tcp {
        host: String,
        /// Docker's own port for plain TCP or TLS when absent.
        port: Option<u16>,
    },
}

/// Why a Docker URL was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Docker URL {given:?}: {reason}")]
pub struct InvalidDockerUrl {
    given: String,
    reason: &'static str,
}

impl DockerUrl {
    /// The port to dial, with Docker's default for plain TCP or TLS.
    pub(crate) fn port_or_default(port: Option<u16>, tls: bool) -> u16 {
        port.unwrap_or(if tls { PORT_TLS } else { PORT_PLAIN })
    }
}

impl FromStr for DockerUrl {
    type Err = InvalidDockerUrl;

    fn from_str(given: &str) -> Result<Self, InvalidDockerUrl> {
        let invalid =
            |reason| Err(InvalidDockerUrl { given: given.chars().take(256).collect(), reason });
        if let Some(path) = given.strip_prefix("unix://") {
            if !path.starts_with('/') {
                return invalid("needs an absolute path, such as unix:///var/run/docker.sock");
            }
            return Ok(Self::Unix(path.into()));
        }
        let tcp = ["tcp://", "http://", "https://"].iter().find_map(|p| given.strip_prefix(p));
        let Some(authority) = tcp else {
            return invalid("must start with unix:// or tcp://");
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((host, "")) => (host, None),
                Some((host, port)) => match port.strip_prefix(':') {
                    Some(port) => (host, Some(port)),
                    None => return invalid("has something else than a port after ']'"),
                },
                None => return invalid("has '[' without ']'"),
            },
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        if host.is_empty() {
            return invalid("has no host");
        }
        if !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:%".contains(&b)) {
            return invalid("may hold a host and a port only");
        }
        let port = match port.map(str::parse::<u16>) {
            None => None,
            Some(Ok(port)) if port > 0 => Some(port),
            Some(_) => return invalid("needs a port from 1 to 65535"),
        };
        Ok(Self::Tcp { host: host.to_owned(), port })
    }
}

impl fmt::Display for DockerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port } => {
                let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
                write!(f, "tcp://{open}{host}{close}")?;
                port.map_or(Ok(()), |port| write!(f, ":{port}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_docker_url_is_a_socket_or_a_host() {
        for (given, printed) in [
            ("unix:///var/run/docker.sock", Some("unix:///var/run/docker.sock")),
            ("tcp://manager.internal:2376", Some("tcp://manager.internal:2376")),
            ("tcp://127.0.0.1:2375/", Some("tcp://127.0.0.1:2375")),
            ("tcp://[::1]:2375", Some("tcp://[::1]:2375")),
            ("tcp://manager", Some("tcp://manager")),
            ("unix://docker.sock", None),
            ("/var/run/docker.sock", None),
            ("tcp://", None),
            ("tcp://host:0", None),
            ("tcp://host:99999", None),
            ("tcp://host:2375/v1.41", None),
            ("tcp://[::1]x", None),
            ("tcp://user@host", None),
            ("ssh://host", None),
        ] {
            let parsed = given.parse::<DockerUrl>().ok().map(|url| url.to_string());
            assert_eq!(parsed.as_deref(), printed, "{given:?}");
        }
    }
}
