//! The real docker client takes the stand-in for an engine.

#![expect(clippy::print_stdout, reason = "a skipped test says why")]

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use dovetail_stand_in::{Options, ServiceSpec, StandIn};
use tokio::task::spawn_blocking;

/// Runs the docker client; none, with the reason printed, where there is none.
async fn docker(url: &str, args: &[&str]) -> Option<Output> {
    let (url, args) = (url.to_owned(), args.iter().map(|arg| (*arg).to_owned()));
    let args: Vec<String> = args.collect();
    let ran = spawn_blocking(move || {
        let config = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new("docker");
        command.arg("--config").arg(config.path()).arg("-H").arg(url).args(args);
        command.env_remove("DOCKER_API_VERSION").env_remove("DOCKER_TLS_VERIFY");
        command.output()
    });
    match ran.await.expect("no panic") {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: no docker client is installed");
            None
        }
        Err(error) => panic!("docker: {error}"),
    }
}

fn stdout(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker ended with {}: {errors}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_real_client_lists_the_swarm() {
    let options = Options { nodes: 3, ..Options::default() };
    let stand_in = StandIn::start(options).await.expect("started");
    let addresses = ["127.0.0.2", "127.0.0.3"].map(|a| a.parse().expect("an address"));
    let spec = ServiceSpec::new("shop_web").replicas(3).addresses(addresses);
    stand_in.create_service(spec.label("com.docker.lb.hosts", "shop.example")).expect("created");
    stand_in.create_service(ServiceSpec::new("api")).expect("created");
    stand_in.add_secret("site.key");
    stand_in.add_config("site.conf");
    let url = stand_in.url().await;
    for (args, wanted) in [
        (vec!["service", "ls"], vec!["shop_web", "3/3", "api", "1/1", "replicated"]),
        (
            vec!["service", "ps", "shop_web"],
            vec!["shop_web.1", "shop_web.2", "Running", "stand-in-"],
        ),
        (vec!["service", "inspect", "--pretty", "api"], vec!["api", "Replicated"]),
        (vec!["node", "ls"], vec!["stand-in-1", "stand-in-3", "Ready", "Leader"]),
        (vec!["node", "ps", "stand-in-1"], vec!["Running"]),
        (vec!["network", "ls"], vec!["ingress", "demo", "overlay", "swarm"]),
        (vec!["secret", "ls"], vec!["site.key"]),
        (vec!["config", "ls"], vec!["site.conf"]),
        (vec!["version"], vec!["1.41"]),
        (vec!["info"], vec!["Swarm: active", "Managers: 3"]),
        (vec!["events", "--since", "1m", "--until", "0s"], vec!["service create", "secret create"]),
    ] {
        // `--until 0s` is a whole second of the client's clock: what happened in the
        // very second of the question shows in the next.
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let Some(output) = docker(&url, &args).await else { return };
            let text = stdout(&output);
            match wanted.iter().find(|wanted| !text.contains(**wanted)) {
                None => break,
                Some(wanted) => assert!(
                    Instant::now() < deadline,
                    "docker {args:?} shows no {wanted:?}:\n{text}"
                ),
            }
        }
    }
    stand_in.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_real_client_is_told_of_what_is_missing() {
    let stand_in = StandIn::start(Options::default()).await.expect("started");
    let url = stand_in.url().await;
    let Some(output) = docker(&url, &["service", "inspect", "nothing"]).await else { return };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("nothing"), "{errors}");
    stand_in.fault("", dovetail_stand_in::Fault::NoLeader);
    let output = docker(&url, &["service", "ls"]).await.expect("there is a client");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("leader"), "{errors}");
    stand_in.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_real_client_streams_events_from_a_socket() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("docker.sock");
    let options = Options { tcp: None, unix: Some(path.clone()), ..Options::default() };
    let stand_in = StandIn::start(options).await.expect("started");
    let url = format!("unix://{}", path.display());
    let scripted = stand_in.clone();
    let script = async move {
        // The client ends by itself after two seconds; it is asked until it has subscribed.
        while scripted.requests("/events") == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        scripted.create_service(ServiceSpec::new("late")).expect("created");
    };
    let args = ["events", "--until", "2s", "--filter", "type=service"];
    // `--until 2s` means two seconds ago; a time to come must be absolute.
    let until = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let until = (until.expect("after 1970").as_secs() + 3).to_string();
    let args = [args[0], args[1], until.as_str(), args[3], args[4]];
    let script = async { tokio::time::timeout(Duration::from_secs(20), script).await };
    let (output, scripted) = tokio::join!(docker(&url, &args), async {
        tokio::select! {
            ended = script => ended.is_ok(),
            () = no_client() => false,
        }
    });
    let Some(output) = output else { return };
    assert!(scripted, "the client never subscribed");
    let text = stdout(&output);
    assert!(text.contains("service create") && text.contains("name=late"), "{text}");
    stand_in.stop().await;
}

/// Ends where there is no docker client to wait for.
async fn no_client() {
    let there = spawn_blocking(|| Command::new("docker").arg("--version").output().is_ok());
    if there.await.expect("no panic") {
        std::future::pending::<()>().await;
    }
}
