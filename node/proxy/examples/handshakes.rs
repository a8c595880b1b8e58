//! How many TLS handshakes a second one thread of the proxy makes, with few names and with many.
//!
//! `handshakes [SECONDS]`: two proxies with fixed tables, of 10 and of 10,000 names, each with
//! one thread, take full TLS 1.3 handshakes in turns. Ten names share a certificate (ECDSA P-256). The client is in this process and has the other processors.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dovetail_proxy::access_log::AccessLogTarget;
use dovetail_proxy::secrets::Secrets;
use dovetail_proxy::server::{Config, Running};
use dovetail_proxy::stream::BODY_RATE_WINDOW;
use dovetail_proxy::worker::Limits;
use dovetail_routing::names::ContextRoot;
use dovetail_routing::snapshot::{Certificate, Revision, Route, RouteOptions, Snapshot, Tls};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

type Failure = Box<dyn std::error::Error>;

/// Names that share a certificate.
const SHARED_BY: usize = 10;
/// Clients at one time.
const CLIENTS: usize = 16;
/// Turns that each proxy has.
const TURNS: usize = 5;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            dovetail_process::exit::say(&format!("{error}; handshakes [SECONDS]"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let seconds = std::env::args().nth(1).map_or(Ok(2), |seconds| seconds.parse())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (few, many) = (World::new(10)?, World::new(10_000)?);
        let mut rates = [Vec::new(), Vec::new()];
        for _ in 0..TURNS {
            for (world, rates) in [&few, &many].into_iter().zip(&mut rates) {
                rates.push(world.rate(Duration::from_secs(seconds)).await);
            }
        }
        for (world, mut rates) in [few, many].into_iter().zip(rates) {
            rates.sort_by(f64::total_cmp);
            let (least, median, most) = (rates[0], rates[TURNS / 2], rates[TURNS - 1]);
            dovetail_process::exit::say(&format!(
                "{} names: {median:.0} handshakes a second ({least:.0} to {most:.0}), in force after {:?}",
                world.names, world.took,
            ));
            world.running.drain(Duration::ZERO).await;
        }
        Ok(())
    })
}

/// A proxy with so many names.
struct World {
    names: usize,
    /// Until all certificates were in force.
    took: Duration,
    address: SocketAddr,
    client: Arc<ClientConfig>,
    running: Running,
    _secrets: tempfile::TempDir,
}

impl World {
    fn new(names: usize) -> Result<Self, Failure> {
        let secrets = tempfile::tempdir()?;
        let key = KeyPair::generate()?;
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let mut roots = RootCertStore::empty();
        roots.add(authority.self_signed(&key)?.der().clone())?;
        let authority = Issuer::new(authority, key);
        let mut routes = Vec::new();
        for group in 0..names / SHARED_BY {
            let hosts: Vec<String> =
                (0..SHARED_BY).map(|host| format!("host-{host}.group-{group}.example")).collect();
            let key = KeyPair::generate()?;
            let cert = CertificateParams::new(hosts.clone())?.signed_by(&key, &authority)?;
            let name = format!("group-{group}");
            std::fs::write(secrets.path().join(&name), cert.pem() + &key.serialize_pem())?;
            for host in hosts {
                routes.push(Route {
                    host: host.parse()?,
                    path: ContextRoot::root(),
                    tls: Tls::Terminate(Certificate {
                        cert: name.parse()?,
                        key: None,
                        client_ca: None,
                    }),
                    options: RouteOptions::default(),
                    services: Vec::new(),
                });
            }
        }
        routes.sort_by(|a, b| (&a.host, &a.path).cmp(&(&b.host, &b.path)));
        let snapshot = Arc::new(Snapshot { revision: Revision(1), routes, ..Snapshot::default() });
        let server = Config {
            http: ([127, 0, 0, 1], 0).into(),
            https: Some(([127, 0, 0, 1], 0).into()),
            threads: 1,
            name: "handshakes".to_owned(),
            access_log: AccessLogTarget::None,
            secrets: Secrets::new(Some(secrets.path().to_owned())),
            limits: Limits {
                connections_max: 100_000,
                connections_per_client_max: 0,
                head_timeout: Duration::from_secs(10),
                client_timeout: Duration::from_secs(60),
                body_rate_window: BODY_RATE_WINDOW,
            },
        }
        .build()?;
        let began = Instant::now();
        server.shared().put_in_force(&snapshot)?;
        let took = began.elapsed();
        let address = server.https_address().ok_or("no address for TLS")?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.resumption = Resumption::disabled();
        let (client, running) = (Arc::new(client), server.start()?);
        Ok(Self { names, took, address, client, running, _secrets: secrets })
    }

    /// Handshakes a second, with names in turn.
    async fn rate(&self, time: Duration) -> f64 {
        let (count, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let mut clients = tokio::task::JoinSet::new();
        let began = Instant::now();
        for _ in 0..CLIENTS {
            let (count, stop) = (Arc::clone(&count), Arc::clone(&stop));
            let connector = TlsConnector::from(Arc::clone(&self.client));
            let (address, groups) = (self.address, self.names / SHARED_BY);
            clients.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let group = fastrand::usize(..groups);
                    let host = fastrand::usize(..SHARED_BY);
                    let name = ServerName::try_from(format!("host-{host}.group-{group}.example"));
                    let Ok(name) = name else { return };
                    let Ok(tcp) = TcpStream::connect(address).await else { return };
                    if connector.connect(name, tcp).await.is_ok() {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        tokio::time::sleep(time).await;
        stop.store(true, Ordering::Relaxed);
        clients.join_all().await;
        // A count of a few seconds fits a double.
        count.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64()
    }
}
