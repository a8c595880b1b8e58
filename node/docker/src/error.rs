//! Why the engine gave no answer.

use std::path::PathBuf;
use std::time::Duration;

/// Why a call to the engine gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    #[error("TLS for the Docker API")]
    Tls(#[source] TlsFileError),
    #[error("{call}: connect to {url}")]
    Connect {
        call: &'static str,
        url: String,
        #[source]
        error: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{call}: no answer within {after:?}")]
    Timeout { call: &'static str, after: Duration },
    /// The engine answered, with an error of its own.
    #[error("{call}: engine answered {status}: {message}")]
    Engine { call: &'static str, status: u16, message: String },
    #[error("{call}: connection lost")]
    Lost {
        call: &'static str,
        #[source]
        error: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{call}: unreadable answer")]
    Unreadable {
        call: &'static str,
        #[source]
        error: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{call}: answer is longer than {bytes_max} bytes")]
    TooLong { call: &'static str, bytes_max: usize },
    #[error("engine speaks API {version}, but 1.40 or newer is needed")]
    UnsupportedApi { version: String },
    #[error("engine is no Swarm manager: {reason}")]
    NotAManager { reason: String },
    #[error("{kind} id {id:?} may hold letters and digits only")]
    InvalidId { kind: &'static str, id: String },
}

/// What is wrong with a file of TLS material.
#[derive(Debug, thiserror::Error)]
pub enum TlsFileError {
    #[error("{key} {}: read", path.display())]
    Read {
        key: &'static str,
        path: PathBuf,
        #[source]
        error: std::io::Error,
    },
    #[error("{key} {}: {reason}", path.display())]
    Unusable { key: &'static str, path: PathBuf, reason: String },
    #[error("{0}")]
    Missing(&'static str),
    #[error("no TLS connection can be made of these files")]
    Refused(#[source] rustls::Error),
}

/// An error with its causes, each once, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // hyper-util's name for the step, which the line names already.
        if !text.starts_with("client error (") && !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}
