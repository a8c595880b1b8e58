//! Entries survive the wire, and their bytes are for ever.
//!
//! `golden/entries.txt` holds one entry of every kind in hex. A line that differs
//! means that logs in the field can no longer be read: add kinds, never change one.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use dovetail_proto::convert::{InvalidEntry, decode_entry, encode_entry};
use dovetail_proto::v1 as pb;
use dovetail_routing::entry::{ClusterConfig, MergeHosts, ProxyOptions, SslProtocols, SslVerify};
use dovetail_routing::fact::{
    Change, DesiredState, DockerEvent, EndpointMode, HostPort, LabelValue, Network, Observed,
    Resynced, Scale, Service, SwarmNode, SwarmVersion, Task, TaskState,
};
use dovetail_routing::snapshot::UpstreamProtocol;
use dovetail_routing::{Command, Digest, Entry, LogIndex, Payload};
use expect_test::expect_file;
use proptest::prelude::*;
use prost::Message;

fn entry(payload: Payload) -> Entry {
    Entry {
        schema_version: 1,
        leader_time_ms: 1_795_435_200_000,
        actor: "dovetail://operator/anna".into(),
        request_id: "request-1".into(),
        cause: "service update shop".into(),
        payload,
    }
}

fn service() -> Service {
    Service {
        id: "service-1".into(),
        version: SwarmVersion(42),
        name: "shop".into(),
        created_at: "2026-11-23T12:00:00.123456789Z".into(),
        labels: [
            ("com.docker.lb.hosts".into(), LabelValue::Text("shop.example".into())),
            (
                "com.docker.lb.redirects".into(),
                LabelValue::Oversized { bytes: 102_400, hash: [7; 32] },
            ),
        ]
        .into(),
        networks: vec!["network-1".into()],
        vips: vec![("network-1".into(), [10, 0, 1, 2].into())],
        endpoint_mode: EndpointMode::Dnsrr,
        host_ports: vec![HostPort { target: 8_080, published: 32_768 }],
        scale: Scale::Replicated(3),
        update_state: "updating".into(),
    }
}

fn task() -> Task {
    Task {
        id: "task-1".into(),
        version: SwarmVersion(43),
        service: "service-1".into(),
        slot: 2,
        node: "node-1".into(),
        desired: DesiredState::Shutdown,
        state: TaskState::Running,
        addresses: vec![
            ("network-1".into(), [10, 0, 1, 3].into()),
            ("network-1".into(), "fd00::3".parse().expect("an address")),
        ],
        host_ports: vec![HostPort { target: 8_080, published: 0 }],
    }
}

fn swarm_node() -> SwarmNode {
    SwarmNode {
        id: "node-1".into(),
        version: SwarmVersion(44),
        hostname: "alpha".into(),
        down: true,
        availability: "drain".into(),
        address: Some([192, 0, 2, 11].into()),
        labels: [("zone".into(), "east".into())].into(),
    }
}

fn config() -> ClusterConfig {
    let options = ProxyOptions {
        hide_info_headers: true,
        connect_timeout: Some(Duration::from_secs(5)),
        read_timeout: Some(Duration::from_millis(600_000)),
        send_timeout: None,
        keepalive_timeout: Some(Duration::from_secs(75)),
        client_max_body_size: Some(0),
        client_body_timeout: Some(Duration::from_secs(60)),
        client_header_bytes_max: Some(32_768),
        drop_underscored_headers: true,
        max_connections: Some(2_048),
        http_version: UpstreamProtocol::Http2,
        ip_hash: true,
        published_port: Some(80),
        published_ssl_port: Some(8_443),
        ssl_protocols: SslProtocols::Tls13,
        ssl_ciphers: vec!["TLS_AES_128_GCM_SHA256".into()],
        ssl_verify: SslVerify::Optional,
        access_log_path: Some("/dev/stdout".into()),
        access_log_format: Some("$remote_addr".into()),
        trusted_proxies: vec!["10.0.0.0/8".parse().expect("a subnet")],
        proxy_protocol: true,
        merge_hosts: MergeHosts::Stack,
    };
    ClusterConfig {
        source: Digest([9; 32]),
        poll_interval: Some(Duration::from_secs(3)),
        proxies: vec![
            ("".parse().expect("a name"), options),
            ("east".parse().expect("a name"), ProxyOptions::default()),
        ],
    }
}

/// One entry of every kind that the core knows, by name.
fn known() -> Vec<(String, Entry)> {
    let network = Network { id: "network-1".into(), name: "front".into(), ingress: true };
    let global = Service { scale: Scale::Global, ..service() };
    let job = Service { scale: Scale::Job, endpoint_mode: EndpointMode::Vip, ..service() };
    let named = |of: fn(_, _) -> Change| of("object-1".into(), "shop.cert".into());
    let changes = [
        ("network", Change::Network(network)),
        ("network gone", Change::NetworkGone("network-1".into())),
        ("swarm node", Change::SwarmNode(swarm_node())),
        ("swarm node gone", Change::SwarmNodeGone("node-1".into())),
        ("service", Change::Service(service())),
        ("service, global", Change::Service(global)),
        ("service, job", Change::Service(job)),
        ("service gone", Change::ServiceGone("service-1".into())),
        ("task", Change::Task(task())),
        ("task gone", Change::TaskGone("task-1".into())),
        ("secret", named(|id, name| Change::Secret { id, name })),
        ("secret gone", Change::SecretGone("object-1".into())),
        ("config", named(|id, name| Change::Config { id, name })),
        ("config gone", Change::ConfigGone("object-1".into())),
    ];
    let event = DockerEvent {
        kind: "service".into(),
        action: "update".into(),
        object: "service-1".into(),
        time_ns: -1,
    };
    let observed = |changes| Observed { swarm: "swarm-1".into(), changes, events: Vec::new() };
    let resynced =
        Resynced { swarm: "swarm-1".into(), services: 1, tasks: 2, networks: 3, swarm_nodes: 4 };
    let others = [
        (
            "observed with events",
            Payload::Observed(Observed { events: vec![event], ..observed(Vec::new()) }),
        ),
        ("resynced", Payload::Resynced(resynced)),
        ("apply config", Payload::Command(Command::ApplyConfig(config()))),
        ("accept swarm", Payload::Command(Command::AcceptSwarm { swarm: "swarm-2".into() })),
        ("annotate", Payload::Command(Command::Annotate { text: "CHG-1".into() })),
        ("tick", Payload::Tick),
        (
            "checkpoint",
            Payload::Checkpoint {
                index: LogIndex(1_000),
                state: Digest([1; 32]),
                ledger: Digest([2; 32]),
            },
        ),
    ];
    let of_change = |(name, change)| {
        (format!("observed {name}"), entry(Payload::Observed(observed(vec![change]))))
    };
    let of_payload = |(name, payload): (&str, _)| (name.to_owned(), entry(payload));
    changes.into_iter().map(of_change).chain(others.into_iter().map(of_payload)).collect()
}

/// The operator's commands: on the wire from the first release on.
fn commands() -> Vec<(&'static str, pb::command::Command)> {
    use pb::command::Command as C;
    let route = || {
        Some(pb::RouteRef {
            service_cluster: "east".into(),
            host: "shop.example".into(),
            path: "/app".into(),
        })
    };
    let figures = |proxy: &str, missing| pb::ProxyFigures {
        proxy: proxy.into(),
        requests: 1_000,
        errors: 7,
        latencies: vec![
            pb::LatencyBucket { bucket: 80, count: 990 },
            pb::LatencyBucket { bucket: 239, count: 10 },
        ],
        missing,
    };
    let evidence = || pb::Evidence {
        run: 41,
        step: 1,
        window_ms: 30_000,
        proxies: vec![figures("edge-1", false), figures("edge-2", true)],
    };
    use pb::drain_target::Target as T;
    let aimed = |target| pb::DrainTarget { target: Some(target) };
    let target = || Some(aimed(T::Address("10.0.1.3:8080".into())));
    vec![
        (
            "SetCanary",
            C::SetCanary(pb::SetCanary {
                route: route(),
                shares: vec![pb::Share { service: "shop-v2".into(), weight: 1_000 }],
                expected_index: None,
            }),
        ),
        (
            "SetCanary that expects one",
            C::SetCanary(pb::SetCanary {
                route: route(),
                shares: vec![pb::Share { service: "shop-v2".into(), weight: 1_000 }],
                expected_index: Some(41),
            }),
        ),
        (
            "StartCanary",
            C::StartCanary(pb::StartCanary {
                route: route(),
                from: "shop-v1".into(),
                to: "shop-v2".into(),
                steps: vec![100, 1_000, 5_000],
                interval_ms: 60_000,
                max_error_rate: Some(50),
                max_p99_ms: Some(300),
                min_requests: Some(100),
            }),
        ),
        ("PauseCanary", C::PauseCanary(pb::PauseCanary { route: route() })),
        ("ResumeCanary", C::ResumeCanary(pb::ResumeCanary { route: route() })),
        (
            "PromoteCanary",
            C::PromoteCanary(pb::PromoteCanary { route: route(), service: String::new() }),
        ),
        ("AbortCanary", C::AbortCanary(pb::AbortCanary { route: route(), evidence: None })),
        ("ClearCanary", C::ClearCanary(pb::ClearCanary { route: route() })),
        (
            "DrainUpstream",
            C::DrainUpstream(pb::DrainUpstream {
                target: target(),
                for_ms: Some(60_000),
                force: true,
            }),
        ),
        ("UndrainUpstream", C::UndrainUpstream(pb::UndrainUpstream { target: target() })),
        (
            "RollbackRoutes",
            C::RollbackRoutes(pb::RollbackRoutes {
                to: 41,
                host: "shop.example".into(),
                service: "shop".into(),
                for_ms: Some(60_000),
                service_cluster: String::new(),
            }),
        ),
        ("ReleaseRollback", C::ReleaseRollback(pb::ReleaseRollback::default())),
        ("ActivateRules", C::ActivateRules(pb::ActivateRules { rules: 2 })),
        (
            "PromoteCanary of a service",
            C::PromoteCanary(pb::PromoteCanary { route: route(), service: "shop-v2".into() }),
        ),
        (
            "RollbackRoutes of a service cluster",
            C::RollbackRoutes(pb::RollbackRoutes {
                to: 41,
                service_cluster: "east".into(),
                ..pb::RollbackRoutes::default()
            }),
        ),
        (
            "ReleaseRollback in scope",
            C::ReleaseRollback(pb::ReleaseRollback {
                service_cluster: "east".into(),
                host: "*".into(),
                service: "shop".into(),
            }),
        ),
        (
            "AdvanceCanary",
            C::AdvanceCanary(pb::AdvanceCanary {
                route: route(),
                step: 2,
                evidence: Some(evidence()),
            }),
        ),
        (
            "AbortCanary by evidence",
            C::AbortCanary(pb::AbortCanary { route: route(), evidence: Some(evidence()) }),
        ),
        (
            "DrainUpstream of a service",
            C::DrainUpstream(pb::DrainUpstream {
                target: Some(aimed(T::Service("shop".into()))),
                for_ms: None,
                force: false,
            }),
        ),
        (
            "UndrainUpstream of a swarm node",
            C::UndrainUpstream(pb::UndrainUpstream {
                target: Some(aimed(T::SwarmNode("worker-1".into()))),
            }),
        ),
        (
            "ChangeMembers",
            C::ChangeMembers(pb::ChangeMembers {
                change: pb::MemberChange::Replace.into(),
                members: vec![2],
                address: "core-2:8080".into(),
            }),
        ),
    ]
}

fn on_the_wire(command: pb::command::Command) -> pb::Entry {
    let payload = pb::entry::Payload::Command(pb::Command { command: Some(command) });
    pb::Entry { payload: Some(payload), ..entry(Payload::Tick).into() }
}

fn hex(bytes: &[u8]) -> String {
    let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.chunks(50).map(|line| format!("  {}\n", line.concat())).collect()
}

#[test]
fn the_bytes_of_every_kind_stay_as_they_are() {
    let mut golden = String::new();
    for (name, entry) in known() {
        let bytes = encode_entry(&entry);
        assert_eq!(decode_entry(&bytes).as_ref(), Ok(&entry), "{name}");
        let _ = write!(golden, "{name}\n{}", hex(&bytes));
    }
    for (name, command) in commands() {
        let bytes = on_the_wire(command).encode_to_vec();
        let read = decode_entry(&bytes).expect("every command is readable");
        assert_eq!(encode_entry(&read), bytes, "{name} says the same after it was read");
        let _ = write!(golden, "{name}\n{}", hex(&bytes));
    }
    let row = pb::LedgerRow {
        index: 57,
        term: 3,
        entry: encode_entry(&entry(Payload::Tick)).into(),
        kind: pb::LedgerRowKind::Membership.into(),
        hash: vec![5; 32],
    };
    let _ = write!(golden, "ledger row\n{}", hex(&row.encode_to_vec()));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/entries.txt");
    expect_file![path].assert_eq(&golden);
}

#[test]
fn what_is_refused_is_named() {
    let valid = |payload| pb::Entry::from(entry(payload));
    let observed = |change| {
        let payload = pb::entry::Payload::Observed(pb::Observed {
            swarm: "swarm-1".into(),
            changes: vec![pb::Change { change }],
            events: Vec::new(),
        });
        pb::Entry { payload: Some(payload), ..valid(Payload::Tick) }
    };
    let service = || pb::Service::from(&service());
    let task = || pb::Task::from(&task());
    let of_service = |service| observed(Some(pb::change::Change::Service(service)));
    let of_task = |task| observed(Some(pb::change::Change::Task(task)));
    let twice = [service().labels, service().labels].concat();
    let address = |address: &str| {
        vec![pb::NetworkAddress { network: "network-1".into(), address: address.into() }]
    };
    let canary = |route: Option<(&str, &str)>, weight| {
        let route = route.map(|(host, path)| pb::RouteRef {
            service_cluster: String::new(),
            host: host.into(),
            path: path.into(),
        });
        let shares = vec![pb::Share { service: "shop".into(), weight }];
        on_the_wire(pb::command::Command::SetCanary(pb::SetCanary {
            route,
            shares,
            expected_index: None,
        }))
    };
    let advance = |bucket: Option<u32>| {
        let latencies = |bucket| vec![pb::LatencyBucket { bucket, count: 1 }];
        let figures = |bucket| pb::ProxyFigures {
            latencies: latencies(bucket),
            ..pb::ProxyFigures::default()
        };
        let evidence =
            |bucket| pb::Evidence { proxies: vec![figures(bucket)], ..pb::Evidence::default() };
        on_the_wire(pb::command::Command::AdvanceCanary(pb::AdvanceCanary {
            route: Some(pb::RouteRef { host: "shop.example".into(), ..pb::RouteRef::default() }),
            step: 2,
            evidence: bucket.map(evidence),
        }))
    };
    let drain = |target: Option<Option<&str>>| {
        let address = |given: &str| pb::drain_target::Target::Address(given.into());
        let target = target.map(|given| pb::DrainTarget { target: given.map(address) });
        on_the_wire(pb::command::Command::UndrainUpstream(pb::UndrainUpstream { target }))
    };
    let checkpoint = pb::Checkpoint { index: 1, state: vec![1; 32], ledger: vec![1; 31] };
    for (given, message) in [
        (pb::Entry { payload: None, ..valid(Payload::Tick) }, "entry.payload is missing"),
        (observed(None), "change is missing"),
        (of_service(pb::Service { scale: None, ..service() }), "service.scale is missing"),
        (
            of_service(pb::Service { vips: address("10.0.0.0/24"), ..service() }),
            "service.vips \"10.0.0.0/24\": invalid IP address syntax",
        ),
        (
            of_service(pb::Service { labels: twice, ..service() }),
            "service.labels \"com.docker.lb.hosts\": is there twice",
        ),
        (
            of_service(pb::Service { endpoint_mode: 9, ..service() }),
            "service.endpoint_mode \"9\": is no value that this build knows",
        ),
        (
            of_task(pb::Task { addresses: address(""), ..task() }),
            "task.addresses \"\": invalid IP address syntax",
        ),
        (
            of_task(pb::Task { state: -1, ..task() }),
            "task.state \"-1\": is no value that this build knows",
        ),
        (
            of_task(pb::Task {
                host_ports: vec![pb::HostPort { target: 70_000, published: 0 }],
                ..task()
            }),
            "host_port.target \"70000\": is above 65535",
        ),
        (canary(None, 1_000), "command.route is missing"),
        (
            canary(Some(("shop..example", "/")), 1_000),
            "route.host \"shop..example\": has an empty label between two dots",
        ),
        (
            canary(Some(("shop.example", "app")), 1_000),
            "route.path \"app\": must start with a slash",
        ),
        (advance(None), "evidence is missing"),
        (advance(Some(240)), "latencies.bucket \"240\": is none that this build knows"),
        (drain(None), "command.target is missing"),
        (drain(Some(None)), "target is missing"),
        (
            drain(Some(Some("10.0.1.3"))),
            "target.address \"10.0.1.3\": must be IP:PORT, as dovetail routes prints it",
        ),
        (canary(Some(("shop.example", "")), 70_000), "share.weight \"70000\": is above 10000"),
        (
            pb::Entry {
                payload: Some(pb::entry::Payload::Checkpoint(checkpoint)),
                ..valid(Payload::Tick)
            },
            "checkpoint.ledger \"31 bytes\": must be 32 bytes",
        ),
    ] {
        let error = decode_entry(&given.encode_to_vec()).expect_err(message);
        assert_eq!(error.to_string(), message);
    }
    assert!(matches!(decode_entry(&[0xff; 9]), Err(InvalidEntry::Bytes(_))));
}

#[test]
fn a_newer_schema_is_readable_so_that_it_can_be_rejected() {
    let newer = pb::Entry { schema_version: 2, payload: None, ..entry(Payload::Tick).into() };
    let read = decode_entry(&newer.encode_to_vec()).expect("the envelope is readable");
    assert_eq!(read.schema_version, 2);
}

fn any_text() -> impl Strategy<Value = std::sync::Arc<str>> {
    "[a-zé./,=\\-]{0,12}".prop_map(Into::into)
}

fn any_service() -> impl Strategy<Value = Service> {
    let value = prop_oneof![
        any_text().prop_map(LabelValue::Text),
        (any::<u64>(), any::<[u8; 32]>())
            .prop_map(|(bytes, hash)| LabelValue::Oversized { bytes, hash }),
    ];
    let labels = prop::collection::btree_map(any_text(), value, 0..4);
    let vips = prop::collection::vec((any_text(), any::<std::net::IpAddr>()), 0..3);
    let scale = prop_oneof![
        any::<u64>().prop_map(Scale::Replicated),
        Just(Scale::Global),
        Just(Scale::Job)
    ];
    (any_text(), any::<u64>(), labels, vips, scale, any::<(u16, u16)>()).prop_map(
        |(id, version, labels, vips, scale, (target, published))| Service {
            id: dovetail_routing::names::ServiceId(id),
            version: SwarmVersion(version),
            labels,
            vips: vips
                .into_iter()
                .map(|(id, ip)| (dovetail_routing::names::NetworkId(id), ip))
                .collect(),
            scale,
            host_ports: vec![HostPort { target, published }],
            ..service()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_encoded_is_decoded(
        schema_version in 0_u32..3,
        leader_time_ms: u64,
        actor in any_text(),
        request_id in any_text(),
        services in prop::collection::vec(any_service(), 0..4),
        event_time: i64,
    ) {
        let event = DockerEvent {
            kind: "service".into(),
            action: "create".into(),
            object: "".into(),
            time_ns: event_time,
        };
        let payload = Payload::Observed(Observed {
            swarm: "swarm".into(),
            changes: services.into_iter().map(Change::Service).collect(),
            events: vec![event],
        });
        let entry =
            Entry { schema_version, leader_time_ms, actor, request_id, ..entry(payload) };
        prop_assert_eq!(decode_entry(&encode_entry(&entry)), Ok(entry));
    }

    #[test]
    fn no_bytes_of_a_command_panic(position in 0_usize..commands().len(), at in 0_usize..400, byte: u8) {
        let (_, command) = commands().swap_remove(position);
        let mut bytes = on_the_wire(command).encode_to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(read) = decode_entry(&bytes)
            && !matches!(read.payload, Payload::Command(Command::Unknown { .. }))
        {
            prop_assert_eq!(decode_entry(&encode_entry(&read)), Ok(read));
        }
    }

    #[test]
    fn no_bytes_panic(
        position in 0_usize..21,
        at in 0_usize..400,
        byte: u8,
        random in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let _ = decode_entry(&random);
        let (_, entry) = known().swap_remove(position);
        let mut bytes = encode_entry(&entry);
        let at = at % bytes.len();
        bytes[at] = byte;
        // Whatever is read of it can be written and read again.
        if let Ok(read) = decode_entry(&bytes)
            && !matches!(read.payload, Payload::Command(Command::Unknown { .. }))
        {
            prop_assert_eq!(decode_entry(&encode_entry(&read)), Ok(read));
        }
    }
}
