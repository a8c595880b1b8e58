//! jepsen-style-tests/stand-in
