//! The engine's event stream: hints that something is worth a look.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use dovetail_routing::fact::DockerEvent;
use futures_util::{Stream, StreamExt};
use tokio::sync::oneshot;

use crate::cadence::Depth;
use crate::client::Docker;
use crate::error::DockerError;

const CALL: &str = "GET /events";
/// Kinds we ask for: those of the whole swarm, and the containers of this machine.
const KINDS: [&str; 6] = ["service", "node", "network", "secret", "config", "container"];
/// What a container must carry to be a task's.
const LABEL_SERVICE: &str = "com.docker.swarm.service.id";

type Messages = Pin<Box<dyn Stream<Item = Result<EventMessage, bollard::errors::Error>> + Send>>;

/// A subscription that stands: what happens from now on is in the stream.
pub(crate) struct Subscription {
    docker: Docker,
    messages: Messages,
    /// Read while waiting for the head of the answer, if anything was.
    first: Option<Option<Result<EventMessage, bollard::errors::Error>>>,
}

impl Docker {
    /// Subscribes, and returns once the engine has answered.
    pub(crate) async fn subscribe(&self) -> Result<Subscription, DockerError> {
        let (sender, mut answered) = oneshot::channel();
        let sender = Arc::new(Mutex::new(Some(sender)));
        let engine = self.bollard_noting(CALL, move || {
            if let Some(sender) = sender.lock().unwrap_or_else(PoisonError::into_inner).take() {
                _ = sender.send(());
            }
        })?;
        let kinds = KINDS.iter().map(|&kind| kind.to_owned()).collect();
        let filters = HashMap::from([("type".to_owned(), kinds)]);
        let options = EventsOptionsBuilder::new().filters(&filters).build();
        let mut messages: Messages = Box::pin(engine.events(Some(options)));
        let after = self.timeout();
        // The stream asks only when it is polled, and yields only when something happens.
        let stands = async {
            tokio::select! {
                biased;
                first = messages.next() => Some(first),
                _ = &mut answered => None,
            }
        };
        let first = tokio::time::timeout(after, stands)
            .await
            .map_err(|_| DockerError::Timeout { call: CALL, after })?;
        if let Some(Some(Err(error))) = first {
            return Err(self.bollard_error(CALL, error));
        }
        Ok(Subscription { docker: self.clone(), messages, first })
    }
}

impl Subscription {
    /// The next message; none when the engine ended the stream. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Result<EventMessage, DockerError>> {
        let message = match self.first.take() {
            Some(first) => first,
            None => self.messages.next().await,
        };
        message.map(|message| message.map_err(|error| self.docker.bollard_error(CALL, error)))
    }
}

/// What a message tells to look at, if anything.
pub(crate) fn hint(message: EventMessage) -> Option<(Depth, DockerEvent)> {
    let kind = message.typ.map(|kind| kind.to_string()).unwrap_or_default();
    let action = message.action.unwrap_or_default();
    let actor = message.actor.unwrap_or_default();
    let depth = match (kind.as_str(), action.as_str()) {
        ("service" | "node", _) => Depth::Look,
        // A network says `connect` for each container; only its own life counts.
        ("network", "create" | "update" | "remove" | "destroy") => Depth::Look,
        ("secret" | "config", "create" | "update" | "remove") => Depth::Resync,
        ("container", "create" | "start" | "kill" | "die" | "oom" | "stop" | "destroy") => {
            let attributes = actor.attributes.as_ref()?;
            attributes.get(LABEL_SERVICE)?;
            Depth::Tasks
        }
        ("container", health) if health.starts_with("health_status") => Depth::Tasks,
        _ => return None,
    };
    let time_ns = message.time_nano.or(message.time.map(|s| s.saturating_mul(1_000_000_000)));
    let event = DockerEvent {
        kind: kind.into(),
        action: action.chars().take(64).collect::<String>().into(),
        object: actor.id.unwrap_or_default().chars().take(64).collect::<String>().into(),
        time_ns: time_ns.unwrap_or_default(),
    };
    Some((depth, event))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(json: serde_json::Value) -> EventMessage {
        serde_json::from_value(json).expect("a message")
    }

    #[test]
    fn what_cannot_change_a_task_is_no_hint() {
        let container = |action: &str, label: &str| {
            let attributes = serde_json::json!({ label: "x" });
            let actor = serde_json::json!({"ID": "c1", "Attributes": attributes});
            message(serde_json::json!({"Type": "container", "Action": action, "Actor": actor}))
        };
        let depth = |message| hint(message).map(|(depth, _)| depth);
        assert_eq!(depth(container("die", LABEL_SERVICE)), Some(Depth::Tasks));
        assert_eq!(depth(container("die", "other")), None);
        assert_eq!(depth(container("exec_create: true", LABEL_SERVICE)), None);
        let connect = serde_json::json!({"Type": "network", "Action": "connect"});
        assert_eq!(depth(message(connect)), None);
        let service = serde_json::json!({"Type": "service", "Action": "update", "timeNano": 5});
        let (depth, event) = hint(message(service)).expect("a hint");
        assert_eq!((depth, event.time_ns, &*event.kind), (Depth::Look, 5, "service"));
    }
}
