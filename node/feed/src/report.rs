//! What is wrong at the subscriber, told to the member that it follows.

use std::sync::Arc;
use std::time::Duration;

use dovetail_proto::v1 as pb;
use tokio::sync::watch;
use tokio::time::Instant;

/// Between two reports: what comes and goes is not worth a message each time.
const PAUSE: Duration = Duration::from_secs(1);
/// Problems of one report; more are counted. A member keeps no more.
const PROBLEMS_MAX: usize = 100;
/// Bytes of all problems of one report, well below what a member takes in one message.
const BYTES_MAX: usize = 48 * 1_024;
/// Bytes of one text, and of a reason.
const TEXT_BYTES_MAX: usize = 256;
const REASON_BYTES_MAX: usize = 1_024;

/// Something that cannot be done as the routes ask, in terms of their labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The service's name; empty where it concerns no single one.
    pub service: Arc<str>,
    /// The host as its route prints it; empty where it concerns no single one.
    pub host: Arc<str>,
    /// The label, or the configuration's key.
    pub label: Arc<str>,
    /// The label's value: the name of a secret, never its content.
    pub value: Arc<str>,
    /// Why, and what is done instead.
    pub reason: Arc<str>,
}

/// The reports of one stream: a level each time, and none while there is nothing to tell.
#[derive(Debug)]
pub(crate) struct Reports {
    problems: watch::Receiver<Arc<[Problem]>>,
    /// What the member knows is not empty.
    told: bool,
    not_before: Instant,
}

impl Reports {
    /// A stream begins: its member knows of nothing.
    pub(crate) fn new(mut problems: watch::Receiver<Arc<[Problem]>>) -> Self {
        problems.mark_changed();
        Self { problems, told: false, not_before: Instant::now() }
    }

    /// The next report; nothing is lost when it is not waited for to the end.
    pub(crate) async fn next(&mut self) -> pb::Report {
        loop {
            tokio::time::sleep_until(self.not_before).await;
            if self.problems.changed().await.is_err() {
                // Nobody is left who could tell.
                std::future::pending::<()>().await;
            }
            let problems = Arc::clone(&self.problems.borrow_and_update());
            if self.told || !problems.is_empty() {
                self.told = !problems.is_empty();
                self.not_before = Instant::now() + PAUSE;
                return report(&problems);
            }
        }
    }
}

fn report(problems: &[Problem]) -> pb::Report {
    let mut report = pb::Report::default();
    let mut bytes = 0;
    for problem in problems.iter().take(PROBLEMS_MAX) {
        let text = |text: &str| shortened(text, TEXT_BYTES_MAX);
        let problem = pb::ProxyProblem {
            service: text(&problem.service),
            host: text(&problem.host),
            label: text(&problem.label),
            value: text(&problem.value),
            reason: shortened(&problem.reason, REASON_BYTES_MAX),
        };
        bytes += prost::Message::encoded_len(&problem);
        if bytes > BYTES_MAX {
            break;
        }
        report.problems.push(problem);
    }
    report.more = (problems.len() - report.problems.len()) as u64;
    report
}

/// At most `bytes_max` bytes of `text`, cut between characters.
fn shortened(text: &str, bytes_max: usize) -> String {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(reason: &str) -> Problem {
        let none = || Arc::from("");
        let (service, host, label, value) = (none(), none(), none(), none());
        Problem { service, host, label, value, reason: reason.into() }
    }

    fn reasons(report: &pb::Report) -> Vec<&str> {
        report.problems.iter().map(|problem| problem.reason.as_str()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_report_is_sent_when_it_differs_and_not_too_often() {
        let (says, problems) = watch::channel(Arc::from([problem("a")]));
        let mut reports = Reports::new(problems);
        let begun = Instant::now();
        assert_eq!(reasons(&reports.next().await), ["a"], "there is something at the start");
        assert_eq!(begun.elapsed(), Duration::ZERO);
        says.send_replace(Arc::from([problem("b")]));
        says.send_replace(Arc::from([problem("c")]));
        assert_eq!(reasons(&reports.next().await), ["c"], "what came and went is left out");
        assert_eq!(begun.elapsed(), PAUSE);
        says.send_replace(Arc::default());
        assert!(reports.next().await.problems.is_empty(), "all is well again");
        says.send_replace(Arc::default());
        let silent = tokio::time::timeout(PAUSE * 10, reports.next()).await;
        assert!(silent.is_err(), "nothing is not told twice");
        drop(says);
        assert!(tokio::time::timeout(PAUSE * 10, reports.next()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_lost_when_the_wait_is_given_up() {
        let (says, problems) = watch::channel(Arc::from([problem("a")]));
        let mut reports = Reports::new(problems);
        reports.next().await;
        says.send_replace(Arc::from([problem("b")]));
        assert!(tokio::time::timeout(PAUSE / 2, reports.next()).await.is_err());
        assert_eq!(reasons(&reports.next().await), ["b"]);
    }

    #[test]
    fn a_report_is_bounded() {
        let few = report(&vec![problem(&"ä".repeat(2_000)); 200]);
        let bytes: usize = few.problems.iter().map(prost::Message::encoded_len).sum();
        assert!(bytes <= BYTES_MAX && few.problems[0].reason.len() <= REASON_BYTES_MAX);
        assert_eq!(few.problems.len() as u64 + few.more, 200);
        let many = report(&vec![problem("a"); 200]);
        assert_eq!((many.problems.len(), many.more), (PROBLEMS_MAX, 100));
    }
}
