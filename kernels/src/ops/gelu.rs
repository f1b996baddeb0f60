//! Gaussian error linear unit: x · Φ(x), Φ the normal distribution.

use super::elementwise;
use crate::cuda::Kernel;
use crate::error::Result;
use crate::math::{self, for_each_cpu};
use crate::tape::Tape;
use crate::tensor::Tensor;
use crate::testing::Case;

/// x (1 + erf(x / √2)) / 2 for each element; any shape. This is the exact form, not the one with
/// a hyperbolic tangent.
///
/// # Errors
/// On the processor none; on a device [`crate::Error::OutOfMemory`] and [`crate::Error::Cuda`].
///
/// # Source
/// Gaussian Error Linear Units (Hendrycks, Gimpel 2016).
pub fn gelu(tape: &mut Tape, input: &Tensor) -> Result<Tensor> {
    let mut output = elementwise::map(input, forward, &FORWARD)?;
    let saved = tape.needs_gradient(&[input]).then(|| input.clone());
    tape.record(&mut output, &[input], move |gradient| {
        let input = saved.expect("saved whenever recorded");
        let to_input = elementwise::zip(&input, gradient, backward, &BACKWARD)?;
        Ok(vec![Some(to_input)])
    });
    Ok(output)
}

static FORWARD: Kernel = elementwise::kernel("gelu_forward");
static BACKWARD: Kernel = elementwise::kernel("gelu_backward");

for_each_cpu! {
    fn forward(input: &[f32], output: &mut [f32]) {
        for (y, x) in output.iter_mut().zip(input) {
            *y = x * normal(*x).0;
        }
    }
}

for_each_cpu! {
    fn backward(input: &[f32], gradient: &[f32], output: &mut [f32]) {
        for ((d, x), g) in output.iter_mut().zip(input).zip(gradient) {
            let (distribution, density) = normal(*x);
            *d = g * x.mul_add(density, distribution);
        }
    }
}

/// Φ(x) and its slope. Φ to 1e-7: Abramowitz & Stegun 7.1.26, whose polynomial gives the tail
/// 1 - erf(z) = (a₁t + … + a₅t⁵) e^(-z²) with t = 1 / (1 + pz), z = |x| / √2.
#[inline(always)]
fn normal(x: f32) -> (f32, f32) {
    const P: f32 = 0.327_591_1;
    const A: [f32; 5] = [
        0.254_829_6,
        -0.284_496_7,
        1.421_413_7,
        -1.453_152,
        1.061_405_4,
    ];
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / P.mul_add(z, 1.0);
    let mut polynomial = A[4];
    for a in [A[3], A[2], A[1], A[0]] {
        polynomial = t.mul_add(polynomial, a);
    }
    let bell = math::exp(-z * z);
    let tail = 0.5 * t * polynomial * bell;
    let distribution = if x < 0.0 { tail } else { 1.0 - tail };
    // 1 / √(2π)
    (distribution, bell * 0.398_942_3)
}

/// What is run on every device.
pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new("gelu", &[&[2, 3, 171]], |tape, x| {
        gelu(tape, &x[0])
    })]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradient, noise};

    #[test]
    fn values_from_a_table_of_the_normal_distribution() {
        let x = Tensor::new(vec![0.0, 1.0, -1.0, 2.5, -2.5, 9.0, -9.0], &[7]).unwrap();
        let y = gelu(&mut Tape::inference(), &x).unwrap();
        // x Φ(x) with Φ(1) = 0.8413447461, Φ(2.5) = 0.9937903347.
        let expected = [
            0.0,
            0.841_344_75,
            -0.158_655_25,
            2.484_475_8,
            -0.015_524_163,
            9.0,
            0.0,
        ];
        assert_close(y.data(), &expected, 5e-7);
    }

    #[test]
    fn nan_is_not_hidden() {
        let x = Tensor::new(vec![f32::NAN], &[1]).unwrap();
        assert!(gelu(&mut Tape::inference(), &x).unwrap().data()[0].is_nan());
    }

    #[test]
    fn gradient_matches_finite_differences() {
        check_gradient(&[noise(&[2, 3, 7], 1)], 2e-3, |tape, x| gelu(tape, &x[0]));
    }
}
