//! Commands over gRPC with the operator's certificate, without a process for each.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use dovetail_process::grpc;
use dovetail_process::tls::TlsDir;
use dovetail_proto::v1 as pb;
use dovetail_proto::v1::admin_client::AdminClient;
use tonic::transport::Channel;

/// Whoever holds a folder of certificates.
#[derive(Clone, Debug)]
pub struct Operator {
    tls: TlsDir,
    /// Makes request ids of this process unlike those of any other.
    run: u64,
    commands: Arc<AtomicU64>,
}

impl Operator {
    /// Reads `ca.pem`, `cert.pem` and `key.pem`.
    pub fn load(folder: &Path) -> anyhow::Result<Self> {
        let tls = TlsDir::load(folder).context("the operator's certificate")?;
        Ok(Self { tls, run: fastrand::u64(..), commands: Arc::default() })
    }

    /// A lazy channel to one member, shared by its clones.
    pub fn channel(&self, addr: &str) -> anyhow::Result<Channel> {
        grpc::channel(&self.tls, addr).context("the channel")
    }

    pub fn admin(&self, addr: &str) -> anyhow::Result<AdminClient<Channel>> {
        Ok(AdminClient::new(self.channel(addr)?))
    }

    /// Writes a remark of `text` through `client`: a command that changes no route.
    pub async fn annotate(
        &self,
        client: &mut AdminClient<Channel>,
        text: &str,
        timeout: Duration,
    ) -> Result<u64, String> {
        let number = self.commands.fetch_add(1, Ordering::Relaxed);
        let request = pb::AnnotateRequest {
            request_id: format!("{:016x}-{number}", self.run),
            text: text.to_owned(),
            dry_run: false,
        };
        match tokio::time::timeout(timeout, client.annotate(request)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner().index),
            Ok(Err(status)) => Err(grpc::describe(&status)),
            Err(_) => Err(format!("no answer within {timeout:?}")),
        }
    }

    /// What one member alone knows.
    pub async fn local_status(
        &self,
        addr: &str,
        timeout: Duration,
    ) -> Result<pb::StatusResponse, String> {
        self.status_of(addr, true, timeout).await
    }

    /// The leader's view through one member; that member's own when it finds no leader.
    pub async fn status(
        &self,
        addr: &str,
        timeout: Duration,
    ) -> Result<pb::StatusResponse, String> {
        self.status_of(addr, false, timeout).await
    }

    async fn status_of(
        &self,
        addr: &str,
        local: bool,
        timeout: Duration,
    ) -> Result<pb::StatusResponse, String> {
        let mut client = self.admin(addr).map_err(|error| format!("{error:#}"))?;
        let request = pb::StatusRequest { local };
        match tokio::time::timeout(timeout, client.status(request)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(grpc::describe(&status)),
            Err(_) => Err(format!("no answer within {timeout:?}")),
        }
    }
}
