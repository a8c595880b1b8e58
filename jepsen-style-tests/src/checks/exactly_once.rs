//! A request takes effect once, however often it was sent.

use std::collections::BTreeMap;

use super::Violation;

const ONCE: &str = "a request takes effect once";

/// An entry that carries a request id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub index: u64,
    pub id: String,
    /// It was answered anew; a repetition is answered with the first answer.
    pub effective: bool,
}

/// Checks the requests of a log, in its order.
pub fn check(log: &[Request]) -> Result<(), Violation> {
    let mut effective = BTreeMap::<&str, u64>::new();
    for Request { index, id, .. } in log.iter().filter(|request| request.effective) {
        if let Some(first) = effective.insert(id, *index) {
            let what = format!("request {id} took effect at {first} and at {index}");
            return Err(Violation::new(ONCE, what));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_effect_is_caught() {
        let request = |index, effective| Request { index, id: "a".to_owned(), effective };
        assert_eq!(check(&[request(3, true), request(5, false)]), Ok(()));
        let found = check(&[request(3, true), request(5, true)]).expect_err("twice");
        assert_eq!(found.property, ONCE);
    }
}
