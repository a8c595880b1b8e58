//! node/process
