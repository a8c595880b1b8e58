//! The cluster's configuration, as an operator gives it and looks at it.

use dovetail_config::FLAGS;
use dovetail_process::identity::Role;
use dovetail_proto::v1 as pb;
use dovetail_routing::LogIndex;
use dovetail_routing::entry::{ClusterConfig, Command};
use dovetail_routing::state::{Configured, State};
use tonic::{Request, Response, Status};

use super::command::{Change, Order};
use crate::ports::AdminClient;
use crate::seed::source_of;

impl Change for pb::ApplyConfigRequest {
    const ROLE: Role = Role::Admin;

    fn request_id(&self) -> &str {
        &self.request_id
    }

    fn dry_run(&self) -> bool {
        self.dry_run
    }

    async fn send(
        mut client: AdminClient,
        request: Request<Self>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        client.apply_config(request).await
    }
}

impl Order for pb::ApplyConfigRequest {
    const CAUSE: &'static str = "config apply";

    fn command(&self) -> Result<Command, Status> {
        let keys = dovetail_config::parse(&self.file, FLAGS)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let none = || {
            Status::invalid_argument(
                "the file has no cluster key: PollInterval and Extensions.* are those",
            )
        };
        let config = keys.config.ok_or_else(none)?;
        let source = source_of(&config);
        Ok(Command::ApplyConfig(ClusterConfig { source, ..config }))
    }
}

/// All configurations that are remembered.
pub(super) fn configs(state: &State) -> Vec<pb::Configuration> {
    let shown = |(index, configured): (LogIndex, &Configured)| pb::Configuration {
        index: index.0,
        actor: configured.actor.to_string(),
        time_ms: configured.time_ms,
        source: configured.config.source.to_string(),
        file: dovetail_config::render(&configured.config),
    };
    state.configs().map(shown).collect()
}
