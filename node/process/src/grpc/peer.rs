//! Who calls, and whether it may.

use std::net::SocketAddr;

use tonic::{Request, Status};

use crate::identity::{Identity, Role};

/// Who is at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Where it calls from.
    pub addr: SocketAddr,
    /// Who it is, by its certificate.
    pub identity: Identity,
}

/// One kind of caller that an RPC is open to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allow {
    /// Any member.
    Member,
    /// Any proxy.
    Proxy,
    /// Any extension.
    Extension,
    /// An operator with this role or a greater one.
    Operator(Role),
}

/// Who sent the request.
pub fn peer<T>(request: &Request<T>) -> Result<PeerInfo, Status> {
    request
        .extensions()
        .get::<PeerInfo>()
        .cloned()
        .ok_or_else(|| Status::unauthenticated("the connection has no client certificate"))
}

/// The caller, if it is one of those that may call; else a refusal that names it.
pub fn require<T>(request: &Request<T>, allowed: &[Allow]) -> Result<PeerInfo, Status> {
    let peer = peer(request)?;
    if allowed.iter().any(|allow| allow.admits(&peer.identity)) {
        return Ok(peer);
    }
    Err(refusal(&peer.identity, allowed))
}

/// The caller, if it is the member of this slot: no member speaks for another.
pub fn require_slot<T>(request: &Request<T>, slot: u64) -> Result<PeerInfo, Status> {
    let peer = require(request, &[Allow::Member])?;
    if peer.identity.slot() == Some(slot) {
        return Ok(peer);
    }
    Err(Status::permission_denied(format!("{} may not speak for member {slot}", peer.identity)))
}

/// The caller, if it is a proxy or an extension and may have this service cluster's
/// snapshots under the name that it gives.
pub fn require_subscriber<T>(
    request: &Request<T>,
    name: &str,
    service_cluster: &str,
) -> Result<PeerInfo, Status> {
    let peer = require(request, &[Allow::Proxy, Allow::Extension])?;
    let identity = &peer.identity;
    if let Some(certified) = identity.name()
        && certified != name
    {
        return Err(Status::permission_denied(format!(
            "{identity} may not subscribe as {name:?}: its name must be {certified:?}"
        )));
    }
    if !identity.may_subscribe(service_cluster) {
        return Err(Status::permission_denied(format!(
            "{identity} may not subscribe to service cluster {service_cluster:?}"
        )));
    }
    Ok(peer)
}

impl Allow {
    fn admits(self, identity: &Identity) -> bool {
        match (self, identity) {
            (Self::Member, Identity::Member { .. })
            | (Self::Proxy, Identity::Proxy { .. })
            | (Self::Extension, Identity::Extension { .. }) => true,
            (Self::Operator(least), Identity::Operator { role, .. }) => *role >= least,
            _ => false,
        }
    }

    fn in_words(self) -> String {
        match self {
            Self::Member => "a member".to_owned(),
            Self::Proxy => "a proxy".to_owned(),
            Self::Extension => "an extension".to_owned(),
            Self::Operator(role) => format!("an operator of role {role}"),
        }
    }
}

fn refusal(identity: &Identity, allowed: &[Allow]) -> Status {
    let least = allowed.iter().find_map(|allow| match allow {
        Allow::Operator(role) => Some(*role),
        _ => None,
    });
    if let (Identity::Operator { role, .. }, Some(least)) = (identity, least) {
        return Status::permission_denied(format!(
            "{identity} may not do this: it needs role {least}, and has {role}"
        ));
    }
    let callers: Vec<_> = allowed.iter().map(|allow| allow.in_words()).collect();
    Status::permission_denied(format!(
        "{identity} may not do this: only {} may",
        callers.join(" or ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(identity: &str) -> Request<()> {
        let mut request = Request::new(());
        let addr = SocketAddr::from(([127, 0, 0, 1], 4_711));
        let identity = identity.parse().expect("identity");
        request.extensions_mut().insert(PeerInfo { addr, identity });
        request
    }

    #[test]
    fn a_refusal_names_the_caller_and_the_missing_role() {
        let viewer = request("dovetail://operator/anna?role=viewer");
        let status = require(&viewer, &[Allow::Member, Allow::Operator(Role::Operator)])
            .expect_err("a viewer");
        assert_eq!(status.code(), tonic::Code::PermissionDenied);
        assert_eq!(
            status.message(),
            "dovetail://operator/anna?role=viewer may not do this: it needs role operator, and \
             has viewer"
        );
        let proxy = request("dovetail://proxy");
        let status =
            require(&proxy, &[Allow::Member, Allow::Operator(Role::Viewer)]).expect_err("a proxy");
        assert_eq!(
            status.message(),
            "dovetail://proxy may not do this: only a member or an operator of role viewer may"
        );
        assert!(require(&viewer, &[Allow::Operator(Role::Viewer)]).is_ok());
    }

    #[test]
    fn no_member_speaks_for_another() {
        let two = request("dovetail://member/2");
        assert!(require_slot(&two, 2).is_ok());
        let status = require_slot(&two, 1).expect_err("another");
        assert_eq!(status.message(), "dovetail://member/2 may not speak for member 1");
    }

    #[test]
    fn a_subscriber_keeps_to_its_name_and_its_service_clusters() {
        let proxy = request("dovetail://proxy/edge?service_cluster=blue");
        assert!(require_subscriber(&proxy, "edge", "blue").is_ok());
        assert!(require_subscriber(&proxy, "other", "blue").is_err());
        assert!(require_subscriber(&proxy, "edge", "red").is_err());
        assert!(require_subscriber(&request("dovetail://member/1"), "a", "").is_err());
    }

    #[test]
    fn a_connection_without_identity_may_call_nothing() {
        let status = require(&Request::new(()), &[Allow::Proxy]).expect_err("nobody");
        assert_eq!(status.code(), tonic::Code::Unauthenticated);
    }
}
