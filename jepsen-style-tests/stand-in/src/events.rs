//! Events as the engine emits them, and the stream of them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use hyper::body::Frame;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use crate::filters::Filters;
use crate::stand_in::StandIn;

/// One event of the Swarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub kind: String,
    pub action: String,
    pub object: String,
    pub attributes: BTreeMap<String, String>,
    pub time: OffsetDateTime,
}

impl Event {
    /// An event of now.
    pub fn new(kind: &str, action: &str, object: &str, attributes: &[(&str, &str)]) -> Self {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self {
            kind: kind.to_owned(),
            action: action.to_owned(),
            object: object.to_owned(),
            attributes: attributes.iter().map(own).collect(),
            time: OffsetDateTime::now_utc(),
        }
    }

    fn json(&self) -> Value {
        json!({
            "Type": self.kind,
            "Action": self.action,
            "Actor": {"ID": self.object, "Attributes": self.attributes},
            "scope": if self.kind == "container" { "local" } else { "swarm" },
            "time": self.time.unix_timestamp(),
            "timeNano": i64::try_from(self.time.unix_timestamp_nanos()).unwrap_or(i64::MAX),
        })
    }

    fn passes(&self, filters: &Filters) -> bool {
        let name = self.attributes.get("name").map_or("", String::as_str);
        filters.allow("type", &[&self.kind])
            && filters.allow("event", &[&self.action])
            && filters.allow("scope", &["swarm"])
            && (self.kind != "service" || filters.allow("service", &[&self.object, name]))
            && (self.kind != "node" || filters.allow("node", &[&self.object, name]))
            && (self.kind != "network" || filters.allow("network", &[&self.object, name]))
    }

    fn frame(&self) -> Result<Frame<Bytes>, Infallible> {
        let mut line = self.json().to_string();
        line.push('\n');
        Ok(Frame::data(line.into()))
    }
}

/// The time span of `docker events --since … --until …`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Span {
    pub(crate) since: Option<OffsetDateTime>,
    pub(crate) until: Option<OffsetDateTime>,
}

/// Events from the ring and from now on; subscribed before this returns.
pub(crate) fn stream(
    stand_in: StandIn,
    filters: Filters,
    span: Span,
) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send {
    let receiver = stand_in.inner().events.subscribe();
    let past: Vec<_> = match span.since {
        None => Vec::new(),
        Some(since) => {
            let ring = stand_in.ring();
            ring.into_iter().filter(|e| e.time >= since && e.passes(&filters)).collect()
        }
    };
    let past = past.into_iter().filter(move |e| span.until.is_none_or(|until| e.time <= until));
    let past: Vec<_> = past.map(|event| event.frame()).collect();
    let ends = span.until.map(|until| {
        let left = until - OffsetDateTime::now_utc();
        Instant::now() + Duration::try_from(left).unwrap_or(Duration::ZERO)
    });
    let live = stream::unfold((stand_in, filters, receiver), move |state| next(state, ends));
    futures_util::StreamExt::chain(stream::iter(past), live)
}

type Live = (StandIn, Filters, broadcast::Receiver<Arc<Event>>);

async fn next(
    (stand_in, filters, mut receiver): Live,
    ends: Option<Instant>,
) -> Option<(Result<Frame<Bytes>, Infallible>, Live)> {
    loop {
        let received = match ends {
            None => receiver.recv().await,
            Some(ends) => tokio::time::timeout_at(ends, receiver.recv()).await.ok()?,
        };
        match received {
            Ok(event) if event.passes(&filters) => {
                // A hung engine tells nothing; it does so once it has woken up.
                stand_in.inner().faults.hang("/events").await;
                return Some((event.frame(), (stand_in, filters, receiver)));
            }
            // A slow subscriber loses events, as with the engine.
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return None,
        }
    }
}
