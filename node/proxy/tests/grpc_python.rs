//! gRPC as other people's programs speak it: Python's grpcio, client and server, through
//! the proxy. Skipped, with the reason, where Python has no grpcio (`pip install grpcio`).

mod common;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use common::{Proxy, route, snapshot};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

/// For everything together; messages of 64 MiB take a while on a busy machine.
const DEADLINE: Duration = Duration::from_secs(240);

#[tokio::test(flavor = "multi_thread")]
async fn grpcio_speaks_through_the_proxy() {
    let probe = Command::new("python3").args(["-c", "import grpc"]).output().await;
    if !probe.is_ok_and(|probe| probe.status.success()) {
        println!("skipped: python3 has no module grpc (pip install grpcio)");
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/grpc/echo.py");
    let mut python = Command::new("python3")
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("python3 starts");
    let mut out = BufReader::new(python.stdout.take().expect("a pipe"));
    let story = async {
        let mut port = String::new();
        out.read_line(&mut port).await.expect("a port");
        let port: u16 = port.trim().parse().expect("a port");
        let server = ([127, 0, 0, 1], port).into();
        let proxy = Proxy::start(&snapshot(1, vec![route("grpc.example", "/", &[server])]));
        let mut input = python.stdin.take().expect("a pipe");
        input.write_all(format!("{}\n", proxy.address).as_bytes()).await.expect("written");
        let mut said = String::new();
        out.read_to_string(&mut said).await.expect("text");
        let ended = python.wait().await.expect("it ends");
        print!("{said}");
        assert!(ended.success(), "{ended}: {said}");
        assert_eq!(said.lines().filter(|line| line.starts_with("held ")).count(), 10, "{said}");
    };
    tokio::time::timeout(DEADLINE, story).await.expect("in time");
}
