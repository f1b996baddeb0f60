//! Which vectors the convolutions use: the widest that the processor has, found at run time
//! (AVX-512, AVX2 or NEON; one number at a time where there are none).

use pulp::Arch;
use std::sync::atomic::{AtomicBool, Ordering};

static NARROW: AtomicBool = AtomicBool::new(false);

/// Keeps to AVX2 where there is AVX-512, to see what a smaller machine does: results must not
/// change by a bit, times will. For tests and benchmarks; affects all threads, but not products of
/// matrices (1 × 1 convolutions, attention), whose library chooses by itself.
pub fn narrow(narrow: bool) {
    NARROW.store(narrow, Ordering::Relaxed);
}

#[inline(always)]
pub(crate) fn arch() -> Arch {
    #[cfg(target_arch = "x86_64")]
    if NARROW.load(Ordering::Relaxed)
        && let Some(avx2) = pulp::x86::V3::try_new()
    {
        return Arch::V3(avx2);
    }
    Arch::new()
}
