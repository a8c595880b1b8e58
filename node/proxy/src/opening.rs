//! What comes before the first request: a PROXY header, a handshake, the first bytes.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::proxy_protocol;
use crate::stream::Patience;
use crate::tls::handshake::{self, Opened};
use crate::worker::{Phase, Worker};

/// The client connection preface of HTTP/2 (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The client, and what was read of the connection to learn it: a PROXY header, where a
/// trusted proxy is to send one.
pub async fn client_of(
    worker: &Worker,
    tcp: &TcpStream,
    peer: SocketAddr,
    deadline: Instant,
    phase: &mut watch::Receiver<Phase>,
) -> Option<(SocketAddr, Bytes)> {
    let table = worker.shared.table.pin();
    if !table.is_some_and(|table| proxy_protocol::is_expected(&table, peer.ip())) {
        return Some((peer, Bytes::new()));
    }
    let read = tokio::select! {
        biased;
        _ = phase.wait_for(|phase| *phase >= Phase::Closing) => return None,
        read = tokio::time::timeout_at(deadline.into(), proxy_protocol::read(tcp)) => read,
    };
    match read {
        Ok(Ok((client, held))) => return Some((client.unwrap_or(peer), held)),
        Ok(Err(error)) => {
            tracing::debug!(%peer, error = %dovetail_process::chain(&error), "no PROXY header");
        }
        Err(_) => tracing::debug!(%peer, "no PROXY header in time"),
    }
    worker.telemetry.connection_ended("proxy_header");
    None
}

/// Makes of a connection on the TLS port what its handshake says, within its deadline.
pub async fn open(
    worker: &Worker,
    tcp: TcpStream,
    held: Bytes,
    client: SocketAddr,
    deadline: Instant,
    phase: &mut watch::Receiver<Phase>,
) -> Option<Opened> {
    let opened = tokio::select! {
        biased;
        _ = phase.wait_for(|phase| *phase >= Phase::Closing) => return None,
        opened = tokio::time::timeout_at(
            deadline.into(),
            handshake::open(worker, tcp, held),
        ) => opened,
    };
    match opened {
        Ok(Ok(opened)) => return Some(opened),
        Ok(Err(refused)) => {
            worker.telemetry.handshake(refused.kind());
            tracing::debug!(%client, error = %dovetail_process::chain(&refused), "handshake refused");
        }
        Err(_) => {
            worker.telemetry.handshake("timeout");
            tracing::debug!(%client, "handshake not finished in time");
        }
    }
    None
}

/// Reads the first bytes, which tell the protocol.
pub async fn sniff(
    tcp: &TcpStream,
    held: Bytes,
    patience: &Patience,
    phase: &mut watch::Receiver<Phase>,
) -> Option<(Bytes, bool)> {
    let mut first = Vec::from(held);
    let mut buffer = [0; 2_048];
    loop {
        if !first.is_empty() {
            let compared = first.len().min(PREFACE.len());
            let http2 = first[..compared] == PREFACE[..compared];
            if !http2 || compared == PREFACE.len() {
                return Some((first.into(), http2));
            }
        }
        let limit = if first.is_empty() { patience.idle } else { patience.head };
        tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase >= Phase::Closing) => return None,
            ready = tokio::time::timeout(limit, tcp.readable()) => ready.ok()?.ok()?,
        }
        match tcp.try_read(&mut buffer) {
            Ok(0) => return None,
            Ok(count) => first.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
    }
}
