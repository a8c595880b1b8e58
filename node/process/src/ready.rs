//! Whether the process may be sent work: named checks, printed as Kubernetes prints them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A detail, perhaps empty, or why the check fails.
type Outcome = Result<String, String>;

/// The checks of a process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    checks: Arc<Mutex<BTreeMap<String, Outcome>>>,
}

/// The handle of whoever knows about one check.
#[derive(Clone, Debug)]
pub struct Check {
    name: String,
    readiness: Readiness,
}

/// What the checks say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Every check that was not excluded passes.
    pub ready: bool,
    /// One line per check, and a last line.
    pub text: String,
}

impl Readiness {
    /// Without checks, which is ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check, which fails with `starting` until its owner says otherwise.
    pub fn register(&self, name: impl Into<String>) -> Check {
        let name = name.into();
        self.lock().insert(name.clone(), Err("starting".to_owned()));
        Check { name, readiness: self.clone() }
    }

    /// Whether every check passes.
    pub fn is_ready(&self) -> bool {
        self.lock().values().all(Result::is_ok)
    }

    /// What the checks say, without those in `exclude`.
    pub fn report(&self, exclude: &[&str]) -> Report {
        let mut text = String::new();
        let mut ready = true;
        let checks = self.lock();
        for (name, outcome) in checks.iter() {
            let line = match outcome {
                _ if exclude.contains(&name.as_str()) => format!("[+]{name} excluded: ok"),
                Ok(detail) if detail.is_empty() => format!("[+]{name} ok"),
                Ok(detail) => format!("[+]{name} ok: {detail}"),
                Err(reason) => {
                    ready = false;
                    format!("[-]{name} failed: {reason}")
                }
            };
            text.push_str(&line);
            text.push('\n');
        }
        for name in exclude.iter().filter(|name| !checks.contains_key(**name)) {
            // Writing into a String cannot fail.
            let _ = writeln!(
                text,
                "warn: some health checks cannot be excluded: no matches for {name:?}"
            );
        }
        text.push_str(if ready { "readyz check passed\n" } else { "readyz check failed\n" });
        Report { ready, text }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Outcome>> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Check {
    /// The check passes.
    pub fn set_ok(&self) {
        self.set_ok_with("");
    }

    /// The check passes, and there is something to say.
    pub fn set_ok_with(&self, detail: impl Into<String>) {
        self.readiness.lock().insert(self.name.clone(), Ok(detail.into()));
    }

    /// The check fails, and why.
    pub fn set_not_ready(&self, reason: impl Into<String>) {
        self.readiness.lock().insert(self.name.clone(), Err(reason.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ready_when_every_check_passes() {
        let readiness = Readiness::new();
        let log = readiness.register("log");
        let leader = readiness.register("leader");
        assert!(!readiness.is_ready());
        log.set_ok();
        leader.set_not_ready("no leader for 3 s");
        assert_eq!(
            readiness.report(&[]).text,
            "[-]leader failed: no leader for 3 s\n[+]log ok\nreadyz check failed\n"
        );
        leader.set_ok_with("member 2 leads");
        assert!(readiness.is_ready() && readiness.report(&[]).ready);
        assert!(readiness.report(&[]).text.starts_with("[+]leader ok: member 2 leads\n"));
    }

    #[test]
    fn an_excluded_check_is_shown_but_does_not_count() {
        let readiness = Readiness::new();
        readiness.register("leader").set_not_ready("none");
        let report = readiness.report(&["leader", "nothing"]);
        assert!(report.ready);
        assert_eq!(
            report.text,
            "[+]leader excluded: ok\nwarn: some health checks cannot be excluded: no matches for \
             \"nothing\"\nreadyz check passed\n"
        );
    }
}
