//! Randomness from the seed, and a calendar that stands still, for everything in this process.
//!
//! The standard library's hash maps, tokio, openraft (elections), ring (keys, signatures), quinn and rand all ask the
//! system for what they begin with, through two functions of the C library; certificates and hash maps ask it for the
//! date. This process has its own in their place. Its monotonic clock is the real one: turmoil stops it for all that
//! waits.
#![expect(unsafe_code, reason = "functions of the C library are replaced, which no safe code can")]

use std::{
    ffi::{c_char, c_int, c_long, c_uint, c_void},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

/// Where the next number comes from. Anything asked before the seed is known is drawn from a fixed one.
static STATE: AtomicU64 = AtomicU64::new(0);

/// Everything random comes from this seed from now on.
pub(crate) fn seed(seed: u64) {
    STATE.store(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), Ordering::Relaxed);
}

/// SplitMix64.
fn next() -> u64 {
    let mut z = STATE.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Fills what the caller owns.
unsafe fn fill(buffer: *mut c_void, len: usize) -> isize {
    for at in 0..len {
        // SAFETY: the caller has `len` bytes there.
        unsafe { buffer.cast::<u8>().add(at).write((next() >> 32) as u8) };
    }
    len as isize
}

/// In the place of getrandom(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut c_void, len: usize, _: c_uint) -> isize {
    // SAFETY: as the C library's own, this is called with a buffer of that length.
    unsafe { fill(buffer, len) }
}

/// Seconds since 1970 that it always is.
const NOW_S: i64 = 1_700_000_000;
const CLOCK_REALTIME: c_int = 0;

#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

/// In the place of clock_gettime(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int {
    if clock == CLOCK_REALTIME {
        // SAFETY: the caller has room there.
        unsafe { time.write(Timespec { seconds: NOW_S, nanoseconds: 0 }) };
        return 0;
    }
    // SAFETY: passed on as it came.
    unsafe { original()(SYS_CLOCK_GETTIME, clock as usize, time as usize, 0, 0, 0, 0) as c_int }
}

type Syscall = unsafe extern "C" fn(c_long, usize, usize, usize, usize, usize, usize) -> c_long;

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// The next library's, behind this one.
const RTLD_NEXT: isize = -1;
#[cfg(target_arch = "x86_64")]
const NUMBERS: (c_long, c_long) = (318, 228);
#[cfg(not(target_arch = "x86_64"))]
const NUMBERS: (c_long, c_long) = (278, 113);
/// Numbers of the kernel's calls.
const SYS_GETRANDOM: c_long = NUMBERS.0;
const SYS_CLOCK_GETTIME: c_long = NUMBERS.1;

/// The C library's own.
fn original() -> Syscall {
    // No lock: locks wait by this very function.
    static FOUND: AtomicUsize = AtomicUsize::new(0);
    let mut found = FOUND.load(Ordering::Relaxed);
    if found == 0 {
        // SAFETY: the name ends with a zero.
        found = unsafe { dlsym(RTLD_NEXT as *mut c_void, c"syscall".as_ptr()) } as usize;
        FOUND.store(found, Ordering::Relaxed);
    }
    // SAFETY: the function of that name has this type.
    unsafe { std::mem::transmute::<usize, Syscall>(found) }
}

/// In the place of syscall(2), by which an older `getrandom` crate asks.
#[unsafe(no_mangle)]
unsafe extern "C" fn syscall(number: c_long, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> c_long {
    if number == SYS_GETRANDOM {
        // SAFETY: its arguments are a buffer and its length.
        return unsafe { fill(a as *mut c_void, b) } as c_long;
    }
    // SAFETY: passed on as it came; what was not given is not looked at.
    unsafe { original()(number, a, b, c, d, e, f) }
}
