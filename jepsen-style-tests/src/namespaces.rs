//! Machines as network namespaces: each process of a cluster has an address and a wire of
//! its own, which can be cut in one direction or made to lose packets.
//!
//! All of it lies within a namespace that the run made for itself ([`private`]): the bridge,
//! the names of namespaces, mounts. The kernel takes it away with the run, however it ends.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail};

/// The bridge between the machines.
const BRIDGE: &str = "dovetail0";
/// Of memory and of this run alone: what lies there goes with the run.
const PRIVATE: &str = "/run";
/// Programs without which there is no such machine.
const NEEDED: &[&str] = &["unshare", "nsenter", "ip", "tc", "iptables", "mount"];

/// Machines on one wire. Clones share them.
#[derive(Clone, Debug)]
pub struct Namespaces {
    network: [u8; 3],
    hosts: Arc<Mutex<BTreeSet<u8>>>,
}

/// Why there can be no namespaces here; `None` when there can.
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("namespaces and loop devices need root".to_owned());
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let is_missing =
        |name: &&&str| !std::env::split_paths(&folders).any(|path| path.join(name).is_file());
    let lacks: Vec<_> = NEEDED.iter().filter(is_missing).copied().collect();
    (!lacks.is_empty()).then(|| format!("not in PATH: {}", lacks.join(", ")))
}

/// A command that runs `program` where it sees only its own network, mounts and processes;
/// what it starts ends with it.
pub fn private(program: &std::path::Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    command.arg(program).env("TMPDIR", PRIVATE);
    command
}

/// Runs a program of the system to its end.
pub fn tool(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    fed(program, arguments, "")
}

fn fed(program: &str, arguments: &[&str], input: &str) -> anyhow::Result<String> {
    let told = || format!("{program} {}", arguments.join(" "));
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(told)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).with_context(told)?;
    }
    let output = child.wait_with_output().with_context(told)?;
    if !output.status.success() {
        bail!("{}: {}", told(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Namespaces {
    /// The wire, within [`private`]: this process has all addresses of `network` that are in
    /// `own`.
    pub fn create(network: [u8; 3], own: impl Iterator<Item = u8>) -> anyhow::Result<Self> {
        // Names of namespaces are files in /run, and so seen by this run alone.
        tool("mount", &["-t", "tmpfs", "tmpfs", PRIVATE])?;
        let [a, b, c] = network;
        let mut orders = format!("link set lo up\nlink add {BRIDGE} type bridge\n");
        for host in own {
            orders.push_str(&format!("addr add {a}.{b}.{c}.{host}/24 dev {BRIDGE}\n"));
        }
        orders.push_str(&format!("link set {BRIDGE} up\n"));
        fed("ip", &["-batch", "-"], &orders)?;
        Ok(Self { network, hosts: Arc::default() })
    }

    /// The first three numbers of all addresses.
    pub fn network(&self) -> [u8; 3] {
        self.network
    }

    fn address(&self, host: u8) -> String {
        let [a, b, c] = self.network;
        format!("{a}.{b}.{c}.{host}")
    }

    /// A machine more.
    pub fn add(&self, host: u8) -> anyhow::Result<()> {
        let name = name(host);
        tool("ip", &["netns", "add", &name])?;
        let outside = format!("link add {name} type veth peer name eth0 netns {name}\n");
        fed("ip", &["-batch", "-"], &format!("{outside}link set {name} master {BRIDGE} up\n"))?;
        let address = self.address(host);
        let inside = format!("link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\n");
        fed("ip", &["-n", &name, "-batch", "-"], &inside)?;
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner).insert(host);
        Ok(())
    }

    /// What has to stand before a command, behind `nsenter`, for it to run on a machine.
    pub fn enter(&self, host: u8) -> [OsString; 2] {
        [format!("--net=/run/netns/{}", name(host)).into(), "--".into()]
    }

    /// Packets from one machine do not reach another any more; the other way they do.
    pub fn cut(&self, from: u8, to: u8) -> anyhow::Result<()> {
        self.iptables(to, &["-A", "INPUT", "-s", &self.address(from), "-j", "DROP"]).map(drop)
    }

    /// So many percent of the packets to a machine are lost.
    pub fn lose(&self, to: u8, percent: u8) -> anyhow::Result<()> {
        let part = format!("{:.2}", f64::from(percent.min(100)) / 100.0);
        let random = ["-m", "statistic", "--mode", "random", "--probability", &part];
        let rule = [&["-A", "INPUT", "-i", "eth0"], &random[..], &["-j", "DROP"]].concat();
        self.iptables(to, &rule).map(drop)
    }

    /// Ends all cuts and losses; returns how many packets they stopped.
    pub fn heal(&self) -> anyhow::Result<u64> {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut stopped = 0;
        for host in hosts {
            stopped += packets(&self.iptables(host, &["-vnxL", "INPUT"])?);
            self.iptables(host, &["-F", "INPUT"])?;
        }
        Ok(stopped)
    }

    /// What a machine sends waits for about so long. Where the kernel cannot delay packets by
    /// themselves, the line becomes so thin that they queue for it. By what it was done.
    pub fn slow(&self, from: u8, millis: u16) -> anyhow::Result<&'static str> {
        let delay = [format!("{millis}ms"), format!("{}ms", millis / 2)];
        let (delay, jitter) = (delay[0].as_str(), delay[1].as_str());
        if self.queue(from, "add", &["netem", "delay", delay, jitter]).is_ok() {
            return Ok("netem");
        }
        // A full packet takes the time; the queue holds some of them, and what is more is lost.
        let rate = format!("{}bit", 1_514 * 8 * 1_000 / u32::from(millis.max(1)));
        let longest = format!("{}ms", u32::from(millis) * 8);
        let thin = ["tbf", "rate", &rate, "burst", "2kb", "latency", &longest];
        self.queue(from, "add", &thin).map(|_| "tbf")
    }

    /// Ends all slowness; returns how many packets had to wait.
    pub fn quicken(&self) -> anyhow::Result<u64> {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut waited = 0;
        for host in hosts {
            let listed = tool("tc", &["-n", &name(host), "-s", "qdisc", "show", "dev", "eth0"])?;
            if let Some(packets) = delayed(&listed) {
                waited += packets;
                self.queue(host, "del", &[])?;
            }
        }
        Ok(waited)
    }

    fn queue(&self, host: u8, verb: &str, rule: &[&str]) -> anyhow::Result<String> {
        let name = name(host);
        let order = ["-n", name.as_str(), "qdisc", verb, "dev", "eth0", "root"];
        tool("tc", &[&order, rule].concat())
    }

    fn iptables(&self, host: u8, arguments: &[&str]) -> anyhow::Result<String> {
        let network = format!("--net=/run/netns/{}", name(host));
        tool("nsenter", &[&[network.as_str(), "--", "iptables", "-w"], arguments].concat())
    }
}

fn name(host: u8) -> String {
    format!("dv{host}")
}

/// The first column of all rules, which follow two lines of heading.
fn packets(listed: &str) -> u64 {
    let rules = listed.lines().skip(2);
    rules.filter_map(|rule| rule.split_whitespace().next()?.parse::<u64>().ok()).sum()
}

/// How many packets a line that was made slow let wait; `None` of one that was not.
fn delayed(listed: &str) -> Option<u64> {
    let before = match listed.split_whitespace().nth(1)? {
        "netem" => "bytes",
        "tbf" => "overlimits",
        _ => return None,
    };
    let after = listed.split(before).nth(1)?;
    after.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stopped_packets_are_summed_over_all_rules() {
        let listed = "Chain INPUT (policy ACCEPT 7 packets, 420 bytes)\n    pkts      bytes \
                      target prot opt in out source destination\n      12      720 DROP 0 -- * * \
                      10.77.0.11 0.0.0.0/0\n       5      300 DROP 0 -- * * 10.77.0.12 0.0.0.0/0\n";
        assert_eq!(packets(listed), 17);
        assert_eq!(packets(""), 0);
    }

    #[test]
    fn packets_that_waited_are_counted_by_the_kind_of_the_queue() {
        let sent = "\n Sent 9123 bytes 71 pkt (dropped 3, overlimits 40 requeues 0)";
        let tbf = format!("qdisc tbf 8001: root refcnt 5 rate 256Kbit{sent}");
        let netem = format!("qdisc netem 8002: root refcnt 5 limit 1000 delay 20ms{sent}");
        assert_eq!(delayed(&tbf), Some(40));
        assert_eq!(delayed(&netem), Some(71));
        assert_eq!(delayed(&format!("qdisc noqueue 0: root refcnt 2{sent}")), None);
        assert_eq!(delayed(""), None);
    }
}
