//! `--core`: the members that may be followed, in order of preference.

use std::fmt;
use std::str::FromStr;

/// Addresses that one subscriber may be given.
const ADDRESSES_MAX: usize = 16;

/// Members' addresses in order of preference; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreAddresses(Vec<String>);

/// A `--core` that names no members.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--core {given:?}: {reason}")]
pub struct InvalidAddresses {
    given: String,
    reason: &'static str,
}

impl CoreAddresses {
    /// The addresses, the preferred one first.
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }
}

impl FromStr for CoreAddresses {
    type Err = InvalidAddresses;

    fn from_str(given: &str) -> Result<Self, InvalidAddresses> {
        let invalid =
            |reason| Err(InvalidAddresses { given: given.chars().take(256).collect(), reason });
        let mut addresses: Vec<String> = Vec::new();
        for address in given.split(',').map(str::trim).filter(|address| !address.is_empty()) {
            let Some((host, port)) = address.rsplit_once(':') else {
                return invalid("each is HOST:PORT, separated by commas");
            };
            if host.is_empty() || host.contains(['/', '@', ' ']) {
                return invalid("each is HOST:PORT, separated by commas");
            }
            if !port.parse::<u16>().is_ok_and(|port| port > 0) {
                return invalid("a port is a number from 1 to 65535");
            }
            if !addresses.iter().any(|known| known == address) {
                addresses.push(address.to_owned());
            }
        }
        match addresses.len() {
            0 => invalid("names no member"),
            count if count > ADDRESSES_MAX => invalid("names more than 16 members"),
            _ => Ok(Self(addresses)),
        }
    }
}

impl fmt::Display for CoreAddresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_host_and_port_in_order() {
        let parsed: CoreAddresses =
            "core-1:8080, 10.0.0.2:8080,[::1]:8080,core-1:8080".parse().expect("addresses");
        assert_eq!(parsed.as_slice(), ["core-1:8080", "10.0.0.2:8080", "[::1]:8080"]);
        for refused in ["", ",", "core-1", ":8080", "core-1:0", "core-1:99999", "http://a:1"] {
            assert!(refused.parse::<CoreAddresses>().is_err(), "{refused:?}");
        }
    }
}
