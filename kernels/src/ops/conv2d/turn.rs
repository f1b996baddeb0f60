//! Squares of 16 × 16 numbers turned around, and the sums of 16 times 16 lanes: what has to go
//! across a vector, spelled out for AVX-512 because the compiler moves numbers one by one.
//!
//! Everything here is inlined into loops that were compiled for a machine; the results are the same
//! on all of them.

#![allow(
    clippy::needless_range_loop,
    reason = "iterators over arrays of vectors are not always inlined, and then compiled for a smaller machine"
)]

use crate::math::{LANES, sum_lanes};
use pulp::Simd;

/// The sum of each vector's lanes, always in the order of [`sum_lanes`]; of 16 vectors at most.
#[inline(always)]
pub(super) fn totals<S: Simd>(vectors: &[[f32; LANES]]) -> [f32; LANES] {
    #[cfg(target_arch = "x86_64")]
    if S::F32_LANES == 16 {
        // SAFETY: sixteen lanes are AVX-512's, and `S` exists only on a machine that has it.
        return unsafe { wide::totals(vectors) };
    }
    let mut totals = [0.0; LANES];
    for (total, lanes) in totals.iter_mut().zip(vectors) {
        *total = sum_lanes(*lanes);
    }
    totals
}

/// Writes the square whose rows lie at these places of `from` to `to` column by column, `to_step`
/// apart.
///
/// # Panics
/// When a slice is too short for 16 rows of 16.
#[inline(always)]
pub(super) fn square<S: Simd>(
    from: &[f32],
    places: &[usize; LANES],
    to: &mut [f32],
    to_step: usize,
) {
    let mut last = 0;
    for place in places {
        last = last.max(*place);
    }
    assert!(last + LANES <= from.len(), "16 rows of 16 in `from`");
    assert!(
        (LANES - 1) * to_step + LANES <= to.len(),
        "16 rows of 16 in `to`"
    );
    #[cfg(target_arch = "x86_64")]
    if S::F32_LANES == 16 {
        // SAFETY: sixteen lanes are AVX-512's, and `S` exists only on a machine that has it. 16
        // rows of 16 lie in both slices: asserted above.
        unsafe { wide::square(from.as_ptr(), places, to.as_mut_ptr(), to_step) };
        return;
    }
    for row in (0..LANES).step_by(4) {
        for column in (0..LANES).step_by(4) {
            let mut rows = [&from[..0]; 4];
            for i in 0..4 {
                rows[i] = &from[places[row + i] + column..];
            }
            small_square(rows, &mut to[column * to_step + row..], to_step);
        }
    }
}

/// The same for 4 × 4.
#[inline(always)]
fn small_square(rows: [&[f32]; 4], to: &mut [f32], to_step: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_loadu_ps, _mm_movehl_ps, _mm_movelh_ps, _mm_storeu_ps};
        use std::arch::x86_64::{_mm_unpackhi_ps, _mm_unpacklo_ps};
        let mut quarters = [[0.0; 4]; 4];
        for i in 0..4 {
            quarters[i].copy_from_slice(&rows[i][..4]);
        }
        assert!(3 * to_step + 4 <= to.len(), "4 rows of 4");
        // SAFETY: every x86-64 machine has SSE; four rows of four lie in `to`.
        unsafe {
            let row = |row: usize| _mm_loadu_ps(quarters[row].as_ptr());
            let [a, b, c, d] = [row(0), row(1), row(2), row(3)];
            let [ab, cd] = [_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d)];
            let to = to.as_mut_ptr();
            _mm_storeu_ps(to, _mm_movelh_ps(ab, cd));
            _mm_storeu_ps(to.add(to_step), _mm_movehl_ps(cd, ab));
            let [ab, cd] = [_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d)];
            _mm_storeu_ps(to.add(2 * to_step), _mm_movelh_ps(ab, cd));
            _mm_storeu_ps(to.add(3 * to_step), _mm_movehl_ps(cd, ab));
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    for row in 0..4 {
        for column in 0..4 {
            to[column * to_step + row] = rows[row][column];
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use super::LANES;
    use std::arch::x86_64::{
        __m512, __m512d, _mm_loadu_ps, _mm512_add_ps, _mm512_castpd_ps, _mm512_castps_pd,
        _mm512_castps128_ps512, _mm512_insertf32x4, _mm512_loadu_ps, _mm512_setzero_ps,
        _mm512_shuffle_f32x4, _mm512_shuffle_ps, _mm512_storeu_ps, _mm512_unpackhi_pd,
        _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
    };

    /// Quarters 0 and 1 of both, and quarters 2 and 3.
    const HALVES: [i32; 2] = [0b01_00_01_00, 0b11_10_11_10];
    /// Quarters, or numbers of each quarter, 0 and 2 of both, and 1 and 3.
    const EVERY_SECOND: [i32; 2] = [0b10_00_10_00, 0b11_01_11_01];

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn low_pairs(a: __m512, b: __m512) -> __m512 {
        let [a, b]: [__m512d; 2] = [_mm512_castps_pd(a), _mm512_castps_pd(b)];
        _mm512_castpd_ps(_mm512_unpacklo_pd(a, b))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn high_pairs(a: __m512, b: __m512) -> __m512 {
        let [a, b]: [__m512d; 2] = [_mm512_castps_pd(a), _mm512_castps_pd(b)];
        _mm512_castpd_ps(_mm512_unpackhi_pd(a, b))
    }

    /// Two vectors' lanes, half as many of each.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn halve<const STAGE: usize>(a: __m512, b: __m512) -> __m512 {
        let [low, high] = match STAGE {
            0 => [
                _mm512_shuffle_f32x4::<{ HALVES[0] }>(a, b),
                _mm512_shuffle_f32x4::<{ HALVES[1] }>(a, b),
            ],
            1 => [
                _mm512_shuffle_f32x4::<{ EVERY_SECOND[0] }>(a, b),
                _mm512_shuffle_f32x4::<{ EVERY_SECOND[1] }>(a, b),
            ],
            2 => [low_pairs(a, b), high_pairs(a, b)],
            _ => [
                _mm512_shuffle_ps::<{ EVERY_SECOND[0] }>(a, b),
                _mm512_shuffle_ps::<{ EVERY_SECOND[1] }>(a, b),
            ],
        };
        _mm512_add_ps(low, high)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn totals(vectors: &[[f32; LANES]]) -> [f32; LANES] {
        // Four vectors, one in each quarter; then eight, and sixteen.
        let mut fours = [_mm512_setzero_ps(); 4];
        for i in 0..4 {
            let vector = |at: usize| match vectors.get(4 * i + at) {
                // SAFETY: an array of 16 numbers is as long as a vector.
                Some(lanes) => unsafe { _mm512_loadu_ps(lanes.as_ptr()) },
                None => _mm512_setzero_ps(),
            };
            let [a, b] = [
                halve::<0>(vector(0), vector(1)),
                halve::<0>(vector(2), vector(3)),
            ];
            fours[i] = halve::<1>(a, b);
        }
        let [a, b] = [
            halve::<2>(fours[0], fours[1]),
            halve::<2>(fours[2], fours[3]),
        ];
        let mut mixed = [0.0; LANES];
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(mixed.as_mut_ptr(), halve::<3>(a, b)) };
        // Quarter q holds vectors q, 4 + q, 8 + q, 12 + q.
        let mut totals = [0.0; LANES];
        for (at, total) in mixed.iter().enumerate() {
            totals[at % 4 * 4 + at / 4] = *total;
        }
        totals
    }

    /// # Safety
    /// From `from`, 16 numbers at each place may be read; from `to`, 16 rows of 16 numbers that far
    /// apart written.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub unsafe fn square(from: *const f32, places: &[usize; LANES], to: *mut f32, to_step: usize) {
        for l in 0..4 {
            // Quarter i of vector `at`: four numbers of row 4 · i + at. Put together from memory, for
            // only one of the units moves numbers across a vector.
            let quarters = |at: usize| {
                // SAFETY: 4 numbers from 4 · l < 16 of row 4 · i + at < 16, which the caller promises.
                let four = |i: usize| unsafe { _mm_loadu_ps(from.add(places[4 * i + at] + 4 * l)) };
                let vector = _mm512_castps128_ps512(four(0));
                let vector = _mm512_insertf32x4::<1>(vector, four(1));
                let vector = _mm512_insertf32x4::<2>(vector, four(2));
                _mm512_insertf32x4::<3>(vector, four(3))
            };
            let [a, b, c, d] = [quarters(0), quarters(1), quarters(2), quarters(3)];
            let [ab, cd] = [_mm512_unpacklo_ps(a, b), _mm512_unpacklo_ps(c, d)];
            let [first, second] = [low_pairs(ab, cd), high_pairs(ab, cd)];
            let [ab, cd] = [_mm512_unpackhi_ps(a, b), _mm512_unpackhi_ps(c, d)];
            let columns = [first, second, low_pairs(ab, cd), high_pairs(ab, cd)];
            for j in 0..4 {
                // SAFETY: column 4 · l + j < 16, which the caller promises.
                unsafe { _mm512_storeu_ps(to.add((4 * l + j) * to_step), columns[j]) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pulp::WithSimd;

    struct Both;

    impl WithSimd for Both {
        type Output = ([f32; LANES], Vec<f32>);

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> Self::Output {
            let mut vectors = [[0.0; LANES]; LANES];
            for (i, value) in vectors.as_flattened_mut().iter_mut().enumerate() {
                *value = (i as f32 * 0.37).sin();
            }
            let mut from = vec![0.0; 16 * 19];
            for (i, value) in from.iter_mut().enumerate() {
                *value = i as f32;
            }
            let mut to = vec![-1.0; 16 * 17];
            square::<S>(&from, &std::array::from_fn(|row| 19 * row), &mut to, 17);
            (totals::<S>(&vectors[..11]), to)
        }
    }

    #[test]
    fn every_machine_turns_and_sums_alike() {
        for narrow in [false, true] {
            crate::simd::narrow(narrow);
            let (totals, turned) = crate::simd::dispatch(Both);
            crate::simd::narrow(false);
            for (i, total) in totals.iter().enumerate() {
                let mut lanes = [0.0; LANES];
                for (j, lane) in lanes.iter_mut().enumerate() {
                    *lane = ((i * LANES + j) as f32 * 0.37).sin();
                }
                let expected = if i < 11 { sum_lanes(lanes) } else { 0.0 };
                assert_eq!(total.to_bits(), expected.to_bits());
            }
            for (at, value) in turned.iter().enumerate() {
                let (column, row) = (at / 17, at % 17);
                let expected = if row < 16 {
                    (row * 19 + column) as f32
                } else {
                    -1.0
                };
                assert_eq!(*value, expected);
            }
        }
    }
}
