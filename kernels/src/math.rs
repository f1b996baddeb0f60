//! Scalar functions that the compiler can turn into vector code, and sums in a fixed order.
//!
//! Everything here is inlined into loops compiled for several instruction sets; the results are
//! the same bits on all of them, because a fused multiply-add is exact everywhere.

/// The instruction sets that inner loops are compiled for, chosen at run time.
macro_rules! for_each_cpu {
    ($(#[$meta:meta])* $vis:vis fn $($rest:tt)*) => {
        #[multiversion::multiversion(targets(
            "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma",
            "x86_64+avx2+fma",
            "aarch64+neon",
        ))]
        $(#[$meta])* $vis fn $($rest)*
    };
}
pub(crate) use for_each_cpu;

/// e to the x, relative error below 2e-7 where the result is a normal number; beyond that the
/// exponent is clamped, so the result is finite, never zero. NaN stays NaN.
///
/// # Source
/// Cody & Waite range reduction to |r| ≤ ln 2 / 2 and the Taylor polynomial to r⁷ / 7!, whose
/// remainder there is below 1e-8.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding 1.5 · 2²³ rounds to an integer that sits in the low mantissa bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts; the first has so few bits that multiplying it by n is exact.
    const LN_2_HIGH: f32 = 355.0 / 512.0;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Comparisons, not min and max: those would turn NaN into the bound.
    let x = if x > 88.0 { 88.0 } else { x };
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, x));
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
        p = r.mul_add(p, coefficient);
    }
    let power = f32::from_bits(
        shifted
            .to_bits()
            .wrapping_sub(ROUND.to_bits())
            .wrapping_add(127)
            << 23,
    );
    p * power
}

/// 1 / (1 + e⁻ˣ).
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Number of partial sums below: one AVX-512 register, two AVX registers.
pub(crate) const LANES: usize = 16;

/// Sum of the lanes, pairwise, always in the same order.
#[inline(always)]
pub(crate) fn sum_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

for_each_cpu! {
    /// Sum of all elements, in an order that depends only on their number.
    pub(crate) fn sum(values: &[f32]) -> f32 {
        let mut lanes = [0.0; LANES];
        let chunks = values.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane += value;
            }
        }
        sum_lanes(lanes) + rest.iter().sum::<f32>()
    }
}

for_each_cpu! {
    /// `sums += values`, element by element.
    pub(crate) fn add_assign(sums: &mut [f32], values: &[f32]) {
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += value;
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
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) / exact - 1.0).abs());
        }
        assert!(worst < 2e-7, "relative error {worst:e}");
    }

    #[test]
    fn exp_of_the_extremes_is_tame() {
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::INFINITY) > 1e38);
        assert!(exp(f32::NEG_INFINITY) < 1e-37);
        assert_eq!(exp(0.0), 1.0);
        assert!(sigmoid(f32::NAN).is_nan());
        assert_eq!(sigmoid(1e9), 1.0);
        assert!(sigmoid(-1e9) < 1e-37);
    }

    #[test]
    fn sum_covers_the_rest() {
        let values: Vec<f32> = (1..=37).map(|v| v as f32).collect();
        assert_eq!(sum(&values), 37.0 * 38.0 / 2.0);
    }
}
