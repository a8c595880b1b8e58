//! node/docker
