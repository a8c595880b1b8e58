//! The real executable, started from a copy on disk, without any core.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dovetail_feed::{DiskCopy, Position};
use dovetail_routing::Snapshot;
use tempfile::TempDir;

use super::{get, until};

/// A running `dovetail-proxy`; ended when dropped.
pub struct Process {
    pub http: SocketAddr,
    pub https: SocketAddr,
    pub admin: SocketAddr,
    pub dir: TempDir,
    child: Child,
}

/// A port that was free a moment ago.
pub fn free_port() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address")
}

/// Writes a copy on disk, as a proxy leaves it behind.
pub fn leave_copy(dir: &Path, snapshot: &Arc<Snapshot>) {
    let canonical = Bytes::from(snapshot.encode());
    let digest = Snapshot::digest_of(&canonical);
    let position = Position { cluster_id: "c1".into(), revision: snapshot.revision, digest };
    let copy = DiskCopy::open(dir).expect("a folder");
    copy.store(&position, &canonical).expect("written");
}

/// The executable with what every start needs, or `more` in its place; nobody answers
/// at `--core`.
pub fn command(dir: &Path, http: SocketAddr, admin: SocketAddr, more: &[&str]) -> Command {
    if !dir.join("pki").exists() {
        dovetail_process::pki::init(&dir.join("pki"), 1, &[]).expect("certificates");
    }
    let path = |name: &str| dir.join(name).display().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_dovetail-proxy"));
    for (flag, value) in [
        ("--core", free_port().to_string()),
        ("--tls-dir", path("pki/proxy")),
        ("--http", http.to_string()),
        ("--https", free_port().to_string()),
        ("--data-dir", path("data")),
        ("--admin", admin.to_string()),
        ("--access-log", path("access.log")),
        ("--drain-notice", "0s".to_owned()),
    ] {
        if !more.contains(&flag) {
            command.arg(flag).arg(value);
        }
    }
    command.args(more).stdin(Stdio::null()).env("DOVETAIL_LOG", "error");
    command
}

impl Process {
    pub async fn start(snapshot: &Arc<Snapshot>, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        leave_copy(&dir.path().join("data"), snapshot);
        let (http, https, admin) = (free_port(), free_port(), free_port());
        let address = https.to_string();
        let more = [&["--https", &address], more].concat();
        let child = command(dir.path(), http, admin, &more).spawn().expect("the executable starts");
        let mut process = Self { http, https, admin, dir, child };
        until("the proxy is ready", async || {
            assert!(process.exited().is_none(), "it ended early");
            tokio::net::TcpStream::connect(admin).await.is_ok()
                && get(admin, "admin", "/readyz").await.status == 200
        })
        .await;
        process
    }

    /// Its exit code, if it has ended.
    pub fn exited(&mut self) -> Option<i32> {
        let status = self.child.try_wait().expect("it can be asked")?;
        Some(status.code().unwrap_or(-1))
    }

    /// Memory that it holds.
    pub fn resident_bytes(&self) -> u64 {
        let status = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(status).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
        let kib = line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number");
        kib * 1_024
    }

    /// Tells it to end, as Docker does.
    pub fn terminate(&self) {
        let id = self.child.id().to_string();
        let told = Command::new("kill").args(["-TERM", &id]).status().expect("kill runs");
        assert!(told.success());
    }

    pub async fn exit_code(&mut self) -> i32 {
        let mut code = None;
        until("the proxy ended", async || {
            code = self.exited();
            code.is_some()
        })
        .await;
        code.expect("it ended")
    }

    pub async fn access_log(&self, lines: usize) -> Vec<serde_json::Value> {
        let path = self.dir.path().join("access.log");
        let mut found = Vec::new();
        until("the access log is written", async || {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            found = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
            found.len() >= lines
        })
        .await;
        found
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Long enough for a mistake to show, where nothing is to happen.
pub const A_MOMENT: Duration = Duration::from_millis(200);
