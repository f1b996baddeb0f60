// The sum of absolute differences.
#include "common.cuh"

struct AbsoluteParameters {
    unsigned count;
    float scale;
};

extern "C" __global__ void absolute_error_partial(const float* __restrict__ x, const float* __restrict__ target, double* __restrict__ partial, AbsoluteParameters p) {
    double sum = 0.0;
    for (unsigned i = first_element(); i < p.count; i += element_stride()) sum += fabs(double(x[i]) - double(target[i]));
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

extern "C" __global__ void absolute_error_backward(const float* __restrict__ x, const float* __restrict__ target, const float* __restrict__ gradient, float* __restrict__ dx, AbsoluteParameters p) {
    const float scale = p.scale * gradient[0];
    for (unsigned i = first_element(); i < p.count; i += element_stride()) dx[i] = x[i] > target[i] ? scale : x[i] < target[i] ? -scale : 0.0f;
}
