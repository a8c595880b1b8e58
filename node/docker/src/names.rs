//! One text for each name: tasks name the same services, nodes and networks again and again.

use std::collections::HashSet;
use std::sync::Arc;

use dovetail_routing::fact::Task;

/// The names that one list has shown so far.
#[derive(Debug, Default)]
pub(crate) struct Names(HashSet<Arc<str>>);

impl Names {
    /// The task, with the texts that others of its list have, too.
    pub(crate) fn shared_by(&mut self, mut task: Task) -> Task {
        self.share(&mut task.service.0);
        self.share(&mut task.node.0);
        for (network, _) in &mut task.addresses {
            self.share(&mut network.0);
        }
        task
    }

    fn share(&mut self, name: &mut Arc<str>) {
        match self.0.get(name) {
            Some(known) => *name = Arc::clone(known),
            None => _ = self.0.insert(Arc::clone(name)),
        }
    }
}
