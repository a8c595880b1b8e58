//! The subscriber: what a proxy or an extension does with an update.
//!
//! ```text
//!  member ─► driver ─► Subscription (decides, without I/O) ─► Apply ─► in force ─► ack
//!                                                               └────► DiskCopy
//! ```
//!
//! Invariants: only a newer revision of the same quorum, or of one restored from it,
//! is put in force; every snapshot is answered, by an ack or a nack; what is in force
//! stays so for ever when the core is gone; a member that is silent, behind or of
//! another quorum is left for the next one.
//!
//! Not here: what is done with a snapshot (`proxy`, `extension` implement [`Apply`]),
//! who may follow what (`control`), what canonical bytes are (`routing`).

mod address;
mod disk;
mod driver;
mod keeper;
mod link;
mod report;
mod subscription;
mod traffic;

pub use address::{CoreAddresses, InvalidAddresses};
pub use disk::{DiskCopy, DiskError};
pub use driver::{Apply, Config, Feed, Status};
pub use report::Problem;
pub use subscription::{LeaveReason, Position, Subscription, Verdict};
pub use traffic::ServiceTraffic;
