//! TLS that the application ends itself: the proxy sees a name and bytes, and no more.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;

use common::process::Process;
use common::tls::{
    Authority, Leaf, SecretsDir, connect, curl, exchange, get_tls, passed_through, s_client,
    terminated,
};
use common::upstream::{App, refused};
use common::{DEADLINE, Proxy, Service, get, route, route_of, snapshot, until};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// An application that ends TLS itself, with this pair, and says its name.
struct TlsApp {
    address: SocketAddr,
    job: tokio::task::JoinHandle<()>,
}

impl TlsApp {
    async fn start(name: &'static str, leaf: &Leaf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let chain = CertificateDer::pem_slice_iter(leaf.cert.as_bytes());
        let chain = chain.collect::<Result<Vec<_>, _>>().expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).expect("PEM");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a pair");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let job = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                open.spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut head = [0; 4_096];
                    while let Ok(count) = stream.read(&mut head).await {
                        if count == 0 {
                            return;
                        }
                        let length = name.len();
                        let answer = format!(
                            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{name}"
                        );
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                        let _ = stream.shutdown().await;
                    }
                });
            }
        });
        Self { address, job }
    }
}

impl Drop for TlsApp {
    fn drop(&mut self) {
        self.job.abort();
    }
}

fn proxy(routes: Vec<dovetail_routing::snapshot::Route>, secrets: &SecretsDir) -> Proxy {
    Proxy::start_with(&snapshot(1, routes), |config| {
        config.https = Some(([127, 0, 0, 1], 0).into());
        config.secrets = secrets.secrets();
    })
}

#[tokio::test]
async fn a_client_sees_the_applications_own_certificate() {
    let (authority, secrets) = (Authority::new("application"), SecretsDir::new());
    let ca = secrets.write("ca.pem", &authority.pem);
    let app = TlsApp::start("raw", &authority.issue(&["raw.example"])).await;
    let other = App::start("other").await;
    secrets.put("shop", &Authority::new("proxy").issue(&["shop.example"]));
    let routes = vec![
        passed_through(route("raw.example", "/", &[app.address])),
        terminated(route("shop.example", "/", &[other.address]), "shop"),
    ];
    let proxy = proxy(routes, &secrets);
    for version in ["1.2", "1.3"] {
        let words = ["-i", "--tlsv1.2", "--tls-max", version];
        let (ok, text) = curl(proxy.https, &ca, "https://raw.example/", &words).await;
        assert!(ok && text.ends_with("raw"), "{text}");
        assert!(!text.contains("x-proxy-id"), "nothing is added: {text}");
    }
    let (_, text) = s_client(proxy.https, &["-servername", "raw.example"]).await;
    assert!(text.contains("CN = raw.example") && text.contains("CN = application"), "{text}");
    let (_, text) = s_client(proxy.https, &["-servername", "shop.example"]).await;
    assert!(text.contains("CN = shop.example"), "the proxy's own: {text}");
}

#[tokio::test]
async fn streams_are_balanced_and_the_next_upstream_is_tried() {
    let (authority, secrets) = (Authority::new("application"), SecretsDir::new());
    let leaf = authority.issue(&["raw.example"]);
    let (one, two) = (TlsApp::start("one", &leaf).await, TlsApp::start("two", &leaf).await);
    let nobody = refused().await;
    let to = |active: &[SocketAddr]| {
        passed_through(route_of(
            "raw.example",
            "/",
            &[Service { weight: 10_000, active, draining: &[] }],
        ))
    };
    let proxy = proxy(vec![to(&[one.address, two.address, nobody])], &secrets);
    let client = authority.client(&[], None);
    let mut counts = [0, 0];
    for _ in 0..12 {
        let answer = get_tls(proxy.https, &client, "raw.example", "/").await.expect("served");
        counts[usize::from(answer.ends_with("two"))] += 1;
    }
    assert!(counts[0] >= 4 && counts[1] >= 4, "{counts:?}");
    // A default backend may be passed through as well: any name, or none.
    let mut default = to(&[one.address]);
    default.host = dovetail_routing::snapshot::RouteHost::Default;
    proxy.swap(&snapshot(2, vec![default]));
    let (_, text) = s_client(proxy.https, &["-noservername"]).await;
    assert!(text.contains("CN = raw.example"), "{text}");
    // Nobody takes it: an alert, and the end.
    proxy.swap(&snapshot(3, vec![to(&[nobody])]));
    assert!(connect(proxy.https, &client, "raw.example").await.is_err());
    proxy.swap(&snapshot(4, vec![to(&[])]));
    assert!(connect(proxy.https, &client, "raw.example").await.is_err());
}

#[tokio::test]
async fn a_clienthello_in_pieces_arrives_whole() {
    let (authority, secrets) = (Authority::new("application"), SecretsDir::new());
    let app = TlsApp::start("raw", &authority.issue(&["raw.example"])).await;
    let proxy = proxy(vec![passed_through(route("raw.example", "/", &[app.address]))], &secrets);
    // A byte at a time through a little relay.
    let relay = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = relay.local_addr().expect("an address");
    let https = proxy.https;
    let job = tokio::spawn(async move {
        let (client, _) = relay.accept().await.expect("a client");
        let server = TcpStream::connect(https).await.expect("connected");
        server.set_nodelay(true).expect("set");
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let back = tokio::spawn(async move {
            let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
        });
        let mut byte = [0];
        while from_client.read_exact(&mut byte).await.is_ok() {
            if to_server.write_all(&byte).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(to_server);
        let _ = back.await;
    });
    let client = authority.client(&[], None);
    let mut stream = connect(address, &client, "raw.example").await.expect("a connection");
    let answer = exchange(&mut stream, "GET / HTTP/1.1\r\nHost: raw.example\r\n\r\n").await;
    assert!(answer.expect("an answer").ends_with("raw"));
    drop(stream);
    job.abort();
}

#[tokio::test]
async fn a_stream_is_one_line_in_the_access_log_and_ends_with_the_drain() {
    let authority = Authority::new("application");
    let app = TlsApp::start("raw", &authority.issue(&["raw.example"])).await;
    let nobody = refused().await;
    let routes = vec![
        passed_through(route("raw.example", "/", &[app.address])),
        passed_through(route("dead.example", "/", &[nobody])),
    ];
    let mut proxy = Process::start(&snapshot(3, routes), &["--grace", "1s"]).await;
    let client = authority.client(&[], None);
    get_tls(proxy.https, &client, "raw.example", "/").await.expect("served");
    assert!(connect(proxy.https, &client, "dead.example").await.is_err());
    let lines = proxy.access_log(2).await;
    let of = |host: &str| lines.iter().find(|line| line["host"] == host).expect("a line");
    let (raw, dead) = (of("raw.example"), of("dead.example"));
    assert_eq!((&raw["method"], &raw["status"]), (&"TLS".into(), &200.into()));
    assert_eq!((&raw["path"], &raw["revision"]), (&"".into(), &3.into()));
    assert_eq!(raw["upstream"], app.address.to_string());
    assert!(raw["bytes"].as_u64().is_some_and(|bytes| bytes > 100), "{raw}");
    assert_eq!((&dead["status"], &dead["error"]), (&502.into(), &"connect".into()));
    let metrics = get(proxy.admin, "admin", "/metrics").await.body;
    for metric in [
        "dovetail_proxy_passthrough_connections_total{result=\"ok\"} 1",
        "dovetail_proxy_passthrough_connections_total{result=\"connect\"} 1",
    ] {
        assert!(metrics.contains(metric), "{metric} is not in\n{metrics}");
    }
    let mut open = connect(proxy.https, &client, "raw.example").await.expect("a connection");
    proxy.terminate();
    let mut rest = Vec::new();
    // Cut off at the end of the grace period, since it does not end by itself.
    let read = tokio::time::timeout(DEADLINE, open.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "it ends");
    assert_eq!(proxy.exit_code().await, 0);
    until("the cut is logged", async || {
        let lines = proxy.access_log(3).await;
        lines[2]["error"] == "cut_off"
    })
    .await;
}
