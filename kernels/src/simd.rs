//! Which vectors the convolutions use: the widest that the processor has, found at run time
//! (AVX-512, AVX2 or NEON; one number at a time where there are none).

use pulp::{Arch, WithSimd};
use std::sync::atomic::{AtomicU8, Ordering};

/// Lanes of 32 bits at most; 0 is for as many as there are.
static LANES: AtomicU8 = AtomicU8::new(0);

/// Keeps to AVX2 where there is AVX-512, to see what a smaller machine does: results must not
/// change by a bit, times will. For tests and benchmarks; affects all threads, but not products of
/// matrices (1 × 1 convolutions of small planes, attention), whose library chooses by itself.
pub fn narrow(narrow: bool) {
    LANES.store(if narrow { 8 } else { 0 }, Ordering::Relaxed);
}

/// Computes in vectors of four lanes, as NEON does, or in single numbers, slowly; as
/// [`narrow`] otherwise.
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
