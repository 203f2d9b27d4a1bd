//! Randomness from the seed, for everything in this process.
//!
//! The standard library's hash maps, tokio, openraft (elections), ring (keys, signatures), quinn and rand all ask the
//! system for what they begin with, through two functions of the C library. This process has its own in their place.
#![expect(unsafe_code, reason = "functions of the C library are replaced, which no safe code can")]

use std::{
    ffi::{c_char, c_int, c_long, c_uint, c_void},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
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

type Syscall = unsafe extern "C" fn(c_long, usize, usize, usize, usize, usize, usize) -> c_long;

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// The next library's, behind this one.
const RTLD_NEXT: isize = -1;
#[cfg(target_arch = "x86_64")]
const SYS_GETRANDOM: c_long = 318;
#[cfg(not(target_arch = "x86_64"))]
const SYS_GETRANDOM: c_long = 278;

/// The C library's own.
fn original() -> Syscall {
    static ORIGINAL: OnceLock<Syscall> = OnceLock::new();
    if let Some(original) = ORIGINAL.get() {
        return *original;
    }
    // SAFETY: the name ends with a zero, and the function of that name has this type.
    let found = unsafe {
        let found = dlsym(RTLD_NEXT as *mut c_void, c"syscall".as_ptr());
        std::mem::transmute::<*mut c_void, Syscall>(found)
    };
    _ = ORIGINAL.set(found);
    found
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

const _: () = assert!(size_of::<c_int>() == 4 && size_of::<usize>() == 8);
