//! Vector loads and stores for the loops that keep their sums in registers.
//!
//! Everything here is inlined: arrays of vectors must never pass through a function that was compiled
//! for a narrower instruction set, closures of the standard library's arrays included.

use pulp::{MemMask, Simd};

/// Unrolls a loop: runs `$body` with `$i` a constant from 0 to `$n`, at most 20. The sums stay in
/// registers only if the loop is unrolled, and the compiler does not unroll long ones by itself.
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
            .write_unaligned(vector);
    }
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
