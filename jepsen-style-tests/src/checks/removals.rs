//! What the log removes was gone, and what it replaces was older.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;

const GONE: &str = "a removal is proven";
const NEWER: &str = "an object never gets an older version";

/// What became of objects, and what the log says of them.
#[derive(Clone, Debug, Default)]
pub struct Removals {
    gone: BTreeSet<String>,
    versions: BTreeMap<String, u64>,
}

impl Removals {
    /// The object is gone, truly and for good: ids are not used again.
    pub fn gone(&mut self, object: &str) {
        self.gone.insert(object.to_owned());
    }

    /// The log removes an object.
    pub fn removed(&mut self, object: &str) -> Result<(), Violation> {
        self.versions.remove(object);
        if self.gone.contains(object) {
            return Ok(());
        }
        Err(Violation::new(GONE, format!("{object} was removed, and it is still there")))
    }

    /// The state holds an object at this version now.
    pub fn holds(&mut self, object: &str, version: u64) -> Result<(), Violation> {
        let known = self.versions.insert(object.to_owned(), version).unwrap_or(0);
        if version >= known {
            return Ok(());
        }
        let what = format!("{object} was at version {known}, and now at {version}");
        Err(Violation::new(NEWER, what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removal_of_what_is_there_is_caught() {
        let mut removals = Removals::default();
        removals.gone("web");
        assert_eq!(removals.removed("web"), Ok(()));
        assert_eq!(removals.removed("db").expect_err("there").property, GONE);
    }

    #[test]
    fn an_older_version_is_caught() {
        let mut removals = Removals::default();
        assert_eq!(removals.holds("web", 7), Ok(()));
        assert_eq!(removals.holds("web", 7), Ok(()));
        assert_eq!(removals.holds("web", 6).expect_err("older").property, NEWER);
    }
}
