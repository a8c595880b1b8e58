//! Who someone is: the `dovetail://` URI in a certificate's subject alternative names.
//!
//! | URI | who |
//! |---|---|
//! | `dovetail://member/2` | the member of slot 2 |
//! | `dovetail://proxy[/NAME][?service_cluster=a,b]` | a proxy, perhaps only of some service clusters |
//! | `dovetail://extension[/NAME][?service_cluster=a,b]` | an extension, alike |
//! | `dovetail://operator/NAME?role=viewer\|operator\|admin` | a person or a script |

use std::fmt;
use std::str::FromStr;

/// The scheme of an identity, with its separator.
pub const SCHEME: &str = "dovetail://";
/// The longest name in an identity, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// The longest identity, in bytes.
const IDENTITY_BYTES_MAX: usize = 1_024;

/// Who holds a certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// A member of the quorum.
    Member {
        /// Its `--id`, from 1.
        slot: u64,
    },
    /// A proxy.
    Proxy {
        /// Without a name, several proxies may share the certificate.
        name: Option<String>,
        /// The service clusters whose snapshots it may have; empty is all.
        service_clusters: Vec<String>,
    },
    /// An extension.
    Extension {
        /// Without a name, several extensions may share the certificate.
        name: Option<String>,
        /// The service clusters whose snapshots it may have; empty is all.
        service_clusters: Vec<String>,
    },
    /// A person or a script that asks and orders.
    Operator {
        /// The author of whatever it orders.
        name: String,
        /// What it may do.
        role: Role,
    },
}

/// What an operator may do; each role may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Looks.
    Viewer,
    /// Changes what can be changed back.
    Operator,
    /// Everything.
    Admin,
}

/// Why a text is not an identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("identity {given:?}: {reason}")]
pub struct InvalidIdentity {
    given: String,
    reason: String,
}

impl Identity {
    /// The identity as an author: without what it may do.
    pub fn actor(&self) -> String {
        let text = self.to_string();
        text.split_once('?').map_or(text.clone(), |(actor, _)| actor.to_owned())
    }

    /// `member`, `proxy`, `extension` or `operator`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Member { .. } => "member",
            Self::Proxy { .. } => "proxy",
            Self::Extension { .. } => "extension",
            Self::Operator { .. } => "operator",
        }
    }

    /// The slot of a member.
    pub fn slot(&self) -> Option<u64> {
        match self {
            Self::Member { slot } => Some(*slot),
            _ => None,
        }
    }

    /// The name in the certificate. A subscriber's own name must be equal to it.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Member { .. } => None,
            Self::Proxy { name, .. } | Self::Extension { name, .. } => name.as_deref(),
            Self::Operator { name, .. } => Some(name),
        }
    }

    /// Whether it is a subscriber that may have the snapshots of this service cluster.
    pub fn may_subscribe(&self, service_cluster: &str) -> bool {
        match self {
            Self::Proxy { service_clusters, .. } | Self::Extension { service_clusters, .. } => {
                service_clusters.is_empty()
                    || service_clusters.iter().any(|name| name == service_cluster)
            }
            Self::Member { .. } | Self::Operator { .. } => false,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.kind())?;
        match self {
            Self::Member { slot } => write!(f, "/{slot}"),
            Self::Proxy { name, service_clusters } | Self::Extension { name, service_clusters } => {
                if let Some(name) = name {
                    write!(f, "/{name}")?;
                }
                if service_clusters.is_empty() {
                    return Ok(());
                }
                write!(f, "?service_cluster={}", service_clusters.join(","))
            }
            Self::Operator { name, role } => write!(f, "/{name}?role={role}"),
        }
    }
}

impl FromStr for Identity {
    type Err = InvalidIdentity;

    fn from_str(given: &str) -> Result<Self, Self::Err> {
        parse(given).map_err(|reason| InvalidIdentity {
            given: given.chars().take(IDENTITY_BYTES_MAX).collect(),
            reason,
        })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        })
    }
}

impl FromStr for Role {
    type Err = InvalidIdentity;

    fn from_str(given: &str) -> Result<Self, Self::Err> {
        match given {
            "viewer" => Ok(Self::Viewer),
            "operator" => Ok(Self::Operator),
            "admin" => Ok(Self::Admin),
            _ => Err(InvalidIdentity {
                given: given.to_owned(),
                reason: "a role is viewer, operator or admin".to_owned(),
            }),
        }
    }
}

fn parse(given: &str) -> Result<Identity, String> {
    if given.len() > IDENTITY_BYTES_MAX {
        return Err(format!("longer than {IDENTITY_BYTES_MAX} bytes"));
    }
    let rest = given.strip_prefix(SCHEME).ok_or_else(|| format!("does not begin with {SCHEME}"))?;
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    let (kind, name) = match path.split_once('/') {
        Some((kind, name)) => (kind, Some(checked_name(name)?)),
        None => (path, None),
    };
    match kind {
        "member" => {
            if query.is_some() {
                return Err("a member takes no options".to_owned());
            }
            let slot = name.ok_or("a member needs its number, as in dovetail://member/2")?;
            match slot.parse::<u64>() {
                // Only the plain form, so that equal identities are equal texts.
                Ok(number) if number > 0 && number.to_string() == slot => {
                    Ok(Identity::Member { slot: number })
                }
                _ => Err(format!("{slot:?} is not a member's number, which is 1 or more")),
            }
        }
        "proxy" => Ok(Identity::Proxy { name, service_clusters: service_clusters(query)? }),
        "extension" => Ok(Identity::Extension { name, service_clusters: service_clusters(query)? }),
        "operator" => {
            let name = name.ok_or("an operator needs a name, as in dovetail://operator/anna")?;
            let role = match query.map(|query| query.split_once('=')) {
                Some(Some(("role", role))) => role
                    .parse()
                    .map_err(|_| format!("{role:?} is not viewer, operator or admin"))?,
                _ => return Err("an operator needs ?role=viewer, operator or admin".to_owned()),
            };
            Ok(Identity::Operator { name, role })
        }
        _ => Err(format!("{kind:?} is not member, proxy, extension or operator")),
    }
}

fn service_clusters(query: Option<&str>) -> Result<Vec<String>, String> {
    let Some(query) = query else { return Ok(Vec::new()) };
    let Some(("service_cluster", names)) = query.split_once('=') else {
        return Err(format!("{query:?} is not service_cluster=NAME,…"));
    };
    // The default service cluster's name is empty.
    names
        .split(',')
        .map(|name| if name.is_empty() { Ok(String::new()) } else { checked_name(name) })
        .collect()
}

fn checked_name(name: &str) -> Result<String, String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() {
        return Err("a name is empty".to_owned());
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("a name is longer than {NAME_BYTES_MAX} bytes"));
    }
    if !name.bytes().all(legal) {
        return Err(format!("name {name:?} holds more than letters, digits, '.', '_' and '-'"));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_prints_as_it_is_parsed() {
        for text in [
            "dovetail://member/2",
            "dovetail://proxy",
            "dovetail://proxy/edge-1",
            "dovetail://proxy?service_cluster=a,b",
            "dovetail://proxy/edge-1?service_cluster=blue",
            "dovetail://proxy?service_cluster=",
            "dovetail://extension",
            "dovetail://extension/nginx?service_cluster=a",
            "dovetail://operator/anna?role=viewer",
            "dovetail://operator/anna.b_c?role=admin",
        ] {
            let identity: Identity = text.parse().expect(text);
            assert_eq!(identity.to_string(), text);
        }
    }

    #[test]
    fn a_bad_identity_says_what_is_wrong() {
        for (text, reason) in [
            ("", "does not begin with dovetail://"),
            ("https://member/1", "does not begin with dovetail://"),
            ("dovetail://member", "needs its number"),
            ("dovetail://member/0", "1 or more"),
            ("dovetail://member/02", "1 or more"),
            ("dovetail://member/-1", "1 or more"),
            ("dovetail://member/18446744073709551616", "1 or more"),
            ("dovetail://member/1?role=admin", "takes no options"),
            ("dovetail://proxy/", "name is empty"),
            ("dovetail://proxy/a/b", "holds more than"),
            ("dovetail://proxy?role=admin", "is not service_cluster"),
            ("dovetail://operator", "needs a name"),
            ("dovetail://operator/anna", "needs ?role="),
            ("dovetail://operator/anna?role=root", "\"root\" is not"),
            ("dovetail://king/anna", "\"king\" is not member"),
        ] {
            let error = text.parse::<Identity>().expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
        let long = format!("dovetail://proxy/{}", "a".repeat(5_000));
        assert!(long.parse::<Identity>().is_err());
    }

    #[test]
    fn a_role_may_do_what_the_lesser_may() {
        assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Admin);
    }

    #[test]
    fn an_author_is_named_without_the_role() {
        let identity: Identity = "dovetail://operator/anna?role=admin".parse().expect("identity");
        assert_eq!(identity.actor(), "dovetail://operator/anna");
    }

    #[test]
    fn a_subscriber_gets_only_the_service_clusters_of_its_certificate() {
        let all: Identity = "dovetail://proxy".parse().expect("identity");
        assert!(all.may_subscribe("") && all.may_subscribe("blue"));
        let blue: Identity = "dovetail://proxy?service_cluster=blue".parse().expect("identity");
        assert!(
            blue.may_subscribe("blue") && !blue.may_subscribe("") && !blue.may_subscribe("red")
        );
        let member: Identity = "dovetail://member/1".parse().expect("identity");
        assert!(!member.may_subscribe(""));
    }
}
