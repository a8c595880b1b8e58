//! An application that is reached over TLS only, in HTTP/1.1 or HTTP/2.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::tls::Leaf;
use super::upstream::Seen;
use super::{http2, upstream};

/// An application behind TLS.
pub struct TlsApp {
    pub address: SocketAddr,
    /// Handshakes that succeeded.
    pub handshakes: Arc<AtomicUsize>,
    /// The names that were asked for (SNI).
    pub names: Arc<Mutex<Vec<Option<String>>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    job: tokio::task::JoinHandle<()>,
}

impl TlsApp {
    /// Shows `leaf`, and speaks what the handshake settles among `alpn`.
    pub async fn start(leaf: &Leaf, alpn: &[&str]) -> Self {
        let chain = CertificateDer::pem_slice_iter(leaf.cert.as_bytes());
        let chain = chain.collect::<Result<Vec<_>, _>>().expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).expect("PEM");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a pair");
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (handshakes, names) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<_>>>::default());
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let job = tokio::spawn({
            let (handshakes, names) = (Arc::clone(&handshakes), Arc::clone(&names));
            let seen = Arc::clone(&seen);
            async move {
                let mut open = tokio::task::JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    let (handshakes, names) = (Arc::clone(&handshakes), Arc::clone(&names));
                    let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
                    open.spawn(async move {
                        let Ok(stream) = acceptor.accept(stream).await else { return };
                        handshakes.fetch_add(1, Ordering::Relaxed);
                        let session = stream.get_ref().1;
                        let name = session.server_name().map(ToOwned::to_owned);
                        names.lock().expect("not poisoned").push(name);
                        if session.alpn_protocol() == Some(b"h2") {
                            http2::serve_over(stream).await;
                        } else {
                            upstream::serve_over("secure", stream, seen).await;
                        }
                    });
                }
            }
        });
        Self { address, handshakes, names, seen, job }
    }

    pub fn handshakes(&self) -> usize {
        self.handshakes.load(Ordering::Relaxed)
    }

    /// The last request over HTTP/1.1.
    pub fn last(&self) -> Seen {
        self.seen.lock().expect("not poisoned").last().expect("a request").clone()
    }
}

impl Drop for TlsApp {
    fn drop(&mut self) {
        self.job.abort();
    }
}
