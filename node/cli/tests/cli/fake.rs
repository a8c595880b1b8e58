//! A core that answers as it is told, over real mutual TLS, and the executable under test.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::past;
use dovetail_process::grpc::{self, Allow, TlsIo};
use dovetail_process::identity::Role;
use dovetail_process::pki;
use dovetail_process::tls::TlsDir;
use dovetail_proto::v1 as pb;
use dovetail_proto::v1::admin_server::{Admin, AdminServer};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::Command;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

use crate::exports;

/// How a member behaves towards changes and linearizable questions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It leads.
    Leader,
    /// It knows who leads.
    Follower(String),
    /// It knows of no leader.
    NoQuorum,
    /// Its first answer to a change is lost, the next is the first one's.
    Lossy,
    /// It never answers a change, nor a question that needs the quorum.
    Silent,
}

/// A member of the fake core.
#[derive(Clone)]
pub(crate) struct Fake {
    mode: Mode,
    tls: TlsDir,
    /// The request id and text of each change that arrived.
    pub(crate) orders: Arc<Mutex<Vec<(String, String)>>>,
    /// Each plan that was asked for.
    pub(crate) plans: Arc<Mutex<Vec<pb::PlanRequest>>>,
}

/// Certificates for a core of three, with a viewer besides.
pub(crate) fn certificates() -> TempDir {
    let dir = tempfile::tempdir().expect("temporary folder");
    pki::init(dir.path(), 3, &[]).expect("pki init");
    pki::issue(dir.path(), "operator/anna", Role::Viewer, &[]).expect("pki issue");
    dir
}

/// Starts a member on a free port until the test ends.
pub(crate) async fn member(certificates: &TempDir, slot: u64, mode: Mode) -> (String, Fake) {
    let folder = certificates.path().join(format!("member-{slot}"));
    let tls = TlsDir::load(&folder).expect("TLS folder");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let address = listener.local_addr().expect("address").to_string();
    let fake = Fake { mode, tls: tls.clone(), orders: Arc::default(), plans: Arc::default() };
    let serving = tonic::transport::Server::builder()
        .add_service(AdminServer::new(fake.clone()))
        .serve_with_incoming::<_, TlsIo, _, _>(grpc::incoming(listener, tls));
    tokio::spawn(serving);
    (address, fake)
}

/// A port on which nobody listens.
pub(crate) async fn dead() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
    listener.local_addr().expect("address").to_string()
}

/// A port whose owner accepts and never says a word.
pub(crate) async fn mute() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let address: SocketAddr = listener.local_addr().expect("address");
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((tcp, _)) = listener.accept().await {
            held.push(tcp);
        }
    });
    address.to_string()
}

/// Runs `dovetail` with these arguments, and these folders and addresses.
pub(crate) struct Cli {
    pub(crate) core: String,
    pub(crate) tls_dir: PathBuf,
    pub(crate) columns: Option<u16>,
}

impl Cli {
    pub(crate) fn new(core: &str, certificates: &TempDir) -> Self {
        Self { core: core.to_owned(), tls_dir: certificates.path().join("operator"), columns: None }
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = bare();
        command.env("DOVETAIL_CORE", &self.core).env("DOVETAIL_TLS_DIR", &self.tls_dir);
        if let Some(columns) = self.columns {
            command.env("COLUMNS", columns.to_string());
        }
        ran(command.args(arguments)).await
    }
}

/// `dovetail` without any of its environment.
pub(crate) fn bare() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dovetail"));
    for name in ["CORE", "TLS_DIR", "OUTPUT", "TIMEOUT", "LOG"] {
        command.env_remove(format!("DOVETAIL_{name}"));
    }
    command.env_remove("COLUMNS").env("TZ", "UTC").kill_on_drop(true);
    command
}

/// What a run said, and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

pub(crate) async fn ran(command: &mut Command) -> Ran {
    let output = tokio::time::timeout(Duration::from_secs(60), command.output()).await;
    let Output { status, stdout, stderr } = output.expect("it ends").expect("it starts");
    Ran {
        code: status.code().expect("it ends by itself"),
        stdout: String::from_utf8(stdout).expect("UTF-8"),
        stderr: String::from_utf8(stderr).expect("UTF-8"),
    }
}

impl Fake {
    fn leads(&self) -> Result<(), Status> {
        match &self.mode {
            Mode::Leader | Mode::Lossy | Mode::Silent => Ok(()),
            Mode::NoQuorum => Err(Status::unavailable("no leader is known")),
            Mode::Follower(leader) => {
                let mut status = Status::unavailable("not the leader");
                let hint = MetadataValue::try_from(leader.as_str()).expect("ASCII");
                status.metadata_mut().insert("dovetail-leader", hint);
                Err(status)
            }
        }
    }
}

impl Fake {
    /// What a member that behaves as it is told answers to any change.
    async fn change(
        &self,
        request_id: String,
        what: String,
        dry_run: bool,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        self.leads()?;
        let earlier = {
            let mut orders = self.orders.lock().expect("orders");
            orders.push((request_id.clone(), what));
            orders.iter().filter(|(id, _)| *id == request_id).count() > 1
        };
        match self.mode {
            Mode::Silent => std::future::pending().await,
            Mode::Lossy if !earlier => Err(Status::unknown("leadership was lost meanwhile")),
            _ => Ok(Response::new(pb::ChangeResponse {
                index: 58,
                revision: 42,
                applied: "unchanged".to_owned(),
                first_answer: earlier,
                dry_run,
                routes: Vec::new(),
            })),
        }
    }
}

#[tonic::async_trait]
impl Admin for Fake {
    async fn status(
        &self,
        request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        grpc::require(&request, &[Allow::Member, Allow::Operator(Role::Viewer)])?;
        let leads = self.leads().is_ok();
        let knows = leads || matches!(self.mode, Mode::Follower(_));
        Ok(Response::new(pb::StatusResponse {
            cluster_id: "c1".to_owned(),
            leader: u64::from(knows),
            term: 3,
            index: 57,
            service_clusters: vec![
                service_cluster("", 42, "aabbccddeeff00112233"),
                service_cluster("blue", 40, "00"),
            ],
            members: vec![
                pb::Member {
                    id: 1,
                    address: "core-1:8080".to_owned(),
                    role: "leader".to_owned(),
                    applied: 57,
                    reachable: true,
                    incarnation: "a1".to_owned(),
                    rules_newest: 2,
                },
                pb::Member {
                    id: 2,
                    address: "core-2:8080".to_owned(),
                    role: "follower".to_owned(),
                    applied: 50,
                    reachable: false,
                    incarnation: "b2".to_owned(),
                    rules_newest: 0,
                },
            ],
            proxies: vec![
                proxy("edge-1", 42, true, ""),
                proxy("edge-2", 41, true, ""),
                proxy("edge-3", 41, true, "digest differs"),
                proxy("edge-4", 40, false, ""),
            ],
            problems: 2,
            view: if knows && !request.get_ref().local { "leader" } else { "local" }.to_owned(),
            docker_age_seconds: leads.then_some(0.25),
            docker_error: String::new(),
            rolled_back: 0,
            rules: 1,
        }))
    }

    async fn routes(
        &self,
        request: Request<pb::RoutesRequest>,
    ) -> Result<Response<pb::RoutesResponse>, Status> {
        grpc::require(&request, &[Allow::Operator(Role::Viewer)])?;
        let request = request.into_inner();
        if !request.stale {
            self.leads()?;
            if self.mode == Mode::Silent {
                std::future::pending::<()>().await;
            }
        }
        if request.service_cluster == "nowhere" {
            return Err(Status::not_found("service cluster \"nowhere\" is not known"));
        }
        let upstream = |address: &str, state: &str| pb::Upstream {
            address: address.to_owned(),
            state: state.to_owned(),
            task: "t1".to_owned(),
            node: "n1".to_owned(),
            reason: if state == "draining" { "operator" } else { "" }.to_owned(),
        };
        let service = |name: &str, weight, upstreams| pb::RouteService {
            name: name.to_owned(),
            weight,
            upstreams,
            ..pb::RouteService::default()
        };
        let route = |host: &str, path: &str, tls: &str, services| pb::Route {
            host: host.to_owned(),
            path: path.to_owned(),
            tls: tls.to_owned(),
            services,
            ..pb::Route::default()
        };
        Ok(Response::new(pb::RoutesResponse {
            freshness: freshness(request.stale),
            service_cluster: request.service_cluster,
            revision: 42,
            digest: "aabbccddeeff00112233".to_owned(),
            routes: vec![
                route(
                    "shop.example",
                    "/",
                    "terminate",
                    vec![
                        service(
                            "shop_v1",
                            9_000,
                            vec![
                                upstream("10.0.1.3:8080", "active"),
                                upstream("10.0.1.4:8080", "draining"),
                            ],
                        ),
                        service("shop_v2", 1_000, vec![upstream("10.0.1.5:8080", "active")]),
                    ],
                ),
                pb::Route {
                    certificate: Some(pb::Certificate {
                        cert: "a.cert".to_owned(),
                        key: "a.key".to_owned(),
                        client_ca: String::new(),
                    }),
                    options: Some(pb::RouteOptions {
                        rewrite: true,
                        sticky: "cookie session".to_owned(),
                        ..pb::RouteOptions::default()
                    }),
                    ..route("a.example", "/", "terminate", Vec::new())
                },
                route("*", "/app", "none", vec![service("empty", 10_000, Vec::new())]),
            ],
        }))
    }

    async fn problems(
        &self,
        request: Request<pb::ProblemsRequest>,
    ) -> Result<Response<pb::ProblemsResponse>, Status> {
        grpc::require(&request, &[Allow::Operator(Role::Viewer)])?;
        let stale = request.get_ref().stale;
        if !stale {
            self.leads()?;
        }
        Ok(Response::new(pb::ProblemsResponse {
            freshness: freshness(stale),
            problems: vec![pb::Problem {
                service: "shop".to_owned(),
                label: "com.docker.lb.port".to_owned(),
                value: "http\u{1b}[2J".to_owned(),
                reason: "not a number from 1 to 65535".to_owned(),
                since_index: 12,
            }],
        }))
    }

    async fn plan(
        &self,
        request: Request<pb::PlanRequest>,
    ) -> Result<Response<pb::PlanResponse>, Status> {
        grpc::require(&request, &[Allow::Operator(Role::Viewer)])?;
        self.leads()?;
        self.plans.lock().expect("plans").push(request.into_inner());
        let problem = |service: &str, label: &str| pb::Problem {
            service: service.to_owned(),
            label: label.to_owned(),
            reason: "is kept out".to_owned(),
            ..pb::Problem::default()
        };
        let upstream = pb::Upstream { address: "new".to_owned(), ..pb::Upstream::default() };
        let web = pb::RouteService {
            name: "shop_web".to_owned(),
            weight: 10_000,
            upstreams: vec![upstream],
            ..pb::RouteService::default()
        };
        let route = |services| pb::Route {
            host: "shop.example".to_owned(),
            path: "/".to_owned(),
            tls: "none".to_owned(),
            services,
            ..pb::Route::default()
        };
        Ok(Response::new(pb::PlanResponse {
            index: 57,
            routes: vec![pb::RouteChange {
                service_cluster: String::new(),
                change: "changed".to_owned(),
                before: Some(route(Vec::new())),
                after: Some(route(vec![web])),
            }],
            problems: vec![
                problem("rival", "com.docker.lb.hosts"),
                problem("shop_web", "com.docker.lb.hosts"),
            ],
            solved: Vec::new(),
            conflicts: vec![pb::Conflict {
                service: "shop_web".to_owned(),
                host: "shop.example".to_owned(),
                path: "/".to_owned(),
                owner: "rival".to_owned(),
            }],
        }))
    }

    async fn annotate(
        &self,
        request: Request<pb::AnnotateRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        grpc::require(&request, &[Allow::Operator(Role::Operator)])?;
        let request = request.into_inner();
        self.change(request.request_id, request.text, request.dry_run).await
    }

    async fn set_canary(
        &self,
        request: Request<pb::SetCanaryRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        let request = request.into_inner();
        self.change(request.request_id, format!("{:?}", request.command), request.dry_run).await
    }

    async fn clear_canary(
        &self,
        request: Request<pb::ClearCanaryRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        let request = request.into_inner();
        self.change(request.request_id, format!("{:?}", request.command), request.dry_run).await
    }

    async fn promote_canary(
        &self,
        request: Request<pb::PromoteCanaryRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        let request = request.into_inner();
        self.change(request.request_id, format!("{:?}", request.command), request.dry_run).await
    }

    async fn change_members(
        &self,
        request: Request<pb::ChangeMembersRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        let request = request.into_inner();
        self.change(request.request_id, format!("{:?}", request.command), request.dry_run).await
    }

    async fn activate_rules(
        &self,
        request: Request<pb::ActivateRulesRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        let request = request.into_inner();
        self.change(request.request_id, format!("{:?}", request.command), request.dry_run).await
    }

    async fn start_canary(
        &self,
        request: Request<pb::StartCanaryRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        let request = request.into_inner();
        self.change(request.request_id, format!("{:?}", request.command), request.dry_run).await
    }

    async fn rollback(
        &self,
        request: Request<pb::RollbackRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        let request = request.into_inner();
        self.change(request.request_id, format!("{:?}", request.command), request.dry_run).await
    }

    async fn apply_config(
        &self,
        request: Request<pb::ApplyConfigRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        let request = request.into_inner();
        self.change(request.request_id, request.file, request.dry_run).await
    }

    async fn configs(
        &self,
        request: Request<pb::ConfigsRequest>,
    ) -> Result<Response<pb::ConfigsResponse>, Status> {
        let config = |index, actor: &str| pb::Configuration {
            index,
            actor: format!("dovetail://{actor}"),
            time_ms: 1_700_000_000_123,
            source: "ab".repeat(32),
            file: format!("PollInterval = \"{index}s\"\n"),
        };
        Ok(Response::new(pb::ConfigsResponse {
            configs: vec![config(3, "member/1"), config(7, "operator/root")],
            freshness: freshness(request.into_inner().stale),
        }))
    }

    async fn pause_canary(
        &self,
        request: Request<pb::PauseCanaryRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        let request = request.into_inner();
        self.change(request.request_id, format!("{:?}", request.command), request.dry_run).await
    }

    async fn release(
        &self,
        request: Request<pb::ReleaseRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        let request = request.into_inner();
        self.change(request.request_id, format!("{:?}", request.command), request.dry_run).await
    }

    async fn resume_canary(
        &self,
        request: Request<pb::ResumeCanaryRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        let request = request.into_inner();
        self.change(request.request_id, format!("{:?}", request.command), request.dry_run).await
    }

    async fn abort_canary(
        &self,
        request: Request<pb::AbortCanaryRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        let request = request.into_inner();
        self.change(request.request_id, format!("{:?}", request.command), request.dry_run).await
    }

    async fn drain_upstream(
        &self,
        request: Request<pb::DrainUpstreamRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        let request = request.into_inner();
        self.change(request.request_id, format!("{:?}", request.command), request.dry_run).await
    }

    async fn undrain_upstream(
        &self,
        request: Request<pb::UndrainUpstreamRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        let request = request.into_inner();
        self.change(request.request_id, format!("{:?}", request.command), request.dry_run).await
    }

    async fn drains(
        &self,
        request: Request<pb::DrainsRequest>,
    ) -> Result<Response<pb::DrainsResponse>, Status> {
        let stale = request.into_inner().stale;
        if !stale {
            self.leads()?;
        }
        let target = pb::drain_target::Target::SwarmNode("worker-2".to_owned());
        let drain = pb::Drain {
            target: Some(pb::DrainTarget { target: Some(target) }),
            id: "n2".to_owned(),
            actor: "dovetail://operator/anna".to_owned(),
            index: 59,
            until_ms: Some(1_795_000_000_000),
            upstreams: vec![pb::Upstream {
                address: "10.0.1.3:8080".to_owned(),
                ..pb::Upstream::default()
            }],
        };
        Ok(Response::new(pb::DrainsResponse { drains: vec![drain], freshness: freshness(stale) }))
    }

    async fn index_at(
        &self,
        request: Request<pb::IndexAtRequest>,
    ) -> Result<Response<pb::IndexAtResponse>, Status> {
        past::index_at(&request.into_inner())
    }

    async fn explain(
        &self,
        request: Request<pb::ExplainRequest>,
    ) -> Result<Response<pb::ExplainResponse>, Status> {
        past::explain(&request.into_inner())
    }

    async fn diff(
        &self,
        request: Request<pb::DiffRequest>,
    ) -> Result<Response<pb::DiffResponse>, Status> {
        past::diff(&request.into_inner())
    }

    async fn history(
        &self,
        request: Request<pb::HistoryRequest>,
    ) -> Result<Response<pb::HistoryResponse>, Status> {
        past::history(&request.into_inner())
    }

    async fn canaries(
        &self,
        request: Request<pb::CanariesRequest>,
    ) -> Result<Response<pb::CanariesResponse>, Status> {
        let request = request.into_inner();
        if !request.stale {
            self.leads()?;
        }
        let share = |service: &str, weight| pb::Share { service: service.to_owned(), weight };
        let canary = pb::Canary {
            route: Some(route_ref("shop.example", "/")),
            shares: vec![share("shop_v1", 9_000), share("shop_v2", 1_000)],
            actor: "dovetail://operator/anna".to_owned(),
            index: 58,
            in_force: vec![share("shop_v1", 10_000), share("shop_v2", 0)],
            run: None,
        };
        let asked = request.route.filter(|route| *route != route_ref("shop.example", "/"));
        match asked {
            Some(route) => Err(Status::not_found(format!("{} has no canary", route.host))),
            None => Ok(Response::new(pb::CanariesResponse {
                canaries: vec![canary],
                freshness: freshness(request.stale),
            })),
        }
    }

    type BackupStream = tokio_stream::Iter<std::vec::IntoIter<Result<pb::BackupPart, Status>>>;

    async fn backup(
        &self,
        request: Request<pb::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        grpc::require(&request, &[Allow::Operator(Role::Admin)])?;
        use pb::backup_part::Part;
        let content = b"everything";
        let header = pb::BackupHeader {
            cluster_id: "c1".to_owned(),
            index: 57,
            bytes: content.len() as u64,
            hash: blake3::hash(content).as_bytes().to_vec(),
        };
        let parts = [
            Part::Header(header),
            Part::Content(content[..4].into()),
            Part::Content(content[4..].into()),
        ];
        let parts = parts.map(|part| Ok(pb::BackupPart { part: Some(part) }));
        // One that loses answers loses the end, too.
        let sent = if self.mode == Mode::Lossy { 2 } else { 3 };
        Ok(Response::new(tokio_stream::iter(parts.into_iter().take(sent).collect::<Vec<_>>())))
    }

    type LogStream = tokio_stream::Iter<std::vec::IntoIter<Result<pb::LogEntry, Status>>>;

    async fn log(
        &self,
        request: Request<pb::LogRequest>,
    ) -> Result<Response<Self::LogStream>, Status> {
        grpc::require(&request, &[Allow::Operator(Role::Operator)])?;
        let request = request.into_inner();
        let entries: Vec<_> = (request.from.max(1)..=3)
            .take(usize::try_from(request.limit).expect("fits"))
            .map(|index| {
                Ok(pb::LogEntry {
                    index,
                    term: 1,
                    leader_time_ms: 1_700_000_000_000 + index,
                    actor: "dovetail://operator/anna".to_owned(),
                    request_id: format!("r{index}"),
                    cause: String::new(),
                    kind: "command".to_owned(),
                    summary: format!("annotate \"{index}\""),
                    hash: "ff".to_owned(),
                })
            })
            .collect();
        Ok(Response::new(tokio_stream::iter(entries)))
    }

    type FollowLogStream = Self::LogStream;

    async fn follow_log(
        &self,
        request: Request<pb::FollowLogRequest>,
    ) -> Result<Response<Self::FollowLogStream>, Status> {
        grpc::require(&request, &[Allow::Operator(Role::Admin)])?;
        let entries: Vec<_> =
            [8, 9].map(|index| Ok(pb::LogEntry { index, ..pb::LogEntry::default() })).into();
        Ok(Response::new(tokio_stream::iter(entries)))
    }

    type ExportLogStream = tokio_stream::Iter<std::vec::IntoIter<Result<pb::ExportPiece, Status>>>;

    async fn export_log(
        &self,
        request: Request<pb::ExportLogRequest>,
    ) -> Result<Response<Self::ExportLogStream>, Status> {
        grpc::require(&request, &[Allow::Operator(Role::Admin)])?;
        let (file, _) = exports::file(&self.tls);
        let pieces: Vec<_> = file
            .chunks(100)
            .map(|piece| Ok(pb::ExportPiece { data: piece.to_vec().into() }))
            .collect();
        Ok(Response::new(tokio_stream::iter(pieces)))
    }

    async fn verify_log(
        &self,
        request: Request<pb::VerifyLogRequest>,
    ) -> Result<Response<pb::VerifyLogResponse>, Status> {
        grpc::require(&request, &[Allow::Operator(Role::Operator)])?;
        Ok(Response::new(exports::compared(request.get_ref(), &self.tls)))
    }
}

fn freshness(stale: bool) -> Option<pb::Freshness> {
    Some(pb::Freshness { index: 57, age_ms: if stale { 1_234 } else { 0 } })
}

fn route_ref(host: &str, path: &str) -> pb::RouteRef {
    let service_cluster = String::new();
    pb::RouteRef { service_cluster, host: host.to_owned(), path: path.to_owned() }
}

fn service_cluster(name: &str, revision: u64, digest: &str) -> pb::ServiceClusterStatus {
    pb::ServiceClusterStatus { name: name.to_owned(), revision, digest: digest.to_owned() }
}

fn proxy(name: &str, revision: u64, connected: bool, nack: &str) -> pb::Proxy {
    pb::Proxy {
        name: name.to_owned(),
        address: "10.0.0.9".to_owned(),
        service_cluster: String::new(),
        revision,
        digest: "aa".to_owned(),
        connected,
        member: u64::from(connected),
        nack: nack.to_owned(),
    }
}
