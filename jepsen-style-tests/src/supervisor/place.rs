//! A piece of loopback and a folder of its own for each fixture.
//!
//! Every fixture claims a /24 of 127.0.0.0/8, so ports need not be picked: two
//! fixtures, or a fixture and a stranger on 127.0.0.1, cannot collide.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

/// Held open for as long as the addresses are in use; any port will do.
const CLAIM_PORT: u16 = 1_089;
/// How many claims by others are believed before giving up.
const ATTEMPTS_MAX: usize = 100;

/// Why there is no place to run in.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error("cannot make a temporary folder")]
    Folder(#[source] io::Error),
    #[error("cannot claim a /24 of 127.0.0.0/8 after {ATTEMPTS_MAX} attempts")]
    Addresses(#[source] io::Error),
}

/// Addresses and a folder that nobody else uses; given back on drop.
#[derive(Debug)]
pub struct Place {
    network: [u8; 3],
    _claim: TcpListener,
    folder: tempfile::TempDir,
    kept: bool,
}

impl Place {
    /// Claims addresses and makes a folder.
    pub fn claim() -> Result<Self, PlaceError> {
        let folder =
            tempfile::Builder::new().prefix("dovetail-").tempdir().map_err(PlaceError::Folder)?;
        let mut last = io::Error::other("not tried");
        for _ in 0..ATTEMPTS_MAX {
            let network = [127, fastrand::u8(64..=191), fastrand::u8(1..=254)];
            let claim = Ipv4Addr::new(network[0], network[1], network[2], 254);
            match TcpListener::bind((claim, CLAIM_PORT)) {
                Ok(claim) => return Ok(Self { network, _claim: claim, folder, kept: false }),
                Err(error) => last = error,
            }
        }
        Err(PlaceError::Addresses(last))
    }

    /// Takes a /24 that is nobody else's, such as one in a namespace of its own.
    pub fn on(network: [u8; 3]) -> Result<Self, PlaceError> {
        let folder =
            tempfile::Builder::new().prefix("dovetail-").tempdir().map_err(PlaceError::Folder)?;
        let [a, b, c] = network;
        let claim = TcpListener::bind((Ipv4Addr::new(a, b, c, 254), CLAIM_PORT));
        let claim = claim.map_err(PlaceError::Addresses)?;
        Ok(Self { network, _claim: claim, folder, kept: false })
    }

    /// The address of the `host`th machine of this place.
    pub fn ip(&self, host: u8) -> IpAddr {
        let [a, b, c] = self.network;
        IpAddr::V4(Ipv4Addr::new(a, b, c, host))
    }

    /// `port` on the `host`th machine of this place.
    pub fn addr(&self, host: u8, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip(host), port)
    }

    /// The folder, which is removed on drop.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Leaves the folder where it is, for a look at the logs.
    pub fn keep(&mut self) {
        self.kept = true;
        self.folder.disable_cleanup(true);
    }

    /// Whether the folder outlives the fixture.
    pub fn kept(&self) -> bool {
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_places_share_no_address() {
        let (one, two) = (Place::claim().unwrap(), Place::claim().unwrap());
        assert_ne!(one.ip(1), two.ip(1));
        let _listeners = [&one, &two].map(|place| TcpListener::bind(place.addr(1, 8_080)).unwrap());
    }

    #[test]
    fn the_folder_goes_with_the_place() {
        let place = Place::claim().unwrap();
        let folder = place.folder().to_path_buf();
        std::fs::write(place.path("file"), "").unwrap();
        drop(place);
        assert!(!folder.exists());
    }
}
