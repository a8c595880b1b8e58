//! What `dovetail check` and `dovetail plan` say beforehand comes true, and what a proxy
//! cannot do is heard of in `dovetail problems`.

use dovetail_jepsen::eventually;
use dovetail_jepsen::swarm::NETWORK;
use serde_json::Value;

use crate::lab::{DEADLINE, Lab};

/// What a plan says of a file, with its exit code.
async fn plan(lab: &Lab, file: &str) -> (Option<i32>, Value) {
    let verb = ["-o", "json", "plan", file, "--stack", "planned"];
    let done = lab.cluster.dovetail(&verb).await.expect("dovetail plan");
    let said = serde_json::from_str(&done.stdout);
    (done.code, said.unwrap_or_else(|error| panic!("{error}: {} {}", done.stdout, done.stderr)))
}

pub(crate) async fn a_plan_comes_true(lab: &Lab) {
    let shop = "planned-shop.example";
    let old = lab.publish("planned_old", 1, &[("hosts", shop)]).await;
    let text = format!(
        "services:
  new:
    networks: [{NETWORK}]
    deploy:
      replicas: 3
      labels:
        com.docker.lb.hosts: {shop},planned-new.example
        com.docker.lb.port: 8080
        com.docker.lb.network: {NETWORK}
networks:
  {NETWORK}: {{external: true}}
"
    );
    let file = lab.file("planned.yml", &text);
    let (code, planned) = plan(lab, &file).await;
    assert_eq!(code, Some(0), "{planned}");
    let changes = planned["routes"].as_array().expect("a list");
    let change = |host: &str| {
        let of_host = changes.iter().find(|one| one["after"]["host"] == host);
        of_host.unwrap_or_else(|| panic!("{host} changes: {planned}"))
    };
    assert_eq!(change(shop)["change"], "changed");
    assert_eq!(change("planned-new.example")["change"], "added");
    assert_eq!(changes.len(), 2, "{planned}");
    let weights = |services: &Value| -> Vec<(String, u64)> {
        let services = services.as_array().expect("a list");
        let weight = |one: &Value| {
            (one["name"].as_str().expect("a name").to_owned(), one["weight"].as_u64().expect("one"))
        };
        services.iter().map(weight).collect()
    };
    let wanted = weights(&change(shop)["after"]["services"]);
    assert_eq!(wanted, [("planned_old".to_owned(), 2_500), ("planned_new".to_owned(), 7_500)]);
    let routes = lab.routes("").await;
    assert!(routes.iter().all(|route| route.host != "planned-new.example"), "nothing changed");

    let hosts = format!("{shop},planned-new.example");
    let new = lab.publish("planned_new", 3, &[("hosts", &hosts)]).await;
    let routes = lab.routes("").await;
    let route = routes.iter().find(|route| route.host == shop).expect("it is routed");
    let shares = route.services.iter().map(|one| (one.name.clone(), u64::from(one.weight)));
    assert_eq!(shares.collect::<Vec<_>>(), wanted, "as it was planned");
    drop((old, new));
}

pub(crate) async fn a_plan_names_the_owner_and_the_line(lab: &Lab) {
    let exclusive = ("hosts", "planned-owned.example");
    let mut owner = crate::lab::demo("planned_owner", 1, &[exclusive]);
    owner.labels.insert("dovetail.exclusive".to_owned(), "true".to_owned());
    let owner = lab.create(owner).await;
    let text = format!(
        "services:
  late:
    networks: [{NETWORK}]
    deploy:
      labels:
        com.docker.lb.hosts: planned-owned.example
        com.docker.lb.port: 8080
networks:
  {NETWORK}: {{external: true}}
"
    );
    let file = lab.file("planned-late.yml", &text);
    let (code, planned) = plan(lab, &file).await;
    assert_eq!(code, Some(1), "{planned}");
    let conflict = &planned["conflicts"][0];
    assert_eq!(conflict["service"], "planned_late");
    assert_eq!(conflict["owner"], owner.name.as_str());
    let problem = &planned["problems"][0];
    assert_eq!((&problem["line"], &problem["column"]), (&Value::from(6), &Value::from(9)));
    assert_eq!(planned["routes"].as_array().map(Vec::len), Some(0), "{planned}");
}

pub(crate) async fn what_a_proxy_cannot_use_is_a_problem_until_it_can(lab: &Lab) {
    let cert = "told.cert";
    lab.secret(cert, "this is no certificate\n");
    let service = lab.publish("told", 1, &[("hosts", "told.example"), ("ssl_cert", cert)]).await;
    eventually(DEADLINE, || async {
        let problems = lab.problems("told").await;
        let by_proxy = |name: &str| {
            let begin = format!("proxy {name}: told.example: ");
            problems.iter().any(|one| one.value == cert && one.reason.starts_with(&begin))
        };
        let told = ["proxy-1", "proxy-2"].map(by_proxy) == [true, true];
        if told { Ok(()) } else { Err(format!("both proxies say so: {problems:?}")) }
    })
    .await;
    drop(service);
    eventually(DEADLINE, || async {
        let problems = lab.problems("told").await;
        if problems.is_empty() { Ok(()) } else { Err(format!("it is gone: {problems:?}")) }
    })
    .await;
}
