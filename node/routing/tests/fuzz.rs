//! Every parser, against a fixed number of random and of mutated inputs.
//!
//! The generator is seeded, so that a failure is the same on every machine. What is
//! checked is that nothing panics, and that whatever is accepted is canonical.

use std::sync::Arc;

use dovetail_routing::fact::{
    Change, EndpointMode, LabelValue, Network, Observed, Scale, Service, SwarmVersion, Task,
    TaskState,
};
use dovetail_routing::names::{
    ContextRoot, CookieName, Host, NetworkName, Port, SecretName, ServiceCluster, ServiceId, TaskId,
};
use dovetail_routing::snapshot::{Redirect, Route, RouteHost, RouteService, Snapshot};
use dovetail_routing::state::State;
use dovetail_routing::{Entry, LogIndex, Payload};

const ROUNDS: u32 = 20_000;

/// SplitMix64: small, seeded, good enough to mutate bytes.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).expect("below a usize")
    }

    fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }

    fn bytes(&mut self, max: usize) -> Vec<u8> {
        let length = self.below(max);
        (0..length).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    /// One to four small changes of `seed`: cut, doubled, overwritten, inserted.
    fn mutated(&mut self, seed: &[u8]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            match self.below(6) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.next().to_le_bytes()[0]),
                2 if at < bytes.len() => bytes[at] = self.next().to_le_bytes()[0],
                3 if at < bytes.len() => bytes[at] = bytes[at].wrapping_add(1),
                4 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                _ => {
                    let end = (at + self.below(16)).min(bytes.len());
                    let piece = bytes[at.min(end)..end].to_vec();
                    bytes.extend(piece);
                }
            }
        }
        bytes
    }

    /// A text: random letters that parsers care for, or a seed with small changes.
    fn text(&mut self, seeds: &[&str]) -> String {
        const LETTERS: &[&str] = &[
            "a", "Z", "0", "9", ".", "-", "_", "/", ",", " ", ":", "*", "é", "\0", "%", "?", "\n",
        ];
        if self.below(2) == 0 {
            let length = self.below(40);
            return (0..length).map(|_| *self.of(LETTERS)).collect();
        }
        let seed = *self.of(seeds);
        String::from_utf8_lossy(&self.mutated(seed.as_bytes())).into_owned()
    }
}

/// Whatever is accepted prints as something that is accepted and prints the same.
macro_rules! parser {
    ($test:ident, $type:ty, $show:expr, $seeds:expr) => {
        #[test]
        fn $test() {
            let mut random = Random(1);
            let mut accepted = 0;
            for _ in 0..ROUNDS {
                let text = random.text($seeds);
                if let Ok(parsed) = text.parse::<$type>() {
                    accepted += 1;
                    let shown: String = $show(&parsed);
                    assert_eq!(shown.parse().as_ref(), Ok(&parsed), "{text:?}");
                }
            }
            assert!(accepted > 100, "only {accepted} inputs were accepted: poor seeds");
        }
    };
}

parser!(hosts, Host, ToString::to_string, &["shop.example", "a-b.c_d.example.", "x"]);
parser!(ports, Port, ToString::to_string, &["80", "8080", "65535"]);
parser!(context_roots, ContextRoot, ToString::to_string, &["/", "/app", "/app/v1.0/"]);
parser!(networks, NetworkName, |name: &NetworkName| name.as_str().to_owned(), &["shop_front"]);
parser!(service_clusters, ServiceCluster, ToString::to_string, &["east", ""]);
parser!(wildcards, RouteHost, ToString::to_string, &["*.shop.example", "shop.example", "*"]);
parser!(secrets, SecretName, ToString::to_string, &["shop.example.cert", "stack_key-2"]);
parser!(cookies, CookieName, ToString::to_string, &["session", "JSESSIONID", "__Host-id"]);
parser!(
    targets_of_redirects,
    Redirect,
    ToString::to_string,
    &["https://shop.example:8443/new/", "shop.example", "http://[2001:db8::1]:80", "http://a/b"]
);

#[test]
fn a_stripped_path_is_a_path_below_its_root() {
    let mut random = Random(2);
    for _ in 0..ROUNDS {
        let root = random.text(&["/", "/app", "/a/b"]);
        let path = random.text(&["/app", "/app/x", "/apple", "/a/b/c"]);
        let Ok(root) = root.parse::<ContextRoot>() else { continue };
        if let Some(below) = root.strip(&path) {
            assert!(below.starts_with('/'), "{path:?} below {root} is {below:?}");
            assert!(path.starts_with(root.as_str()));
        }
    }
}

/// A state with one published service, on which labels are then tried.
fn published() -> State {
    let mut state = State::default();
    let labels = [
        ("hosts", "good.example"),
        ("port", "80"),
        ("ssl_cert", "cert"),
        ("client_ca_cert", "ca"),
        ("sticky_session_cookie", "id"),
        ("redirects", "good.example,https://good.example/new"),
        ("ssl_backend", "true"),
    ];
    apply(&mut state, vec![Change::Service(service(&labels))]);
    apply(
        &mut state,
        vec![Change::Task(Task {
            id: TaskId::from("t1"),
            version: SwarmVersion(1),
            service: ServiceId::from("good"),
            slot: 1,
            node: "m1".into(),
            desired: dovetail_routing::fact::DesiredState::Running,
            state: TaskState::Running,
            addresses: vec![("n1".into(), [10, 0, 0, 1].into())],
            host_ports: Vec::new(),
        })],
    );
    state
}

fn apply(state: &mut State, changes: Vec<Change>) {
    let index = LogIndex(state.applied_index().0 + 1);
    let observed = Observed { swarm: "a".into(), changes, events: Vec::new() };
    let entry = Entry {
        schema_version: 1,
        leader_time_ms: index.0,
        actor: "".into(),
        request_id: "".into(),
        cause: "".into(),
        payload: Payload::Observed(observed),
    };
    state.apply(index, &entry);
}

fn service(labels: &[(&str, &str)]) -> Service {
    let label = |(key, value): &(&str, &str)| {
        (format!("com.docker.lb.{key}").into(), LabelValue::Text((*value).into()))
    };
    Service {
        id: ServiceId::from("good"),
        version: SwarmVersion(1),
        name: "good".into(),
        created_at: "".into(),
        labels: labels.iter().map(label).collect(),
        networks: vec!["n1".into()],
        vips: Vec::new(),
        endpoint_mode: EndpointMode::Vip,
        host_ports: Vec::new(),
        scale: Scale::Replicated(1),
        update_state: "".into(),
    }
}

/// Each label that has a form, and values that it takes.
const LABELS: &[(&str, &[&str])] = &[
    ("com.docker.lb.hosts", &["a.example,b.example", "*.example"]),
    ("com.docker.lb.port", &["80"]),
    ("com.docker.lb.network", &["n"]),
    ("com.docker.lb.context_root", &["/app", "/"]),
    ("com.docker.lb.context_root_rewrite", &["true", "false"]),
    ("com.docker.lb.backend_mode", &["vip", "task"]),
    ("com.docker.lb.default_backend", &["true", "false"]),
    ("com.docker.lb.service_cluster", &["east", ""]),
    (
        "com.docker.lb.redirects",
        &["a.example,https://b.example;", "http://a.example/,c.example:80/x;b.example,http://d"],
    ),
    ("com.docker.lb.websocket_endpoints", &["/ws,/chat"]),
    ("com.docker.lb.ssl_cert", &["a.cert"]),
    ("com.docker.lb.ssl_key", &["a.key"]),
    ("com.docker.lb.client_ca_cert", &["ca"]),
    ("com.docker.lb.ssl_passthrough", &["true", "false"]),
    ("com.docker.lb.ssl_only", &["true"]),
    ("com.docker.lb.sticky_session_cookie", &["session"]),
    ("com.docker.lb.ip_hash", &["true"]),
    ("com.docker.lb.max_fails", &["0", "3", "1000000"]),
    ("com.docker.lb.fail_timeout", &["10s", "500ms", "1m30s", "86400", "1d"]),
    ("com.docker.lb.ssl_backend", &["true"]),
    ("com.docker.lb.ssl_backend_tls_verify", &["none", "required", "verify"]),
    (
        "com.docker.ucp.mesh.http",
        &[
            "external_route=http://a.example,internal_port=80,sticky_sessions=id",
            "external_route=sni://a.example,internal_port=443",
            "external_route=http://,internal_port=80,redirect=https://a.example",
        ],
    ),
    ("com.docker.ucp.mesh.http.1", &["external_route=http://b.example,internal_port=80"]),
    ("dovetail.exclusive", &["true"]),
    ("dovetail.fail_on", &["5xx"]),
    ("dovetail.protocol", &["auto", "http1", "h2c"]),
    ("dovetail.ssl_backend_ca", &["ca"]),
    ("dovetail.ssl_backend_name", &["a.internal"]),
];

#[test]
fn labels_of_a_neighbour_never_harm_a_good_route() {
    let keys: Vec<_> = LABELS.iter().map(|(key, _)| *key).collect();
    let values: Vec<_> = LABELS.iter().flat_map(|(_, values)| *values).copied().collect();
    let mut random = Random(3);
    let mut state = published();
    let before = good_route(&state);
    for round in 0..ROUNDS / 4 {
        let labels = (0..random.below(8)).map(|_| {
            let key = match random.below(8) {
                0 => random.text(&keys),
                _ => (*random.of(&keys)).to_owned(),
            };
            (key.into(), LabelValue::Text(random.text(&values).into()))
        });
        let neighbour = neighbour(round, labels);
        apply(&mut state, vec![Change::Service(neighbour)]);
        assert_eq!(good_route(&state), before, "round {round}");
        assert!(state.problems().iter().all(|problem| problem.value.len() <= 256));
    }
}

/// One label is spoiled, others around it are right: it is named, or makes sense.
#[test]
fn a_spoiled_label_is_named_or_makes_sense() {
    let mut random = Random(6);
    for (key, seeds) in LABELS {
        let mut state = published();
        let network = Network { id: "n1".into(), name: "n".into(), ingress: false };
        let secrets = ["cert", "a.cert", "a.key", "ca"]
            .map(|name| Change::Secret { id: name.into(), name: name.into() });
        apply(&mut state, secrets.into_iter().chain([Change::Network(network)]).collect());
        let mut taken = 0;
        for round in 0..ROUNDS / 40 {
            let base = [
                ("hosts", "a.example,b.example"),
                ("port", "80"),
                ("ssl_cert", "cert"),
                ("ssl_backend", "true"),
            ];
            let base = base.map(|(key, value)| (format!("com.docker.lb.{key}"), value.to_owned()));
            let mesh = key.starts_with("com.docker.ucp");
            let base = base.into_iter().filter(|(label, _)| !mesh || label.contains(".ssl"));
            let spoiled = ((*key).to_owned(), random.text(seeds));
            let labels: Vec<_> = base.chain([spoiled.clone()]).collect();
            let label = |(key, value): (String, String)| {
                (key.into(), LabelValue::Text(value.as_str().into()))
            };
            apply(
                &mut state,
                vec![Change::Service(neighbour(round, labels.into_iter().map(label)))],
            );
            let problems = state.problems();
            let named = problems.iter().any(|problem| *problem.label == **key);
            taken += u32::from(!named);
            for snapshot in state.service_clusters().iter().map(|name| state.snapshot(name)) {
                snapshot.routes.iter().for_each(makes_sense);
            }
            assert!(problems.iter().all(|problem| !problem.reason.is_empty()), "{spoiled:?}");
        }
        assert!(taken > 0, "no value of {key} was taken: poor seeds");
    }
}

fn makes_sense(route: &Route) {
    const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);
    for service in &route.services {
        let dial = &service.dial;
        assert!(dial.max_fails <= 1_000_000, "{dial:?}");
        assert!(!dial.fail_timeout.is_zero() && dial.fail_timeout <= DAY, "{dial:?}");
    }
    if let Some(redirect) = &route.options.redirect {
        let url = redirect.to_string();
        assert!(url.bytes().all(|byte| byte.is_ascii_graphic()), "{url:?} goes into a header");
    }
}

fn neighbour(round: u32, labels: impl Iterator<Item = (Arc<str>, LabelValue)>) -> Service {
    Service {
        id: ServiceId::from("bad"),
        name: "bad".into(),
        version: SwarmVersion(u64::from(round) + 2),
        labels: labels.collect(),
        ..service(&[])
    }
}

/// The route of the good service, but for those that joined it.
fn good_route(state: &State) -> (Route, RouteService) {
    let snapshot = state.snapshot(&ServiceCluster::default());
    let mut routes = snapshot.routes.iter();
    let route = routes.find(|one| one.host.to_string() == "good.example").expect("the good route");
    (Route { services: Vec::new(), ..route.clone() }, route.services[0].clone())
}

#[test]
fn garbage_is_no_snapshot() {
    let state = published();
    let seed = state.published(&ServiceCluster::default());
    let mut random = Random(4);
    for _ in 0..ROUNDS {
        let bytes = match random.below(4) {
            0 => random.bytes(200),
            _ => random.mutated(&seed.canonical),
        };
        if let Ok(snapshot) = Snapshot::decode(&bytes) {
            assert_eq!(snapshot.encode(), bytes, "accepted bytes are canonical");
        }
    }
}

#[test]
fn garbage_is_no_state() {
    let mut state = published();
    let bad = service(&[("hosts", "other.example"), ("port", "x")]);
    apply(&mut state, vec![Change::Service(Service { version: SwarmVersion(2), ..bad })]);
    let seed = state.encode();
    let mut random = Random(5);
    for _ in 0..ROUNDS {
        let bytes = match random.below(4) {
            0 => random.bytes(300),
            _ => random.mutated(&seed),
        };
        if let Ok(mut decoded) = State::decode(&bytes) {
            assert_eq!(decoded.encode(), bytes, "accepted bytes are canonical");
            // Whatever was accepted can be gone on with.
            let next = Service { version: SwarmVersion(u64::MAX), ..service(&[]) };
            apply(&mut decoded, vec![Change::Service(next), Change::TaskGone("t1".into())]);
            decoded.problems();
            decoded.digest();
        }
    }
}

#[test]
fn a_length_that_lies_takes_no_memory() {
    let mut bytes = dovetail_routing::snapshot::SNAPSHOT_FORMAT.to_be_bytes().to_vec();
    bytes.extend(u32::MAX.to_be_bytes());
    let error = Snapshot::decode(&bytes).expect_err("a lie");
    assert_eq!(error.to_string(), "text at byte 8: length 4294967295, 0 bytes are left");
}
