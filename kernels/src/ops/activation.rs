//! Activation functions: as operations of their own, and as scalar functions with their derivatives
//! for the operations that fuse them.

use super::elementwise;
use crate::cuda::Kernel;
use crate::error::Result;
use crate::math::{self, for_each_cpu};
use crate::tape::Tape;
use crate::tensor::Tensor;

/// The activation that [`crate::ops::batch_norm`] applies to its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// Nothing.
    None,
    /// x · sigmoid(x).
    Silu,
    /// max(x, 0).
    Relu,
}

/// max(x, 0) for each element; any shape. NaN stays NaN.
///
/// # Errors
/// On the CPU none; on a GPU [`crate::Error::OutOfMemory`] and [`crate::Error::Cuda`].
pub fn relu(tape: &mut Tape, input: &Tensor) -> Result<Tensor> {
    apply(tape, input, &RELU)
}

/// x · sigmoid(x) for each element; any shape. Also called swish.
///
/// # Errors
/// On the CPU none; on a GPU [`crate::Error::OutOfMemory`] and [`crate::Error::Cuda`].
///
/// # Source
/// Sigmoid-Weighted Linear Units (Elfwing et al. 2017), equations 11 and 12.
pub fn silu(tape: &mut Tape, input: &Tensor) -> Result<Tensor> {
    apply(tape, input, &SILU)
}

/// 1 / (1 + e⁻ˣ) for each element; any shape.
///
/// # Errors
/// On the CPU none; on a GPU [`crate::Error::OutOfMemory`] and [`crate::Error::Cuda`].
pub fn sigmoid(tape: &mut Tape, input: &Tensor) -> Result<Tensor> {
    apply(tape, input, &SIGMOID)
}

/// x (1 + erf(x / √2)) / 2 for each element; any shape. This is the exact form, not the
/// approximation with a hyperbolic tangent.
///
/// # Errors
/// On the CPU none; on a GPU [`crate::Error::OutOfMemory`] and [`crate::Error::Cuda`].
///
/// # Source
/// Gaussian Error Linear Units (Hendrycks, Gimpel 2016).
pub fn gelu(tape: &mut Tape, input: &Tensor) -> Result<Tensor> {
    apply(tape, input, &GELU)
}

/// An activation as an operation.
struct Operation {
    /// (input, output).
    forward: fn(&[f32], &mut [f32]),
    /// (input or output, gradient of the output, gradient of the input).
    backward: fn(&[f32], &[f32], &mut [f32]),
    /// The same on a GPU.
    kernels: [Kernel; 2],
    /// Whether backward reads the output instead of the input.
    backward_reads_output: bool,
}

fn apply(tape: &mut Tape, input: &Tensor, operation: &'static Operation) -> Result<Tensor> {
    let [forward, backward] = &operation.kernels;
    let mut output = elementwise::map(input, operation.forward, forward)?;
    let saved = tape.needs_gradient(&[input]).then(|| {
        if operation.backward_reads_output {
            output.clone()
        } else {
            input.clone()
        }
    });
    tape.record(&mut output, &[input], move |gradient| {
        let saved = saved.expect("saved whenever recorded");
        let to_input = elementwise::zip(&saved, gradient, operation.backward, backward)?;
        Ok(vec![Some(to_input)])
    });
    Ok(output)
}

/// Loops over slices for one activation, compiled for several instruction sets.
macro_rules! operation {
    (
        $constant:ident, $module:ident,
        forward: |$x:ident| $y:expr,
        backward: |$saved:ident, $gradient:ident| $dx:expr,
        backward_reads_output: $reads_output:expr
    ) => {
        mod $module {
            use super::*;

            for_each_cpu! {
                pub(super) fn forward(input: &[f32], output: &mut [f32]) {
                    for (y, x) in output.iter_mut().zip(input) {
                        let $x = *x;
                        *y = $y;
                    }
                }
            }

            for_each_cpu! {
                pub(super) fn backward(saved: &[f32], gradient: &[f32], found: &mut [f32]) {
                    for ((dx, s), g) in found.iter_mut().zip(saved).zip(gradient) {
                        let ($saved, $gradient) = (*s, *g);
                        *dx = $dx;
                    }
                }
            }
        }
        static $constant: Operation = Operation {
            forward: $module::forward,
            backward: $module::backward,
            kernels: [
                elementwise::kernel(concat!(stringify!($module), "_forward")),
                elementwise::kernel(concat!(stringify!($module), "_backward")),
            ],
            backward_reads_output: $reads_output,
        };
    };
}

operation!(
    RELU, relu,
    forward: |x| relu_of(x),
    backward: |x, gradient| gradient * relu_slope(x),
    backward_reads_output: false
);
operation!(
    SILU, silu,
    forward: |x| silu_of(x),
    backward: |x, gradient| gradient * silu_slope(x),
    backward_reads_output: false
);
operation!(
    SIGMOID, sigmoid,
    forward: |x| math::sigmoid(x),
    backward: |y, gradient| gradient * y * (1.0 - y),
    backward_reads_output: true
);
operation!(
    GELU, gelu,
    forward: |x| x * normal(x).0,
    backward: |x, gradient| {
        let (distribution, density) = normal(x);
        gradient * x.mul_add(density, distribution)
    },
    backward_reads_output: false
);

#[inline(always)]
pub(super) fn identity(x: f32) -> f32 {
    x
}

#[inline(always)]
pub(super) fn identity_slope(_: f32) -> f32 {
    1.0
}

#[inline(always)]
pub(super) fn silu_of(x: f32) -> f32 {
    x * math::sigmoid(x)
}

/// s + x s (1 - s), with s the sigmoid of x.
#[inline(always)]
pub(super) fn silu_slope(x: f32) -> f32 {
    let s = math::sigmoid(x);
    s * x.mul_add(1.0 - s, 1.0)
}

/// max(x, 0), except that NaN stays NaN.
#[inline(always)]
pub(super) fn relu_of(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

/// 1 where x is positive, else 0; NaN stays NaN.
#[inline(always)]
pub(super) fn relu_slope(x: f32) -> f32 {
    if x > 0.0 {
        1.0
    } else if x <= 0.0 {
        0.0
    } else {
        x
    }
}

/// Φ(x), the normal distribution, and its density. Φ to 1e-7: Abramowitz & Stegun 7.1.26, whose polynomial gives the tail
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradient, noise};

    mod relu {
        use super::*;

        #[test]
        fn negative_values_become_zero() {
            let x = Tensor::new(vec![-1.5, 0.0, 2.0, f32::NAN], &[4]).unwrap();
            let y = relu(&mut Tape::inference(), &x).unwrap();
            assert_eq!(y.data()[..3], [0.0, 0.0, 2.0]);
            assert!(y.data()[3].is_nan());
        }

        #[test]
        fn gradient_matches_finite_differences() {
            check_gradient(&[noise(&[2, 3, 4], 1)], 2e-3, |tape, inputs| {
                relu(tape, &inputs[0])
            });
        }
    }

    mod silu {
        use super::*;

        #[test]
        fn values_worked_by_hand() {
            let x = Tensor::new(vec![0.0, 1.0, -1.0, -200.0, 200.0], &[5]).unwrap();
            let y = silu(&mut Tape::inference(), &x).unwrap();
            assert_close(
                y.data(),
                &[0.0, 0.731_058_6, -0.268_941_43, 0.0, 200.0],
                1e-6,
            );
        }

        #[test]
        fn gradient_matches_finite_differences() {
            check_gradient(&[noise(&[2, 3, 7], 1)], 2e-3, |tape, inputs| {
                silu(tape, &inputs[0])
            });
        }
    }

    mod sigmoid {
        use super::*;

        #[test]
        fn values_worked_by_hand() {
            let x = Tensor::new(vec![0.0, 1.0, -1.0], &[3]).unwrap();
            let y = sigmoid(&mut Tape::inference(), &x).unwrap();
            assert_close(y.data(), &[0.5, 0.731_058_6, 0.268_941_43], 1e-6);
        }

        #[test]
        fn gradient_matches_finite_differences() {
            check_gradient(&[noise(&[2, 3, 7], 1)], 2e-3, |tape, inputs| {
                sigmoid(tape, &inputs[0])
            });
        }
    }

    mod gelu {
        use super::*;

        #[test]
        fn values_from_a_table_of_the_normal_distribution() {
            let x = Tensor::new(vec![0.0, 1.0, -1.0, 2.5, -2.5, 9.0, -9.0], &[7]).unwrap();
            let y = gelu(&mut Tape::inference(), &x).unwrap();
            // x Φ(x) with Φ(1) = 0.8413447461, Φ(2.5) = 0.9937903347.
            let expected = [
                0.0,
                0.841_344_8,
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
}
