//! The core's logic: reconciler, feed server, admin server. No disk, no Docker, no Raft.

pub mod ports;
