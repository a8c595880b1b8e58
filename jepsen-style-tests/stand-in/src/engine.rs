//! The Engine API: which request gets which answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::events::{self, Span};
use crate::faults::Fault;
use crate::filters::{Filters, Query};
use crate::json as objects;
use crate::model::Model;
use crate::server::Body;
use crate::stand_in::StandIn;

const NO_LEADER: &str = "rpc error: code = Unknown desc = The swarm does not have a leader. \
    It's possible that too few managers are online. \
    Make sure more than half of the managers are online.";
/// Paths that a manager passes on to the Swarm's leader.
const OF_THE_LEADER: [&str; 5] = ["/services", "/tasks", "/nodes", "/secrets", "/configs"];

type Answer = Result<Value, (StatusCode, String)>;

/// Answers one request, or takes its time as the faults say.
pub(crate) async fn answer(stand_in: &StandIn, request: Request<Incoming>) -> Response<Body> {
    let path = match unversioned(stand_in, request.uri().path()) {
        Ok(path) => path.to_owned(),
        Err(message) => return error(stand_in, StatusCode::BAD_REQUEST, &message),
    };
    stand_in.count_request(&class(&path));
    let faults = &stand_in.inner().faults;
    faults.hang(&path).await;
    let mut model = stand_in.model();
    let mut leaderless = false;
    for fault in faults.on(&path) {
        match fault {
            Fault::Slow { delay_ms } => {
                tokio::time::sleep(Duration::from_millis(delay_ms)).await;
                model = stand_in.model();
            }
            Fault::Garbage => return body(stand_in, StatusCode::OK, "[{\"this is\": no json"),
            Fault::Status { code, message } => {
                let status = StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_GATEWAY);
                return error(stand_in, status, &message);
            }
            Fault::Stale { changes } => model = stand_in.model_before(changes),
            Fault::NoLeader => leaderless = true,
            // Both have been seen to, or are where events are emitted.
            Fault::Hang | Fault::DropEvents => {}
        }
    }
    if leaderless && OF_THE_LEADER.iter().any(|of| path.starts_with(of)) {
        return error(stand_in, StatusCode::SERVICE_UNAVAILABLE, NO_LEADER);
    }
    let query = Query::parse(request.uri().query());
    let filters = match query.filters() {
        Ok(filters) => filters,
        Err(message) => return error(stand_in, StatusCode::BAD_REQUEST, &message),
    };
    match (request.method(), path.as_str()) {
        (&Method::GET | &Method::HEAD, "/_ping") => body(stand_in, StatusCode::OK, "OK"),
        (&Method::GET, "/events") => {
            let span =
                Span { since: moment(query.get("since")), until: moment(query.get("until")) };
            let stream = events::stream(stand_in.clone(), filters, span);
            respond(stand_in, StatusCode::OK, StreamBody::new(stream).boxed_unsync())
        }
        (&Method::GET, "/services" | "/tasks") if request.uri().query().is_none() => {
            let (stand_in, asked) = (stand_in.clone(), stand_in.clone());
            // Of a large swarm this takes a while.
            let all = tokio::task::spawn_blocking(move || {
                asked.bodies().of(&path, &model, |model| match path.as_str() {
                    "/services" => {
                        list(model.services.values(), |of| objects::service(model, of, false))
                    }
                    _ => list(model.tasks.values(), |of| objects::task(model, of)),
                })
            });
            match all.await {
                Ok(all) => respond(&stand_in, StatusCode::OK, Full::new(all).boxed_unsync()),
                Err(failed) => {
                    error(&stand_in, StatusCode::INTERNAL_SERVER_ERROR, &failed.to_string())
                }
            }
        }
        (&Method::GET, _) => match read(stand_in, &model, &path, &query, &filters, leaderless) {
            Ok(value) => json_body(stand_in, StatusCode::OK, &value),
            Err((status, message)) => error(stand_in, status, &message),
        },
        _ => {
            let message = "a stand-in is changed through /_stand-in, not through the Engine API";
            error(stand_in, StatusCode::NOT_IMPLEMENTED, message)
        }
    }
}

/// The path without its version, if we speak that.
fn unversioned<'p>(stand_in: &StandIn, path: &'p str) -> Result<&'p str, String> {
    let Some(rest) = path.strip_prefix("/v") else { return Ok(path) };
    let Some((version, _)) = rest.split_once('/') else { return Ok(path) };
    let parts = version.split_once('.');
    let parts = parts.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    let Some(asked): Option<(u32, u32)> = parts else { return Ok(path) };
    let options = &stand_in.inner().options;
    let ((major, minor), (min_major, min_minor)) = (options.api, options.api_min);
    if asked > options.api {
        let max = format!("{major}.{minor}");
        return Err(format!(
            "client version {version} is too new. Maximum supported API version is {max}"
        ));
    }
    if asked < options.api_min {
        return Err(format!(
            "client version {version} is too old. Minimum supported API version is \
             {min_major}.{min_minor}, please upgrade your client to a newer version"
        ));
    }
    Ok(&rest[version.len()..])
}

/// The path with any id left out, for counting.
fn class(path: &str) -> String {
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    match (parts.next(), parts.next()) {
        (Some(kind), Some(id)) if !id.is_empty() => format!("/{kind}/{{id}}"),
        _ => path.to_owned(),
    }
}

/// Seconds since 1970, with or without a fraction, as clients send times.
fn moment(text: Option<&str>) -> Option<OffsetDateTime> {
    let (seconds, fraction) = match text?.split_once('.') {
        Some((seconds, fraction)) => (seconds, fraction),
        None => (text?, ""),
    };
    let nanos = format!("{fraction:0<9}").get(..9)?.parse::<i64>().ok()?;
    let time = OffsetDateTime::from_unix_timestamp(seconds.parse().ok()?).ok()?;
    Some(time + time::Duration::nanoseconds(nanos))
}

fn read(
    stand_in: &StandIn,
    model: &Model,
    path: &str,
    query: &Query,
    filters: &Filters,
    leaderless: bool,
) -> Answer {
    let options = &stand_in.inner().options;
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let (kind, id) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    Ok(match (kind, id) {
        ("version", "") => objects::version(options.api, options.api_min),
        ("info", "") => objects::info(model, leaderless),
        ("swarm", "") => objects::cluster(model),
        ("services", "") => services(model, query, filters),
        ("tasks", "") => tasks(model, filters)?,
        ("nodes", "") => nodes(model, filters),
        ("networks", "") => networks(model, filters),
        ("secrets", "") => named(model.secrets.values(), filters),
        ("configs", "") => named(model.configs.values(), filters),
        ("containers", "json") | ("images", "json") | ("plugins", "") => json!([]),
        ("services", id) => {
            let service = model.service(id).or_else(|| by_prefix(&model.services, id));
            objects::service(model, service.ok_or_else(|| missing("service", id))?, false)
        }
        ("tasks", id) => {
            let task = model.tasks.get(id).or_else(|| by_prefix(&model.tasks, id));
            objects::task(model, task.ok_or_else(|| missing("task", id))?)
        }
        ("nodes", "self") => {
            let own = model.nodes.values().next();
            objects::node(own.ok_or_else(|| missing("node", "self"))?)
        }
        ("nodes", id) => {
            let node = model.node(id).or_else(|| by_prefix(&model.nodes, id));
            objects::node(node.ok_or_else(|| missing("node", id))?)
        }
        ("networks", id) => {
            let network = model.network(id).or_else(|| by_prefix(&model.networks, id));
            objects::network(network.ok_or_else(|| missing("network", id))?)
        }
        ("secrets", id) => {
            let found = by_prefix(&model.secrets, id);
            objects::named(found.ok_or_else(|| missing("secret", id))?)
        }
        ("configs", id) => {
            let found = by_prefix(&model.configs, id);
            objects::named(found.ok_or_else(|| missing("config", id))?)
        }
        _ => return Err((StatusCode::NOT_FOUND, "page not found".to_owned())),
    })
}

fn missing(kind: &str, id: &str) -> (StatusCode, String) {
    (StatusCode::NOT_FOUND, format!("{kind} {id} not found"))
}

fn by_prefix<'m, T>(
    all: &'m std::collections::BTreeMap<String, Arc<T>>,
    prefix: &str,
) -> Option<&'m Arc<T>> {
    let (id, found) = all.range(prefix.to_owned()..).next()?;
    id.starts_with(prefix).then_some(found)
}

/// A list's text, object by object: all of them as values would be many times as large.
fn list<'m, T: 'm>(
    all: impl Iterator<Item = &'m Arc<T>>,
    object: impl Fn(&'m T) -> Value,
) -> Bytes {
    let mut text = vec![b'['];
    for (position, one) in all.enumerate() {
        if position > 0 {
            text.push(b',');
        }
        text.extend_from_slice(object(one).to_string().as_bytes());
    }
    text.extend_from_slice(b"]\n");
    text.into()
}

/// The newest whole lists: several clients ask for the same one again and again.
#[derive(Debug, Default)]
pub(crate) struct Bodies(Mutex<BTreeMap<String, BodyOf>>);

/// A list's text, made once for its model.
type BodyOf = (Arc<Model>, Arc<OnceLock<Bytes>>);

impl Bodies {
    fn of(&self, path: &str, model: &Arc<Model>, make: impl FnOnce(&Model) -> Bytes) -> Bytes {
        let body = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let known = all.get(path).filter(|(of, _)| Arc::ptr_eq(of, model));
            let known = known.map(|(_, body)| Arc::clone(body));
            known.unwrap_or_else(|| {
                let body = Arc::default();
                all.insert(path.to_owned(), (Arc::clone(model), Arc::clone(&body)));
                body
            })
        };
        body.get_or_init(|| make(model)).clone()
    }
}

fn services(model: &Model, query: &Query, filters: &Filters) -> Value {
    let status = query.flag("status");
    let wanted = model.services.values().filter(|service| {
        let name = filters.allow_prefix("name", &service.spec.name);
        name && filters.allow_prefix("id", &service.id)
            && filters.allow_labels(&service.spec.labels)
    });
    wanted.map(|service| objects::service(model, service, status)).collect()
}

fn tasks(model: &Model, filters: &Filters) -> Answer {
    let wanted = model.tasks.values().filter(|task| {
        let service = model.services.get(&task.service);
        let name = service.map_or("", |service| service.spec.name.as_str());
        let node = model.nodes.get(&task.node);
        let hostname = node.map_or("", |node| node.hostname.as_str());
        filters.allow_prefix("id", &task.id)
            && filters.allow("service", &[&task.service, name])
            && filters.allow("node", &[&task.node, hostname])
            && filters.allow("desired-state", &[task.desired.as_str()])
    });
    Ok(wanted.map(|task| objects::task(model, task)).collect())
}

fn nodes(model: &Model, filters: &Filters) -> Value {
    let wanted = model.nodes.values().filter(|node| {
        let role = if node.manager { "manager" } else { "worker" };
        filters.allow_prefix("id", &node.id)
            && filters.allow_prefix("name", &node.hostname)
            && filters.allow("role", &[role])
    });
    wanted.map(|node| objects::node(node)).collect()
}

fn networks(model: &Model, filters: &Filters) -> Value {
    let wanted = model.networks.values().filter(|network| {
        filters.allow_prefix("id", &network.id)
            && filters.allow_prefix("name", &network.name)
            && filters.allow("scope", &["swarm"])
            && filters.allow("driver", &["overlay"])
    });
    wanted.map(|network| objects::network(network)).collect()
}

fn named<'m>(all: impl Iterator<Item = &'m Arc<crate::model::Named>>, filters: &Filters) -> Value {
    let wanted = all.filter(|named| {
        filters.allow_prefix("id", &named.id) && filters.allow_prefix("name", &named.name)
    });
    wanted.map(|named| objects::named(named)).collect()
}

fn respond(stand_in: &StandIn, status: StatusCode, body: Body) -> Response<Body> {
    let (major, minor) = stand_in.inner().options.api;
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let api = format!("{major}.{minor}");
    for (name, value) in [
        ("api-version", api.as_str()),
        ("content-type", "application/json"),
        ("docker-experimental", "false"),
        ("ostype", "linux"),
        ("server", "Docker/stand-in (linux)"),
        ("swarm", "active/manager"),
    ] {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn body(stand_in: &StandIn, status: StatusCode, text: &str) -> Response<Body> {
    respond(stand_in, status, Full::new(Bytes::copy_from_slice(text.as_bytes())).boxed_unsync())
}

pub(crate) fn json_body(stand_in: &StandIn, status: StatusCode, value: &Value) -> Response<Body> {
    let mut text = value.to_string();
    text.push('\n');
    body(stand_in, status, &text)
}

pub(crate) fn error(stand_in: &StandIn, status: StatusCode, message: &str) -> Response<Body> {
    json_body(stand_in, status, &json!({ "message": message }))
}
