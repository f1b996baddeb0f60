//! Lanes that change places: pairs taken apart and put together, and sums over the lanes of many
//! vectors at once.

#![allow(
    clippy::needless_range_loop,
    reason = "iterators over arrays of vectors are not always inlined, and then compiled for a smaller machine"
)]

use super::vector::{load, store};
use crate::math::LANES;
use pulp::Simd;

/// The even and the odd lanes of `first` and then `second`.
#[inline(always)]
pub(super) fn apart<S: Simd>(first: S::f32s, second: S::f32s) -> [S::f32s; 2] {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: sixteen lanes are an AVX-512 register and eight an AVX one, plain data in both
    // cases, and `S` with so many exists only on a machine that has them (and AVX2).
    unsafe {
        match S::F32_LANES {
            16 => return cast(&x86::apart_512(cast(&first), cast(&second))),
            8 => return cast(&x86::apart_256(cast(&first), cast(&second))),
            _ => {}
        }
    }
    let lanes = join::<S>(first, second);
    let mut apart = [0.0; 2 * LANES];
    for lane in 0..S::F32_LANES {
        apart[lane] = lanes[2 * lane];
        apart[S::F32_LANES + lane] = lanes[2 * lane + 1];
    }
    split::<S>(&apart)
}

/// The lanes of `even` and `odd` in turn, in two vectors: the inverse of [`apart`].
#[inline(always)]
pub(super) fn in_turn<S: Simd>(even: S::f32s, odd: S::f32s) -> [S::f32s; 2] {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as in `apart`.
    unsafe {
        match S::F32_LANES {
            16 => return cast(&x86::in_turn_512(cast(&even), cast(&odd))),
            8 => return cast(&x86::in_turn_256(cast(&even), cast(&odd))),
            _ => {}
        }
    }
    let lanes = join::<S>(even, odd);
    let mut in_turn = [0.0; 2 * LANES];
    for lane in 0..S::F32_LANES {
        in_turn[2 * lane] = lanes[lane];
        in_turn[2 * lane + 1] = lanes[S::F32_LANES + lane];
    }
    split::<S>(&in_turn)
}

/// The sum of each 16 lanes, in the order of [`crate::math::sum_lanes`].
#[inline(always)]
pub(super) fn totals<S: Simd>(sums: &[[f32; LANES]], found: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if S::F32_LANES == 16 {
        for (sums, found) in sums.chunks(LANES).zip(found.chunks_mut(LANES)) {
            // SAFETY: an `S` of sixteen lanes exists only on a machine with AVX-512.
            unsafe { totals_of_16(sums, found) };
        }
        return;
    }
    // Half of the way for all of them and then the rest: that is what the compiler finds good
    // instructions for.
    let mut quarters = [[0.0; LANES / 4]; 25];
    for (quarter, lanes) in quarters.iter_mut().zip(sums) {
        let (low, high) = lanes.split_at(LANES / 2);
        let mut half = [0.0; LANES / 2];
        for i in 0..LANES / 2 {
            half[i] = low[i] + high[i];
        }
        for i in 0..LANES / 4 {
            quarter[i] = half[i] + half[i + LANES / 4];
        }
    }
    for (found, [a, b, c, d]) in found.iter_mut().zip(&quarters) {
        *found = (a + c) + (b + d);
    }
}

/// Up to 16 totals in vectors of 16, by halving all of them together: the halves of two sums are
/// added in one vector, then the quarters of four, until one vector holds all the totals.
///
/// # Safety
/// The machine has AVX-512.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn totals_of_16(sums: &[[f32; LANES]], found: &mut [f32]) {
    assert!(sums.len() == found.len() && found.len() <= LANES);
    // SAFETY: the caller's promise; `found` has the lanes that are written.
    unsafe {
        // Total number 4 · block + column ends in that lane.
        let mut columns = [x86::zero_512(); 4];
        for column in 0..4 {
            let a = sum_or_zero(sums, column);
            let b = sum_or_zero(sums, 4 + column);
            let c = sum_or_zero(sums, 8 + column);
            let d = sum_or_zero(sums, 12 + column);
            let (ab, cd) = (x86::add_halves_512(a, b), x86::add_halves_512(c, d));
            columns[column] = x86::add_quarters_512(ab, cd);
        }
        let [a, b, c, d] = columns;
        let (ab, cd) = (x86::add_pairs_512(a, b), x86::add_pairs_512(c, d));
        x86::store_512(found, x86::add_last_512(ab, cd));
    }
}

/// Beyond the last of the sums there are zeros.
///
/// # Safety
/// The machine has AVX-512.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn sum_or_zero(sums: &[[f32; LANES]], index: usize) -> std::arch::x86_64::__m512 {
    // SAFETY: the caller's promise; sixteen floats are a register.
    unsafe {
        match sums.get(index) {
            Some(lanes) => cast(lanes),
            None => x86::zero_512(),
        }
    }
}

/// Two vectors as lanes; what they do not fill is zero.
#[inline(always)]
fn join<S: Simd>(first: S::f32s, second: S::f32s) -> [f32; 2 * LANES] {
    let mut lanes = [0.0; 2 * LANES];
    // SAFETY: no vector has more than 16 lanes.
    unsafe {
        store::<S>(&mut lanes, 0, first);
        store::<S>(&mut lanes, S::F32_LANES, second);
    }
    lanes
}

#[inline(always)]
fn split<S: Simd>(lanes: &[f32; 2 * LANES]) -> [S::f32s; 2] {
    // SAFETY: no vector has more than 16 lanes.
    unsafe { [load::<S>(lanes, 0), load::<S>(lanes, S::F32_LANES)] }
}

/// The same bytes as another type.
///
/// # Safety
/// Both have one size and are plain data.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn cast<T, U>(value: &T) -> U {
    debug_assert_eq!(size_of::<T>(), size_of::<U>());
    // SAFETY: the caller's promise.
    unsafe { std::mem::transmute_copy(value) }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use crate::math::LANES;
    use std::arch::x86_64::{
        __m256, __m512, _mm256_castpd_ps, _mm256_castps_pd, _mm256_permute2f128_ps,
        _mm256_permute4x64_pd, _mm256_shuffle_ps, _mm256_unpackhi_ps, _mm256_unpacklo_ps,
        _mm512_add_ps, _mm512_mask_storeu_ps, _mm512_permutex2var_ps, _mm512_setr_epi32,
        _mm512_setzero_ps, _mm512_shuffle_f32x4, _mm512_shuffle_ps,
    };

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn apart_512(first: __m512, second: __m512) -> [__m512; 2] {
        let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        let odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
        [
            _mm512_permutex2var_ps(first, even, second),
            _mm512_permutex2var_ps(first, odd, second),
        ]
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn in_turn_512(even: __m512, odd: __m512) -> [__m512; 2] {
        let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        let high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        [
            _mm512_permutex2var_ps(even, low, odd),
            _mm512_permutex2var_ps(even, high, odd),
        ]
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub fn apart_256(first: __m256, second: __m256) -> [__m256; 2] {
        // Each half of a register by itself, then the middle quarters change places.
        let even = _mm256_shuffle_ps::<0b10_00_10_00>(first, second);
        let odd = _mm256_shuffle_ps::<0b11_01_11_01>(first, second);
        let (even, odd) = (_mm256_castps_pd(even), _mm256_castps_pd(odd));
        [
            _mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(even)),
            _mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(odd)),
        ]
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub fn in_turn_256(even: __m256, odd: __m256) -> [__m256; 2] {
        let low = _mm256_unpacklo_ps(even, odd);
        let high = _mm256_unpackhi_ps(even, odd);
        [
            _mm256_permute2f128_ps::<0x20>(low, high),
            _mm256_permute2f128_ps::<0x31>(low, high),
        ]
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn zero_512() -> __m512 {
        _mm512_setzero_ps()
    }

    /// Quarters of `a`, 0 + 2 and 1 + 3, then those of `b`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn add_halves_512(a: __m512, b: __m512) -> __m512 {
        _mm512_add_ps(
            _mm512_shuffle_f32x4::<0b01_00_01_00>(a, b),
            _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b),
        )
    }

    /// Quarters 0 + 1 and 2 + 3 of `a`, then those of `b`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn add_quarters_512(a: __m512, b: __m512) -> __m512 {
        _mm512_add_ps(
            _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b),
            _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b),
        )
    }

    /// In each quarter: lanes 0 + 2 and 1 + 3 of `a`, then those of `b`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn add_pairs_512(a: __m512, b: __m512) -> __m512 {
        _mm512_add_ps(
            _mm512_shuffle_ps::<0b01_00_01_00>(a, b),
            _mm512_shuffle_ps::<0b11_10_11_10>(a, b),
        )
    }

    /// In each quarter: lanes 0 + 1 and 2 + 3 of `a`, then those of `b`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn add_last_512(a: __m512, b: __m512) -> __m512 {
        _mm512_add_ps(
            _mm512_shuffle_ps::<0b10_00_10_00>(a, b),
            _mm512_shuffle_ps::<0b11_01_11_01>(a, b),
        )
    }

    /// Writes as many lanes as `values` has, at most 16.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn store_512(values: &mut [f32], lanes: __m512) {
        let mask = ((1u32 << values.len().min(LANES)) - 1) as u16;
        // SAFETY: no more elements than `values` has.
        unsafe { _mm512_mask_storeu_ps(values.as_mut_ptr(), mask, lanes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::sum_lanes;
    use crate::testing::noise;
    use pulp::{Arch, WithSimd};

    #[derive(Clone, Copy)]
    struct Pairs;

    impl WithSimd for Pairs {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            let mut values = [0.0; 2 * LANES];
            for (i, value) in values.iter_mut().enumerate() {
                *value = i as f32;
            }
            let n = S::F32_LANES;
            let [first, second] = split::<S>(&values);
            let [even, odd] = apart::<S>(first, second);
            let lanes = join::<S>(even, odd);
            for i in 0..n {
                assert_eq!([lanes[i], lanes[n + i]], [values[2 * i], values[2 * i + 1]]);
            }
            let [first, second] = in_turn::<S>(even, odd);
            assert_eq!(join::<S>(first, second)[..2 * n], values[..2 * n]);
        }
    }

    #[derive(Clone, Copy)]
    struct Totals<'a>(&'a [[f32; LANES]]);

    impl WithSimd for Totals<'_> {
        type Output = Vec<f32>;

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> Vec<f32> {
            let mut found = vec![0.0; self.0.len()];
            totals::<S>(self.0, &mut found);
            found
        }
    }

    /// What `op` finds with the widest vectors, AVX2's, NEON's and single numbers.
    fn at_each_width<W: WithSimd + Copy>(op: W) -> Vec<W::Output> {
        let mut found = vec![Arch::new().dispatch(op)];
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = pulp::x86::V3::try_new() {
            found.push(Arch::V3(avx2).dispatch(op));
        }
        found.push(op.with_simd(pulp::Scalar128b));
        found.push(op.with_simd(pulp::Scalar));
        found
    }

    #[test]
    fn pairs_come_apart_and_together() {
        at_each_width(Pairs);
    }

    #[test]
    fn totals_have_one_order() {
        for count in [9, 16, 25] {
            let values = noise(&[count * LANES], 1);
            let (lanes, _) = values.data().as_chunks::<LANES>();
            let expected: Vec<f32> = lanes.iter().map(|lanes| sum_lanes(*lanes)).collect();
            for found in at_each_width(Totals(lanes)) {
                assert_eq!(found, expected);
            }
        }
    }
}
