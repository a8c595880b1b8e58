//! Waiting for a level: always bounded, and with the reason it was not reached.

use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant};

/// The pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A level that was not reached in time, and what the last look saw instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct NotReached {
    pub waited: Duration,
    pub last: String,
}

impl fmt::Display for NotReached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not within {:.1} s: {}", self.waited.as_secs_f64(), self.last)
    }
}

/// Looks again and again until `look` is satisfied; returns what it found.
///
/// A look that hangs counts as an unsatisfied one: `deadline` holds in any case.
pub async fn reached<T, F, Fut>(deadline: Duration, mut look: F) -> Result<T, NotReached>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let started = Instant::now();
    let mut last = String::from("the first look did not end");
    loop {
        let left = deadline.saturating_sub(started.elapsed());
        match tokio::time::timeout(left, look()).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(unmet)) => last = unmet,
            Err(_) => return Err(NotReached { waited: started.elapsed(), last }),
        }
        if started.elapsed() + LOOK_EVERY >= deadline {
            return Err(NotReached { waited: started.elapsed(), last });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// [`reached`] for tests.
///
/// # Panics
///
/// With the last unmet condition, when the deadline passes.
#[track_caller]
pub fn eventually<T, F, Fut>(deadline: Duration, look: F) -> impl Future<Output = T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let caller = std::panic::Location::caller();
    async move {
        match reached(deadline, look).await {
            Ok(found) => found,
            Err(unmet) => panic!("{caller}: {unmet}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_reason_is_reported() {
        let mut looks = 0;
        let unmet = reached::<(), _, _>(Duration::from_millis(100), || {
            looks += 1;
            let seen = looks;
            async move { Err(format!("look {seen}")) }
        })
        .await
        .unwrap_err();
        assert_eq!(unmet.last, format!("look {looks}"));
        assert!(looks > 1);
    }

    #[tokio::test]
    async fn a_look_that_hangs_ends_at_the_deadline() {
        let unmet =
            reached::<(), _, _>(Duration::from_millis(50), std::future::pending).await.unwrap_err();
        assert!(unmet.waited < Duration::from_secs(5), "{unmet}");
    }
}
