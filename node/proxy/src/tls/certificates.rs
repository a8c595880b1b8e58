//! The certificates of all hosts, as the threads that serve see them and as they are kept.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;

use super::keeper::Keeper;
use super::table::TlsTable;
use crate::problems::Problems;
use crate::secrets::Secrets;
use crate::table::RouteTable;

/// What [`Problems`] calls the problems of certificates.
const SOURCE: &str = "certificates";

/// The hosts that speak TLS, read by every handshake and replaced as a whole.
#[derive(Debug)]
pub struct Certificates {
    in_force: ArcSwap<TlsTable>,
    /// Held by whoever writes: the subscriber, or the thread that looks at the files.
    keeper: Mutex<Kept>,
    problems: Problems,
}

#[derive(Debug)]
struct Kept {
    keeper: Keeper,
    /// When a certificate in force expires, so that it is said then.
    expiry: Option<SystemTime>,
}

impl Certificates {
    /// Without any host; certificates are among `secrets`.
    pub fn new(secrets: Secrets, problems: Problems) -> Self {
        let keeper = Mutex::new(Kept { keeper: Keeper::new(secrets), expiry: None });
        Self { in_force: ArcSwap::default(), keeper, problems }
    }

    /// Pins the table for one handshake, or one request.
    pub fn pin(&self) -> Arc<TlsTable> {
        self.in_force.load_full()
    }

    /// Puts the hosts of `table` in force. Reads files: not for threads that serve.
    pub fn replace(&self, table: &Arc<RouteTable>) {
        self.write(Some(table));
    }

    /// Looks at the files, and puts in force what changed.
    pub fn look(&self) {
        self.write(None);
    }

    fn write(&self, new: Option<&Arc<RouteTable>>) {
        let mut kept = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        let pinned = self.pin();
        let Some(table) = new.or(pinned.routes()) else { return };
        let now = SystemTime::now();
        let is_new = new.is_some() || kept.expiry.is_some_and(|expiry| expiry <= now);
        if let Some((tls, problems)) = kept.keeper.compile(table, is_new, now) {
            self.in_force.store(Arc::new(tls));
            kept.expiry = kept.keeper.next_expiry(now);
            record_expiry(kept.keeper.first_expiry());
            self.problems.replace(SOURCE, problems);
        }
    }
}

/// 0 where no host has a certificate.
fn record_expiry(first: Option<SystemTime>) {
    let since = first.and_then(|first| first.duration_since(SystemTime::UNIX_EPOCH).ok());
    metrics::gauge!("dovetail_proxy_certificate_expiry_timestamp_seconds")
        .set(since.map_or(0.0, |since| since.as_secs_f64()));
}
