//! Which vector instructions the convolutions use: the widest that the CPU has, found at run time
//! (AVX-512, AVX2 or NEON; scalar code where there are none).

use pulp::{Arch, WithSimd};
use std::sync::atomic::{AtomicU8, Ordering};

/// The most 32-bit lanes to use; 0 for as many as the CPU has.
static LANES: AtomicU8 = AtomicU8::new(0);

/// Uses AVX2 where the CPU has AVX-512, to test and time the narrower code: results must not change
/// by a bit. Affects all threads, but not matrix products (1 × 1 convolutions, attention), whose
/// library chooses its instruction set by itself.
pub fn narrow(narrow: bool) {
    LANES.store(if narrow { 8 } else { 0 }, Ordering::Relaxed);
}

/// Emulates vectors of four lanes, as NEON has, or of one; for 8 and 0 as [`narrow`].
#[cfg(test)]
pub(crate) fn narrow_to(lanes: u8) {
    LANES.store(lanes, Ordering::Relaxed);
}

#[inline(always)]
pub(crate) fn dispatch<Op: WithSimd>(op: Op) -> Op::Output {
    let lanes = LANES.load(Ordering::Relaxed);
    #[cfg(test)]
    match lanes {
        1 => return op.with_simd(pulp::Scalar),
        4 => return op.with_simd(pulp::Scalar128b),
        _ => {}
    }
    #[cfg(target_arch = "x86_64")]
    if lanes == 8
        && let Some(avx2) = pulp::x86::V3::try_new()
    {
        return Arch::V3(avx2).dispatch(op);
    }
    Arch::new().dispatch(op)
}
