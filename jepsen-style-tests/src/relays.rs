//! Machines without namespaces: each on a loopback address of its own, and a relay between
//! each two that can hold back what goes one way, or let it wait.
//!
//! For where there is no root. What a cut holds back arrives when it is over, as if TCP had
//! sent it again; nobody can lose packets here.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A relay's port is this and the number of the machine that uses it.
const PORT: u16 = 20_000;
/// How much is carried at once, in bytes.
const CHUNK: usize = 16 * 1_024;

/// One direction between two machines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Line {
    is_cut: bool,
    wait: Duration,
}

type Ways = BTreeMap<(u8, u8), watch::Sender<Line>>;

/// All relays of a cluster; they end with its runtime. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Relays {
    /// By who sends and who is sent to.
    ways: Arc<Mutex<Ways>>,
    held: Arc<AtomicU64>,
    waited: Arc<AtomicU64>,
}

impl Relays {
    /// Where `from` reaches what listens at `target`, on another machine.
    pub fn address(from: u8, target: SocketAddr) -> SocketAddr {
        SocketAddr::new(target.ip(), PORT + u16::from(from))
    }

    /// Begins to carry from one machine to what listens on another.
    pub async fn open(&self, from: u8, to: u8, target: SocketAddr) -> anyhow::Result<()> {
        let at = Self::address(from, target);
        let listener = TcpListener::bind(at).await.with_context(|| format!("a relay on {at}"))?;
        let (there, back) = (self.line(from, to), self.line(to, from));
        let (held, waited) = (self.held.clone(), self.waited.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let carrier = Carrier {
                    there: there.clone(),
                    back: back.clone(),
                    held: held.clone(),
                    waited: waited.clone(),
                };
                tokio::spawn(carrier.carry(stream, target));
            }
        });
        Ok(())
    }

    fn line(&self, from: u8, to: u8) -> watch::Receiver<Line> {
        let mut ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        ways.entry((from, to)).or_default().subscribe()
    }

    fn change(&self, which: impl Fn(u8, u8) -> bool, change: impl Fn(&mut Line)) {
        let ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, line) in ways.iter().filter(|((from, to), _)| which(*from, *to)) {
            line.send_modify(&change);
        }
    }

    /// What one machine sends does not reach another any more; the other way it does.
    pub fn cut(&self, from: u8, to: u8) {
        self.change(|one, other| (one, other) == (from, to), |line| line.is_cut = true);
    }

    /// What a machine sends waits for so long.
    pub fn slow(&self, from: u8, millis: u16) {
        let wait = Duration::from_millis(millis.into());
        self.change(|one, _| one == from, |line| line.wait = wait);
    }

    /// Ends all cuts; returns how often something was held back.
    pub fn heal(&self) -> u64 {
        self.change(|_, _| true, |line| line.is_cut = false);
        self.held.swap(0, Ordering::Relaxed)
    }

    /// Ends all slowness; returns how often something had to wait.
    pub fn quicken(&self) -> u64 {
        self.change(|_, _| true, |line| line.wait = Duration::ZERO);
        self.waited.swap(0, Ordering::Relaxed)
    }
}

/// What carries one connection.
struct Carrier {
    there: watch::Receiver<Line>,
    back: watch::Receiver<Line>,
    held: Arc<AtomicU64>,
    waited: Arc<AtomicU64>,
}

impl Carrier {
    async fn carry(self, near: TcpStream, target: SocketAddr) {
        let Self { mut there, mut back, held, waited } = self;
        // A connection needs both directions to come about.
        passes(&mut there, &held).await;
        passes(&mut back, &held).await;
        let Ok(far) = TcpStream::connect(target).await else { return };
        _ = near.set_nodelay(true);
        _ = far.set_nodelay(true);
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        // When one end is gone, so is the other.
        tokio::select! {
            () = pump(near_in, far_out, there, &held, &waited) => {}
            () = pump(far_in, near_out, back, &held, &waited) => {}
        }
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut line: watch::Receiver<Line>,
    held: &AtomicU64,
    waited: &AtomicU64,
) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(bytes @ 1..) = from.read(&mut chunk).await {
        let wait = line.borrow().wait;
        if !wait.is_zero() {
            waited.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(wait).await;
        }
        passes(&mut line, held).await;
        let Some(read) = chunk.get(..bytes) else { return };
        if to.write_all(read).await.is_err() {
            return;
        }
    }
}

/// Waits until a line is not cut.
async fn passes(line: &mut watch::Receiver<Line>, held: &AtomicU64) {
    if line.borrow().is_cut {
        held.fetch_add(1, Ordering::Relaxed);
        // Without a sender nobody will ever heal it, and the run is over.
        _ = line.wait_for(|line| !line.is_cut).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::Place;

    #[tokio::test]
    async fn a_cut_holds_one_direction_back_and_healing_delivers() {
        let place = Place::claim().unwrap();
        let target = place.addr(2, 8_080);
        let listener = TcpListener::bind(target).await.unwrap();
        let relays = Relays::default();
        relays.open(1, 2, target).await.unwrap();
        let mut near = TcpStream::connect(Relays::address(1, target)).await.unwrap();
        near.write_all(b"a").await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        assert_eq!(far.read_u8().await.unwrap(), b'a');

        relays.cut(1, 2);
        near.write_all(b"b").await.unwrap();
        far.write_all(b"c").await.unwrap();
        assert_eq!(near.read_u8().await.unwrap(), b'c', "the other way is open");
        let short = Duration::from_millis(100);
        assert!(tokio::time::timeout(short, far.read_u8()).await.is_err(), "it came through");
        assert_eq!(relays.heal(), 1);
        assert_eq!(far.read_u8().await.unwrap(), b'b');

        relays.slow(2, 50);
        let asked = std::time::Instant::now();
        far.write_all(b"d").await.unwrap();
        assert_eq!(near.read_u8().await.unwrap(), b'd');
        assert!(asked.elapsed() >= Duration::from_millis(50), "{:?}", asked.elapsed());
        assert_eq!(relays.quicken(), 1);
    }
}
