//! Asking the engine: lists, identity, and whether one object is still there.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dovetail_routing::fact::{Change, Listing, Network, Service, SwarmNode, Task};
use dovetail_routing::names::{NetworkId, ObjectId, ServiceId, SwarmId, SwarmNodeId, TaskId};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::config::DockerConfig;
use crate::error::DockerError;
use crate::list::{Element, ListReader};
use crate::names::Names;
use crate::patience::Patience;
use crate::transport::HttpClient;
use crate::wire::Identified;
use crate::{convert, telemetry, transport, wire};

/// Longest list that is read: far above 100,000 tasks, of a few kilobytes each.
const LIST_BYTES_MAX: usize = 2 * 1_024 * 1_024 * 1_024;
/// Longest answer of another kind.
const ANSWER_BYTES_MAX: usize = 16 * 1_024 * 1_024;
/// How much of an error's answer is read, and how much of its text is kept.
const ERROR_BYTES_MAX: usize = 64 * 1_024;
const MESSAGE_BYTES_MAX: usize = 1_024;
/// The authority in request URIs; the connector dials the configured URL.
const AUTHORITY: &str = "http://docker";
/// Oldest API version that has all that is read here.
const API_MIN: (usize, usize) = (1, 40);

/// The engine. Cheap to clone; connects when first asked.
#[derive(Clone, Debug)]
pub struct Docker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: DockerConfig,
    client: HttpClient,
    /// As negotiated last; none before.
    api: RwLock<Option<(usize, usize)>>,
    /// For lists.
    patience: Patience,
}

/// An object that the engine showed and that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// `service`, `task`, `node`, `network`, `secret`, `config`.
    pub kind: &'static str,
    pub id: Arc<str>,
    pub reason: String,
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.kind, self.id, self.reason)
    }
}

/// A listing, and what in it could not be read and so is missing from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    pub listing: Listing,
    pub unreadable: Vec<Unreadable>,
}

impl Docker {
    /// Reads the TLS files once, so that a wrong path is told at the start; the
    /// engine itself is not asked for anything yet.
    pub async fn connect(config: DockerConfig) -> Result<Self, DockerError> {
        if let Some(tls) = &config.tls {
            crate::tls::client(tls).map_err(DockerError::Tls)?;
        }
        let client = transport::client(config.url.clone(), config.tls.clone());
        let patience = Patience::new(config.timeout);
        let shared = Shared { config, client, api: RwLock::default(), patience };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Everything: who the swarm is, services, tasks, swarm nodes, networks, and
    /// the names of secrets and configs.
    pub async fn list_all(&self) -> Result<Listed, DockerError> {
        self.negotiate().await?;
        let mut listed = Listed::default();
        listed.listing.swarm = self.swarm_id().await?;
        self.list_routed(&mut listed).await?;
        self.list_names(&mut listed).await?;
        Ok(listed)
    }

    /// Whether the object that `change` is about is still there.
    ///
    /// A 404 for its id is the proof of its removal; any failure is an error.
    pub async fn exists(&self, change: &Change) -> Result<bool, DockerError> {
        let (kind, call, folder, id) = match change {
            Change::Network(Network { id, .. }) | Change::NetworkGone(id) => {
                ("network", "GET /networks/ID", "networks", id.as_str())
            }
            Change::SwarmNode(SwarmNode { id, .. }) | Change::SwarmNodeGone(id) => {
                ("node", "GET /nodes/ID", "nodes", id.as_str())
            }
            Change::Service(Service { id, .. }) | Change::ServiceGone(id) => {
                ("service", "GET /services/ID", "services", id.as_str())
            }
            Change::Task(Task { id, .. }) | Change::TaskGone(id) => {
                ("task", "GET /tasks/ID", "tasks", id.as_str())
            }
            Change::Secret { id, .. } | Change::SecretGone(id) => {
                ("secret", "GET /secrets/ID", "secrets", id.as_str())
            }
            Change::Config { id, .. } | Change::ConfigGone(id) => {
                ("config", "GET /configs/ID", "configs", id.as_str())
            }
        };
        // Docker's ids are such words; anything else would be another request.
        if id.is_empty() || !id.bytes().all(|b| b.is_ascii_alphanumeric()) {
            let id = id.chars().take(64).collect();
            return Err(DockerError::InvalidId { kind, id });
        }
        match self.get(call, &format!("/{folder}/{id}")).await {
            Ok(_) => Ok(true),
            Err(DockerError::Engine { status: 404, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The API version in use, once negotiated.
    pub fn api_version(&self) -> Option<String> {
        let api = *self.shared.api.read().unwrap_or_else(PoisonError::into_inner);
        api.map(|(major, minor)| format!("{major}.{minor}"))
    }

    /// Agrees on the newest API version that both sides know.
    pub(crate) async fn negotiate(&self) -> Result<(), DockerError> {
        const CALL: &str = "GET /version";
        let engine = self.bollard(CALL)?.negotiate_version();
        let engine = self.timed(CALL, self.timeout(), async {
            engine.await.map_err(|e| self.bollard_error(CALL, e))
        });
        let version = engine.await?.client_version();
        let version = (version.major_version, version.minor_version);
        if version < API_MIN {
            let version = format!("{}.{}", version.0, version.1);
            return Err(DockerError::UnsupportedApi { version });
        }
        *self.shared.api.write().unwrap_or_else(PoisonError::into_inner) = Some(version);
        Ok(())
    }

    /// The swarm's own id, which only managers know.
    pub(crate) async fn swarm_id(&self) -> Result<SwarmId, DockerError> {
        const CALL: &str = "GET /info";
        let engine = self.bollard(CALL)?;
        let info = engine.info();
        let info = self.timed(CALL, self.timeout(), async {
            info.await.map_err(|e| self.bollard_error(CALL, e))
        });
        let swarm = info.await?.swarm.unwrap_or_default();
        if let Some(id) = swarm.cluster.and_then(|cluster| cluster.id).filter(|id| !id.is_empty()) {
            return Ok(SwarmId(id.into()));
        }
        let reason = match (swarm.local_node_state, swarm.control_available, swarm.error) {
            (_, _, Some(error)) if !error.is_empty() => error,
            (Some(state), Some(true), _) => format!("it gives no swarm id, its state is {state}"),
            (Some(state), _, _) if state.to_string() == "active" => {
                "this engine is a worker: give a manager's Docker URL".to_owned()
            }
            (Some(state), _, _) => format!("its Swarm state is {state}"),
            (None, _, _) => "it says nothing of Swarm".to_owned(),
        };
        Err(DockerError::NotAManager { reason })
    }

    /// The four heavy lists. Services come before tasks, and networks and swarm
    /// nodes after them, so that whatever a service or a task names was there
    /// when its own list was taken.
    pub(crate) async fn list_routed(&self, into: &mut Listed) -> Result<(), DockerError> {
        let services = self.list("service", "GET /services", "/services", |wire| {
            let fact = convert::service(wire)?;
            Ok(Some((fact.id.clone(), fact)))
        });
        into.listing.services = services.await?.readable(&mut into.unreadable);
        self.tasks_into(into).await?;
        let (nodes, networks) = futures_util::future::try_join(
            self.list("node", "GET /nodes", "/nodes", |wire| {
                let fact = convert::swarm_node(wire)?;
                Ok(Some((fact.id.clone(), fact)))
            }),
            // {"scope":["swarm"]}: a machine's own networks route nothing.
            self.list(
                "network",
                "GET /networks",
                "/networks?filters=%7B%22scope%22%3A%5B%22swarm%22%5D%7D",
                |wire| {
                    let fact = convert::network(wire)?;
                    Ok(Some((fact.id.clone(), fact)))
                },
            ),
        )
        .await?;
        into.listing.swarm_nodes = nodes.readable(&mut into.unreadable);
        into.listing.networks = networks.readable(&mut into.unreadable);
        Ok(())
    }

    pub(crate) async fn tasks_into(&self, into: &mut Listed) -> Result<(), DockerError> {
        let mut names = Names::default();
        let tasks = self.list("task", "GET /tasks", "/tasks", |wire| {
            let fact = convert::task(wire)?.map(|fact| names.shared_by(fact));
            Ok(fact.map(|fact| (fact.id.clone(), fact)))
        });
        into.listing.tasks = tasks.await?.readable(&mut into.unreadable);
        Ok(())
    }

    /// The names of secrets and configs.
    pub(crate) async fn list_names(&self, into: &mut Listed) -> Result<(), DockerError> {
        let named =
            |wire: &wire::Named| Ok(Some((ObjectId::from(&*wire.id), convert::named(wire)?)));
        let secrets = self.list("secret", "GET /secrets", "/secrets", named).await?;
        into.listing.secrets = secrets.readable(&mut into.unreadable);
        let configs = self.list("config", "GET /configs", "/configs", named).await?;
        into.listing.configs = configs.readable(&mut into.unreadable);
        Ok(())
    }

    /// Asks for a list, and turns each of its objects into a fact with its key, if it is one.
    async fn list<T: DeserializeOwned + Identified, F>(
        &self,
        kind: &'static str,
        call: &'static str,
        path: &str,
        mut convert: impl FnMut(&T) -> Result<Option<F>, String>,
    ) -> Result<List<F>, DockerError> {
        let unreadable =
            |error: serde_json::Error| DockerError::Unreadable { call, error: error.into() };
        let patience = &self.shared.patience;
        let (from, after) = (Instant::now(), patience.now(call));
        let result = self.timed(call, after, async {
            let mut answer = self.request(call, path).await?;
            let mut list = List { facts: Vec::new(), unreadable: Vec::new() };
            let mut reader = ListReader::default();
            while let Some(bytes) = answer.next().await? {
                let taken = reader.read(&bytes, |element: Element<T>| {
                    let fact = element.and_then(|object| {
                        convert(&object).map_err(|reason| (object.id().to_owned(), reason))
                    });
                    match fact {
                        Ok(fact) => list.facts.extend(fact),
                        Err((id, reason)) => list.cannot_read(kind, &id, reason),
                    }
                });
                taken.map_err(unreadable)?;
                // However much there is, others get their turn.
                tokio::task::consume_budget().await;
            }
            reader.end().map_err(unreadable)?;
            Ok(list)
        });
        let result = result.await;
        match &result {
            Err(DockerError::Timeout { .. }) => patience.timed_out(call, after),
            _ => patience.answered(call, from.elapsed()),
        }
        result
    }

    /// Asks for `path` and returns the body of a successful answer.
    async fn get(&self, call: &'static str, path: &str) -> Result<Bytes, DockerError> {
        self.timed(call, self.timeout(), async {
            let mut answer = self.request(call, path).await?;
            answer.bytes_max = ANSWER_BYTES_MAX;
            let mut body = BytesMut::new();
            while let Some(bytes) = answer.next().await? {
                body.extend_from_slice(&bytes);
            }
            Ok(body.freeze())
        })
        .await
    }

    /// Asks for `path`; a successful answer's body is still to be read.
    async fn request(&self, call: &'static str, path: &str) -> Result<Answer, DockerError> {
        let api = *self.shared.api.read().unwrap_or_else(PoisonError::into_inner);
        let uri = match api {
            Some((major, minor)) => format!("{AUTHORITY}/v{major}.{minor}{path}"),
            None => format!("{AUTHORITY}{path}"),
        };
        let unreadable = |error: http::Error| DockerError::Unreadable { call, error: error.into() };
        let request = Request::get(uri).body(Either::Left(Full::default())).map_err(unreadable)?;
        let answer = self.shared.client.request(request).await;
        let answer = answer.map_err(|error| self.lost(call, error))?;
        let status = answer.status();
        let mut answer =
            Answer { call, body: answer.into_body(), bytes: 0, bytes_max: LIST_BYTES_MAX };
        if status == StatusCode::OK {
            return Ok(answer);
        }
        let mut body = BytesMut::new();
        while body.len() < ERROR_BYTES_MAX
            && let Some(bytes) = answer.next().await?
        {
            body.extend_from_slice(&bytes);
        }
        Err(DockerError::Engine { call, status: status.as_u16(), message: message(&body) })
    }

    /// Bounds a whole call, connecting and reading included, and counts it.
    async fn timed<T>(
        &self,
        call: &'static str,
        after: Duration,
        work: impl Future<Output = Result<T, DockerError>>,
    ) -> Result<T, DockerError> {
        let from = Instant::now();
        let result = match tokio::time::timeout(after, work).await {
            Ok(result) => result,
            Err(_) => Err(DockerError::Timeout { call, after }),
        };
        let outcome = match &result {
            Ok(_) => "ok",
            Err(DockerError::Timeout { .. }) => "timeout",
            Err(DockerError::Engine { .. }) => "refused",
            Err(_) => "failed",
        };
        telemetry::called(call, outcome, from.elapsed());
        result
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.shared.config.timeout
    }

    fn lost(&self, call: &'static str, error: hyper_util::client::legacy::Error) -> DockerError {
        if error.is_connect() {
            let url = self.shared.config.url.to_string();
            return DockerError::Connect { call, url, error: error.into() };
        }
        DockerError::Lost { call, error: error.into() }
    }

    pub(crate) fn bollard_error(
        &self,
        call: &'static str,
        error: bollard::errors::Error,
    ) -> DockerError {
        use bollard::errors::Error;
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                let message = message.trim().chars().take(MESSAGE_BYTES_MAX).collect();
                DockerError::Engine { call, status: status_code, message }
            }
            // What our own transport below wrapped.
            Error::IOError { err } => match err.downcast() {
                Ok(error) => self.lost(call, error),
                Err(error) => DockerError::Lost { call, error: error.into() },
            },
            Error::HyperResponseError { err } => DockerError::Lost { call, error: err.into() },
            Error::RequestTimeoutError => DockerError::Timeout { call, after: self.timeout() },
            error => DockerError::Unreadable { call, error: error.into() },
        }
    }

    /// bollard over our own transport, for the calls whose types it has.
    pub(crate) fn bollard(&self, call: &'static str) -> Result<bollard::Docker, DockerError> {
        self.bollard_noting(call, || {})
    }

    /// The same, with a word when the head of a successful answer is there.
    pub(crate) fn bollard_noting(
        &self,
        call: &'static str,
        answered: impl Fn() + Clone + Send + Sync + 'static,
    ) -> Result<bollard::Docker, DockerError> {
        let client = self.shared.client.clone();
        let transport = move |request: bollard::BollardRequest| {
            let (answer, answered) = (client.request(request), answered.clone());
            async move {
                match answer.await {
                    Ok(answer) => {
                        if answer.status().is_success() {
                            answered();
                        }
                        Ok(answer)
                    }
                    Err(error) => {
                        let error = std::io::Error::other(error);
                        Err(bollard::errors::Error::IOError { err: error })
                    }
                }
            }
        };
        let seconds = self.timeout().as_secs().max(1);
        bollard::Docker::connect_with_custom_transport(
            transport,
            Some(AUTHORITY),
            seconds,
            bollard::API_DEFAULT_VERSION,
        )
        .map_err(|error| self.bollard_error(call, error))
    }
}

/// A list that was read, before what was unreadable in it has been set apart.
struct List<F> {
    facts: Vec<F>,
    unreadable: Vec<Unreadable>,
}

impl<F> List<F> {
    fn cannot_read(&mut self, kind: &'static str, id: &str, reason: String) {
        self.unreadable.push(Unreadable { kind, id: id.into(), reason });
    }
}

impl<K: Ord, V> List<(K, V)> {
    fn readable(self, unreadable: &mut Vec<Unreadable>) -> BTreeMap<K, V> {
        unreadable.extend(self.unreadable);
        self.facts.into_iter().collect()
    }
}

impl Listed {
    /// Unread is not gone: puts back what the last listing knew of each
    /// unreadable object.
    pub(crate) fn keep_unread(&mut self, last: &Listing) {
        fn keep<K: Ord + Clone, V: Clone>(into: &mut BTreeMap<K, V>, last: &BTreeMap<K, V>, id: K) {
            if let Some(known) = last.get(&id) {
                into.insert(id, known.clone());
            }
        }
        let now = &mut self.listing;
        for Unreadable { kind, id, .. } in &self.unreadable {
            match *kind {
                "service" => keep(&mut now.services, &last.services, ServiceId(id.clone())),
                "task" => keep(&mut now.tasks, &last.tasks, TaskId(id.clone())),
                "node" => keep(&mut now.swarm_nodes, &last.swarm_nodes, SwarmNodeId(id.clone())),
                "network" => keep(&mut now.networks, &last.networks, NetworkId(id.clone())),
                "secret" => keep(&mut now.secrets, &last.secrets, ObjectId(id.clone())),
                _ => keep(&mut now.configs, &last.configs, ObjectId(id.clone())),
            }
        }
    }
}

/// A body on its way.
struct Answer {
    call: &'static str,
    body: Incoming,
    /// How many came so far, and how many may.
    bytes: usize,
    bytes_max: usize,
}

impl Answer {
    /// The next bytes; `None` behind the last.
    async fn next(&mut self) -> Result<Option<Bytes>, DockerError> {
        let call = self.call;
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| DockerError::Lost { call, error: error.into() })?;
            if let Ok(data) = frame.into_data() {
                self.bytes += data.len();
                if self.bytes > self.bytes_max {
                    return Err(DockerError::TooLong { call, bytes_max: self.bytes_max });
                }
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

/// The engine's own words for an error: `{"message": "…"}`.
fn message(body: &[u8]) -> String {
    let json = serde_json::from_slice::<serde_json::Value>(body).ok();
    let said = json.as_ref().and_then(|json| json.get("message")?.as_str());
    let text = said.map_or_else(|| String::from_utf8_lossy(body), Into::into);
    text.trim().chars().take(MESSAGE_BYTES_MAX).collect()
}
