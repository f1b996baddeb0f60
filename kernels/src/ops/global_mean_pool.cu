// Mean of each channel over the whole image: one block for each plane.
#include "common.cuh"

struct MeanPoolParameters {
    unsigned count;  // elements of the images
    unsigned pixels; // of each plane
    float share;     // 1 / pixels
};

extern "C" __global__ void global_mean_pool_forward(const float* __restrict__ x, float* __restrict__ y, MeanPoolParameters p) {
    const float* plane = x + blockIdx.x * p.pixels;
    float sum = 0.0f;
    for (unsigned i = threadIdx.x; i < p.pixels; i += blockDim.x) sum += plane[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) y[blockIdx.x] = sum * p.share;
}

extern "C" __global__ void global_mean_pool_backward(const float* __restrict__ gradient, float* __restrict__ dx, MeanPoolParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) dx[i] = gradient[i / p.pixels] * p.share;
}
