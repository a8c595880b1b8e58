//! node/cli
fn main() {}
