//! node/proxy
fn main() {}
