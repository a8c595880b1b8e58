//! Tests of the code base itself. Nothing depends on this crate; see `tests/`.
