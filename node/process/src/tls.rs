//! The folder with a process's certificate: read whole, checked, and read again on change.
//!
//! `ca.pem` is whom to trust, `cert.pem` who we are, `key.pem` the proof. Every error
//! names the file and the reason. Once loaded, a folder that turned bad is logged and
//! the last good pair stays in force.

mod files;
mod reason;
mod sign;
mod verify;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ServerConfig};
use tracing::{error, info};

use self::files::{Loaded, Stamp};
pub use self::reason::reason;
pub use self::sign::{Signed, verify_signed};
use crate::drain::DrainWatch;
use crate::identity::Identity;
use crate::log::chain;

/// The least time between two looks at the files.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A certificate, its key and whom it trusts. Cheap to clone.
#[derive(Clone)]
pub struct TlsDir(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    /// Who we were at the start; a re-read certificate must say the same.
    identity: Identity,
    current: Mutex<Current>,
}

struct Current {
    loaded: Loaded,
    looked: Instant,
    /// The files as they were when they were last refused, so that each state of them
    /// is logged once.
    refused: Option<Stamp>,
}

/// A folder that cannot be used. Each error names the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        error: std::io::Error,
    },
    /// A file is far too long to be what it should be.
    #[error("{}: longer than {limit} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The greatest length.
        limit: u64,
    },
    /// A file does not hold what it should.
    #[error("{}: holds no PEM {what}: {reason}", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// Why it was not found.
        reason: String,
    },
    /// The certificate cannot be read.
    #[error("{}: {reason}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The key is of no use.
    #[error("{}: {reason}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The key belongs to another certificate.
    #[error("{}: the key does not match the certificate in {}", key.display(), cert.display())]
    KeyMismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        cert: PathBuf,
    },
    /// The certificate is no longer valid.
    #[error("{}: the certificate expired at {when}", path.display())]
    Expired {
        /// The file.
        path: PathBuf,
        /// When.
        when: String,
    },
    /// The certificate is not valid yet.
    #[error("{}: the certificate is not valid before {when}; is the clock right?", path.display())]
    NotYetValid {
        /// The file.
        path: PathBuf,
        /// From when on.
        when: String,
    },
    /// The certificate says nothing of who holds it.
    #[error("{}: {reason}", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificate's issuer is another.
    #[error("{}: {reason} {}", cert.display(), ca.display())]
    NotSigned {
        /// The certificate's file.
        cert: PathBuf,
        /// What the check said.
        reason: String,
        /// The authority's file.
        ca: PathBuf,
    },
    /// The folder now holds the certificate of someone else.
    #[error("{}: is now {now}, but this process began as {before}", path.display())]
    OtherIdentity {
        /// The file.
        path: PathBuf,
        /// Who it was.
        before: Box<Identity>,
        /// Who it is now.
        now: Box<Identity>,
    },
}

impl TlsDir {
    /// Reads and checks `ca.pem`, `cert.pem` and `key.pem` of `dir`.
    pub fn load(dir: &Path) -> Result<Self, TlsError> {
        let loaded = files::load(dir)?;
        record_expiry(loaded.expiry);
        Ok(Self(Arc::new(Inner {
            dir: dir.to_owned(),
            identity: loaded.identity.clone(),
            current: Mutex::new(Current { loaded, looked: Instant::now(), refused: None }),
        })))
    }

    /// Who we are.
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// For accepting: client certificates required, ALPN h2.
    ///
    /// Ask for it at each handshake, so that a new certificate is used.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.with_current(|loaded| Arc::clone(&loaded.server))
    }

    /// For dialling: accepts only members, for the name that was dialled; ALPN h2.
    ///
    /// Ask for it at each handshake, so that a new certificate is used.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        self.with_current(|loaded| Arc::clone(&loaded.client))
    }

    /// When our certificate ends to be valid.
    pub fn expiry(&self) -> SystemTime {
        self.with_current(|loaded| loaded.expiry)
    }

    /// Looks at the files from time to time until the drain begins, so that a process
    /// without handshakes also sees a new certificate and exports its expiry.
    pub async fn watch(self, drain: DrainWatch) {
        let mut look = tokio::time::interval(10 * LOOK_INTERVAL);
        loop {
            tokio::select! {
                biased;
                () = drain.begun() => return,
                _ = look.tick() => {}
            }
            record_expiry(self.expiry());
        }
    }

    fn with_current<T>(&self, pick: impl FnOnce(&Loaded) -> T) -> T {
        let mut current = self.0.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.looked.elapsed() >= LOOK_INTERVAL {
            current.looked = Instant::now();
            self.look_again(&mut current);
        }
        pick(&current.loaded)
    }

    /// Reads the files again if they changed.
    fn look_again(&self, current: &mut Current) {
        let stamp = Stamp::of(&self.0.dir);
        if stamp == current.loaded.stamp || current.refused.as_ref() == Some(&stamp) {
            return;
        }
        let reloaded = files::load(&self.0.dir).and_then(|loaded| {
            if loaded.identity == self.0.identity {
                return Ok(loaded);
            }
            Err(TlsError::OtherIdentity {
                path: self.0.dir.join(files::CERT),
                before: Box::new(self.0.identity.clone()),
                now: Box::new(loaded.identity),
            })
        });
        match reloaded {
            Ok(loaded) => {
                info!(dir = %self.0.dir.display(), expiry = %files::rfc3339(loaded.expiry), "certificate replaced");
                record_expiry(loaded.expiry);
                current.loaded = loaded;
                current.refused = None;
            }
            Err(error) => {
                error!(error = %chain(&error), "certificate refused, the last one stays in force");
                current.refused = Some(stamp);
            }
        }
    }
}

impl std::fmt::Debug for TlsDir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsDir")
            .field("dir", &self.0.dir)
            .field("identity", &self.0.identity)
            .finish_non_exhaustive()
    }
}

/// The identity in a certificate's subject alternative names.
pub fn identity_of(certificate: &CertificateDer<'_>) -> Result<Identity, String> {
    verify::identity_of(certificate)
}

/// The one provider of cryptography. Named explicitly, so that no other that happens to
/// be linked is ever asked.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

#[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit a double exactly")]
fn record_expiry(expiry: SystemTime) {
    let seconds = expiry.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    metrics::gauge!("dovetail_tls_certificate_expiry_seconds").set(seconds as f64);
}
