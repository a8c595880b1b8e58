//! Which crate may reach which: the architecture, as a test.
//!
//! Only linked code counts (normal and build dependencies, transitively): a test
//! may climb a wall. A failure prints the path that climbs it.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// What a package must not reach.
const WALLS: &[(&str, &[&str])] = &[
    // Pure: decides, and touches nothing.
    (
        "dovetail-routing",
        &[
            "tokio",
            "serde",
            "bollard",
            "openraft",
            "rocksdb",
            "hyper",
            "prost",
            "rand",
            "dovetail-proto",
        ],
    ),
    // Pure: reads a text that somebody else opened.
    (
        "dovetail-config",
        &["tokio", "bollard", "openraft", "rocksdb", "hyper", "prost", "rustls", "dovetail-proto"],
    ),
    // What an auditor runs, years later: it needs no quorum, no disk of ours and no network.
    (
        "dovetail-ledger",
        &[
            "bollard",
            "openraft",
            "rocksdb",
            "rustls",
            "dovetail-process",
            "dovetail-control",
            "dovetail-raft-store",
        ],
    ),
    ("dovetail-proto", &["bollard", "openraft", "rocksdb"]),
    ("dovetail-process", &["bollard", "openraft", "rocksdb", "dovetail-routing"]),
    ("dovetail-feed", &["bollard", "openraft", "rocksdb", "dovetail-control"]),
    // Least privilege: what faces the network cannot speak to Docker or to the log.
    (
        "dovetail-proxy",
        &[
            "bollard",
            "openraft",
            "rocksdb",
            "dovetail-docker",
            "dovetail-control",
            "dovetail-raft-store",
        ],
    ),
    // The core's logic is tested without a disk, a quorum or a Docker.
    (
        "dovetail-control",
        &["bollard", "openraft", "rocksdb", "dovetail-docker", "dovetail-raft-store"],
    ),
    ("dovetail-docker", &["openraft", "rocksdb", "dovetail-control", "dovetail-raft-store"]),
    ("dovetail-raft-store", &["bollard", "dovetail-docker", "dovetail-control"]),
    // The operator's tool runs anywhere, so it links no storage engine.
    (
        "dovetail-cli",
        &["bollard", "openraft", "rocksdb", "dovetail-control", "dovetail-raft-store"],
    ),
    // Black box: it knows the wire and nothing else.
    (
        "dovetail-jepsen",
        &[
            "bollard",
            "openraft",
            "rocksdb",
            "dovetail-control",
            "dovetail-raft-store",
            "dovetail-proxy",
        ],
    ),
    (
        "dovetail-stand-in",
        &["bollard", "openraft", "rocksdb", "dovetail-routing", "dovetail-docker"],
    ),
];

/// The composition root reaches everything; tidy links nothing.
const ROOTS: &[&str] = &["dovetail-node", "dovetail-tidy"];

/// Who alone may name a dependency that carries a privilege.
const OWNERS: &[(&str, &[&str])] = &[
    ("bollard", &["dovetail-docker"]),
    ("rocksdb", &["dovetail-raft-store"]),
    ("openraft", &["dovetail-raft-store", "dovetail-node"]),
];

/// Package name to the names of what it links.
type Graph = BTreeMap<String, BTreeSet<String>>;

struct Workspace {
    members: BTreeSet<String>,
    graph: Graph,
}

fn workspace() -> Workspace {
    // What is linked elsewhere is not on this machine, and matters to nobody here.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let options = ["--offline".into(), "--filter-platform".into(), platform];
    let metadata = MetadataCommand::new().other_options(options).exec().unwrap();
    let name_of: BTreeMap<_, _> =
        metadata.packages.iter().map(|p| (p.id.clone(), p.name.to_string())).collect();
    let members = metadata.workspace_members.iter().map(|id| name_of[id].clone()).collect();
    let mut graph = Graph::new();
    for node in &metadata.resolve.as_ref().unwrap().nodes {
        let linked = graph.entry(name_of[&node.id].clone()).or_default();
        for dep in &node.deps {
            if dep.dep_kinds.iter().any(|k| k.kind != DependencyKind::Development) {
                linked.insert(name_of[&dep.pkg].clone());
            }
        }
    }
    Workspace { members, graph }
}

/// The shortest path from `from` to `to`, both included.
fn path(graph: &Graph, from: &str, to: &str) -> Option<Vec<String>> {
    let mut queue = VecDeque::from([vec![from.to_owned()]]);
    let mut seen = BTreeSet::from([from.to_owned()]);
    while let Some(path) = queue.pop_front() {
        let last = path.last().unwrap();
        if last == to {
            return Some(path);
        }
        for next in graph.get(last).into_iter().flatten() {
            if seen.insert(next.clone()) {
                let mut longer = path.clone();
                longer.push(next.clone());
                queue.push_back(longer);
            }
        }
    }
    None
}

fn breaches(graph: &Graph, walls: &[(&str, &[&str])]) -> Vec<String> {
    let mut breaches = Vec::new();
    for (package, forbidden) in walls {
        for name in *forbidden {
            if let Some(path) = path(graph, package, name) {
                breaches.push(format!("{package} reaches {name} by {}", path.join(" -> ")));
            }
        }
    }
    breaches
}

#[test]
fn no_package_climbs_its_wall() {
    let found = breaches(&workspace().graph, WALLS);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_planted_breach_is_found_with_its_path() {
    let edge = |to: &str| BTreeSet::from([to.to_owned()]);
    let graph = Graph::from([
        ("dovetail-proxy".to_owned(), edge("dovetail-docker")),
        ("dovetail-docker".to_owned(), edge("bollard")),
    ]);
    assert_eq!(
        breaches(&graph, &[("dovetail-proxy", &["bollard"])]),
        ["dovetail-proxy reaches bollard by dovetail-proxy -> dovetail-docker -> bollard"]
    );
}

#[test]
fn every_package_has_a_wall_or_is_a_root() {
    for member in workspace().members {
        let known = WALLS.iter().any(|(p, _)| *p == member) || ROOTS.contains(&member.as_str());
        assert!(known, "{member} has no wall: say in WALLS what it must not reach");
    }
}

#[test]
fn only_its_owner_names_a_privileged_dependency() {
    let workspace = workspace();
    for (dependency, owners) in OWNERS {
        for member in &workspace.members {
            let names_it = workspace.graph[member].contains(*dependency);
            assert!(
                !names_it || owners.contains(&member.as_str()),
                "{member} names {dependency}, which belongs to {owners:?}"
            );
        }
    }
}

/// Every package that the workspace links, as Cargo resolves its features.
///
/// The metadata's graph also holds what weak features could switch on, and so
/// names crates that no build compiles.
fn linked() -> BTreeSet<String> {
    let tree = std::process::Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--workspace", "--edges=normal,build", "--prefix=none"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let names = String::from_utf8_lossy(&tree.stdout);
    names.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn there_is_one_tls_stack() {
    let linked = linked();
    assert!(linked.contains("rustls"), "the listing must show what is linked");
    for banned in ["openssl-sys", "native-tls", "ring"] {
        assert!(!linked.contains(banned), "{banned} is linked: cargo tree -i {banned}");
    }
}
