//! What a script does to the stand-in, in process and over HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use dovetail_stand_in::{
    Fault, Mode, Options, Order, Rolling, ServiceSpec, StandIn, TaskState, Timing, control,
};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);

async fn request(
    address: SocketAddr,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> (StatusCode, Value) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let request = Request::builder().method(method).uri(format!("http://{address}{path}"));
    let request = request.body(Full::new(body.into())).expect("a request");
    let answer = tokio::time::timeout(SOON, client.request(request)).await.expect("in time");
    let (head, body) = answer.expect("an answer").into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    (head.status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

async fn started(timing: Timing) -> (StandIn, SocketAddr) {
    let options = Options { timing, ..Options::default() };
    let stand_in = StandIn::start(options).await.expect("started");
    let address = stand_in.address().await.expect("an address");
    (stand_in, address)
}

fn at_once() -> Timing {
    Timing { start: Some(Duration::ZERO), stop: Some(Duration::ZERO) }
}

fn by_hand() -> Timing {
    Timing { start: Some(Duration::ZERO), stop: None }
}

fn states(stand_in: &StandIn, service: &str) -> Vec<(TaskState, TaskState)> {
    stand_in.tasks(service).iter().map(|task| (task.desired, task.state)).collect()
}

#[tokio::test]
async fn a_service_is_scaled_as_swarm_does_it() {
    let (stand_in, _) = started(by_hand()).await;
    let addresses = (2..6).map(|n| format!("127.0.0.{n}").parse().expect("an address"));
    let spec = ServiceSpec::new("web").replicas(3).addresses(addresses);
    stand_in.create_service(spec).expect("created");
    let index = stand_in.model().index;
    stand_in.scale("web", 1).expect("scaled");
    let running = (TaskState::Running, TaskState::Running);
    let draining = (TaskState::Remove, TaskState::Running);
    assert_eq!(states(&stand_in, "web"), [running, draining, draining]);
    assert!(stand_in.model().index > index);
    // Its address is still taken, so the new task gets another.
    stand_in.scale("web", 2).expect("scaled");
    let addresses: Vec<_> =
        stand_in.tasks("web").iter().map(|task| task.addresses[0].1.to_string()).collect();
    assert_eq!(addresses, ["127.0.0.2", "127.0.0.3", "127.0.0.5", "127.0.0.4"]);
    for task in stand_in.tasks("web").iter().filter(|task| !task.wanted()) {
        stand_in.set_task_state(&task.id, TaskState::Shutdown).expect("ended");
    }
    assert_eq!(states(&stand_in, "web"), [running, running]);
}

#[tokio::test]
async fn a_failed_task_gives_its_slot_to_another() {
    let (stand_in, _) = started(by_hand()).await;
    stand_in.create_service(ServiceSpec::new("web")).expect("created");
    let first = stand_in.tasks("web")[0].clone();
    let second = stand_in.fail_task(&first.id).expect("failed");
    let failed = (TaskState::Shutdown, TaskState::Failed);
    assert_eq!(states(&stand_in, "web"), [failed, (TaskState::Running, TaskState::Running)]);
    let tasks = stand_in.tasks("web");
    assert_eq!((tasks[1].id.as_str(), tasks[1].slot), (second.as_str(), first.slot));
    assert_ne!(tasks[0].addresses, tasks[1].addresses);
}

#[tokio::test]
async fn a_rolling_update_replaces_every_task() {
    for order in [Order::StopFirst, Order::StartFirst] {
        let (stand_in, _) = started(at_once()).await;
        stand_in.create_service(ServiceSpec::new("web").replicas(3)).expect("created");
        let olds = stand_in.tasks("web");
        let addresses = (2..5).map(|n| format!("127.0.1.{n}").parse().expect("an address"));
        let addresses = Some(addresses.collect());
        let rolling = Rolling { order, addresses, ..Rolling::default() };
        tokio::time::timeout(SOON, stand_in.rolling_update("web", rolling))
            .await
            .expect("in time")
            .expect("updated");
        let model = stand_in.model();
        let status = model.service("web").and_then(|service| service.update.clone());
        assert_eq!(status.expect("a status").state, "completed");
        let news: Vec<_> = stand_in.tasks("web").into_iter().filter(|t| t.wanted()).collect();
        assert_eq!(news.len(), 3, "{order:?}");
        assert!(news.iter().all(|new| new.runs() && olds.iter().all(|old| old.id != new.id)));
        assert!(news.iter().all(|new| new.addresses[0].1.to_string().starts_with("127.0.1.")));
    }
}

#[tokio::test]
async fn nodes_go_down_and_global_services_have_a_task_on_each() {
    let options = Options { nodes: 3, timing: by_hand(), ..Options::default() };
    let stand_in = StandIn::start(options).await.expect("started");
    let spec = ServiceSpec { mode: Mode::Global, ..ServiceSpec::new("agent") };
    stand_in.create_service(spec).expect("created");
    stand_in.create_service(ServiceSpec::new("web").replicas(3)).expect("created");
    assert_eq!(stand_in.tasks("agent").len(), 3);
    stand_in.node_down("stand-in-2").expect("down");
    stand_in.reschedule("stand-in-2").expect("rescheduled");
    let down = stand_in.model().node("stand-in-2").expect("there").id.clone();
    let tasks = stand_in.tasks("web");
    assert_eq!(tasks.iter().filter(|t| t.wanted() && t.node != down).count(), 3);
    assert_eq!(tasks.iter().filter(|t| !t.wanted() && t.node == down).count(), 1);
}

#[tokio::test]
async fn everything_can_be_driven_over_http() {
    let (stand_in, engine) = started(by_hand()).await;
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let side = control::serve(&stand_in, loopback).await.expect("control");
    let post = |path: &'static str, body: Value| async move {
        let (status, answer) = request(engine, Method::POST, path, Some(body)).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        answer
    };
    let web = json!({"name": "web", "replicas": 2, "addresses": ["127.0.0.2", "127.0.0.3"]});
    post("/_stand-in/services", web.clone()).await;
    post("/_stand-in/services/web/labels", json!({"a": "1", "b": "2"})).await;
    post("/_stand-in/services/web/labels", json!({"a": null})).await;
    post("/_stand-in/services/web/scale", json!({"replicas": 3})).await;
    post("/_stand-in/networks", json!({"name": "front"})).await;
    post("/_stand-in/secrets", json!({"name": "key"})).await;
    post("/_stand-in/nodes", json!({"hostname": "w1", "address": "127.0.0.9"})).await;
    post("/_stand-in/nodes/w1", json!({"state": "down"})).await;
    let (_, services) = request(engine, Method::GET, "/_stand-in/services", None).await;
    assert_eq!(services[0]["spec"]["labels"], json!({"b": "2"}));
    assert_eq!(services[0]["tasks"].as_array().map(Vec::len), Some(3));
    let task = services[0]["tasks"][0]["id"].as_str().expect("an id").to_owned();
    let path = format!("/_stand-in/tasks/{task}");
    let change = Some(json!({"desired": "shutdown"}));
    assert_eq!(request(engine, Method::POST, &path, change).await.0, StatusCode::OK);
    let stopping = stand_in.tasks("web").iter().any(|t| t.desired == TaskState::Shutdown);
    assert!(stopping);
    // What is wrong is said.
    let (status, answer) = request(engine, Method::POST, "/_stand-in/services", Some(web)).await;
    assert_eq!(status, StatusCode::CONFLICT, "{answer}");
    let (status, _) =
        request(engine, Method::POST, "/_stand-in/services", Some(json!({"nam": "x"}))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, _) = request(engine, Method::DELETE, "/_stand-in/services/none", None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    // Faults touch the engine, not the control.
    post("/_stand-in/faults", json!({"kind": "status", "code": 500, "message": "ill"})).await;
    let (status, answer) = request(engine, Method::GET, "/v1.41/services", None).await;
    assert_eq!((status.as_u16(), &answer["message"]), (500, &json!("ill")));
    let (status, _) = request(engine, Method::DELETE, "/_stand-in/faults", None).await;
    assert_eq!(status, StatusCode::OK);
    let (status, _) = request(engine, Method::GET, "/v1.41/services", None).await;
    assert_eq!(status, StatusCode::OK);
    // Away and back, from the side.
    let (status, _) = request(side, Method::POST, "/_stand-in/away", None).await;
    assert_eq!(status, StatusCode::OK);
    let closed = async {
        while tokio::net::TcpStream::connect(engine).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, closed).await.expect("closed in time");
    let (status, answer) = request(side, Method::POST, "/_stand-in/back", None).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let (status, _) = request(engine, Method::GET, "/_ping", None).await;
    assert_eq!(status, StatusCode::OK);
    stand_in.stop().await;
}

#[tokio::test]
async fn stale_answers_are_those_of_some_changes_ago() {
    let (stand_in, engine) = started(at_once()).await;
    stand_in.create_service(ServiceSpec::new("first")).expect("created");
    stand_in.create_service(ServiceSpec::new("second")).expect("created");
    stand_in.fault("/services", Fault::Stale { changes: 1 });
    let (_, services) = request(engine, Method::GET, "/v1.41/services", None).await;
    assert_eq!(services.as_array().map(Vec::len), Some(1), "{services}");
    stand_in.heal();
    let (_, services) = request(engine, Method::GET, "/v1.41/services", None).await;
    assert_eq!(services.as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn versions_outside_its_range_are_refused() {
    let (_stand_in, engine) = started(at_once()).await;
    let (status, answer) = request(engine, Method::GET, "/v1.53/services", None).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(answer["message"].as_str().is_some_and(|m| m.contains("too new")), "{answer}");
    let (status, _) = request(engine, Method::GET, "/v1.11/services", None).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}
