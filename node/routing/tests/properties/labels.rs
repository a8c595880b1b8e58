//! Random labels of a service: mostly right, at times wrong, unknown or too long.

use std::collections::BTreeMap;
use std::sync::Arc;

use dovetail_routing::fact::{Change, EndpointMode, LabelValue, Scale, Service, SwarmVersion};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::logs::text;

type Label = (Arc<str>, LabelValue);

fn pair(
    keys: &'static [&'static str],
    values: &'static [&'static str],
) -> impl Strategy<Value = (Arc<str>, Arc<str>)> {
    (text(keys), text(values))
}

/// Which routes are a service's.
fn of_routes() -> impl Strategy<Value = (Arc<str>, Arc<str>)> {
    prop_oneof![
        4 => pair(
            &["com.docker.lb.hosts"],
            &[
                "a.example", "b.example", "a.example,b.example", "A.example, c.example",
                "*.example", "", "-", "a b", "*",
            ],
        ),
        2 => pair(&["com.docker.lb.port"], &["80", "8080", "80", "0", "x", "70000"]),
        1 => pair(&["com.docker.lb.network"], &["front", "back", "nope", ""]),
        2 => pair(&["com.docker.lb.default_backend"], &["true", "true", "false", "maybe"]),
        1 => pair(&["com.docker.lb.service_cluster"], &["east", "", "a b"]),
        4 => pair(&["com.docker.lb.backend_mode"], &["vip", "vip", "vip", "task", "nlb"]),
        3 => pair(&["com.docker.lb.context_root"], &["/", "/app", "/app/x", "app"]),
        2 => pair(&["dovetail.exclusive"], &["true", "true", "false", "2"]),
        1 => pair(&["com.docker.lb.host", "dovetail.x"], &["a", ""]),
        4 => pair(
            &["com.docker.ucp.mesh.http", "com.docker.ucp.mesh.http.1", "com.docker.ucp.mesh.http.2"],
            &[
                "external_route=http://a.example,internal_port=80",
                "external_route=http://a.example,internal_port=80",
                "external_route=http://b.example,internal_port=8080,sticky_sessions=id",
                "external_route=sni://b.example,internal_port=80",
                "external_route=http://b.example,redirect=https://b.example",
                "external_route=http://,internal_port=80",
                "internal_port=80",
                "a",
            ],
        ),
    ]
}

/// What becomes of requests, and how upstreams are spoken to.
fn of_options() -> impl Strategy<Value = (Arc<str>, Arc<str>)> {
    const BOOLEANS: &[&str] = &["true", "true", "false", "x"];
    const SECRETS: &[&str] = &["cert", "cert", "key", "nope", "a/b"];
    prop_oneof![
        5 => pair(&["com.docker.lb.ssl_cert"], SECRETS),
        1 => pair(&["com.docker.lb.ssl_key", "dovetail.ssl_backend_ca"], SECRETS),
        2 => pair(&["com.docker.lb.client_ca_cert"], SECRETS),
        3 => pair(&["com.docker.lb.ssl_passthrough"], BOOLEANS),
        3 => pair(
            &[
                "com.docker.lb.ip_hash", "com.docker.lb.ssl_only", "com.docker.lb.ssl_backend",
                "com.docker.lb.context_root_rewrite",
            ],
            BOOLEANS,
        ),
        2 => pair(&["com.docker.lb.sticky_session_cookie"], &["id", "session", "a b"]),
        2 => pair(
            &["com.docker.lb.redirects"],
            &[
                "a.example,https://a.example;",
                "http://a.example,b.example:8080/x;b.example,http://c.example",
                "www.a.example,http://a.example",
                "a.example",
            ],
        ),
        1 => pair(&["com.docker.lb.max_fails"], &["0", "1", "x"]),
        1 => pair(&["com.docker.lb.fail_timeout"], &["10s", "1m", "0", "x"]),
        1 => pair(&["com.docker.lb.ssl_backend_tls_verify"], &["none", "required", "x"]),
        1 => pair(&["dovetail.ssl_backend_name"], &["up.example", "-"]),
        1 => pair(&["dovetail.protocol"], &["auto", "http1", "h2c", "x"]),
        1 => pair(&["dovetail.fail_on"], &["5xx", "4xx"]),
        1 => pair(&["com.docker.lb.websocket_endpoints"], &["/ws,/x", "ws"]),
    ]
}

fn label() -> impl Strategy<Value = Label> {
    let pair = prop_oneof![of_routes(), of_options()];
    (pair, prop::bool::weighted(0.02)).prop_map(|((key, value), oversized)| match oversized {
        true => (key, LabelValue::Oversized { bytes: 20_000, hash: [7; 32] }),
        false => (key, LabelValue::Text(value)),
    })
}

/// What most ask for: something that can be.
const BASES: &[&[(&str, &str)]] = &[
    &[],
    &[],
    &[],
    &[("hosts", "a.example")],
    &[("hosts", "a.example")],
    &[("hosts", "a.example")],
    &[("hosts", "a.example"), ("backend_mode", "vip")],
    &[("hosts", "a.example"), ("context_root", "/app")],
    &[("hosts", "a.example"), ("ssl_cert", "cert")],
    &[("hosts", "a.example,b.example"), ("ssl_cert", "key"), ("context_root", "/app")],
    &[("hosts", "a.example"), ("ssl_cert", "cert"), ("client_ca_cert", "cert")],
    &[("hosts", "b.example"), ("ssl_passthrough", "true")],
    &[("hosts", "a.example"), ("redirects", "a.example,http://b.example")],
    &[("hosts", "b.example"), ("redirects", "b.example,http://a.example/app")],
    &[("hosts", "a.example"), ("redirects", "a.example,http://b.example")],
    &[("hosts", "b.example"), ("redirects", "b.example,http://a.example/app")],
    &[("hosts", "*.example"), ("default_backend", "true"), ("ssl_backend", "true")],
];

pub(crate) fn labels() -> impl Strategy<Value = BTreeMap<Arc<str>, LabelValue>> {
    let base = select(BASES).prop_map(|pairs| {
        let label = |(key, value): &(&str, &str)| {
            (format!("com.docker.lb.{key}").into(), LabelValue::Text(Arc::from(*value)))
        };
        let port = (!pairs.is_empty()).then(|| label(&("port", "80")));
        pairs.iter().map(label).chain(port).collect::<Vec<Label>>()
    });
    let stack = prop::option::weighted(0.4, select(&["stack", "other"][..])).prop_map(|stack| {
        stack.map(|name| ("com.docker.stack.namespace".into(), LabelValue::Text(name.into())))
    });
    (base, stack, vec(label(), 0..4))
        .prop_map(|(base, stack, more)| base.into_iter().chain(stack).chain(more).collect())
}

fn s1(version: u64, labels: &[(&str, &str)]) -> Change {
    let label = |(key, value): &(&str, &str)| {
        let key = if key.contains('.') { (*key).into() } else { format!("com.docker.lb.{key}") };
        (key.into(), LabelValue::Text((*value).into()))
    };
    Change::Service(Service {
        id: "s1".into(),
        version: SwarmVersion(version),
        name: "service-s1".into(),
        created_at: "10:00".into(),
        labels: labels.iter().map(label).collect(),
        networks: vec!["n1".into()],
        vips: Vec::new(),
        endpoint_mode: EndpointMode::Vip,
        host_ports: Vec::new(),
        scale: Scale::Replicated(1),
        update_state: "".into(),
    })
}

/// A service that is published, whatever was recorded before.
pub(crate) fn published() -> impl Strategy<Value = Change> {
    select(&["a.example", "b.example,c.example"][..])
        .prop_map(|hosts| s1(100, &[("hosts", hosts), ("port", "80")]))
}

/// The same service, with labels that cannot be.
pub(crate) fn spoiled() -> impl Strategy<Value = Change> {
    const GOOD: [(&str, &str); 2] = [("hosts", "a.example"), ("port", "80")];
    let bad: &[&[(&str, &str)]] = &[
        &[("hosts", "a.example")],
        &[("hosts", "a.example"), ("port", "0")],
        &[("hosts", "a.example"), ("port", "99999")],
        &[("hosts", "x..example"), ("port", "80")],
        &[("hosts", ","), ("port", "80")],
        &[("hosts", "a.example,-b"), ("port", "80")],
        &[("hosts", "a.example"), ("port", "80"), ("network", "nope")],
        &[("hosts", "a.example"), ("port", "80"), ("context_root", "x")],
        &[("hosts", "a.example"), ("port", "80"), ("backend_mode", "x")],
        &[("default_backend", "x"), ("port", "80")],
        &[GOOD[0], GOOD[1], ("ssl_key", "key")],
        &[GOOD[0], GOOD[1], ("ssl_cert", "a/b")],
        &[GOOD[0], GOOD[1], ("ssl_passthrough", "true"), ("context_root", "/x")],
        &[GOOD[0], GOOD[1], ("redirects", "b.example,http://c.example")],
        &[GOOD[0], GOOD[1], ("redirects", "a.example,ftp://c.example")],
        &[GOOD[0], GOOD[1], ("sticky_session_cookie", "a"), ("ip_hash", "true")],
        &[GOOD[0], GOOD[1], ("max_fails", "x")],
        &[GOOD[0], GOOD[1], ("fail_timeout", "-1")],
        &[GOOD[0], GOOD[1], ("dovetail.protocol", "h9")],
        &[GOOD[0], GOOD[1], ("websocket_endpoints", "x")],
        &[("com.docker.ucp.mesh.http", "external_route=http://a.example")],
    ];
    select(bad).prop_map(|labels| s1(101, labels))
}
