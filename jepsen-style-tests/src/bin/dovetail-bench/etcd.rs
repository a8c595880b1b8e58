//! Three etcd members on loopback, measured in the same run for comparison.
//!
//! Plain text between members and clients, as its own benchmark has it; defaults
//! otherwise. The few messages of its API are written here by hand.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use dovetail_jepsen::reached;
use dovetail_jepsen::supervisor::{Place, Process, ProcessConfig};
use http::uri::PathAndQuery;
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
    place: Place,
}

impl Etcd {
    /// Starts the `etcd` in `folder`.
    pub(crate) async fn start(folder: &Path) -> anyhow::Result<Self> {
        let place = Place::claim()?;
        let mut etcd = Self { members: Vec::new(), place };
        for slot in SLOTS {
            let config = etcd.config(slot, folder);
            etcd.members.push(Process::start(config).context("start etcd")?);
        }
        etcd.ready().await?;
        Ok(etcd)
    }

    fn config(&self, slot: u8, folder: &Path) -> ProcessConfig {
        let peer = |slot| format!("http://{}", self.place.addr(slot, 2_380));
        let client = format!("http://{}", self.client_addr(slot));
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
        ProcessConfig {
            name: format!("etcd-{name}"),
            executable: folder.join("etcd"),
            arguments: arguments.into_iter().flat_map(|(k, v)| [k.into(), v.into()]).collect(),
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
        let uri = format!("http://{}", self.client_addr(slot));
        Ok(Endpoint::from_shared(uri)?.tcp_nodelay(true).connect_lazy())
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
