//! A rolling update, one task after the other, as Swarm does it.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Model;
use crate::spec::TaskState;
use crate::stand_in::{StandIn, StandInError};

/// Which of two tasks of a slot goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    #[default]
    StopFirst,
    StartFirst,
}

/// How a service is updated.
#[derive(Clone, Debug, Default)]
pub struct Rolling {
    pub order: Order,
    /// Between one task and the next.
    pub delay: Duration,
    /// Addresses for the new tasks; those of the spec when none.
    pub addresses: Option<Vec<IpAddr>>,
    pub image: Option<String>,
}

impl StandIn {
    /// Replaces every task of a service; returns when the last one runs.
    ///
    /// Tasks start and stop as [`Timing`](crate::Timing) says: with none there, a
    /// script must move them, and this waits for it.
    pub async fn rolling_update(&self, name: &str, rolling: Rolling) -> Result<(), StandInError> {
        let Rolling { order, delay, addresses, image } = rolling;
        self.update_service(name, |spec| {
            if let Some(addresses) = addresses {
                spec.addresses = addresses;
            }
            if let Some(image) = image {
                spec.image = image;
            }
        })?;
        self.change(|d| d.set_update_status(name, "updating", "update in progress"))?;
        let olds = self.tasks(name);
        for (position, old) in olds.iter().filter(|task| task.wanted()).enumerate() {
            if position > 0 && !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            match order {
                Order::StopFirst => {
                    let new = self.change(|draft| {
                        let service = draft.service(name)?;
                        let node = Some(old.node.clone()).filter(|node| !node.is_empty());
                        let new = draft.new_task(&service, old.slot, node, TaskState::Ready)?;
                        draft.set_desired(&old.id, TaskState::Shutdown)?;
                        Ok(new)
                    })?;
                    self.wait_until(|model| !is(model, &old.id, |task| !task.ended())).await;
                    self.set_task_desired(&new, TaskState::Running)?;
                    self.wait_until(|model| !is(model, &new, |task| !task.runs())).await;
                }
                Order::StartFirst => {
                    let new = self.change(|draft| {
                        let service = draft.service(name)?;
                        let node = Some(old.node.clone()).filter(|node| !node.is_empty());
                        draft.new_task(&service, old.slot, node, TaskState::Running)
                    })?;
                    self.wait_until(|model| !is(model, &new, |task| !task.runs())).await;
                    self.set_task_desired(&old.id, TaskState::Shutdown)?;
                }
            }
        }
        self.change(|d| d.set_update_status(name, "completed", "update completed"))
    }
}

/// Whether a task is there and is so.
fn is(model: &Model, id: &str, so: impl Fn(&crate::model::Task) -> bool) -> bool {
    model.tasks.get(id).is_some_and(|task| so(task))
}
