//! Loops over one channel of one image, compiled for several instruction sets.

use crate::math::{LANES, for_each_cpu, sum_lanes};
use crate::ops::activation;

/// What one channel is normalised with.
#[derive(Clone, Copy)]
pub(super) struct Channel {
    pub mean: f32,
    /// 1 / sqrt(variance + epsilon).
    pub inverse_sigma: f32,
    pub gamma: f32,
    pub beta: f32,
}

for_each_cpu! {
    /// Sum of the squared distances.
    pub(super) fn squared_distance(values: &[f32], from: f32) -> f32 {
        let mut lanes = [0.0f32; LANES];
        let chunks = values.chunks_exact(LANES);
        let rest: f32 = chunks.remainder().iter().map(|value| (value - from) * (value - from)).sum();
        for chunk in chunks {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane = (value - from).mul_add(value - from, *lane);
            }
        }
        sum_lanes(lanes) + rest
    }
}

for_each_cpu! {
    /// `gradient = scale · gradient + shift + (input - mean) · slope`.
    pub(super) fn through_statistics(gradient: &mut [f32], input: &[f32], scale: f32, shift: f32, mean: f32, slope: f32) {
        for (value, x) in gradient.iter_mut().zip(input) {
            *value = (x - mean).mul_add(slope, value.mul_add(scale, shift));
        }
    }
}

/// Forward and backward over one plane, for one activation.
macro_rules! fused {
    ($forward:ident, $backward:ident, $activation:path, $slope:path) => {
        for_each_cpu! {
            pub(in crate::ops::batch_norm) fn $forward(input: &[f32], output: &mut [f32], channel: Channel) {
                let scale = channel.gamma * channel.inverse_sigma;
                for (y, x) in output.iter_mut().zip(input) {
                    *y = $activation((x - channel.mean).mul_add(scale, channel.beta));
                }
            }
        }
        for_each_cpu! {
            /// Writes the gradient before the activation; returns its sum, and its sum weighted
            /// by the distance from the mean.
            pub(in crate::ops::batch_norm) fn $backward(
                input: &[f32],
                gradient: &[f32],
                bent: &mut [f32],
                channel: Channel,
            ) -> [f32; 2] {
                let scale = channel.gamma * channel.inverse_sigma;
                let slope_at = |x: f32| $slope((x - channel.mean).mul_add(scale, channel.beta));
                let (mut plain, mut centred) = ([0.0f32; LANES], [0.0f32; LANES]);
                let (bent, bent_rest) = bent.as_chunks_mut::<LANES>();
                let (input, input_rest) = input.as_chunks::<LANES>();
                let (gradient, gradient_rest) = gradient.as_chunks::<LANES>();
                for ((bent, x), g) in bent.iter_mut().zip(input).zip(gradient) {
                    for lane in 0..LANES {
                        bent[lane] = g[lane] * slope_at(x[lane]);
                        plain[lane] += bent[lane];
                        centred[lane] = bent[lane].mul_add(x[lane] - channel.mean, centred[lane]);
                    }
                }
                let rest = bent_rest.iter_mut().zip(input_rest).zip(gradient_rest);
                for (lane, ((bent, x), g)) in rest.enumerate() {
                    *bent = g * slope_at(*x);
                    plain[lane] += *bent;
                    centred[lane] = bent.mul_add(x - channel.mean, centred[lane]);
                }
                [sum_lanes(plain), sum_lanes(centred)]
            }
        }
    };
}

fused!(
    forward_plain,
    backward_plain,
    activation::identity,
    activation::identity_slope
);
fused!(
    forward_silu,
    backward_silu,
    activation::silu_of,
    activation::silu_slope
);
fused!(
    forward_relu,
    backward_relu,
    activation::relu_of,
    activation::relu_slope
);
