//! Splitting changes into entries of bounded size, in their order.

use dovetail_proto::v1 as pb;
use dovetail_routing::fact::Change;
use prost::Message;

/// Objects in one entry.
pub const OBJECTS_MAX: usize = 256;
/// Bytes of the objects in one entry, unless a single one is larger.
pub const BYTES_MAX: usize = 256 * 1_024;
/// Bytes of one object; a larger one is refused and is a problem.
pub const OBJECT_BYTES_MAX: usize = 1_024 * 1_024;

/// The size of a change in the log.
pub(super) fn bytes_of(change: &Change) -> usize {
    pb::Change::from(change).encoded_len()
}

/// Cuts `changes` into batches, each for one entry; their order is kept.
pub(super) fn split(changes: Vec<Change>) -> Vec<Vec<Change>> {
    let mut batches = Vec::new();
    let mut batch = Vec::new();
    let mut bytes = 0;
    for change in changes {
        let size = bytes_of(&change);
        if !batch.is_empty() && (batch.len() == OBJECTS_MAX || bytes + size > BYTES_MAX) {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
        bytes += size;
        batch.push(change);
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

#[cfg(test)]
mod tests {
    use dovetail_routing::names::ObjectId;

    use super::*;

    fn secret(number: usize, name: &str) -> Change {
        Change::Secret { id: ObjectId(format!("{number:05}").into()), name: name.into() }
    }

    #[test]
    fn batches_are_bounded_and_keep_their_order() {
        assert!(split(Vec::new()).is_empty());
        let small: Vec<_> = (0..600).map(|number| secret(number, "s")).collect();
        let batches = split(small.clone());
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [256, 256, 88]);
        assert_eq!(batches.concat(), small);

        let name = "n".repeat(100 * 1_024);
        let large: Vec<_> = (0..5).map(|number| secret(number, &name)).collect();
        let batches = split(large.clone());
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
        assert_eq!(batches.concat(), large);
    }

    #[test]
    fn an_object_larger_than_a_batch_stands_alone() {
        let huge = secret(1, &"n".repeat(BYTES_MAX));
        let batches = split(vec![secret(0, "a"), huge, secret(2, "b")]);
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1]);
    }
}
