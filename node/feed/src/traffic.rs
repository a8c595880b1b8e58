//! What services answered at the subscriber, told to the member that asks for it.
//!
//! A member's keep-alive names the routes that it wants to hear of: those with a canary.
//! The answer is a level, all counters as they stand, and never a difference: a message
//! that is lost with its stream costs nothing.

use std::sync::Arc;

use dovetail_proto::v1 as pb;
use dovetail_routing::latency::Latencies;

/// Bytes of one message, well below what a member takes.
const BYTES_MAX: usize = 32 * 1_024;
/// Services of one round; what is more is left out, and so never judged.
const SERVICES_MAX: usize = 4_096;

/// What a service answered on a route so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceTraffic {
    pub service: Arc<str>,
    /// Another one when the counters have begun anew.
    pub start: u64,
    /// Attempts; several of one request count each.
    pub requests: u64,
    /// Answers of 5xx, and attempts without a whole answer.
    pub errors: u64,
    /// Until the head of each answer.
    pub latencies: Latencies,
}

/// One round of messages: what `traffic` gives for each of the wanted routes.
pub(crate) fn messages(
    wanted: &[pb::RouteRef],
    traffic: impl Fn(&str, &str) -> Vec<ServiceTraffic>,
) -> Vec<pb::Traffic> {
    let mut messages = vec![pb::Traffic::default()];
    let (mut bytes, mut services) = (0, 0);
    for route in wanted {
        for counted in traffic(&route.host, &route.path) {
            let service = of_route(route, counted);
            let more = prost::Message::encoded_len(&service);
            services += 1;
            if services > SERVICES_MAX {
                return messages;
            }
            if bytes + more > BYTES_MAX && bytes > 0 {
                messages.push(pb::Traffic::default());
                bytes = 0;
            }
            bytes += more;
            if let Some(message) = messages.last_mut() {
                message.services.push(service);
            }
        }
    }
    if let Some(last) = messages.last_mut() {
        last.complete = true;
    }
    messages
}

fn of_route(route: &pb::RouteRef, counted: ServiceTraffic) -> pb::ServiceTraffic {
    let counts = counted.latencies.counts();
    pb::ServiceTraffic {
        host: route.host.clone(),
        path: route.path.clone(),
        service: counted.service.to_string(),
        start: counted.start,
        requests: counted.requests,
        errors: counted.errors,
        latencies: counts
            .map(|(bucket, count)| pb::LatencyCount { bucket: bucket.into(), count })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(number: u64) -> pb::RouteRef {
        pb::RouteRef {
            host: format!("shop-{number}.example"),
            path: "/".to_owned(),
            ..pb::RouteRef::default()
        }
    }

    fn counted(_host: &str, _path: &str) -> Vec<ServiceTraffic> {
        vec![ServiceTraffic {
            service: "shop_web".into(),
            start: u64::MAX,
            requests: 240,
            errors: 1,
            latencies: Latencies::new((0..240).map(|bucket| (bucket, 1))),
        }]
    }

    #[test]
    fn nothing_is_as_good_an_answer_as_any() {
        let round = messages(&[route(1)], |_, _| Vec::new());
        assert_eq!(round.len(), 1);
        assert!(round[0].complete && round[0].services.is_empty());
    }

    #[test]
    fn a_round_is_split_and_its_last_message_says_so() {
        let wanted: Vec<_> = (0..100).map(route).collect();
        let round = messages(&wanted, counted);
        assert!(round.len() > 1);
        assert!(round.iter().all(|one| prost::Message::encoded_len(one) <= BYTES_MAX + 16));
        assert_eq!(round.iter().map(|one| one.services.len()).sum::<usize>(), 100);
        let complete: Vec<_> = round.iter().map(|one| one.complete).collect();
        assert_eq!(complete.iter().filter(|one| **one).count(), 1);
        assert_eq!(complete.last(), Some(&true));
    }

    #[test]
    fn a_round_above_the_limit_is_never_complete() {
        let wanted: Vec<_> = (0..=SERVICES_MAX as u64).map(route).collect();
        let round = messages(&wanted, counted);
        assert!(round.iter().all(|one| !one.complete));
    }
}
