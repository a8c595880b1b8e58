//! Service clusters, host mode, old labels, and what needs no restart (A34 to A36, A41,
//! A46, A48, A49).

use dovetail_jepsen::cluster::{Cluster, ClusterConfig};
use dovetail_jepsen::load::{Load, LoadConfig};
use dovetail_jepsen::swarm::{ServiceConfig, Swarm};

use crate::lab::{DEADLINE, EAST, Lab, WEST, demo, unharmed};

/// A34, A35, but for what is a matter of the stack: networks, nodes, publish mode.
pub(crate) async fn a34_a35_service_clusters_know_nothing_of_each_other(lab: &Lab) {
    let _alone = (lab.alone_in_east().await, lab.alone_in_west().await);
    let of = |name: &str, cluster| {
        let labels = [("hosts", &*format!("{name}.example")), ("service_cluster", cluster)];
        demo(name, 1, &labels)
    };
    let east = lab.create(of("a34-east", "east")).await;
    let before = lab.revisions().await.expect("the member answers");
    let west = lab.create(of("a34-west", "west")).await;
    for (proxy, host, by) in [
        (EAST, "a34-east.example", Some(&east)),
        (WEST, "a34-east.example", None),
        (WEST, "a34-west.example", Some(&west)),
        (EAST, "a34-west.example", None),
        (1, "a34-west.example", None),
    ] {
        let answer = lab.curl(proxy).get(&format!("http://{host}/ping")).await;
        match by {
            Some(service) => assert_eq!(answer.by(), service.tasks()[0].name),
            None => assert_eq!(answer.status, 503, "{host} through {proxy}: {answer:?}"),
        }
    }
    west.scale(2).await;
    let after = lab.revisions().await.expect("the member answers");
    assert_eq!(before.get("east"), after.get("east"), "east was not touched");
    assert!(before.get("west") < after.get("west"), "{before:?} {after:?}");
}

/// A36.
pub(crate) async fn a36_a_host_mode_service_is_reached_at_its_machine(lab: &Lab) {
    let labels = [("hosts", "a36.example")];
    let mut config = ServiceConfig { networks: Vec::new(), ..demo("a36", 2, &labels) };
    config.labels.remove("com.docker.lb.network");
    config.host_port = Some(32_768);
    let service = lab.create(config).await;
    let machines: Vec<_> =
        lab.swarm.stand_in().model().nodes.values().map(|node| node.address).collect();
    for _ in 0..2 {
        let answer = lab.curl(1).get("http://a36.example/ping").await;
        let task = service.tasks().into_iter().find(|task| task.name == answer.by());
        let addr = task.expect("one of its tasks").addr;
        assert_eq!(answer.header("x-upstream-addr"), addr.to_string());
        assert_eq!(addr.port(), 32_768);
        assert!(machines.contains(&addr.ip()), "{addr} is none of {machines:?}");
    }
}

/// A41: a new application, on a network of its own at that, restarts no proxy and fails no
/// request. (A40, an update of a service under load, is `main_job::follow`.)
pub(crate) async fn a41_a_new_application_needs_no_new_proxy(lab: &Lab) {
    let _steady = lab.publish("a41", 2, &[("hosts", "a41.example")]).await;
    let load = lab.load("a41.example");
    for number in 1..=3 {
        let (name, network) = (format!("a41-{number}"), format!("a41-{number}"));
        lab.swarm.stand_in().add_network(&network).expect("a network");
        let host = format!("{name}.example");
        let labels = [("hosts", &*host), ("network", &*network)];
        let networks = vec![network.clone()];
        let _new = lab.create(ServiceConfig { networks, ..demo(&name, 1, &labels) }).await;
        lab.curl(2).get(&format!("http://{host}/ping")).await.by();
    }
    // A proxy that restarted would have broken the connections that the load keeps open.
    unharmed(load, "three new applications").await;
}

/// A46, with a core of one: what a lost leader of three means is `main_job::leader`.
pub(crate) async fn a46_traffic_goes_on_without_the_core_and_new_services_follow(_: &Lab) {
    let config = ClusterConfig { members: 1, proxies: 1, ..ClusterConfig::default() };
    let mut cluster = Cluster::prepare(config).await.expect("a second system");
    let swarm = Swarm::start(&cluster).await.expect("its Swarm");
    cluster.start_all().expect("it starts");
    swarm.create(ServiceConfig::published("old", "old.example", 2)).await.expect("created");
    cluster.routed("old.example", DEADLINE).await.expect("it is routed");
    let load = Load::start(LoadConfig::of("old.example", cluster.proxy_addrs()));
    cluster.kill_member(1);
    swarm.create(ServiceConfig::published("new", "new.example", 1)).await.expect("created");
    // A proxy that starts now takes its routes from its disk: nobody else has any.
    let answered = crate::curl::Curl::new(cluster.proxy_addr(1), cluster.proxy_tls_addr(1));
    assert_eq!(answered.get("http://new.example/").await.status, 503, "nobody told the proxy");
    cluster.start_member(1).expect("it starts again");
    cluster.routed("new.example", DEADLINE).await.expect("it is routed");
    unharmed(load, "the core killed and started").await;
}

/// A48.
pub(crate) async fn a48_info_headers_can_be_hidden(lab: &Lab) {
    let labels = [("hosts", "a48.example"), ("service_cluster", "west")];
    let service = lab.publish("a48", 1, &labels).await;
    let answer = lab.curl(WEST).get("http://a48.example/ping").await;
    assert_eq!(answer.by(), service.tasks()[0].name);
    let shown: Vec<_> = answer.headers.keys().filter(|name| name.starts_with("x-")).collect();
    assert_eq!(shown, ["x-answered-by"], "that of the application alone");
    assert!(answer.json()["request_id"].is_string(), "the application has it nevertheless");
}

/// A49.
pub(crate) async fn a49_labels_of_the_old_routing_mesh_publish(lab: &Lab) {
    let mut config = demo("a49", 1, &[]);
    config.labels = [
        ("com.docker.ucp.mesh.http.1", "external_route=http://a49.example,internal_port=8080"),
        (
            "com.docker.ucp.mesh.http.2",
            "external_route=http://a49-old.example,redirect=http://a49.example",
        ),
    ]
    .map(|(label, value)| (label.to_owned(), value.to_owned()))
    .into();
    let service = lab.create(config).await;
    let answer = lab.curl(1).get("http://a49.example/ping").await;
    assert_eq!(answer.by(), service.tasks()[0].name);
    // HRM answered 301; ours is the 302 of every redirect.
    let answer = lab.curl(1).get("http://a49-old.example/a?b").await;
    assert_eq!((answer.status, answer.header("location")), (302, "http://a49.example/a?b"));
    assert_eq!(lab.problems(&service).await, []);
}
