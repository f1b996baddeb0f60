//! Transposes of 16 × 16 blocks of elements. AVX-512 has its own shuffles, because the compiler
//! would move the elements one by one; the results are the same on every instruction set.

#![allow(
    clippy::needless_range_loop,
    reason = "iterators over arrays of vectors are not always inlined, and then compiled for a narrower instruction set"
)]

use crate::math::LANES;
use pulp::Simd;

/// Reads 16 rows of 16 elements at `places` of `from` and writes them as columns: row `i` of the result,
/// at `i · to_step` of `to`, holds element `i` of every row.
///
/// # Panics
/// When a slice is too short for 16 rows of 16.
#[inline(always)]
pub(super) fn transpose_16x16<S: Simd>(
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
        // SAFETY: an `S` of 16 lanes exists only on a CPU with AVX-512. 16 rows of 16 elements lie
        // in both slices: asserted above.
        unsafe { avx512::transpose_16x16(from.as_ptr(), places, to.as_mut_ptr(), to_step) };
        return;
    }
    for row in (0..LANES).step_by(4) {
        for column in (0..LANES).step_by(4) {
            let mut rows = [&from[..0]; 4];
            for i in 0..4 {
                rows[i] = &from[places[row + i] + column..];
            }
            transpose_4x4(rows, &mut to[column * to_step + row..], to_step);
        }
    }
}

/// The same for 4 rows of 4.
#[inline(always)]
fn transpose_4x4(rows: [&[f32]; 4], to: &mut [f32], to_step: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_loadu_ps, _mm_movehl_ps, _mm_movelh_ps, _mm_storeu_ps};
        use std::arch::x86_64::{_mm_unpackhi_ps, _mm_unpacklo_ps};
        let mut quarters = [[0.0; 4]; 4];
        for i in 0..4 {
            quarters[i].copy_from_slice(&rows[i][..4]);
        }
        assert!(3 * to_step + 4 <= to.len(), "4 rows of 4");
        // SAFETY: every x86-64 CPU has SSE; four rows of four lie in `to`.
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
mod avx512 {
    use super::LANES;
    use std::arch::x86_64::{
        __m512, __m512d, _mm_loadu_ps, _mm512_castpd_ps, _mm512_castps_pd, _mm512_castps128_ps512,
        _mm512_insertf32x4, _mm512_storeu_ps, _mm512_unpackhi_pd, _mm512_unpackhi_ps,
        _mm512_unpacklo_pd, _mm512_unpacklo_ps,
    };

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

    /// # Safety
    /// 16 elements may be read at each of `places` from `from`, and 16 written at each of 16 multiples
    /// of `to_step` from `to`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub unsafe fn transpose_16x16(
        from: *const f32,
        places: &[usize; LANES],
        to: *mut f32,
        to_step: usize,
    ) {
        for l in 0..4 {
            // Quarter i of vector `at`: four elements of row 4 · i + at. Loaded from memory in quarters,
            // because only one execution port shuffles across a whole vector.
            let quarters = |at: usize| {
                // SAFETY: 4 elements from 4 · l < 16 of row 4 · i + at < 16, which the caller promises.
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

    struct Transpose;

    impl WithSimd for Transpose {
        type Output = Vec<f32>;

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> Self::Output {
            let mut from = vec![0.0; 16 * 19];
            for (i, value) in from.iter_mut().enumerate() {
                *value = i as f32;
            }
            let mut to = vec![-1.0; 16 * 17];
            let places = std::array::from_fn(|row| 19 * row);
            transpose_16x16::<S>(&from, &places, &mut to, 17);
            to
        }
    }

    #[test]
    fn every_instruction_set_transposes_alike() {
        for narrow in [false, true] {
            crate::simd::narrow(narrow);
            let transposed = crate::simd::dispatch(Transpose);
            crate::simd::narrow(false);
            for (at, value) in transposed.iter().enumerate() {
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
