// The last step of squeeze and excitation: each plane times its number.
#include "common.cuh"

struct PlaneParameters {
    unsigned count;  // elements of the images
    unsigned pixels; // of each plane
};

extern "C" __global__ void squeeze_excite_scale(const float* __restrict__ x, const float* __restrict__ factors, float* __restrict__ y, PlaneParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) y[i] = x[i] * factors[i / p.pixels];
}

// One block for each plane.
extern "C" __global__ void squeeze_excite_products(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ sums, PlaneParameters p) {
    const unsigned first = blockIdx.x * p.pixels;
    float sum = 0.0f;
    for (unsigned i = threadIdx.x; i < p.pixels; i += blockDim.x) sum = fmaf(a[first + i], b[first + i], sum);
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}
