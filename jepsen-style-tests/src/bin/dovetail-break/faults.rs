//! The faults: how each begins, how it ends, and how it is known that it took effect.

mod builds;
mod clock;
mod disks;
mod links;
mod members;
mod membership;
mod proxies;

use std::time::Duration;

use dovetail_jepsen::cluster::Cluster;
use dovetail_jepsen::history::{Nemesis, Seen, What};
use dovetail_jepsen::supervisor::Executables;
use dovetail_jepsen::swarm::Swarm;
use dovetail_stand_in::Fault as DockerFault;

use crate::clients::World;
use crate::clocks::Clocks;
use crate::disks::Disks;
use crate::wires::Wires;

/// What may be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Fault {
    /// Every one that can be had here
    All,
    /// kill -9 of some members, up to all of them
    Kill,
    /// SIGSTOP and SIGCONT of some members
    Pause,
    /// The leader hears nobody, and nobody hears it
    IsolateLeader,
    /// Members and proxies in two parts
    Halves,
    /// Two parts with one member that is in both
    Bridge,
    /// One member is heard by nobody, but hears all
    OneWay,
    /// Each member hears its two neighbours only; with five
    Ring,
    /// Members lose a part of all packets
    Loss,
    /// Members' lines are slow, and what they send waits
    Slow,
    /// Some members lose power, and all that they did not sync, up to all of them
    PowerCut,
    /// A member has no room left
    DiskFull,
    /// A member's disk refuses writes or syncs
    DiskError,
    /// A bit of a member's files flips while it does not run
    BitFlip,
    /// A member loses its disk, and is replaced
    Replace,
    /// A member is added, promoted and removed again
    Membership,
    /// Processes that do nothing take the processors
    Starve,
    /// Docker takes requests and answers none
    DockerHang,
    /// SIGTERM and start of each member in turn
    Rolling,
    /// SIGTERM of each in turn, and start of the build in --upgrade-to; and back
    Upgrade,
    /// kill -9 of a proxy
    KillProxy,
    /// SIGSTOP and SIGCONT of a proxy
    PauseProxy,
    /// Wall clocks of some members jump, by up to a day
    Clock,
}

impl Fault {
    /// Whether it needs a disk or a network of the kernel's.
    pub(crate) fn needs_root(self) -> bool {
        matches!(self, Self::Loss | Self::PowerCut | Self::DiskFull | Self::DiskError)
    }

    /// All that can be had with so many members, with another build and root or without.
    pub(crate) fn every(members: u8, other_build: bool, root: bool) -> Vec<Self> {
        let all = <Self as clap::ValueEnum>::value_variants().iter().copied();
        let can = |fault: &Self| match fault {
            Self::All => false,
            fault if fault.needs_root() && !root => false,
            Self::Ring => members >= 5,
            Self::Upgrade => other_build,
            Self::DiskError => Disks::can_refuse(),
            _ => true,
        };
        all.filter(can).collect()
    }

    /// As on the command line.
    pub(crate) fn name(self) -> String {
        let value = clap::ValueEnum::to_possible_value(&self);
        value.map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// All that faults are inflicted on.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) cluster: Cluster,
    pub(crate) swarm: Swarm,
    pub(crate) wires: Wires,
    /// `None` without root.
    pub(crate) disks: Option<Disks>,
    /// `None` where they cannot be had.
    pub(crate) clocks: Option<Clocks>,
    pub(crate) other_build: Option<Executables>,
    pub(crate) world: World,
    pub(crate) random: fastrand::Rng,
}

impl Field {
    /// Inflicts a fault, holds it for a while, ends it, and writes down what is known of it.
    pub(crate) async fn inflict(&mut self, fault: Fault) -> anyhow::Result<()> {
        let hold = Duration::from_millis(self.random.u64(1_500..6_000));
        let victims = self.some_members(fault);
        let on = match fault {
            Fault::Kill
            | Fault::Pause
            | Fault::PowerCut
            | Fault::DiskFull
            | Fault::DiskError
            | Fault::Clock => victims.iter().map(u8::to_string).collect::<Vec<_>>().join(","),
            _ => String::new(),
        };
        let name = fault.name();
        let begun = What::FaultBegun { name: name.clone(), on: on.clone() };
        self.world.recorder.event(begun);
        let nemesis = match fault {
            fault if fault.needs_root() && self.disks.is_none() => {
                Nemesis::Skipped { why: "it needs root".to_owned() }
            }
            Fault::All => Nemesis::Skipped { why: "it stands for others".to_owned() },
            Fault::Clock => self.clock(&victims, hold).await?,
            Fault::Kill => self.kill(&victims, hold).await?,
            Fault::Pause => self.pause(&victims, hold).await?,
            Fault::PowerCut => self.power_cut(&victims, hold).await?,
            Fault::DiskFull => self.disk_full(&victims, hold).await?,
            Fault::DiskError => self.disk_error(&victims).await?,
            Fault::BitFlip => self.bit_flip().await?,
            Fault::Replace => self.replace().await?,
            Fault::Membership => self.membership(hold).await?,
            Fault::Slow => self.slow(hold).await?,
            Fault::Rolling => self.rolling().await?,
            Fault::Upgrade => self.upgrade(hold).await?,
            Fault::IsolateLeader
            | Fault::Halves
            | Fault::Bridge
            | Fault::OneWay
            | Fault::Ring
            | Fault::Loss => self.links(fault, hold).await?,
            Fault::Starve => starve(hold).await?,
            Fault::DockerHang => {
                self.swarm.stand_in().fault_for("", DockerFault::Hang, hold);
                tokio::time::sleep(hold).await;
                Nemesis::Installed
            }
            Fault::KillProxy => self.kill_proxy(hold).await?,
            Fault::PauseProxy => self.pause_proxy(hold).await?,
        };
        self.world.recorder.event(What::FaultEnded { name, on, nemesis });
        self.revive("after a fault")
    }

    /// Starts again whoever ended, and writes down who did so unasked.
    pub(crate) fn revive(&mut self, when: &str) -> anyhow::Result<()> {
        for slot in self.cluster.founders() {
            let Err(error) = self.cluster.member(slot) else { continue };
            let why = format!("{when}: {error:#}");
            self.world.recorder.seen(&format!("member-{slot}"), Seen::Ended { why });
            self.cluster.start_member(slot)?;
        }
        for number in self.cluster.proxy_numbers() {
            let Err(error) = self.cluster.proxy(number) else { continue };
            let why = format!("{when}: {error:#}");
            self.world.recorder.seen(&format!("proxy-{number}"), Seen::Ended { why });
            self.cluster.start_proxy(number)?;
        }
        Ok(())
    }

    /// Whom a fault of members hits: mostly few, and all now and then where that may be.
    fn some_members(&mut self, fault: Fault) -> Vec<u8> {
        let mut slots: Vec<u8> = self.cluster.founders().collect();
        self.random.shuffle(&mut slots);
        let all = slots.len();
        let many = match fault {
            Fault::Kill | Fault::PowerCut | Fault::Pause | Fault::Clock => {
                match self.random.u8(..4) {
                    0 => all,
                    1 => all / 2 + 1,
                    _ => 1,
                }
            }
            _ => 1,
        };
        slots.truncate(many);
        slots
    }
}

/// More processes than processors, each of which wants one.
async fn starve(hold: Duration) -> anyhow::Result<Nemesis> {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    let spin = || {
        let mut command = tokio::process::Command::new("sh");
        command.args(["-c", "while :; do :; done"]).kill_on_drop(true).spawn()
    };
    let mut spinners = Vec::new();
    for _ in 0..processors * 3 {
        spinners.push(spin()?);
    }
    tokio::time::sleep(hold).await;
    let mut running = 0;
    for spinner in &mut spinners {
        running += usize::from(spinner.try_wait()?.is_none());
        spinner.kill().await?;
    }
    Ok(if running == spinners.len() {
        Nemesis::Installed
    } else {
        Nemesis::Indeterminate { why: format!("{running} of {} ran on", spinners.len()) }
    })
}
