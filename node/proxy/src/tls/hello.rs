//! The first message of a handshake, read without I/O and kept as it came.
//!
//! Whether the proxy terminates or passes through is decided by what it says, so its
//! bytes are recorded: an upstream may have to see exactly these.

use bytes::Bytes;
use rustls::server::{Accepted, Acceptor};

/// Most bytes until the ClientHello has ended: a full record, and a little of a second one.
pub const HELLO_BYTES_MAX: usize = 17 * 1_024;

/// Bytes that begin no handshake.
#[derive(Debug, thiserror::Error)]
pub enum InvalidHello {
    #[error("it is longer than {HELLO_BYTES_MAX} bytes")]
    TooLong,
    #[error("it is not TLS, or no TLS that is spoken here")]
    Tls {
        #[source]
        error: rustls::Error,
        /// What the client is to be told.
        alert: Vec<u8>,
    },
}

/// A ClientHello.
pub struct Hello {
    pub accepted: Accepted,
    /// All bytes that were read so far.
    pub raw: Bytes,
    /// What of them stands behind the ClientHello, and was not taken into `accepted`.
    pub rest: Bytes,
    /// The name that the client asks for (SNI): lower case, without a trailing dot.
    pub name: Option<Box<str>>,
}

impl std::fmt::Debug for Hello {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hello({:?}, {} bytes)", self.name, self.raw.len())
    }
}

/// Takes bytes until a ClientHello has ended.
#[derive(Default)]
pub struct HelloReader {
    acceptor: Acceptor,
    raw: Vec<u8>,
}

impl std::fmt::Debug for HelloReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HelloReader({} bytes)", self.raw.len())
    }
}

impl HelloReader {
    /// Takes more bytes. Not to be called again once it returned a hello or an error.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Option<Hello>, InvalidHello> {
        self.raw.extend_from_slice(bytes);
        let mut rest = bytes;
        while !rest.is_empty() {
            // From memory, only a full buffer fails.
            self.acceptor.read_tls(&mut rest).map_err(|_| InvalidHello::TooLong)?;
            let accepted = self.acceptor.accept().map_err(|(error, mut alert)| {
                let mut bytes = Vec::new();
                // A vector takes all.
                let _ = alert.write_all(&mut bytes);
                InvalidHello::Tls { error, alert: bytes }
            })?;
            if let Some(accepted) = accepted {
                let name = accepted.client_hello().server_name().map(|name| {
                    let name = name.strip_suffix('.').unwrap_or(name);
                    name.to_ascii_lowercase().into_boxed_str()
                });
                let rest = Bytes::copy_from_slice(rest);
                let raw = std::mem::take(&mut self.raw).into();
                return Ok(Some(Hello { accepted, raw, rest, name }));
            }
        }
        if self.raw.len() > HELLO_BYTES_MAX { Err(InvalidHello::TooLong) } else { Ok(None) }
    }
}
