//! One process, its log, and the signals it gets.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// What of a log is shown when something went wrong, in bytes.
const LOG_TAIL_BYTES: u64 = 4_096;

/// What a process is started from, now and again after a kill.
#[derive(Clone, Debug)]
pub struct ProcessConfig {
    /// For messages, and for the name of the log.
    pub name: String,
    pub executable: PathBuf,
    pub arguments: Vec<OsString>,
    /// Both outputs go here, appended.
    pub log: PathBuf,
}

/// A child process. Dropping it kills it and waits for its end.
#[derive(Debug)]
pub struct Process {
    config: ProcessConfig,
    child: Child,
    ended: Option<ExitStatus>,
}

impl Process {
    pub fn start(config: ProcessConfig) -> io::Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(&config.log)?;
        let child = Command::new(&config.executable)
            .args(&config.arguments)
            .env_clear()
            .envs(environment())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Self { config, child, ended: None })
    }

    /// Starts the same thing once more; what still runs of it is killed first.
    pub fn start_again(&mut self) -> io::Result<()> {
        self.kill();
        *self = Self::start(self.config.clone())?;
        Ok(())
    }

    pub fn config(&self) -> &ProcessConfig {
        &self.config
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) {
        if self.ended.is_none() {
            // A child that has just ended cannot be killed, and is reaped all the same.
            let _ = self.child.kill();
            self.ended = self.child.wait().ok();
        }
    }

    /// SIGTERM; does not wait.
    pub fn terminate(&mut self) {
        self.signal(Signal::TERM);
    }

    /// SIGSTOP: it keeps its connections and answers nothing.
    pub fn pause(&mut self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        self.signal(Signal::CONT);
    }

    fn signal(&mut self, signal: Signal) {
        // A reaped pid may be a stranger's by now.
        if self.exit_status().is_none() {
            // It may end between the look and the signal, and is then a zombie of ours.
            let _ = kill_process(Pid::from_child(&self.child), signal);
        }
    }

    /// How it ended, if it has.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Waits for its end by itself.
    pub async fn end(&mut self, deadline: Duration) -> Option<ExitStatus> {
        let started = Instant::now();
        while started.elapsed() < deadline {
            if let Some(status) = self.exit_status() {
                return Some(status);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.exit_status()
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let read = || -> io::Result<String> {
            let mut file = File::open(&self.config.log)?;
            let bytes = file.metadata()?.len();
            file.seek(SeekFrom::Start(bytes.saturating_sub(LOG_TAIL_BYTES)))?;
            let mut tail = Vec::new();
            file.read_to_end(&mut tail)?;
            Ok(String::from_utf8_lossy(&tail).into_owned())
        };
        read().unwrap_or_else(|error| format!("(no log: {error})"))
    }

    /// Memory that it holds now, in bytes; 0 once it has ended.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        resident_of_status(&status.unwrap_or_default())
    }

    /// CPU time used so far, in user and system mode together.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        cpu_of_stat(&stat.unwrap_or_default())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `VmRSS` of `proc(5)`, which is in kilobytes.
fn resident_of_status(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kilobytes.unwrap_or_default().saturating_mul(1_024)
}

/// Fields 14 and 15 of `proc(5)`, counted behind the command's closing parenthesis.
fn cpu_of_stat(stat: &str) -> Duration {
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second())
}

/// What children inherit: nothing that would stand for a flag.
fn environment() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| !name.to_string_lossy().starts_with("DOVETAIL_"))
}

/// A process that ran to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `command` to its end, and kills it at the deadline.
pub async fn run_to_end(mut command: Command, deadline: Duration) -> io::Result<Finished> {
    command.env_clear().envs(environment()).stdin(Stdio::null());
    let name = command.get_program().to_string_lossy().into_owned();
    let output = tokio::process::Command::from(command).kill_on_drop(true).output();
    let output = tokio::time::timeout(deadline, output).await.map_err(|_| {
        io::Error::new(io::ErrorKind::TimedOut, format!("{name} did not end within {deadline:?}"))
    })??;
    Ok(Finished {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(folder: &tempfile::TempDir) -> ProcessConfig {
        ProcessConfig {
            name: "sleeper".into(),
            executable: "/bin/sh".into(),
            arguments: vec!["-c".into(), "echo started; exec sleep 60".into()],
            log: folder.path().join("sleeper.log"),
        }
    }

    #[tokio::test]
    async fn a_process_is_ended_with_its_handle_and_keeps_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = Process::start(sleeper(&folder)).unwrap();
        let pid = process.pid();
        crate::eventually(Duration::from_secs(5), || {
            let tail = process.log_tail();
            async move { if tail.contains("started") { Ok(()) } else { Err(tail) } }
        })
        .await;
        assert_eq!(process.exit_status(), None);
        process.start_again().unwrap();
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
        let pid = process.pid();
        drop(process);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }

    #[tokio::test]
    async fn sigterm_is_seen_as_a_signal() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = Process::start(sleeper(&folder)).unwrap();
        process.terminate();
        let status = process.end(Duration::from_secs(5)).await.unwrap();
        assert_eq!(status.code(), None);
    }

    #[test]
    fn cpu_time_is_read_behind_the_command() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4 1 0 0 0 150 50 0 0 20 0 1 0 1 1 1";
        assert_eq!(
            cpu_of_stat(stat),
            Duration::from_millis(200_000 / rustix::param::clock_ticks_per_second())
        );
        assert_eq!(cpu_of_stat(""), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_cut_off() {
        let mut command = Command::new("/bin/sleep");
        command.arg("60");
        let error = run_to_end(command, Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
