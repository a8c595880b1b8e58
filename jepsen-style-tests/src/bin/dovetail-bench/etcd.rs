//! Three etcd members on loopback, measured in the same run for comparison.
//!
//! With mutual TLS between members and clients, by certificates of the same kind as ours;
//! defaults otherwise. The few messages of its API are written here by hand.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use dovetail_jepsen::reached;
use dovetail_jepsen::supervisor::{Place, Process, ProcessConfig, run_to_end};
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

/// Slots of the members, and their hosts in the place.
const SLOTS: [u8; 3] = [1, 2, 3];
const START_DEADLINE: Duration = Duration::from_secs(20);

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeResponse {
    #[prost(int64, tag = "4")]
    count: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MoveLeaderRequest {
    #[prost(uint64, tag = "1")]
    target: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MoveLeaderResponse {}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusRequest {}

#[derive(Clone, PartialEq, prost::Message)]
struct ResponseHeader {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

/// A running etcd of three.
#[derive(Debug)]
pub(crate) struct Etcd {
    members: Vec<Process>,
    tls: Arc<rustls::ClientConfig>,
    place: Place,
}

impl Etcd {
    /// Starts the `etcd` in `folder`, with certificates that `dovetail` makes.
    pub(crate) async fn start(folder: &Path, dovetail: &Path) -> anyhow::Result<Self> {
        let place = Place::claim()?;
        let certificates = place.path("tls");
        let mut command = Command::new(dovetail);
        command.args(["pki", "init"]).arg(&certificates);
        for slot in SLOTS {
            command.args(["--san", &place.ip(slot).to_string()]);
        }
        let done = run_to_end(command, START_DEADLINE).await.context("dovetail pki init")?;
        anyhow::ensure!(done.code == Some(0), "dovetail pki init: {}", done.stderr);
        let tls =
            client_config(&certificates.join("operator")).context("the client's certificate")?;
        let mut etcd = Self { members: Vec::new(), tls, place };
        for slot in SLOTS {
            let config = etcd.config(slot, folder);
            etcd.members.push(Process::start(config).context("start etcd")?);
        }
        etcd.ready().await?;
        Ok(etcd)
    }

    fn config(&self, slot: u8, folder: &Path) -> ProcessConfig {
        let peer = |slot| format!("https://{}", self.place.addr(slot, 2_380));
        let client = format!("https://{}", self.client_addr(slot));
        let cluster: Vec<String> =
            SLOTS.iter().map(|slot| format!("m{slot}={}", peer(*slot))).collect();
        let name = format!("m{slot}");
        let data = self.place.path(&name).to_string_lossy().into_owned();
        let arguments = [
            ("--name", name.clone()),
            ("--data-dir", data),
            ("--listen-peer-urls", peer(slot)),
            ("--initial-advertise-peer-urls", peer(slot)),
            ("--listen-client-urls", client.clone()),
            ("--advertise-client-urls", client),
            ("--initial-cluster", cluster.join(",")),
            ("--initial-cluster-state", "new".to_owned()),
            ("--log-level", "error".to_owned()),
        ];
        let certificate = |file: &str| {
            let path = self.place.path("tls").join(format!("member-{slot}")).join(file);
            path.to_string_lossy().into_owned()
        };
        let tls = ["", "peer-"].into_iter().flat_map(|side| {
            [
                format!("--{side}cert-file={}", certificate("cert.pem")),
                format!("--{side}key-file={}", certificate("key.pem")),
                format!("--{side}trusted-ca-file={}", certificate("ca.pem")),
                format!("--{side}client-cert-auth=true"),
            ]
        });
        let arguments = arguments.into_iter().flat_map(|(k, v)| [k.to_owned(), v]);
        ProcessConfig {
            name: format!("etcd-{name}"),
            executable: folder.join("etcd"),
            arguments: arguments.chain(tls).map(Into::into).collect(),
            log: self.place.path(&format!("{name}.log")),
        }
    }

    fn client_addr(&self, slot: u8) -> SocketAddr {
        self.place.addr(slot, 2_379)
    }

    pub(crate) fn slots(&self) -> impl Iterator<Item = u8> {
        SLOTS.into_iter()
    }

    pub(crate) fn channel(&self, slot: u8) -> anyhow::Result<Channel> {
        let (address, tls) = (self.client_addr(slot), TlsConnector::from(self.tls.clone()));
        let connector = tower::service_fn(move |_| {
            let tls = tls.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let stream = tls.connect(ServerName::from(address.ip()), stream).await?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        });
        Ok(Endpoint::from_shared(format!("http://{address}"))?
            .connect_with_connector_lazy(connector))
    }

    pub(crate) fn processes(&self) -> impl Iterator<Item = &Process> {
        self.members.iter()
    }

    pub(crate) fn member(&mut self, slot: u8) -> anyhow::Result<&mut Process> {
        self.members.get_mut(usize::from(slot) - 1).context("no such member")
    }

    /// The slot of the leader.
    pub(crate) async fn leader(&self) -> anyhow::Result<u8> {
        let deadline = START_DEADLINE;
        let slot = reached(deadline, || async {
            for slot in SLOTS {
                let channel = self.channel(slot).map_err(|error| error.to_string())?;
                let path = PathAndQuery::from_static("/etcdserverpb.Maintenance/Status");
                let status: Result<StatusResponse, _> = call(channel, path, StatusRequest {}).await;
                let own = status.as_ref().ok().and_then(|s| s.header.as_ref()).map(|h| h.member_id);
                if own.is_some() && own == status.ok().map(|status| status.leader) {
                    return Ok(slot);
                }
            }
            Err("no etcd member leads".to_owned())
        })
        .await?;
        Ok(slot)
    }

    /// Has the leader hand over to another member, and returns that.
    pub(crate) async fn move_leader(&self, to: u8) -> anyhow::Result<()> {
        let path = PathAndQuery::from_static("/etcdserverpb.Maintenance/Status");
        let status: Result<StatusResponse, _> =
            call(self.channel(to)?, path, StatusRequest {}).await;
        let header = status.map_err(anyhow::Error::msg)?.header.context("no header")?;
        let path = PathAndQuery::from_static("/etcdserverpb.Maintenance/MoveLeader");
        let request = MoveLeaderRequest { target: header.member_id };
        let leader = self.channel(self.leader().await?)?;
        let moved: Result<MoveLeaderResponse, _> = call(leader, path, request).await;
        moved.map(|_| ()).map_err(anyhow::Error::msg)
    }

    /// Waits until a write through each member is acknowledged.
    pub(crate) async fn ready(&self) -> anyhow::Result<()> {
        for slot in SLOTS {
            reached(START_DEADLINE, || async {
                let channel = self.channel(slot).map_err(|error| error.to_string())?;
                put(channel, 0, "ready", Duration::from_secs(2)).await
            })
            .await
            .with_context(|| format!("etcd member {slot}"))?;
        }
        Ok(())
    }
}

/// Writes `value` under one of a few keys.
pub(crate) async fn put(
    channel: Channel,
    key: usize,
    value: &str,
    timeout: Duration,
) -> Result<(), String> {
    let request = PutRequest { key: format!("bench-{key}").into(), value: value.into() };
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
    let put = call::<_, PutResponse>(channel, path, request);
    match tokio::time::timeout(timeout, put).await {
        Ok(outcome) => outcome.map(|_| ()),
        Err(_) => Err(format!("no answer within {timeout:?}")),
    }
}

/// Mutual TLS as etcd 3.5 speaks it: up to version 1.2, which our own channels do not take.
fn client_config(folder: &Path) -> anyhow::Result<Arc<rustls::ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    for authority in CertificateDer::pem_file_iter(folder.join("ca.pem"))? {
        roots.add(authority?)?;
    }
    let chain = CertificateDer::pem_file_iter(folder.join("cert.pem"))?;
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain.collect::<Result<_, _>>()?, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Reads a key, linearizably.
pub(crate) async fn get(channel: Channel, timeout: Duration) -> Result<(), String> {
    let request = RangeRequest { key: b"bench-0".to_vec() };
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Range");
    let get = call::<_, RangeResponse>(channel, path, request);
    match tokio::time::timeout(timeout, get).await {
        Ok(outcome) => outcome.map(|_| ()),
        Err(_) => Err(format!("no answer within {timeout:?}")),
    }
}

async fn call<Req, Res>(channel: Channel, path: PathAndQuery, request: Req) -> Result<Res, String>
where
    Req: prost::Message + 'static,
    Res: prost::Message + Default + 'static,
{
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| error.to_string())?;
    let codec = ProstCodec::<Req, Res>::default();
    let answer = grpc.unary(tonic::Request::new(request), path, codec).await;
    answer.map(tonic::Response::into_inner).map_err(|status| status.message().to_owned())
}

/// The folder of an `etcd` on the path, if there is one; a script around it cannot be
/// killed in its place.
pub(crate) fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).find(|folder| is_program(&folder.join("etcd")))
}

fn is_program(path: &Path) -> bool {
    let mut magic = [0; 4];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && magic == *b"\x7fELF"
}
