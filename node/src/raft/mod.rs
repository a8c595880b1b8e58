//! Raft between members: openraft on one side, the ports of `control` on the other.
//!
//! Only this module and `dovetail-raft-store` name openraft.
//!
//! * [`formation`]: how empty disks become a quorum, once;
//! * [`hub`]: what all parts share: the disk's owner, and Raft once it runs;
//! * [`network`]: RPCs out; [`server`]: RPCs in;
//! * [`quorum`]: the `Quorum` port: proposals, reads, the view of the quorum;
//! * [`members`]: who the members are, and changes of it; [`removal`]: being out;
//! * [`transfer`]: leadership given to another voter;
//! * [`peers`]: the `Peers` port: other members, asked directly;
//! * [`audit`]: this member's ledger, for whoever exports or checks it;
//! * [`refill`]: what this member's ledger lacks, fetched from the others.

pub(crate) mod audit;
pub(crate) mod formation;
pub(crate) mod hub;
pub(crate) mod members;
pub(crate) mod network;
pub(crate) mod peers;
pub(crate) mod quorum;
pub(crate) mod refill;
pub(crate) mod removal;
pub(crate) mod server;
pub(crate) mod transfer;
