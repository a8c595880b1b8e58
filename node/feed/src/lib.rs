//! node/feed
