//! The stand-in from outside the process: JSON over HTTP below `/_stand-in/`.
//!
//! It is served where the Engine API is and, with `--control`, on an address of
//! its own that stays while the engine is away. No fault touches it.
//!
//! | request | body | does |
//! |---|---|---|
//! | `GET /_stand-in/services` | | services with their tasks |
//! | `POST /_stand-in/services` | a service, see below | creates it, answers `{"id"}` |
//! | `POST /_stand-in/services/NAME/labels` | `{"LABEL": "VALUE" or null}` | sets or removes labels |
//! | `POST /_stand-in/services/NAME/scale` | `{"replicas": 3}` | scales |
//! | `POST /_stand-in/services/NAME/update` | `{"order": "start-first", "delay_ms": 0, "addresses": […], "image": "…"}` | begins a rolling update |
//! | `DELETE /_stand-in/services/NAME` | | removes it |
//! | `POST /_stand-in/tasks/ID` | `{"desired": "shutdown", "state": "running"}` | sets either or both |
//! | `POST /_stand-in/tasks/ID/fail` | | crashes it; another takes its slot |
//! | `DELETE /_stand-in/tasks/ID` | | takes it off the lists |
//! | `POST /_stand-in/networks`, `secrets`, `configs` | `{"name": "…"}` | creates one |
//! | `DELETE /_stand-in/networks/NAME`, … | | removes it |
//! | `POST /_stand-in/nodes` | `{"hostname": "w", "manager": false, "address": "127.0.0.9"}` | adds a swarm node |
//! | `POST /_stand-in/nodes/NAME` | `{"state": "down", "availability": "drain"}` | changes it |
//! | `POST /_stand-in/nodes/NAME/reschedule` | | gives its tasks to others |
//! | `DELETE /_stand-in/nodes/NAME` | | removes it |
//! | `POST /_stand-in/swarm` | `{"id": "…"}` | is another swarm from now on |
//! | `POST /_stand-in/timing` | `{"start_ms": 0, "stop_ms": null}` | null: not by itself |
//! | `POST /_stand-in/faults` | `{"kind": "hang", "path": "/tasks", "for_ms": 5000}` | begins a fault |
//! | `DELETE /_stand-in/faults` | | ends all faults |
//! | `POST /_stand-in/away` | `{"for_ms": 5000}` | closes everything, and comes back |
//! | `POST /_stand-in/back` | | comes back (through `--control`) |
//! | `GET /_stand-in/requests` | | how often each path was asked for |
//!
//! Kinds of faults: `hang`, `slow` (`delay_ms`), `status` (`code`, `message`),
//! `garbage`, `stale` (`changes`), `no-leader`, `drop-events`.
//!
//! A service: `{"name": "web", "labels": {}, "networks": ["demo"], "mode":
//! "replicated", "replicas": 2, "addresses": ["127.0.0.2", "127.0.0.3"],
//! "vip": "127.0.0.4", "host_ports": [{"target": 80, "published": 8080}], "endpoint_mode": "vip"}`;
//! all but the name may be left out.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::engine::{error, json_body};
use crate::faults::Fault;
use crate::rolling::{Order, Rolling};
use crate::server::{self, Body};
use crate::spec::{ServiceSpec, TaskState, Timing};
use crate::stand_in::{StandIn, StandInError};

/// Where the control API lies.
pub const ROOT: &str = "/_stand-in";
/// A label of 100 KB, a thousand hosts, and room to spare.
const BODY_BYTES_MAX: usize = 8 * 1_024 * 1_024;

/// Serves the control API on an address of its own; returns it as bound.
pub async fn serve(stand_in: &StandIn, address: SocketAddr) -> io::Result<SocketAddr> {
    server::serve_control(stand_in, address).await
}

type Refusal = (StatusCode, String);

fn refused(error: StandInError) -> Refusal {
    let status = match &error {
        StandInError::NotFound { .. } => StatusCode::NOT_FOUND,
        StandInError::Conflict(_) => StatusCode::CONFLICT,
        StandInError::Invalid(_) | StandInError::Unchanged => StatusCode::BAD_REQUEST,
    };
    (status, error.to_string())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Update {
    order: Order,
    delay_ms: u64,
    addresses: Option<Vec<IpAddr>>,
    image: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TaskChange {
    desired: Option<TaskState>,
    state: Option<TaskState>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewNode {
    hostname: String,
    #[serde(default)]
    manager: bool,
    address: IpAddr,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct NodeChange {
    state: Option<String>,
    availability: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
struct NewFault {
    #[serde(flatten)]
    fault: Fault,
    #[serde(default)]
    path: String,
    for_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scale {
    replicas: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Name {
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Id {
    id: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Lasts {
    for_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewTiming {
    start_ms: Option<u64>,
    stop_ms: Option<u64>,
}

/// Answers one request to the control API.
pub(crate) async fn answer(stand_in: &StandIn, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(cause) => return error(stand_in, StatusCode::BAD_REQUEST, &cause.to_string()),
    };
    let path = head.uri.path().strip_prefix(ROOT).unwrap_or_default();
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    match dispatch(stand_in, &head.method, &parts, &body).await {
        Ok(value) => json_body(stand_in, StatusCode::OK, &value),
        Err((status, message)) => error(stand_in, status, &message),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    // No body is as good as an empty object.
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))
}

async fn dispatch(
    stand_in: &StandIn,
    method: &Method,
    parts: &[&str],
    body: &[u8],
) -> Result<Value, Refusal> {
    let done = |result: Result<(), StandInError>| result.map(|()| json!({})).map_err(refused);
    let made =
        |result: Result<String, StandInError>| result.map(|id| json!({"id": id})).map_err(refused);
    match (method.as_str(), parts) {
        ("GET", ["services"]) => Ok(services(stand_in)),
        ("GET", ["requests"]) => Ok(json!(stand_in.request_counts())),
        ("POST", ["services"]) => made(stand_in.create_service(parse::<ServiceSpec>(body)?)),
        ("POST", ["services", name, "labels"]) => {
            let labels: BTreeMap<String, Option<String>> = parse(body)?;
            done(stand_in.update_service(name, |spec| {
                for (label, value) in labels {
                    match value {
                        Some(value) => _ = spec.labels.insert(label, value),
                        None => _ = spec.labels.remove(&label),
                    }
                }
            }))
        }
        ("POST", ["services", name, "scale"]) => {
            done(stand_in.scale(name, parse::<Scale>(body)?.replicas))
        }
        ("POST", ["services", name, "update"]) => {
            let Update { order, delay_ms, addresses, image } = parse(body)?;
            if stand_in.model().service(name).is_none() {
                let (kind, name) = ("service", (*name).to_owned());
                return Err(refused(StandInError::NotFound { kind, name }));
            }
            let delay = Duration::from_millis(delay_ms);
            let rolling = Rolling { order, delay, addresses, image };
            let (worker, name) = (stand_in.unguarded(), (*name).to_owned());
            stand_in.spawn(async move {
                // A service removed meanwhile ends its update.
                _ = worker.rolling_update(&name, rolling).await;
            });
            Ok(json!({}))
        }
        ("DELETE", ["services", name]) => done(stand_in.remove_service(name)),
        ("POST", ["tasks", id]) => {
            let TaskChange { desired, state } = parse(body)?;
            if let Some(desired) = desired {
                stand_in.set_task_desired(id, desired).map_err(refused)?;
            }
            match state {
                Some(state) => done(stand_in.set_task_state(id, state)),
                None => Ok(json!({})),
            }
        }
        ("POST", ["tasks", id, "fail"]) => made(stand_in.fail_task(id)),
        ("DELETE", ["tasks", id]) => done(stand_in.remove_task(id)),
        ("POST", ["networks"]) => made(stand_in.add_network(&parse::<Name>(body)?.name)),
        ("DELETE", ["networks", name]) => done(stand_in.remove_network(name)),
        ("POST", ["secrets"]) => made(Ok(stand_in.add_secret(&parse::<Name>(body)?.name))),
        ("DELETE", ["secrets", name]) => done(stand_in.remove_secret(name)),
        ("POST", ["configs"]) => made(Ok(stand_in.add_config(&parse::<Name>(body)?.name))),
        ("DELETE", ["configs", name]) => done(stand_in.remove_config(name)),
        ("POST", ["nodes"]) => {
            let NewNode { hostname, manager, address } = parse(body)?;
            made(stand_in.add_node(&hostname, manager, address))
        }
        ("POST", ["nodes", name]) => {
            let NodeChange { state, availability, labels } = parse(body)?;
            done(stand_in.update_node(name, |node| {
                node.state = state.unwrap_or_else(|| node.state.clone());
                node.availability = availability.unwrap_or_else(|| node.availability.clone());
                node.labels = labels.unwrap_or_else(|| node.labels.clone());
            }))
        }
        ("POST", ["nodes", name, "reschedule"]) => done(stand_in.reschedule(name)),
        ("DELETE", ["nodes", name]) => done(stand_in.remove_node(name)),
        ("POST", ["swarm"]) => {
            stand_in.become_swarm(&parse::<Id>(body)?.id);
            Ok(json!({}))
        }
        ("POST", ["timing"]) => {
            let NewTiming { start_ms, stop_ms } = parse(body)?;
            let [start, stop] = [start_ms, stop_ms].map(|ms| ms.map(Duration::from_millis));
            stand_in.set_timing(Timing { start, stop });
            Ok(json!({}))
        }
        ("POST", ["faults"]) => {
            let NewFault { fault, path, for_ms } = parse(body)?;
            match for_ms {
                Some(ms) => stand_in.fault_for(&path, fault, Duration::from_millis(ms)),
                None => stand_in.fault(&path, fault),
            }
            Ok(json!({}))
        }
        ("DELETE", ["faults"]) => {
            stand_in.heal();
            Ok(json!({}))
        }
        ("POST", ["away"]) => {
            let lasts = parse::<Lasts>(body)?.for_ms.map(Duration::from_millis);
            let worker = stand_in.unguarded();
            stand_in.spawn(async move {
                // Lets this answer reach its client before the connection is closed.
                tokio::time::sleep(Duration::from_millis(20)).await;
                worker.away().await;
                if let Some(lasts) = lasts {
                    tokio::time::sleep(lasts).await;
                    if let Err(error) = worker.back().await {
                        tracing::error!(%error, "stand-in cannot come back");
                    }
                }
            });
            Ok(json!({}))
        }
        ("POST", ["back"]) => {
            let back = stand_in.back().await;
            back.map_err(|error| (StatusCode::CONFLICT, error.to_string()))?;
            Ok(json!({}))
        }
        _ => Err((StatusCode::NOT_FOUND, format!("no such control: {method} {parts:?}"))),
    }
}

fn services(stand_in: &StandIn) -> Value {
    let model = stand_in.model();
    let services = model.services.values().map(|service| {
        let tasks = model.tasks_of(&service.id).into_iter().map(|task| {
            json!({
                "id": task.id,
                "slot": task.slot,
                "node": task.node,
                "address": task.addresses.first().map(|(_, address)| address),
                "desired": task.desired,
                "state": task.state,
            })
        });
        json!({
            "id": service.id,
            "version": service.meta.version,
            "spec": service.spec,
            "update": service.update.as_ref().map(|update| &update.state),
            "tasks": tasks.collect::<Vec<_>>(),
        })
    });
    services.collect()
}
