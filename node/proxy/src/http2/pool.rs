//! One thread's HTTP/2 connections: used while they have room, dialled when none has.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{Http2Conn, Lease};
use crate::dial::{Destination, DialError, Key};
use crate::pool::IDLE_MAX;

/// What came of a dial, for those that wait for it.
type Dialled = Option<Result<(), DialError>>;

/// One thread's HTTP/2 connections.
#[derive(Debug, Default)]
pub struct Http2Pool {
    places: RefCell<HashMap<Key, Place>>,
}

#[derive(Debug, Default)]
struct Place {
    conns: Vec<Http2Conn>,
    /// One dials, the others wait: a burst must not open a connection for each request.
    dialling: Option<watch::Receiver<Dialled>>,
}

impl Http2Pool {
    /// A place on a connection there; a new one if none has room.
    pub async fn lease(
        self: &Rc<Self>,
        destination: &Destination,
        timeout: Duration,
    ) -> Result<Lease, DialError> {
        loop {
            let key = destination.key();
            let waiting = {
                let mut places = self.places.borrow_mut();
                let place = places.entry(key).or_default();
                place.conns.retain_mut(Http2Conn::lives);
                // The busiest that has room: so the others fall idle, and go.
                let free =
                    place.conns.iter_mut().filter_map(|conn| conn.has_room().then_some(conn));
                if let Some(conn) = free.max_by_key(|conn| conn.state.streams.get()) {
                    return Ok(conn.lease());
                }
                place.dialling.clone()
            };
            match waiting {
                Some(mut told) => {
                    // Nothing is said if whoever dialled was dropped: then it is our turn.
                    if let Ok(dialled) = told.wait_for(Option::is_some).await
                        && let Some(Err(error)) = &*dialled
                    {
                        return Err(error.clone());
                    }
                }
                None => return self.dial(key, destination, timeout).await,
            }
        }
    }

    async fn dial(
        self: &Rc<Self>,
        key: Key,
        destination: &Destination,
        timeout: Duration,
    ) -> Result<Lease, DialError> {
        let (tell, told) = watch::channel(None);
        self.places.borrow_mut().entry(key).or_default().dialling = Some(told);
        let dialling = Dialling { pool: Rc::clone(self), key };
        let dialled = Http2Conn::dial(destination, timeout).await;
        drop(dialling);
        let result = dialled.map(|conn| {
            let lease = conn.lease();
            // Under the terms that it was made by: they may be others by now.
            self.places.borrow_mut().entry(conn.key).or_default().conns.push(conn);
            lease
        });
        tell.send_replace(Some(result.as_ref().map(drop).map_err(Clone::clone)));
        result
    }

    /// Uses no connection to an upstream any more that fell silent. What is under way
    /// on them goes on.
    pub fn evict(&self, upstream: u64) {
        self.places.borrow_mut().retain(|(of, _), place| {
            if *of == upstream {
                place.conns.clear();
            }
            *of != upstream || place.dialling.is_some()
        });
    }

    /// Lets go what is old, dead, or leads to an upstream that left the table.
    pub fn sweep(&self, now: Instant) {
        self.places.borrow_mut().retain(|_, place| {
            place.conns.retain_mut(|conn| conn.is_kept(now, IDLE_MAX));
            !place.conns.is_empty() || place.dialling.is_some()
        });
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.places.borrow().values().map(|place| place.conns.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Says that somebody dials, until dropped.
struct Dialling {
    pool: Rc<Http2Pool>,
    key: Key,
}

impl Drop for Dialling {
    fn drop(&mut self) {
        if let Some(place) = self.pool.places.borrow_mut().get_mut(&self.key) {
            place.dialling = None;
        }
    }
}
