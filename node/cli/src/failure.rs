//! Why a verb was not done, and the exit code that says so.

use dovetail_process::grpc::{ConnectError, describe};
use tonic::{Code, Status};

/// Why a verb was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line or a local file is wrong.
    #[error("{0}")]
    Usage(String),
    /// Somebody who may decide said no; nothing changed.
    #[error("{0}")]
    Refused(String),
    /// Nobody answered, or nobody who can speak for the quorum; nothing changed.
    #[error("{0}")]
    Unreachable(String),
    /// A change was sent and no answer came: it may take effect now, later or never.
    #[error("outcome unknown: {0}")]
    Unknown(String),
}

impl Failure {
    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Refused(_) => 3,
            Self::Unreachable(_) => 4,
            Self::Unknown(_) => 5,
        }
    }
}

/// What one failed call to one member means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The request never reached a member.
    NotSent,
    /// The member has no leader or no quorum, and did nothing.
    NoQuorum,
    /// The member said no; another would say the same.
    Refused,
    /// The request was sent, and what became of it is not known.
    Lost,
}

impl Meaning {
    pub(crate) fn of(status: &Status) -> Self {
        if std::error::Error::source(status).is_some() {
            // Made on this side: the member's own answers carry no cause.
            return if is_connect_error(status) { Self::NotSent } else { Self::Lost };
        }
        match status.code() {
            Code::Unavailable => Self::NoQuorum,
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::Internal
            | Code::Aborted
            | Code::DataLoss => Self::Lost,
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Unauthenticated => Self::Refused,
        }
    }
}

fn is_connect_error(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What a member's answer says, with the member's address in it.
pub(crate) fn reason(address: &str, status: &Status) -> String {
    let text = describe(status);
    let text = if text.is_empty() { status.code().to_string() } else { text };
    // Which failure it is, is said once, at the beginning of the line.
    let text = text.strip_prefix("outcome unknown: ").map_or(text.clone(), str::to_owned);
    // The reasons for no connection name the address themselves.
    if text.contains(address) { text } else { format!("{address}: {text}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_has_one_meaning() {
        assert_eq!(Meaning::of(&Status::unavailable("no leader")), Meaning::NoQuorum);
        assert_eq!(Meaning::of(&Status::permission_denied("no")), Meaning::Refused);
        assert_eq!(Meaning::of(&Status::failed_precondition("no")), Meaning::Refused);
        assert_eq!(Meaning::of(&Status::deadline_exceeded("late")), Meaning::Lost);
        let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert_eq!(Meaning::of(&Status::from_error(Box::new(broken))), Meaning::Lost);
        let none = ConnectError::Handshake { address: "a:1".into(), reason: "no".into() };
        assert_eq!(Meaning::of(&Status::from_error(Box::new(none))), Meaning::NotSent);
    }

    #[test]
    fn a_reason_names_the_member_once() {
        assert_eq!(reason("a:1", &Status::unavailable("no leader")), "a:1: no leader");
        assert_eq!(reason("a:1", &Status::unavailable("a:1 has no leader")), "a:1 has no leader");
    }
}
