//! jepsen-style-tests
