//! Names and numbers that cannot be wrong: each is parsed once, here.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;
use std::sync::Arc;

/// Longest host name that DNS can carry, in bytes (RFC 1035 §2.3.4).
pub const HOST_BYTES_MAX: usize = 253;
/// Longest label between two dots of a host name, in bytes (RFC 1035 §2.3.4).
pub const HOST_LABEL_BYTES_MAX: usize = 63;
/// Longest context root, in bytes.
pub const CONTEXT_ROOT_BYTES_MAX: usize = 1_024;
/// Longest name of a network or a service cluster, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// Why a value was refused: what was given, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {given:?}: {reason}")]
pub struct InvalidName {
    kind: &'static str,
    given: Box<str>,
    reason: &'static str,
}

impl InvalidName {
    /// `given` is shortened to 256 bytes: it ends in messages.
    pub(crate) fn new(kind: &'static str, given: &str, reason: &'static str) -> Self {
        let mut end = given.len().min(256);
        while !given.is_char_boundary(end) {
            end -= 1;
        }
        Self { kind, given: given[..end].into(), reason }
    }

    /// What is wrong, without the value.
    pub fn reason(&self) -> &'static str {
        self.reason
    }
}

/// A published host name: lower case, without port and without trailing dot.
///
/// Letters, digits, hyphens and underscores in labels of 1 to 63 bytes, 253 in
/// all. Underscores are not DNS host names, but NGINX and so Interlock take them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(Arc<str>);

impl Host {
    /// The name in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Host {
    type Err = InvalidName;

    fn from_str(given: &str) -> Result<Self, InvalidName> {
        let invalid = |reason| Err(InvalidName::new("host", given, reason));
        let name = given.strip_suffix('.').unwrap_or(given);
        if name.is_empty() {
            return invalid("is empty");
        }
        if name.len() > HOST_BYTES_MAX {
            return invalid("is longer than 253 bytes");
        }
        if name.contains(':') {
            return invalid("must not carry a port or a scheme");
        }
        for label in name.split('.') {
            if label.is_empty() {
                return invalid("has an empty label between two dots");
            }
            if label.len() > HOST_LABEL_BYTES_MAX {
                return invalid("has a label of more than 63 bytes");
            }
            if label.starts_with('-') || label.ends_with('-') {
                return invalid("has a label that starts or ends with a hyphen");
            }
            if !label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
                return invalid("may hold letters, digits, hyphens, underscores and dots only");
            }
        }
        Ok(Self(name.to_ascii_lowercase().into()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The path prefix under which a service is published, such as `/app`.
///
/// Matches whole segments: `/app` covers `/app` and `/app/x`, never `/apple`.
/// A trailing slash in the label means the same and is dropped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContextRoot(Arc<str>);

impl ContextRoot {
    /// The whole host: `/`.
    pub fn root() -> Self {
        Self("/".into())
    }

    /// The path, with its leading and without a trailing slash (`/` alone excepted).
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns what of `path` lies below this context root, if it lies below.
    pub fn strip<'p>(&self, path: &'p str) -> Option<&'p str> {
        if &*self.0 == "/" {
            return path.starts_with('/').then_some(path);
        }
        match path.strip_prefix(&*self.0)? {
            "" => Some("/"),
            below if below.starts_with('/') => Some(below),
            _ => None,
        }
    }
}

impl Default for ContextRoot {
    fn default() -> Self {
        Self::root()
    }
}

impl FromStr for ContextRoot {
    type Err = InvalidName;

    fn from_str(given: &str) -> Result<Self, InvalidName> {
        let invalid = |reason| Err(InvalidName::new("context root", given, reason));
        if !given.starts_with('/') {
            return invalid("must start with a slash");
        }
        if given.len() > CONTEXT_ROOT_BYTES_MAX {
            return invalid("is longer than 1024 bytes");
        }
        if !given.bytes().all(|b| b.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&b)) {
            return invalid("may hold characters of a URL path only");
        }
        let path = given.strip_suffix('/').unwrap_or(given);
        if path.is_empty() {
            return Ok(Self::root());
        }
        if path[1..].split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return invalid("has an empty, '.' or '..' segment");
        }
        Ok(Self(path.into()))
    }
}

impl fmt::Display for ContextRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A TCP port that can be dialled: 1 to 65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(NonZeroU16);

impl Port {
    /// The port of this number, unless that is 0.
    pub fn new(number: u16) -> Option<Self> {
        NonZeroU16::new(number).map(Self)
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0.get()
    }
}

impl FromStr for Port {
    type Err = InvalidName;

    fn from_str(given: &str) -> Result<Self, InvalidName> {
        let invalid = |reason| Err(InvalidName::new("port", given, reason));
        if given.is_empty() || !given.bytes().all(|b| b.is_ascii_digit()) {
            return invalid("must be a whole number from 1 to 65535");
        }
        match given.parse::<u64>() {
            Ok(0) => invalid("is 0, but must be from 1 to 65535"),
            Ok(number) => match u16::try_from(number).ok().and_then(NonZeroU16::new) {
                Some(port) => Ok(Self(port)),
                None => invalid("is above 65535"),
            },
            Err(_) => invalid("is above 65535"),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Docker's grammar for names of networks, services and stacks.
fn parse_name(kind: &'static str, given: &str) -> Result<Arc<str>, InvalidName> {
    let invalid = |reason| Err(InvalidName::new(kind, given, reason));
    if given.is_empty() {
        return invalid("is empty");
    }
    if given.len() > NAME_BYTES_MAX {
        return invalid("is longer than 255 bytes");
    }
    if !given.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
        return invalid("may hold letters, digits, '_', '.' and '-' only");
    }
    Ok(given.into())
}

/// The name of a Docker network, as a label gives it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkName(Arc<str>);

impl NetworkName {
    /// The name as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NetworkName {
    type Err = InvalidName;

    fn from_str(given: &str) -> Result<Self, InvalidName> {
        parse_name("network", given).map(Self)
    }
}

/// The name of a service cluster; the default one has the empty name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceCluster(Arc<str>);

impl ServiceCluster {
    /// The name; empty for the default service cluster.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServiceCluster {
    type Err = InvalidName;

    fn from_str(given: &str) -> Result<Self, InvalidName> {
        if given.is_empty() {
            return Ok(Self::default());
        }
        parse_name("service cluster", given).map(Self)
    }
}

impl fmt::Display for ServiceCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Longest name of a Docker secret, in bytes.
pub const SECRET_NAME_BYTES_MAX: usize = 64;

/// The name of a Docker secret. A proxy finds it as a file of this name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretName(Arc<str>);

impl SecretName {
    /// The name as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SecretName {
    type Err = InvalidName;

    fn from_str(given: &str) -> Result<Self, InvalidName> {
        let invalid = |reason| Err(InvalidName::new("secret", given, reason));
        if given.len() > SECRET_NAME_BYTES_MAX {
            return invalid("is longer than 64 bytes");
        }
        let name = parse_name("secret", given)?;
        // Docker's rule; and it keeps `..` from being a name.
        if !(name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.ends_with(|c: char| c.is_ascii_alphanumeric()))
        {
            return invalid("must start and end with a letter or a digit");
        }
        Ok(Self(name))
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a cookie: a token (RFC 6265 §4.1.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CookieName(Arc<str>);

impl CookieName {
    /// The name as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CookieName {
    type Err = InvalidName;

    fn from_str(given: &str) -> Result<Self, InvalidName> {
        let invalid = |reason| Err(InvalidName::new("cookie", given, reason));
        if given.is_empty() {
            return invalid("is empty");
        }
        if given.len() > NAME_BYTES_MAX {
            return invalid("is longer than 255 bytes");
        }
        if !given.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)) {
            return invalid("may hold the characters of a token only (RFC 6265)");
        }
        Ok(Self(given.into()))
    }
}

impl fmt::Display for CookieName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Docker's opaque identifiers: compared and printed, never looked into.
macro_rules! id {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Arc<str>);

        impl $name {
            /// The identifier as Docker gives it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(id: &str) -> Self {
                Self(id.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

id! {
    /// A Swarm service.
    ServiceId
    /// A Swarm task.
    TaskId
    /// A Docker network.
    NetworkId
    /// A machine of the swarm.
    SwarmNodeId
    /// The swarm itself: `Info.Swarm.Cluster.ID`.
    SwarmId
    /// A Docker secret or config; only its name is ever kept.
    ObjectId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_lower_case_without_port() {
        for (given, parsed) in [
            ("Shop.Example", Some("shop.example")),
            ("shop.example.", Some("shop.example")),
            ("a_b.example", Some("a_b.example")),
            ("", None),
            (".", None),
            ("shop..example", None),
            ("shop.example:80", None),
            ("http://shop", None),
            ("-shop", None),
            ("shop example", None),
            ("schön.example", None),
        ] {
            assert_eq!(given.parse::<Host>().ok().as_ref().map(Host::as_str), parsed, "{given:?}");
        }
    }

    #[test]
    fn ports_are_from_1_to_65535() {
        for (given, parsed) in [
            ("1", Some(1)),
            ("65535", Some(65_535)),
            ("080", Some(80)),
            ("0", None),
            ("65536", None),
            ("99999999999999999999999", None),
            ("+80", None),
            ("80/tcp", None),
            ("", None),
        ] {
            assert_eq!(given.parse::<Port>().ok().map(Port::get), parsed, "{given:?}");
        }
    }

    #[test]
    fn a_context_root_matches_whole_segments() {
        let app: ContextRoot = "/app/".parse().expect("valid");
        for (path, below) in
            [("/app", Some("/")), ("/app/x", Some("/x")), ("/apple", None), ("/", None)]
        {
            assert_eq!(app.strip(path), below, "{path}");
        }
        for refused in ["app", "", "/a//b", "/a/../b", "/a?b", "/a b"] {
            assert!(refused.parse::<ContextRoot>().is_err(), "{refused:?}");
        }
    }
}
