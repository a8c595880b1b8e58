//! The lab and what is deployed on it; dropping the lab takes it down.

use std::fs::{self, File};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use dovetail_jepsen::supervisor::Executables;
use tempfile::TempDir;

use crate::console::Console;
use crate::readme;

/// For one `docker` command; an update of four replicas is the longest.
const DOCKER_DEADLINE: Duration = Duration::from_secs(120);
const README_DEADLINE: Duration = Duration::from_secs(180);
/// Lines of each log that a failure shows.
const LOG_LINES: &str = "40";

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("lab/swarm-lab")
}

/// What keeps a lab from standing here, if anything does.
pub(crate) fn lacking() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some("it takes Linux's namespaces".to_owned());
    }
    let check = Command::new(script()).arg("check").output().unwrap();
    (!check.status.success()).then(|| String::from_utf8_lossy(&check.stderr).trim().to_owned())
}

/// Three managers in namespaces.
#[derive(Debug)]
pub(crate) struct Lab {
    folder: PathBuf,
    addresses: Vec<IpAddr>,
    /// One lab of this test at a time: the folder's name is fixed, so that the next run
    /// finds and removes what a killed one left behind.
    _turn: File,
}

impl Lab {
    pub(crate) async fn up() -> Self {
        let folder = std::env::temp_dir().join("dovetail-real-swarm");
        let turn = File::create(folder.with_extension("lock")).unwrap();
        turn.lock().unwrap();
        let mut lab = Self { folder, addresses: Vec::new(), _turn: turn };
        lab.script(&["down"]).await.unwrap();
        print!("{}", lab.script(&["up"]).await.unwrap());
        let addresses = lab.script(&["addresses"]).await.unwrap();
        lab.addresses = addresses.lines().map(|line| line.parse().unwrap()).collect();
        lab
    }

    /// The nodes' addresses on the bridge.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().copied()
    }

    /// The address of a node, counted from 1.
    pub(crate) fn address(&self, node: usize) -> IpAddr {
        self.addresses[node - 1]
    }

    /// Runs the docker client against node `node`, counted from 1.
    pub(crate) async fn docker(&self, node: usize, args: &[&str]) -> Result<String, String> {
        let node = node.to_string();
        self.script(&[&["docker", &node], args].concat()).await
    }

    /// Takes a node off the network.
    pub(crate) async fn cut(&self, node: usize) {
        self.script(&["cut", &node.to_string()]).await.unwrap();
    }

    pub(crate) async fn heal(&self, node: usize) {
        self.script(&["heal", &node.to_string()]).await.unwrap();
    }

    async fn script(&self, args: &[&str]) -> Result<String, String> {
        let mut command = tokio::process::Command::new(script());
        command.args(args).env("LAB", &self.folder).env_remove("LAB_SUBNET");
        output(command, DOCKER_DEADLINE).await
    }

    /// What the parts themselves say, for whoever looks at a failure.
    fn print_evidence(&self) {
        let docker = |args: &[&str]| {
            let mut command = Command::new(script());
            command.args(["docker", "1"]).args(args).env("LAB", &self.folder);
            println!("--- docker {}", args.join(" "));
            if let Ok(output) = command.stdin(Stdio::null()).output() {
                println!("{}", String::from_utf8_lossy(&output.stdout));
                println!("{}", String::from_utf8_lossy(&output.stderr));
            }
        };
        docker(&["node", "ls"]);
        docker(&["stack", "ps", "--no-trunc", "dovetail"]);
        docker(&["service", "ls"]);
        for service in ["dovetail_core-1", "dovetail_core-2", "dovetail_core-3", "dovetail_proxy"] {
            docker(&["service", "logs", "--tail", LOG_LINES, service]);
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_evidence();
        }
        // Not unwrapped: a second panic would hide the first.
        match Command::new(script()).arg("down").env("LAB", &self.folder).status() {
            Ok(status) if status.success() => {}
            outcome => println!("the lab in {} is not down: {outcome:?}", self.folder.display()),
        }
    }
}

/// Dovetail on the lab, as the README puts it there.
#[derive(Debug)]
pub(crate) struct Deployment {
    /// A copy of `deploy` and what its lines leave there.
    clone: TempDir,
}

impl Deployment {
    /// Runs the README's lines, in a copy, so that the tree stays as it is.
    pub(crate) async fn by_readme(lab: &Lab) -> Self {
        let clone = tempfile::tempdir().unwrap();
        copy(&readme::deploy(), &clone.path().join("deploy"));
        let executables = Executables::find().unwrap();
        let engines = lab.script(&["hosts"]).await.unwrap().replace('\n', " ");
        let mut shell = tokio::process::Command::new("bash");
        shell
            .args(["-e", "-o", "pipefail", "-x", "-c", &readme::lines()])
            .current_dir(clone.path())
            .env("ENGINES", engines.trim())
            .env("DOVETAIL_BIN_DIR", executables.dovetail.parent().unwrap());
        for inherited in ["DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOVETAIL_TAG"] {
            shell.env_remove(inherited);
        }
        let said = output(shell, README_DEADLINE).await;
        println!("{}", said.unwrap_or_else(|reason| panic!("deploy/README.md: {reason}")));
        Self { clone }
    }

    pub(crate) fn console(&self, lab: &Lab) -> Console {
        Console::new(&self.clone.path().join("deploy"), lab.addresses())
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        // What someone's own run of the README left is not part of a clone.
        let left = ["bin", "pki"].iter().any(|name| entry.file_name() == *name);
        if entry.file_type().unwrap().is_dir() {
            if !left {
                copy(&entry.path(), &target);
            }
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// What a command printed, or why it failed, with all that it said.
pub(crate) async fn output(
    mut command: tokio::process::Command,
    deadline: Duration,
) -> Result<String, String> {
    let name = format!("{:?}", command.as_std());
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(deadline, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(format!("{name}: {error}")),
        Err(_) => return Err(format!("{name}: not done within {deadline:?}")),
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name}: {}\n{said}{errors}", output.status))
}
