//! The Docker stand-in, driven by its control API.

use std::net::IpAddr;

use super::ServiceConfig;
use crate::cluster::Cluster;

/// A task as Docker shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TaskFact {
    pub(super) id: String,
    pub(super) service: String,
    pub(super) slot: u64,
    pub(super) desired: String,
    pub(super) state: String,
    pub(super) address: IpAddr,
}

/// The stand-in.
#[derive(Debug)]
pub struct Engine {}

impl Engine {
    pub(super) async fn start(_cluster: &Cluster) -> anyhow::Result<Self> {
        anyhow::bail!("the stand-in is not there yet")
    }

    pub(super) async fn put_service(
        &self,
        _id: &str,
        _config: &ServiceConfig,
        _action: &str,
    ) -> anyhow::Result<()> {
        Ok(())
    }

    pub(super) async fn remove_service(&self, _id: &str, _name: &str) -> anyhow::Result<()> {
        Ok(())
    }

    pub(super) async fn put_task(&self, _task: &TaskFact) -> anyhow::Result<()> {
        Ok(())
    }

    pub(super) async fn remove_task(&self, _id: &str) -> anyhow::Result<()> {
        Ok(())
    }
}
