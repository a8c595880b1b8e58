//! `check` and `plan`: files in, routes and problems with their places out.

use std::fs;
use std::path::Path;

use dovetail_proto::v1 as pb;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fake::{Cli, Mode, Ran, bare, certificates, member, ran};

const SHOP: &str = "\
services:
  web:
    image: shop:1
    networks: [front]
    deploy:
      replicas: 3
      labels:
        com.docker.lb.hosts: shop.example
        com.docker.lb.port: 8080
        com.docker.lb.network: front
        com.docker.lb.ssl_cert: shop.cert
  canary:
    networks: [front]
    deploy:
      labels:
        - com.docker.lb.hosts=shop.example
        - com.docker.lb.port=8080
        - com.docker.lb.ssl_cert=shop.cert
networks:
  front:
    external: true
";

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        fs::write(dir.path().join(name), text).expect("written");
    }
    dir
}

/// Runs `dovetail` in a folder, without a core.
async fn run(dir: &Path, arguments: &[&str]) -> Ran {
    ran(bare().current_dir(dir).args(arguments)).await
}

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

#[tokio::test]
async fn a_good_file_prints_its_routes() {
    let dir = folder(&[("shop.yml", SHOP)]);
    let good = run(dir.path(), &["-o", "json", "check", "shop.yml", "--stack", "shop"]).await;
    assert_eq!((good.code, good.stderr.as_str()), (0, ""), "{good:?}");
    let checked = json(&good);
    assert_eq!(
        checked["routes"],
        json!([{
            "service_cluster": "",
            "host": "shop.example",
            "path": "/",
            "tls": "terminate",
            "services": [
                {"name": "shop_canary", "weight": 2_500, "tasks": 1},
                {"name": "shop_web", "weight": 7_500, "tasks": 3},
            ],
        }])
    );
    assert_eq!(checked["problems"], json!([]));
    // A secret may be there, though no file names it.
    let warning = &checked["warnings"][0];
    assert_eq!((&warning["line"], &warning["value"]), (&json!(11), &json!("shop.cert")));

    let strict = run(dir.path(), &["check", "--strict", "shop.yml"]).await;
    assert_eq!(strict.code, 1);
    let last = strict.stdout.lines().last().expect("a summary");
    assert_eq!(last, "no problems, 2 warnings", "{}", strict.stdout);
    let table = strict.stdout.lines().nth(1).expect("a route");
    let cells: Vec<_> = table.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    assert_eq!(cells, ["(default)", "shop.example", "/", "terminate", "stack_canary", "25%", "1"]);
}

#[tokio::test]
async fn the_file_that_deploys_dovetail_itself_is_fine() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    let checked = run(&deploy, &["check", "--strict", "stack.yml"]).await;
    assert_eq!((checked.code, checked.stderr.as_str()), (0, ""), "{checked:?}");
    assert!(checked.stdout.starts_with("no routes\n"), "{}", checked.stdout);
}

#[tokio::test]
async fn a_problem_has_its_place_and_fails_the_check() {
    let bad = SHOP
        .replace("com.docker.lb.port: 8080", "com.docker.lb.prot: 8080")
        .replace("    image: shop:1\n", "    labels: {com.docker.lb.hosts: shop.example}\n");
    let dir = folder(&[("bad.yml", &bad)]);
    let checked = run(dir.path(), &["-o", "json", "check", "bad.yml"]).await;
    assert_eq!(checked.code, 1, "{checked:?}");
    let problems = json(&checked)["problems"].clone();
    let told: Vec<_> = problems
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| {
            let text = |key: &str| one[key].as_str().expect(key).to_owned();
            format!("{}:{}:{} {}", text("file"), one["line"], one["column"], text("label"))
        })
        .collect();
    assert_eq!(
        told,
        [
            "bad.yml:2:3 com.docker.lb.port",
            "bad.yml:3:14 com.docker.lb.hosts",
            "bad.yml:9:9 com.docker.lb.prot",
        ],
        "{problems}"
    );
    let table = run(dir.path(), &["check", "bad.yml"]).await;
    let line = "bad.yml:9:9: stack_web: com.docker.lb.prot \"8080\": is no known label: is \
                com.docker.lb.port meant?";
    assert!(table.stdout.lines().any(|one| one == line), "{}", table.stdout);
}

#[tokio::test]
async fn conflicts_between_files_are_found() {
    let late = "\
services:
  site:
    deploy:
      labels: {com.docker.lb.hosts: shop.example, com.docker.lb.port: 80}
";
    let dir = folder(&[("shop.yml", SHOP), ("late.yml", late)]);
    let both = ["-o", "json", "check", "shop.yml", "late.yml", "--stack", "a", "--stack", "b"];
    let checked = run(dir.path(), &both).await;
    assert_eq!(checked.code, 1, "{checked:?}");
    let problems = json(&checked)["problems"].clone();
    let mut told = problems.as_array().expect("a list").iter();
    let of_late = told.find(|one| one["service"] == "b_site").expect("it came later");
    assert_eq!((&of_late["file"], &of_late["line"]), (&json!("late.yml"), &json!(4)));
    assert!(of_late["reason"].as_str().is_some_and(|reason| reason.contains("a_canary")));

    let twice = run(dir.path(), &["check", "shop.yml", "shop.yml"]).await;
    assert!(twice.stdout.contains("service stack_web is in shop.yml:2:3 too"), "{twice:?}");
    let three = ["check", "shop.yml", "--stack", "a", "--stack", "b", "--stack", "c"];
    assert_eq!(run(dir.path(), &three).await.code, 2);
}

#[tokio::test]
async fn a_configuration_is_checked_and_counts_for_the_routes() {
    let config = "[Extensions.a.Config]\nMergeHosts = \"none\"\nWorkerProcesses = 4\n";
    let dir = folder(&[
        ("shop.yml", SHOP),
        ("dovetail.toml", config),
        ("com.docker.interlock.conf-2", "PollInterval = \"3s\"\nDataDir = \"/data\"\n"),
        ("bad.toml", "PollInterval = \"soon\"\n"),
    ]);
    let fine = run(dir.path(), &["-o", "json", "check", "dovetail.toml"]).await;
    assert_eq!(fine.code, 0, "{fine:?}");
    let warning = &json(&fine)["warnings"][0];
    assert_eq!(
        (&warning["line"], &warning["column"], &warning["label"]),
        (&json!(3), &json!(1), &json!("Extensions.a.Config.WorkerProcesses"))
    );
    let merged = run(dir.path(), &["check", "dovetail.toml", "shop.yml"]).await;
    assert_eq!(merged.code, 1, "the canary may not share the route: {}", merged.stdout);
    let other = run(dir.path(), &["check", "--strict", "com.docker.interlock.conf-2"]).await;
    assert_eq!(other.code, 0, "TOML by its content: {other:?}");
    let bad = run(dir.path(), &["check", "bad.toml"]).await;
    assert_eq!(bad.code, 1);
    assert!(bad.stdout.contains("bad.toml:1:16: PollInterval: \"soon\" must be"), "{bad:?}");
    let none = run(dir.path(), &["check", "none.yml"]).await;
    assert_eq!(none.code, 2);
    assert!(none.stderr.contains("read none.yml"), "{none:?}");
}

#[tokio::test]
async fn a_plan_is_asked_of_the_core_and_changes_nothing() {
    let certificates = certificates();
    let (address, fake) = member(&certificates, 1, Mode::Leader).await;
    let cli = Cli::new(&address, &certificates);
    let dir = folder(&[("shop.yml", SHOP)]);
    let file = dir.path().join("shop.yml").display().to_string();
    let ran = cli.run(&["-o", "json", "plan", &file, "--stack", "shop", "--prune"]).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (1, ""), "{ran:?}");
    let plan = json(&ran);
    assert_eq!((&plan["index"], &plan["routes"][0]["change"]), (&json!(57), &json!("changed")));
    assert_eq!(plan["routes"][0]["after"]["services"][0]["upstreams"][0]["address"], "new");
    let problems = plan["problems"].as_array().expect("a list");
    assert_eq!((&problems[0]["file"], &problems[0]["service"]), (&Value::Null, &json!("rival")));
    assert_eq!((&problems[1]["file"], &problems[1]["line"]), (&json!(file), &json!(8)));
    assert_eq!(plan["conflicts"][0]["owner"], "rival");

    let requests = fake.plans.lock().expect("plans").clone();
    let request = &requests[0];
    assert_eq!(request.prune, "shop");
    let web = request.services.iter().find(|one| one.name == "shop_web").expect("web");
    assert_eq!(web.networks, ["front"]);
    assert_eq!(web.scale, Some(pb::planned_service::Scale::Replicated(3)));
    assert_eq!(web.labels.len(), 5, "{:?}", web.labels);

    let table = cli.run(&["plan", &file]).await;
    assert_eq!(table.code, 1);
    for said in ["shop_web 100% (1 new)", "shop.example/ belongs to rival", "2 problems"] {
        assert!(table.stdout.contains(said), "{said}: {}", table.stdout);
    }
    assert_eq!(cli.run(&["plan", &file, "--prune"]).await.code, 2, "which stack?");
}
