//! What the proxy itself says: the one table from errors to statuses.

use std::net::SocketAddr;
use std::time::Duration;

use dovetail_routing::Revision;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

use crate::body::BodyError;
use crate::dial::DialError;
use crate::framing::Violation;
use crate::headers::{GRPC_MESSAGE, GRPC_STATUS, X_DOVETAIL_ERROR};
use crate::target::InvalidHost;

/// A request that this proxy could not serve.
///
/// `Display` names this level only; the cause is in `source`.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    #[error("no route table is in force yet")]
    NoTable,
    #[error("no route for host {host:?} at revision {revision}")]
    NoRoute { host: String, revision: Revision },
    #[error("no route for this path on host {host:?} at revision {revision}")]
    UnknownPath { host: String, revision: Revision },
    #[error("no running task at revision {revision}")]
    NoUpstream { revision: Revision },
    #[error("connect to upstream {address}")]
    Connect {
        address: SocketAddr,
        #[source]
        error: DialError,
    },
    #[error("upstream {address} took no connection in time")]
    ConnectTimeout {
        address: SocketAddr,
        #[source]
        error: DialError,
    },
    #[error("upstream {address} ended the connection without a response")]
    UpstreamClosed {
        address: SocketAddr,
        #[source]
        error: BodyError,
    },
    #[error("upstream {address} is not reached over TLS")]
    UpstreamTls {
        address: SocketAddr,
        #[source]
        error: DialError,
    },
    #[error("upstream {address} answered with what is no HTTP response")]
    InvalidResponse { address: SocketAddr, reason: String },
    #[error("upstream {address} sent no response within {after:?}")]
    ResponseTimeout { address: SocketAddr, after: Duration },
    #[error("host {host:?} does not check clients as this connection's handshake did")]
    Misdirected { host: String },
    #[error("bad Host")]
    Host(#[source] InvalidHost),
    #[error("the request body is malformed")]
    Framing(#[source] Violation),
    #[error("the client ended the connection within its request")]
    ClientGone,
    #[error("the request body came too slowly")]
    BodyTimeout,
    #[error("the request body is larger than {limit} bytes")]
    BodyTooLarge { limit: u64 },
    #[error("the request target is longer than {limit} bytes")]
    TargetTooLong { limit: usize },
    #[error("method CONNECT is not for a reverse proxy")]
    Connecting,
}

impl ProxyError {
    /// The status that the client sees.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoTable | Self::NoRoute { .. } | Self::NoUpstream { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::UnknownPath { .. } => StatusCode::NOT_FOUND,
            Self::Connect { .. }
            | Self::UpstreamClosed { .. }
            | Self::UpstreamTls { .. }
            | Self::InvalidResponse { .. } => StatusCode::BAD_GATEWAY,
            Self::ConnectTimeout { .. } | Self::ResponseTimeout { .. } => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::Host(_) | Self::Framing(_) | Self::ClientGone => StatusCode::BAD_REQUEST,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Misdirected { .. } => StatusCode::MISDIRECTED_REQUEST,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TargetTooLong { .. } => StatusCode::URI_TOO_LONG,
            Self::Connecting => StatusCode::METHOD_NOT_ALLOWED,
        }
    }

    /// A word for the metric label and the `x-dovetail-error` header: few, stable.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NoTable => "no_table",
            Self::NoRoute { .. } => "no_route",
            Self::UnknownPath { .. } => "unknown_path",
            Self::NoUpstream { .. } => "no_upstream",
            Self::Connect { .. } => "connect",
            Self::ConnectTimeout { .. } => "connect_timeout",
            Self::UpstreamClosed { .. } => "upstream_closed",
            Self::UpstreamTls { .. } => "upstream_tls",
            Self::InvalidResponse { .. } => "invalid_response",
            Self::ResponseTimeout { .. } => "response_timeout",
            Self::Misdirected { .. } => "misdirected",
            Self::Host(_) => "bad_host",
            Self::Framing(_) => "framing",
            Self::ClientGone => "client_gone",
            Self::BodyTimeout => "body_timeout",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::TargetTooLong { .. } => "target_too_long",
            Self::Connecting => "method",
        }
    }

    /// Whether an upstream is to blame, and not its client or the routes.
    pub fn is_upstreams(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::ConnectTimeout { .. }
            | Self::UpstreamClosed { .. }
            | Self::UpstreamTls { .. }
            | Self::InvalidResponse { .. }
            | Self::ResponseTimeout { .. } => true,
            Self::NoTable
            | Self::NoRoute { .. }
            | Self::UnknownPath { .. }
            | Self::NoUpstream { .. }
            | Self::Misdirected { .. }
            | Self::Host(_)
            | Self::Framing(_)
            | Self::ClientGone
            | Self::BodyTimeout
            | Self::BodyTooLarge { .. }
            | Self::TargetTooLong { .. }
            | Self::Connecting => false,
        }
    }

    /// Whether the connection ends with the answer: what follows cannot be trusted,
    /// or is more than the proxy wants to read.
    fn closes(&self) -> bool {
        matches!(
            self,
            Self::Host(_)
                | Self::Framing(_)
                | Self::ClientGone
                | Self::BodyTooLarge { .. }
                | Self::Connecting
        )
    }

    /// What the client reads. Nothing of the request is repeated in it.
    fn text(&self) -> &'static str {
        match self {
            Self::NoTable => "503 this proxy has no routes yet\n",
            Self::NoRoute { .. } => "503 no application is configured for this host\n",
            Self::UnknownPath { .. } => "404 no application is configured for this path\n",
            Self::NoUpstream { .. } => "503 the application has no running task\n",
            Self::Connect { .. } => "502 the application takes no connections\n",
            Self::UpstreamClosed { .. } => "502 the application ended the connection\n",
            Self::UpstreamTls { .. } => "502 the application is not reached over TLS\n",
            Self::InvalidResponse { .. } => "502 the application gave no valid answer\n",
            Self::ConnectTimeout { .. } => "504 the application takes no connections\n",
            Self::ResponseTimeout { .. } => "504 the application did not answer in time\n",
            Self::Misdirected { .. } => "421 this host needs a connection of its own\n",
            Self::Host(_) => "400 bad Host\n",
            Self::Framing(_) => "400 malformed request\n",
            Self::ClientGone => "400 incomplete request\n",
            Self::BodyTimeout => "408 the request body came too slowly\n",
            Self::BodyTooLarge { .. } => "413 the request body is too large\n",
            Self::TargetTooLong { .. } => "414 the request target is too long\n",
            Self::Connecting => "405 CONNECT is not supported\n",
        }
    }

    /// The answer to a gRPC request: clients of gRPC look for its own status, not for
    /// HTTP's, in the head of an answer without a body.
    pub fn grpc_response(&self) -> (Response<()>, &'static str) {
        let (mut response, text) = self.response();
        *response.status_mut() = StatusCode::OK;
        let headers = response.headers_mut();
        headers.remove(RETRY_AFTER);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(GRPC_STATUS, HeaderValue::from_static(self.grpc_status()));
        // Without the status and the line's end; no character of it needs an escape.
        headers.insert(GRPC_MESSAGE, HeaderValue::from_static(text[4..].trim_ascii_end()));
        (response, "")
    }

    /// HTTP's status in gRPC's numbers, as gRPC itself translates it.
    fn grpc_status(&self) -> &'static str {
        match self.status().as_u16() {
            // INTERNAL
            400 => "13",
            // UNIMPLEMENTED
            404 => "12",
            // UNAVAILABLE
            429 | 502 | 503 | 504 => "14",
            // UNKNOWN
            _ => "2",
        }
    }

    /// The answer, and its body.
    pub fn response(&self) -> (Response<()>, &'static str) {
        let mut response = Response::new(());
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(X_DOVETAIL_ERROR, HeaderValue::from_static(self.kind()));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        match self {
            Self::NoTable | Self::NoUpstream { .. } => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::Connecting => {
                headers.insert(
                    ALLOW,
                    HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE"),
                );
            }
            _ => {}
        }
        if self.closes() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        (response, self.text())
    }
}
