//! What the log removes was gone, what it replaces was older, and what it holds is true.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;

const GONE: &str = "a removal is proven";
const NEWER: &str = "an object never gets an older version";
const TRUE: &str = "an object is recorded as it was";

/// What became of objects, and what the log says of them.
#[derive(Clone, Debug, Default)]
pub struct Removals {
    gone: BTreeSet<String>,
    versions: BTreeMap<String, u64>,
    existed: BTreeMap<(String, u64), String>,
}

impl Removals {
    /// The object is gone, truly and for good: ids are not used again.
    pub fn gone(&mut self, object: &str) {
        self.gone.insert(object.to_owned());
    }

    /// What the object truly was at this version.
    pub fn existed(&mut self, object: &str, version: u64, content: String) {
        self.existed.insert((object.to_owned(), version), content);
    }

    /// The log removes an object.
    pub fn removed(&mut self, object: &str) -> Result<(), Violation> {
        self.versions.remove(object);
        if self.gone.contains(object) {
            return Ok(());
        }
        Err(Violation::new(GONE, format!("{object} was removed, and it is still there")))
    }

    /// The state holds an object at this version now, and says this of it.
    pub fn holds(&mut self, object: &str, version: u64, content: &str) -> Result<(), Violation> {
        let existed = self.existed.get(&(object.to_owned(), version));
        if existed.is_none_or(|existed| existed != content) {
            let what = format!("{object} was never so at version {version}: {content}");
            return Err(Violation::new(TRUE, what));
        }
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
        removals.existed("web", 6, "a".to_owned());
        removals.existed("web", 7, "b".to_owned());
        assert_eq!(removals.holds("web", 7, "b"), Ok(()));
        assert_eq!(removals.holds("web", 7, "b"), Ok(()));
        assert_eq!(removals.holds("web", 6, "a").expect_err("older").property, NEWER);
    }

    #[test]
    fn what_never_was_is_caught() {
        let mut removals = Removals::default();
        removals.existed("web", 7, "b".to_owned());
        assert_eq!(removals.holds("web", 7, "a").expect_err("another").property, TRUE);
        assert_eq!(removals.holds("web", 8, "b").expect_err("to come").property, TRUE);
    }
}
