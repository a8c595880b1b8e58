//! gRPC over mutual TLS: accepting connections, and knowing who calls.

mod channel;
mod incoming;
mod peer;

pub use self::channel::{
    ChannelError, ChannelOptions, ConnectError, channel, channel_with, describe,
};
pub use self::incoming::{HANDSHAKE_TIMEOUT, TlsIo, incoming};
pub use self::peer::{Allow, PeerInfo, peer, require, require_slot, require_subscriber};
