//! Asking the engine: lists, identity, and whether one object is still there.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dovetail_routing::fact::{Change, Listing, Network, Service, SwarmNode, Task};
use dovetail_routing::names::{NetworkId, ObjectId, ServiceId, SwarmId, SwarmNodeId, TaskId};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::config::DockerConfig;
use crate::error::DockerError;
use crate::transport::HttpClient;
use crate::{convert, telemetry, transport, wire};

/// Longest answer that is read: far above 20,000 tasks.
const ANSWER_BYTES_MAX: usize = 256 * 1_024 * 1_024;
/// Longest error answer whose text is kept.
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
        Ok(Self { shared: Arc::new(Shared { config, client, api: RwLock::default() }) })
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

    /// Tasks alone, in one call.
    pub async fn list_tasks(
        &self,
    ) -> Result<(BTreeMap<TaskId, Task>, Vec<Unreadable>), DockerError> {
        let mut listed = Listed::default();
        self.tasks_into(&mut listed).await?;
        Ok((listed.listing.tasks, listed.unreadable))
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
        let engine =
            self.timed(CALL, async { engine.await.map_err(|e| self.bollard_error(CALL, e)) });
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
        let info = self.timed(CALL, async { info.await.map_err(|e| self.bollard_error(CALL, e)) });
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
        let services = self.list::<wire::Service>("service", "GET /services", "/services");
        for service in services.await?.readable(into) {
            match convert::service(&service) {
                Ok(fact) => _ = into.listing.services.insert(fact.id.clone(), fact),
                Err(reason) => into.cannot_read("service", &service.id, reason),
            }
        }
        self.tasks_into(into).await?;
        let (nodes, networks) = futures_util::future::try_join(
            self.list::<wire::Node>("node", "GET /nodes", "/nodes"),
            // {"scope":["swarm"]}: a machine's own networks route nothing.
            self.list::<wire::Network>(
                "network",
                "GET /networks",
                "/networks?filters=%7B%22scope%22%3A%5B%22swarm%22%5D%7D",
            ),
        )
        .await?;
        for node in nodes.readable(into) {
            match convert::swarm_node(&node) {
                Ok(fact) => _ = into.listing.swarm_nodes.insert(fact.id.clone(), fact),
                Err(reason) => into.cannot_read("node", &node.id, reason),
            }
        }
        for network in networks.readable(into) {
            match convert::network(&network) {
                Ok(fact) => _ = into.listing.networks.insert(fact.id.clone(), fact),
                Err(reason) => into.cannot_read("network", &network.id, reason),
            }
        }
        Ok(())
    }

    pub(crate) async fn tasks_into(&self, into: &mut Listed) -> Result<(), DockerError> {
        let tasks = self.list::<wire::Task>("task", "GET /tasks", "/tasks").await?;
        for task in tasks.readable(into) {
            match convert::task(&task) {
                Ok(Some(fact)) => _ = into.listing.tasks.insert(fact.id.clone(), fact),
                Ok(None) => {}
                Err(reason) => into.cannot_read("task", &task.id, reason),
            }
        }
        Ok(())
    }

    /// The names of secrets and configs.
    pub(crate) async fn list_names(&self, into: &mut Listed) -> Result<(), DockerError> {
        let secrets = self.list::<wire::Named>("secret", "GET /secrets", "/secrets").await?;
        for secret in secrets.readable(into) {
            match convert::named(&secret) {
                Ok(name) => _ = into.listing.secrets.insert(id(&secret.id), name),
                Err(reason) => into.cannot_read("secret", &secret.id, reason),
            }
        }
        let configs = self.list::<wire::Named>("config", "GET /configs", "/configs").await?;
        for config in configs.readable(into) {
            match convert::named(&config) {
                Ok(name) => _ = into.listing.configs.insert(id(&config.id), name),
                Err(reason) => into.cannot_read("config", &config.id, reason),
            }
        }
        Ok(())
    }

    async fn list<T: DeserializeOwned>(
        &self,
        kind: &'static str,
        call: &'static str,
        path: &str,
    ) -> Result<List<T>, DockerError> {
        let body = self.get(call, path).await?;
        let read = wire::list(&body)
            .map_err(|error| DockerError::Unreadable { call, error: error.into() })?;
        Ok(List { kind, read })
    }

    /// Asks for `path` and returns the body of a successful answer.
    async fn get(&self, call: &'static str, path: &str) -> Result<Bytes, DockerError> {
        let api = *self.shared.api.read().unwrap_or_else(PoisonError::into_inner);
        let uri = match api {
            Some((major, minor)) => format!("{AUTHORITY}/v{major}.{minor}{path}"),
            None => format!("{AUTHORITY}{path}"),
        };
        let unreadable = |error: http::Error| DockerError::Unreadable { call, error: error.into() };
        let request = Request::get(uri).body(Either::Left(Full::default())).map_err(unreadable)?;
        self.timed(call, async {
            let answer = self.shared.client.request(request).await;
            let answer = answer.map_err(|error| self.lost(call, error))?;
            let status = answer.status();
            let body = read(call, answer).await?;
            if status == StatusCode::OK {
                return Ok(body);
            }
            let message = message(&body);
            Err(DockerError::Engine { call, status: status.as_u16(), message })
        })
        .await
    }

    /// Bounds a whole call, connecting and reading included, and counts it.
    async fn timed<T>(
        &self,
        call: &'static str,
        work: impl Future<Output = Result<T, DockerError>>,
    ) -> Result<T, DockerError> {
        let (from, after) = (Instant::now(), self.timeout());
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

fn id(id: &str) -> ObjectId {
    ObjectId::from(id)
}

/// A list that was read, before what was unreadable in it has been set apart.
struct List<T> {
    kind: &'static str,
    read: wire::Read<T>,
}

impl<T> List<T> {
    fn readable(self, into: &mut Listed) -> Vec<T> {
        for (id, reason) in self.read.unreadable {
            into.cannot_read(self.kind, &id, reason);
        }
        self.read.objects
    }
}

impl Listed {
    fn cannot_read(&mut self, kind: &'static str, id: &str, reason: String) {
        self.unreadable.push(Unreadable { kind, id: id.into(), reason });
    }

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

async fn read(call: &'static str, answer: Response<Incoming>) -> Result<Bytes, DockerError> {
    let mut body = answer.into_body();
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| DockerError::Lost { call, error: error.into() })?;
        if let Ok(data) = frame.into_data() {
            if bytes.len() + data.len() > ANSWER_BYTES_MAX {
                return Err(DockerError::TooLong { call, bytes_max: ANSWER_BYTES_MAX });
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes.freeze())
}

/// The engine's own words for an error: `{"message": "…"}`.
fn message(body: &[u8]) -> String {
    let json = serde_json::from_slice::<serde_json::Value>(body).ok();
    let said = json.as_ref().and_then(|json| json.get("message")?.as_str());
    let text = said.map_or_else(|| String::from_utf8_lossy(body), Into::into);
    text.trim().chars().take(MESSAGE_BYTES_MAX).collect()
}
