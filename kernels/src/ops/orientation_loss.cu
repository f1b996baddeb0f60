// Squared error of the orientation field, weighted pixel by pixel.
#include "common.cuh"

struct OrientationParameters {
    unsigned count;  // elements of the field
    unsigned pixels; // of a plane
    float scale;     // 2 / N
};

extern "C" __global__ void orientation_loss_partial(const float* __restrict__ field, const float* __restrict__ weight, const float* __restrict__ target, double* __restrict__ partial, OrientationParameters p) {
    double sum = 0.0;
    for (unsigned i = first_element(); i < p.count; i += element_stride()) {
        const unsigned plane = i / p.pixels;
        const double difference = field[i] - target[plane];
        sum += weight[plane / 2 * p.pixels + i % p.pixels] * difference * difference;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

extern "C" __global__ void orientation_loss_backward(const float* __restrict__ field, const float* __restrict__ weight, const float* __restrict__ target, const float* __restrict__ gradient, float* __restrict__ dx, OrientationParameters p) {
    const float scale = p.scale * gradient[0];
    for (unsigned i = first_element(); i < p.count; i += element_stride()) {
        const unsigned plane = i / p.pixels;
        dx[i] = scale * weight[plane / 2 * p.pixels + i % p.pixels] * (field[i] - target[plane]);
    }
}
