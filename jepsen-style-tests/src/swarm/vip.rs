//! A service's virtual address: what IPVS does on a real machine.

use std::io;
use std::net::SocketAddr;

use dovetail_stand_in::StandIn;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use super::UPSTREAM_PORT;

/// Balances connections over a service's running tasks; ends when dropped.
#[derive(Debug)]
pub(super) struct Vip(AbortHandle);

impl Drop for Vip {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Vip {
    pub(super) async fn serve(
        stand_in: StandIn,
        service: String,
        vip: SocketAddr,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(vip).await?;
        let job = tokio::spawn(balance(listener, stand_in, service));
        Ok(Self(job.abort_handle()))
    }
}

async fn balance(listener: TcpListener, stand_in: StandIn, service: String) {
    let mut connections = JoinSet::new();
    let mut turn = 0;
    while let Ok((mut client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let mut tasks = stand_in.tasks(&service);
        tasks.retain(|task| task.wanted() && task.runs());
        let task = tasks.get(turn % tasks.len().max(1));
        // Without a task a connection is refused, here by closing it.
        let Some((_, address)) = task.and_then(|task| task.addresses.first().cloned()) else {
            continue;
        };
        turn += 1;
        connections.spawn(async move {
            let upstream = TcpStream::connect(SocketAddr::new(address, UPSTREAM_PORT)).await;
            if let Ok(mut upstream) = upstream {
                // Whoever ends it, both see it.
                _ = copy_bidirectional(&mut client, &mut upstream).await;
            }
        });
    }
}
