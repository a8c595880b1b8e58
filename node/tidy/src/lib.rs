//! node/tidy
