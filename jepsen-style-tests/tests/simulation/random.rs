//! One seed decides everything: also what asks the operating system for randomness.
//!
//! Keys of hash maps, tokio's choices and openraft's timeouts come from `getrandom(2)`. Here
//! the executable answers it itself, from the seed, as crate `mad-turmoil` does for turmoil
//! (which is not linked here). Keys are drawn by thread and tokio counts its runtimes, so a
//! run has a process of its own.
#![expect(unsafe_code, reason = "a C function is replaced")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

static SEEDED: AtomicBool = AtomicBool::new(false);
static STATE: AtomicU64 = AtomicU64::new(0);

/// From now on everything random in this process follows from `seed`.
pub(crate) fn seed(seed: u64) {
    STATE.store(seed, Ordering::SeqCst);
    SEEDED.store(true, Ordering::SeqCst);
}

/// SplitMix64.
fn next() -> u64 {
    let state = STATE.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::SeqCst);
    let mut mixed = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

fn fill(buffer: &mut [u8]) -> bool {
    if !SEEDED.load(Ordering::SeqCst) {
        use std::io::Read as _;
        let source = std::fs::File::open("/dev/urandom");
        return source.is_ok_and(|mut source| source.read_exact(buffer).is_ok());
    }
    for chunk in buffer.chunks_mut(8) {
        chunk.copy_from_slice(&next().to_le_bytes()[..chunk.len()]);
    }
    true
}

/// Stands in for the C library's function of this name.
///
/// # Safety
///
/// `buffer` is valid for writes of `length` bytes, as getrandom(2) demands.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    if buffer.is_null() || length == 0 {
        return if length == 0 { 0 } else { -1 };
    }
    // SAFETY: the caller's promise.
    let buffer = unsafe { std::slice::from_raw_parts_mut(buffer, length) };
    match (fill(buffer), isize::try_from(length)) {
        (true, Ok(length)) => length,
        _ => -1,
    }
}
