//! What was acknowledged is in the log at the index that was told, and a read that began
//! after it sees it.

use std::collections::BTreeMap;

use super::Violation;

const KEPT: &str = "nothing acknowledged is lost";
const SEEN: &str = "a read sees what was acknowledged before it";

/// What clients were told.
#[derive(Clone, Debug, Default)]
pub struct Acknowledged {
    by_request: BTreeMap<String, u64>,
    last: u64,
}

impl Acknowledged {
    /// A client was told that its request is in the log at `index`.
    pub fn acked(&mut self, request: &str, index: u64) -> Result<(), Violation> {
        self.last = self.last.max(index);
        let known = *self.by_request.entry(request.to_owned()).or_insert(index);
        if known == index {
            return Ok(());
        }
        let what = format!("request {request} was acknowledged at {known} and at {index}");
        Err(Violation::new(KEPT, what))
    }

    /// The highest index that a client was told; what a read that begins now must see.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// How many requests were acknowledged.
    pub fn count(&self) -> usize {
        self.by_request.len()
    }

    /// A read that began when [`Self::last`] was `due` saw the log up to `seen`.
    pub fn read(&self, due: u64, seen: u64) -> Result<(), Violation> {
        if seen >= due {
            return Ok(());
        }
        let what = format!("a read saw the log up to {seen}, {due} was acknowledged before");
        Err(Violation::new(SEEN, what))
    }

    /// Compares with the request ids of the final log, by index.
    pub fn check(&self, log: &BTreeMap<u64, String>) -> Result<(), Violation> {
        for (request, index) in &self.by_request {
            let found = log.get(index);
            if found != Some(request) {
                let what = format!(
                    "request {request} was acknowledged at {index}, where the log has {found:?}"
                );
                return Err(Violation::new(KEPT, what));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_request_is_caught() {
        let mut acknowledged = Acknowledged::default();
        acknowledged.acked("a", 4).expect("new");
        acknowledged.acked("a", 4).expect("told again");
        let mut log = BTreeMap::from([(4, "a".to_owned())]);
        assert_eq!(acknowledged.check(&log), Ok(()));
        log.insert(4, "b".to_owned());
        assert_eq!(acknowledged.check(&log).expect_err("another").property, KEPT);
        log.clear();
        assert_eq!(acknowledged.check(&log).expect_err("gone").property, KEPT);
        assert!(acknowledged.acked("a", 5).is_err(), "one place only");
    }

    #[test]
    fn a_stale_read_is_caught() {
        let mut acknowledged = Acknowledged::default();
        acknowledged.acked("a", 4).expect("new");
        assert_eq!(acknowledged.read(acknowledged.last(), 4), Ok(()));
        assert_eq!(acknowledged.read(acknowledged.last(), 3).expect_err("stale").property, SEEN);
    }
}
