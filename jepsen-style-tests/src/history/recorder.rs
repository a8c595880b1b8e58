//! Writes a history down while it happens.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::{Answer, Event, History, Op, Seen, What};

/// An operation that was begun and has not ended; without an end it is an unknown one.
#[derive(Debug)]
#[must_use]
pub struct Began(u64);

/// Takes events from everywhere, in the order in which they come. Clones share it.
#[derive(Clone, Debug)]
pub struct Recorder {
    shared: Arc<Mutex<Shared>>,
    started: Instant,
}

#[derive(Debug)]
struct Shared {
    events: Vec<Event>,
    file: BufWriter<File>,
    /// The first error of the file; the rest is kept in memory only.
    broken: Option<io::Error>,
    operations: u64,
}

impl Recorder {
    /// Writes to a new file. The run begins now.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create_new(path).with_context(|| path.display().to_string())?;
        let file = BufWriter::new(file);
        let shared = Shared { events: Vec::new(), file, broken: None, operations: 0 };
        Ok(Self { shared: Arc::new(Mutex::new(shared)), started: Instant::now() })
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since the run began.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Now, as events have it.
    pub fn now(&self) -> u64 {
        micros(self.elapsed())
    }

    pub fn event(&self, what: What) {
        self.push(&mut self.lock(), what);
    }

    fn push(&self, shared: &mut Shared, what: What) {
        // Under the lock, so that times never go back from line to line.
        let event = Event { at: self.now(), what };
        let written = serde_json::to_vec(&event).map_err(io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            shared.file.write_all(&line)
        });
        if let Err(error) = written {
            shared.broken.get_or_insert(error);
        }
        shared.events.push(event);
    }

    /// A client begins an operation: to be called before anything is sent.
    pub fn invoke(&self, client: &str, request_id: &str, op: Op) -> Began {
        let mut shared = self.lock();
        shared.operations += 1;
        let id = shared.operations;
        let (client, request_id) = (client.to_owned(), request_id.to_owned());
        self.push(&mut shared, What::Invoke { id, client, request_id, op });
        Began(id)
    }

    pub fn ok(&self, began: Began, answer: Answer) {
        self.event(What::Ok { id: began.0, answer });
    }

    /// It was refused before it could have any effect.
    pub fn fail(&self, began: Began, why: impl Into<String>) {
        self.event(What::Fail { id: began.0, why: why.into() });
    }

    pub fn unknown(&self, began: Began, why: impl Into<String>) {
        self.event(What::Unknown { id: began.0, why: why.into() });
    }

    pub fn seen(&self, by: &str, what: Seen) {
        self.event(What::Seen { by: by.to_owned(), what });
    }

    pub fn note(&self, text: impl Into<String>) {
        self.seen("harness", Seen::Note { text: text.into() });
    }

    /// All that was recorded until now, and safely on disk.
    pub fn finish(&self) -> anyhow::Result<History> {
        let mut shared = self.lock();
        if let Some(error) = shared.broken.take() {
            return Err(error).context("write the history");
        }
        shared.file.flush().context("write the history")?;
        Ok(History { events: shared.events.clone() })
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
