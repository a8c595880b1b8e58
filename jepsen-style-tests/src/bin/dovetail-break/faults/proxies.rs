//! Faults of proxies: while one is away its requests may fail, and no other's.

use std::time::Duration;

use dovetail_jepsen::history::{Nemesis, Seen};
use dovetail_jepsen::{http, reached};

use super::Field;
use super::members::is_stopped;
use crate::run::LOADED;

/// How long a proxy may take to serve after its start.
const SERVES: Duration = Duration::from_secs(20);

impl Field {
    fn any_proxy(&mut self) -> u8 {
        let numbers: Vec<u8> = self.cluster.proxy_numbers().collect();
        self.random.choice(&numbers).copied().unwrap_or(1)
    }

    pub(super) fn down(&self, number: u8) {
        let proxy = format!("proxy-{number}");
        self.world.recorder.seen("nemesis", Seen::ProxyDown { proxy });
    }

    fn up(&self, number: u8) {
        let proxy = format!("proxy-{number}");
        self.world.recorder.seen("nemesis", Seen::ProxyUp { proxy });
    }

    /// From the moment on that a proxy answers, no request through it may fail.
    pub(super) async fn serves(&self, number: u8) -> anyhow::Result<()> {
        let addr = self.cluster.proxy_addr(number);
        reached(SERVES, || http::who_answers(addr, LOADED, "/")).await?;
        self.up(number);
        Ok(())
    }

    pub(super) async fn kill_proxy(&mut self, hold: Duration) -> anyhow::Result<Nemesis> {
        let number = self.any_proxy();
        self.down(number);
        self.cluster.kill_proxy(number);
        tokio::time::sleep(hold / 2).await;
        self.cluster.start_proxy(number)?;
        // From its copy on disk, whatever the core does.
        self.serves(number).await?;
        Ok(Nemesis::Installed)
    }

    pub(super) async fn pause_proxy(&mut self, hold: Duration) -> anyhow::Result<Nemesis> {
        let number = self.any_proxy();
        self.down(number);
        self.cluster.proxy(number)?.pause();
        tokio::time::sleep(hold / 2).await;
        let proxy = self.cluster.proxy(number)?;
        let stopped = is_stopped(proxy.pid());
        proxy.resume();
        self.serves(number).await?;
        Ok(if stopped {
            Nemesis::Installed
        } else {
            Nemesis::Indeterminate { why: format!("proxy {number} was not stopped") }
        })
    }
}
