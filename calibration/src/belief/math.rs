//! exp and ln in single precision, written so that the compiler turns loops of them into vector
//! code, and the loops over all cells.
//!
//! Additions, multiplications, divisions and integer operations only, and sums in an order of their
//! own, so the bits are the same on every machine and instruction set.

/// Compiles a loop for several instruction sets, and picks one at run time.
macro_rules! for_each_cpu {
    ($(#[$meta:meta])* $vis:vis fn $($rest:tt)*) => {
        #[multiversion::multiversion(targets(
            "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma",
            "x86_64+avx2+fma",
        ))]
        $(#[$meta])* $vis fn $($rest)*
    };
}
pub(super) use for_each_cpu;

/// Adding this to a small number rounds it to an integer, which then sits in the low mantissa bits.
const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³

/// e to the x, relative error below 3e-7; below -87 (and for minus infinity) about 1e-38, above 88
/// about 2e38. NaN stays NaN.
///
/// # Source
/// Cody & Waite range reduction to |r| ≤ ln 2 / 2 and the Taylor polynomial to r⁷ / 7!, whose
/// remainder there is below 1e-8.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // ln 2 in two parts; the first has so few bits that multiplying it by n is exact.
    const LN_2_HIGH: f32 = 355.0 / 512.0;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Comparisons, not min and max: those would turn NaN into the bound.
    let x = if x > 88.0 { 88.0 } else { x };
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    let mut p = 1.0 / 5040.0;
    for coefficient in [
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        p = p * r + coefficient;
    }
    // The integer n, shifted into the exponent.
    let power = f32::from_bits(
        shifted
            .to_bits()
            .wrapping_sub(ROUND.to_bits())
            .wrapping_add(127)
            << 23,
    );
    p * power
}

/// The natural logarithm of a positive number, absolute error below 1e-7 near 1 and relative error
/// below 2e-7 elsewhere. Zero and subnormal numbers give about -88.
///
/// # Source
/// x = 2ᵉ m with m in [√½, √2); ln m = 2 artanh s with s = (m - 1) / (m + 1), |s| ≤ 0.172, and the
/// series s + s³/3 + … + s⁹/9, whose remainder is below 2e-9.
#[inline(always)]
pub(super) fn ln(x: f32) -> f32 {
    const SQRT_HALF: u32 = std::f32::consts::FRAC_1_SQRT_2.to_bits();
    let bits = x.to_bits();
    // Exponent as if the mantissa began at √½; an arithmetic shift keeps its sign.
    let exponent = (bits.wrapping_sub(SQRT_HALF) as i32) >> 23;
    let m = f32::from_bits(bits.wrapping_sub((exponent as u32) << 23));
    let s = (m - 1.0) / (m + 1.0);
    let squared = s * s;
    let mut p = 1.0 / 9.0;
    for coefficient in [1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0] {
        p = p * squared + coefficient;
    }
    let tail = 2.0 * s * squared * p;
    exponent as f32 * std::f32::consts::LN_2 + (2.0 * s + tail)
}

/// Running maxima and sums side by side, so that each waits for itself only.
const LANES: usize = 16;

for_each_cpu! {
    /// The largest element, minus infinity of none; elements are not NaN.
    pub(super) fn largest(values: &[f32]) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; LANES];
        let larger = |a: f32, b: f32| if b > a { b } else { a };
        let (chunks, rest) = values.as_chunks::<LANES>();
        let rest = rest.iter().fold(f32::NEG_INFINITY, |a, b| larger(a, *b));
        for chunk in chunks {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane = larger(*lane, *value);
            }
        }
        lanes.iter().fold(rest, |a, b| larger(a, *b))
    }
}

for_each_cpu! {
    /// Sum of the elements in double precision, in an order that depends only on their number.
    pub(super) fn sum(values: &[f32]) -> f64 {
        let mut lanes = [0.0f64; LANES];
        let (chunks, rest) = values.as_chunks::<LANES>();
        let rest: f64 = rest.iter().map(|v| f64::from(*v)).sum();
        for chunk in chunks {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane += f64::from(*value);
            }
        }
        lanes.iter().sum::<f64>() + rest
    }
}

for_each_cpu! {
    /// `v = max(factor · v, floor)`.
    pub(super) fn scale_to_at_least(values: &mut [f32], factor: f32, floor: f32) {
        for value in values {
            *value = (*value * factor).max(floor);
        }
    }
}

for_each_cpu! {
    /// `v = factor · v + more`.
    pub(super) fn scale_and_add(values: &mut [f32], factor: f32, more: f32) {
        for value in values {
            *value = *value * factor + more;
        }
    }
}

for_each_cpu! {
    /// `sums += weight · values`, element by element.
    pub(super) fn add_scaled(sums: &mut [f32], values: &[f32], weight: f32) {
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += weight * value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_agrees_with_f64() {
        let mut worst = 0.0f64;
        for i in -870_000..=880_000 {
            let x = i as f32 * 1e-4;
            worst = worst.max((f64::from(exp(x)) / f64::from(x).exp() - 1.0).abs());
        }
        assert!(worst < 3e-7, "relative error {worst:e}");
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn ln_agrees_with_f64() {
        let mut worst = 0.0f64;
        // Every mantissa pattern of 12 bits, over all exponents.
        for bits in (0x0080_0000..0x7f80_0000).step_by(1 << 11) {
            let x = f32::from_bits(bits);
            let exact = f64::from(x).ln();
            worst = worst.max((f64::from(ln(x)) - exact).abs() / exact.abs().max(0.5));
        }
        assert!(worst < 2e-7, "error {worst:e}");
        assert_eq!(ln(1.0), 0.0);
    }

    #[test]
    fn extremes_are_tame() {
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::NEG_INFINITY) < 2e-38 && exp(f32::INFINITY) > 1e38);
        assert!(ln(0.0) < -80.0 && ln(1e-40) < -80.0);
    }

    #[test]
    fn sum_and_largest_cover_the_rest() {
        let values: Vec<f32> = (1..=37).map(|v| v as f32).collect();
        assert_eq!(largest(&values), 37.0);
        assert_eq!(largest(&[]), f32::NEG_INFINITY);
        assert!((sum(&values) - 37.0 * 19.0).abs() < 1e-9);
    }
}
