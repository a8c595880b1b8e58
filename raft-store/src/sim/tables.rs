//! Rows in memory, and the batches that change them.

use std::collections::BTreeMap;

use crate::disk::{Family, index_key};

/// One change of one row, or of a range of them.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Put(Family, Vec<u8>, Vec<u8>),
    Delete(Family, Vec<u8>),
    DeleteRange(Family, Vec<u8>, Vec<u8>),
}

impl Change {
    pub(crate) fn family(&self) -> Family {
        match self {
            Self::Put(family, ..) | Self::Delete(family, _) | Self::DeleteRange(family, ..) => {
                *family
            }
        }
    }

    pub(crate) fn put(family: Family, key: &[u8], value: &[u8]) -> Self {
        Self::Put(family, key.to_vec(), value.to_vec())
    }

    pub(crate) fn delete(family: Family, key: &[u8]) -> Self {
        Self::Delete(family, key.to_vec())
    }

    pub(crate) fn delete_range(family: Family, from: [u8; 8], end: [u8; 8]) -> Self {
        Self::DeleteRange(family, from.to_vec(), end.to_vec())
    }
}

/// The rows of all column families.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tables([BTreeMap<Vec<u8>, Vec<u8>>; 3]);

impl Tables {
    pub(crate) fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put(family, key, value) => {
                    self.0[*family as usize].insert(key.clone(), value.clone());
                }
                Change::Delete(family, key) => {
                    self.0[*family as usize].remove(key);
                }
                Change::DeleteRange(family, from, end) => {
                    let rows = &mut self.0[*family as usize];
                    if from < end {
                        let mut tail = rows.split_off(from);
                        rows.append(&mut tail.split_off(end));
                    }
                }
            }
        }
    }

    pub(crate) fn family(&self, family: Family) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        &self.0[family as usize]
    }

    /// The rows of the indexes `from..end`.
    pub(crate) fn rows(
        &self,
        family: Family,
        from: u64,
        end: u64,
    ) -> impl DoubleEndedIterator<Item = (&Vec<u8>, &Vec<u8>)> {
        let from = index_key(from).to_vec();
        let end = index_key(end).to_vec();
        let range = if from < end { from..end } else { Vec::new()..Vec::new() };
        self.0[family as usize].range(range)
    }
}
