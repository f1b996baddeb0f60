// The copies of a transposed convolution: between [N, O, 2, 2, H / 2, W / 2], what the matrix
// product makes, and the image [N, O, H, W].
#include "common.cuh"

struct SquareParameters {
    unsigned count;
    unsigned outputs; // channels
    unsigned height;  // of the image
    unsigned width;
};

// The product's element for element i of the image.
__device__ __forceinline__ unsigned in_product(unsigned i, const SquareParameters& p) {
    const unsigned x = i % p.width, y = i / p.width % p.height, plane = i / p.width / p.height;
    const unsigned corner = y % 2 * 2 + x % 2;
    return ((plane * 4 + corner) * (p.height / 2) + y / 2) * (p.width / 2) + x / 2;
}

extern "C" __global__ void conv_transpose2x2_spread(const float* __restrict__ product, const float* __restrict__ bias, float* __restrict__ y, SquareParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride())
        y[i] = product[in_product(i, p)] + bias[i / (p.width * p.height) % p.outputs];
}

extern "C" __global__ void conv_transpose2x2_gather(const float* __restrict__ gradient, const float*, float* __restrict__ product, SquareParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) product[in_product(i, p)] = gradient[i];
}
