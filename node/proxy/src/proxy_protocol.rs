//! The PROXY protocol, versions 1 and 2: a load balancer in front says who the client is.
//!
//! Expected of trusted proxies alone, and then required: a connection of theirs without
//! it could only be somebody who speaks through them. From all others none is taken.

use std::io;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use ppp::{HeaderResult, PartialResult as _, v1, v2};
use tokio::net::TcpStream;

use crate::table::RouteTable;

/// Longest header, in bytes. Version 2 may carry extensions, a certificate's name among them.
pub const HEADER_BYTES_MAX: usize = 4 * 1_024;
/// Longest header of version 1, a line, in bytes (the specification's own figure).
const LINE_BYTES_MAX: usize = 107;

/// Why a connection that must begin with a header is ended.
#[derive(Debug, thiserror::Error)]
pub enum InvalidHeader {
    #[error("the connection does not begin with a PROXY header: {0}")]
    Malformed(String),
    #[error("the PROXY header is longer than {HEADER_BYTES_MAX} bytes")]
    TooLong,
    #[error("the connection ended within its PROXY header")]
    Closed,
    #[error("read the PROXY header")]
    Read(#[source] io::Error),
}

/// A header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// How long it is, in bytes.
    pub length: usize,
    /// Whom it names; nobody where the load balancer speaks for itself, as in a check
    /// of its own, or does not know.
    pub client: Option<SocketAddr>,
}

/// Whether a connection from `peer` begins with a header.
pub fn is_expected(table: &RouteTable, peer: IpAddr) -> bool {
    let options = &table.snapshot().options;
    options.proxy_protocol && is_trusted(table, peer)
}

/// Whether `peer` is one whose word on clients is taken.
pub fn is_trusted(table: &RouteTable, peer: IpAddr) -> bool {
    table.snapshot().options.trusted_proxies.iter().any(|subnet| subnet.contains(peer))
}

/// The header that `bytes` begin with; `None` while it has not ended.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, InvalidHeader> {
    // The parser calls some beginnings of a line malformed: it is asked about whole ones.
    let in_line = bytes.starts_with(b"PROXY ") && !bytes.contains(&b'\n');
    if in_line && bytes.len() < LINE_BYTES_MAX {
        return Ok(None);
    }
    let parsed = HeaderResult::parse(bytes);
    if parsed.is_incomplete() {
        return if bytes.len() < HEADER_BYTES_MAX { Ok(None) } else { Err(InvalidHeader::TooLong) };
    }
    let malformed = |error: &dyn std::error::Error| InvalidHeader::Malformed(error.to_string());
    let header = match parsed {
        HeaderResult::V1(Ok(header)) => Header {
            length: header.header.len(),
            client: match header.addresses {
                v1::Addresses::Tcp4(to) => Some((to.source_address, to.source_port).into()),
                v1::Addresses::Tcp6(to) => Some((to.source_address, to.source_port).into()),
                v1::Addresses::Unknown => None,
            },
        },
        HeaderResult::V2(Ok(header)) => Header {
            length: header.header.len(),
            client: match (header.command, &header.addresses) {
                (v2::Command::Local, _) => None,
                (_, v2::Addresses::IPv4(to)) => Some((to.source_address, to.source_port).into()),
                (_, v2::Addresses::IPv6(to)) => Some((to.source_address, to.source_port).into()),
                (_, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
            },
        },
        HeaderResult::V1(Err(error)) => return Err(malformed(&error)),
        HeaderResult::V2(Err(error)) => return Err(malformed(&error)),
    };
    if header.length > HEADER_BYTES_MAX { Err(InvalidHeader::TooLong) } else { Ok(Some(header)) }
}

/// Reads a header, and what came along behind it. The caller has the deadline.
pub async fn read(tcp: &TcpStream) -> Result<(Option<SocketAddr>, Bytes), InvalidHeader> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 2_048];
    loop {
        tcp.readable().await.map_err(InvalidHeader::Read)?;
        match tcp.try_read(&mut buffer) {
            Ok(0) => return Err(InvalidHeader::Closed),
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(InvalidHeader::Read(error)),
        }
        if let Some(Header { length, client }) = parse(&bytes)? {
            return Ok((client, Bytes::from(bytes).slice(length..)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version_2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
        bytes.extend([0x20 | command, family]);
        bytes.extend(u16::try_from(addresses.len()).expect("short").to_be_bytes());
        bytes.extend_from_slice(addresses);
        bytes
    }

    /// Parses `bytes` piece by piece with a request behind it.
    fn client(bytes: &[u8]) -> Option<String> {
        for end in 0..bytes.len() {
            assert!(matches!(parse(&bytes[..end]), Ok(None)), "{end} bytes of {bytes:?}");
        }
        let whole = [bytes, b"GET / HTTP/1.1\r\n"].concat();
        let header = parse(&whole).expect("valid").expect("whole");
        assert_eq!(header.length, bytes.len());
        header.client.map(|client| client.to_string())
    }

    #[test]
    fn a_header_names_the_client_or_nobody() {
        let four = [192, 0, 2, 7, 192, 0, 2, 1, 0x11, 0x5c, 1, 187];
        let six = [&[0x20, 1, 0xd, 0xb8][..], &[0; 28], &[0x11, 0x5c, 1, 187]].concat();
        let extended = [&four[..], &[4, 0, 3, 1, 2, 3]].concat();
        for (bytes, expected) in [
            (b"PROXY TCP4 192.0.2.7 192.0.2.1 4444 443\r\n".to_vec(), Some("192.0.2.7:4444")),
            (b"PROXY TCP6 2001:db8::7 ::1 4444 443\r\n".to_vec(), Some("[2001:db8::7]:4444")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (version_2(1, 0x11, &four), Some("192.0.2.7:4444")),
            (version_2(1, 0x11, &extended), Some("192.0.2.7:4444")),
            (version_2(1, 0x21, &six), Some("[2001:db8::]:4444")),
            (version_2(0, 0x11, &four), None),
            (version_2(0, 0, &[]), None),
            (version_2(1, 0, &[]), None),
        ] {
            assert_eq!(client(&bytes).as_deref(), expected, "{bytes:?}");
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let long = version_2(1, 0x11, &vec![0; HEADER_BYTES_MAX]);
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROXY TCP4 192.0.2.7 192.0.2.1 4444\r\n",
            b"PROXY TCP4 192.0.2.7 192.0.2.1 4444 443 5\r\n",
            b"PROXY TCP4 192.0.2.7 192.0.2.1 04444 443\r\n",
            b"PROXY TCP4 192.0.2.7 192.0.2.1 70000 443\r\n",
            b"PROXY TCP4 ::1 ::1 4444 443\r\n",
            b"PROXY TCP4 192.0.2.7 192.0.2.1 4444 443\n\n",
            b"PROXY UDP4 192.0.2.7 192.0.2.1 4444 443\r\n",
            b"proxy TCP4 192.0.2.7 192.0.2.1 4444 443\r\n",
            &version_2(2, 0x11, &[0; 12]),
            &version_2(1, 0x11, &[0; 11]),
            &long,
            &long[..HEADER_BYTES_MAX],
        ] {
            assert!(parse(bytes).is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
        let mut other_version = version_2(1, 0x11, &[0; 12]);
        other_version[12] = 0x31;
        assert!(parse(&other_version).is_err());
    }
}
