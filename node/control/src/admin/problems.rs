//! What an operator should see: problems of the state, of members, of proxies.

use std::sync::Arc;

use dovetail_proto::v1 as pb;

use super::Admin;
use crate::local::merge;
use crate::observe::Observe;
use crate::ports::{Asked, Peers, Quorum, QuorumView, Slot};
use crate::soft::NONE;

/// Problems of proxies that one answer shows; the rest is counted in the last one.
const OF_PROXIES_MAX: usize = 10_000;

impl<Q: Quorum, P: Peers, D: Observe> Admin<Q, P, D> {
    /// The problems of the state and of this member, and of the others if they are asked.
    pub(super) async fn problems_known(
        &self,
        view: &QuorumView,
        ask_others: bool,
    ) -> Vec<pb::Problem> {
        let state = Arc::clone(&self.core.quorum.state().borrow());
        let mut problems: Vec<_> = state.problems().iter().map(pb::Problem::from).collect();
        let answers = if ask_others {
            let answers = self.core.locals(view, Asked::PROBLEMS).await;
            let heard = view.members.iter().zip(answers);
            heard.filter_map(|(member, answer)| Some((member.slot, answer?))).collect()
        } else {
            vec![(view.this, self.core.local().answer(view.applied, Asked::PROBLEMS))]
        };
        problems.extend(soft(view.this, &answers));
        problems.extend(of_proxies(answers));
        problems
    }
}

/// How many problems of members and proxies there are.
pub(super) fn count<'l>(members: impl IntoIterator<Item = (Slot, &'l pb::LocalResponse)>) -> u64 {
    let mut soft = 0;
    let subscribers: Vec<_> = members
        .into_iter()
        .map(|(slot, local)| {
            soft += local.soft_count;
            (slot, local.subscribers.clone())
        })
        .collect();
    let of_proxies = merge(subscribers).into_iter().map(|(_, one)| one.problem_count);
    soft + of_proxies.sum::<u64>().min(OF_PROXIES_MAX as u64)
}

/// The members' own problems; of other members with their number.
fn soft(this: Slot, answers: &[(Slot, pb::LocalResponse)]) -> Vec<pb::Problem> {
    let mut all = Vec::new();
    for (slot, answer) in answers {
        all.extend(answer.soft.iter().cloned().map(|mut problem| {
            if *slot != this {
                problem.reason = format!("member {slot}: {}", problem.reason);
            }
            problem
        }));
    }
    all
}

/// What proxies said is wrong at them, each with its name.
fn of_proxies(answers: Vec<(Slot, pb::LocalResponse)>) -> Vec<pb::Problem> {
    let mut all = Vec::new();
    let subscribers = answers.into_iter().map(|(slot, answer)| (slot, answer.subscribers));
    for (_, one) in merge(subscribers) {
        let name = [&one.name, &one.address].into_iter().find(|name| !name.is_empty());
        let who = format!("proxy {}", name.map_or("without a name", String::as_str));
        let text = |text: String| if text.is_empty() { NONE.to_owned() } else { text };
        all.extend(one.problems.into_iter().map(|problem| pb::Problem {
            service: text(problem.service),
            label: text(problem.label),
            value: problem.value,
            reason: match problem.host.as_str() {
                "" => format!("{who}: {}", problem.reason),
                host => format!("{who}: {host}: {}", problem.reason),
            },
            since_index: one.revision,
        }));
        if one.problems_more > 0 {
            all.push(summary(format!("{who}: {} more problems", one.problems_more), one.revision));
        }
    }
    if all.len() > OF_PROXIES_MAX {
        let rest = all.split_off(OF_PROXIES_MAX - 1);
        let since = rest.iter().map(|problem| problem.since_index).min().unwrap_or_default();
        all.push(summary(format!("{} more problems of proxies", rest.len()), since));
    }
    all
}

fn summary(reason: String, since_index: u64) -> pb::Problem {
    let (service, label) = (NONE.to_owned(), NONE.to_owned());
    pb::Problem { service, label, value: String::new(), reason, since_index }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscriber(name: &str, connected: bool, problems: usize) -> pb::LocalSubscriber {
        let problem = pb::ProxyProblem {
            service: "shop".to_owned(),
            host: "shop.example".to_owned(),
            label: "com.docker.lb.ssl_cert".to_owned(),
            value: "shop.cert".to_owned(),
            reason: "it expired".to_owned(),
        };
        pb::LocalSubscriber {
            name: name.to_owned(),
            connected,
            revision: 7,
            problem_count: problems as u64,
            problems: vec![problem; problems],
            ..pb::LocalSubscriber::default()
        }
    }

    fn answer(subscribers: Vec<pb::LocalSubscriber>, soft: usize) -> pb::LocalResponse {
        let soft = vec![summary("held".to_owned(), 3); soft];
        let soft_count = soft.len() as u64;
        let none = pb::LocalResponse::default();
        pb::LocalResponse { applied: 9, subscribers, soft_count, soft, ..none }
    }

    #[test]
    fn a_proxy_that_moved_on_is_told_of_once() {
        let answers = vec![
            (1, answer(vec![subscriber("edge-1", false, 0)], 1)),
            (2, answer(vec![subscriber("edge-1", true, 2), subscriber("edge-2", true, 1)], 1)),
        ];
        assert_eq!(count(answers.iter().map(|(slot, local)| (*slot, local))), 5);
        let reasons: Vec<_> = soft(1, &answers).into_iter().map(|one| one.reason).collect();
        assert_eq!(reasons, ["held", "member 2: held"]);
        let told = of_proxies(answers);
        assert_eq!(told.len(), 3);
        assert_eq!(told[0].reason, "proxy edge-1: shop.example: it expired");
        assert_eq!((told[0].service.as_str(), told[0].since_index), ("shop", 7));
    }

    #[test]
    fn too_many_are_counted() {
        let many = (0..OF_PROXIES_MAX).map(|number| subscriber(&format!("p{number}"), true, 2));
        let mut some = subscriber("one more", true, 1);
        some.problems_more = 41;
        let told = of_proxies(vec![(1, answer(many.chain([some]).collect(), 0))]);
        assert_eq!(told.len(), OF_PROXIES_MAX);
        let last = told.last().expect("the summary");
        assert!(last.reason.ends_with("more problems of proxies"), "{}", last.reason);
    }
}
