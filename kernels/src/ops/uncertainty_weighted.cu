// A loss weighed by a learnt uncertainty: one thread.
#include "common.cuh"

struct UncertaintyParameters {
    unsigned count; // 1
};

extern "C" __global__ void uncertainty_weighted_forward(const float* __restrict__ loss, const float* __restrict__ log_variance, float* __restrict__ y, UncertaintyParameters p) {
    if (first_element() < p.count) y[0] = expf(-log_variance[0]) * loss[0] + log_variance[0];
}

extern "C" __global__ void uncertainty_weighted_backward(const float* __restrict__ loss, const float* __restrict__ log_variance, const float* __restrict__ gradient, float* __restrict__ to_loss, float* __restrict__ to_log_variance, UncertaintyParameters p) {
    if (first_element() >= p.count) return;
    const float weight = expf(-log_variance[0]);
    to_loss[0] = gradient[0] * weight;
    to_log_variance[0] = gradient[0] * (1.0f - weight * loss[0]);
}
