//! A proxy goes forward only, and one revision is one content.

use std::collections::BTreeMap;

use super::Violation;

const FORWARD: &str = "a proxy never goes back";
const SAME: &str = "one content of a revision";

/// What proxies put in force.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    in_force: BTreeMap<u64, u64>,
    contents: BTreeMap<u64, [u8; 32]>,
}

impl Proxies {
    /// `proxy` decides requests by `revision` from now on.
    pub fn put_in_force(
        &mut self,
        proxy: u64,
        revision: u64,
        digest: [u8; 32],
    ) -> Result<(), Violation> {
        if let Some(from) = self.in_force.insert(proxy, revision)
            && revision <= from
        {
            let what = format!("proxy {proxy} went from revision {from} to {revision}");
            return Err(Violation::new(FORWARD, what));
        }
        if *self.contents.entry(revision).or_insert(digest) != digest {
            let what = format!("proxy {proxy} has another revision {revision} than others");
            return Err(Violation::new(SAME, what));
        }
        Ok(())
    }

    /// All revisions that were in force anywhere.
    pub fn seen(&self) -> impl Iterator<Item = (u64, [u8; 32])> {
        self.contents.iter().map(|(revision, digest)| (*revision, *digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_that_goes_back_is_caught() {
        let mut proxies = Proxies::default();
        assert_eq!(proxies.put_in_force(1, 5, [5; 32]), Ok(()));
        assert_eq!(proxies.put_in_force(2, 3, [3; 32]), Ok(()));
        assert_eq!(proxies.put_in_force(1, 4, [4; 32]).expect_err("back").property, FORWARD);
    }

    #[test]
    fn two_contents_of_a_revision_are_caught() {
        let mut proxies = Proxies::default();
        assert_eq!(proxies.put_in_force(1, 5, [5; 32]), Ok(()));
        assert_eq!(proxies.put_in_force(2, 5, [6; 32]).expect_err("other").property, SAME);
    }
}
