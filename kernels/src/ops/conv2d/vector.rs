//! Vectors in memory, for the loops that keep their sums in registers.
//!
//! Everything here is inlined into them: arrays of vectors must never pass through a function
//! that was compiled for a smaller machine, closures of the standard library's arrays included.

use pulp::{MemMask, Simd};

/// Runs `$body` with `$i` a constant from 0 to `$n`, at most 20: the loop that has to vanish for
/// the sums to be registers, and is too long for the compiler to unroll by itself.
macro_rules! unrolled {
    ($i:ident in $n:expr => $body:block) => {
        unrolled!(@ $i $n, $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19)
    };
    (@ $i:ident $n:expr, $body:block, $($at:literal)*) => {
        $({
            let $i: usize = $at;
            if $i < $n $body
        })*
    };
}
pub(super) use unrolled;

/// One vector from `at`.
///
/// # Safety
/// `at + S::F32_LANES <= values.len()`.
#[inline(always)]
pub(super) unsafe fn load<S: Simd>(values: &[f32], at: usize) -> S::f32s {
    debug_assert!(at + S::F32_LANES <= values.len());
    // SAFETY: the caller's promise; a vector is plain data, and read without alignment.
    unsafe { values.as_ptr().add(at).cast::<S::f32s>().read_unaligned() }
}

/// Writes one vector from `at`.
///
/// # Safety
/// `at + S::F32_LANES <= values.len()`.
#[inline(always)]
pub(super) unsafe fn store<S: Simd>(values: &mut [f32], at: usize, vector: S::f32s) {
    debug_assert!(at + S::F32_LANES <= values.len());
    // SAFETY: the caller's promise; a vector is plain data, and written without alignment.
    unsafe {
        values
            .as_mut_ptr()
            .add(at)
            .cast::<S::f32s>()
            .write_unaligned(vector)
    }
}

/// Has the compiler compute `vector` here: left alone, it moves the loads of an unrolled loop to its
/// front and the arithmetic to its end, and every vector in between to the stack and back. A loop
/// that pins its sums after each few terms reaches the units' peak where it gave half of it.
#[inline(always)]
pub(super) fn pin<S: Simd>(vector: &mut S::f32s) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__m256, __m512};
        let place = std::ptr::from_mut(vector);
        // SAFETY: sixteen lanes are an AVX-512 register and eight an AVX one, plain data in both
        // cases but aligned as numbers are, and `S` exists only on a machine that has them.
        unsafe {
            match S::F32_LANES {
                16 => {
                    let place = place.cast::<__m512>();
                    place.write_unaligned(pin_512(place.read_unaligned()));
                }
                8 => {
                    let place = place.cast::<__m256>();
                    place.write_unaligned(pin_256(place.read_unaligned()));
                }
                _ => {}
            }
        }
    }
    #[cfg(target_arch = "aarch64")]
    if S::F32_LANES == 4 {
        let place = std::ptr::from_mut(vector).cast::<std::arch::aarch64::float32x4_t>();
        // SAFETY: four lanes are a NEON register, which all these machines have; plain data, but
        // aligned as numbers are.
        unsafe { place.write_unaligned(pin_128(place.read_unaligned())) };
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = vector;
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
fn pin_512(mut vector: std::arch::x86_64::__m512) -> std::arch::x86_64::__m512 {
    // SAFETY: no instruction at all.
    unsafe {
        std::arch::asm!(
            "/* {} */",
            inout(zmm_reg) vector,
            options(nostack, preserves_flags)
        );
    }
    vector
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx")]
fn pin_256(mut vector: std::arch::x86_64::__m256) -> std::arch::x86_64::__m256 {
    // SAFETY: no instruction at all.
    unsafe {
        std::arch::asm!(
            "/* {} */",
            inout(ymm_reg) vector,
            options(nostack, preserves_flags)
        );
    }
    vector
}

#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon")]
fn pin_128(mut vector: std::arch::aarch64::float32x4_t) -> std::arch::aarch64::float32x4_t {
    // SAFETY: no instruction at all.
    unsafe {
        std::arch::asm!(
            "/* {} */",
            inout(vreg) vector,
            options(nostack, preserves_flags)
        );
    }
    vector
}

/// Asks for the element `at` of `values`, which may lie beyond their end, to be brought into the
/// cache while something else is computed.
#[inline(always)]
pub(super) fn prefetch(values: &[f32], at: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint for any address at all; every x86-64 machine has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(values.as_ptr().wrapping_add(at).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (values, at);
}

/// The same, to the second-level cache: for what is needed much later, or would be in the way.
#[inline(always)]
pub(super) fn prefetch_far(values: &[f32], at: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a hint for any address at all; every x86-64 machine has it.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(values.as_ptr().wrapping_add(at).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (values, at);
}

/// The first lanes of a vector.
#[derive(Clone, Copy)]
pub(super) struct Tail<S: Simd> {
    lanes: usize,
    mask: MemMask<S::m32s>,
}

impl<S: Simd> Tail<S> {
    /// As many as there are, at most.
    #[inline(always)]
    pub fn new(simd: S, lanes: usize) -> Self {
        let lanes = lanes.min(S::F32_LANES);
        let mask = simd.mask_between_m32s(0, lanes as u32).mask();
        Self {
            lanes,
            mask: mask.into(),
        }
    }

    /// These lanes from `at`, the rest zero.
    ///
    /// # Safety
    /// `at` and these lanes lie in `values`.
    #[inline(always)]
    pub unsafe fn load(&self, simd: S, values: &[f32], at: usize) -> S::f32s {
        debug_assert!(at + self.lanes <= values.len());
        // SAFETY: the caller's promise; lanes outside the mask are not touched.
        unsafe { simd.mask_load_ptr_f32s(self.mask, values.as_ptr().add(at)) }
    }

    /// Writes these lanes from `at`.
    ///
    /// # Safety
    /// `at` and these lanes lie in `values`.
    #[inline(always)]
    pub unsafe fn store(&self, simd: S, values: &mut [f32], at: usize, vector: S::f32s) {
        debug_assert!(at + self.lanes <= values.len());
        // SAFETY: the caller's promise; lanes outside the mask are not touched.
        unsafe { simd.mask_store_ptr_f32s(self.mask, values.as_mut_ptr().add(at), vector) }
    }
}
