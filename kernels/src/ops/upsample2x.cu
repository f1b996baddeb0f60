// Nearest-neighbour enlargement to twice the side.
#include "common.cuh"

struct UpsampleParameters {
    unsigned count; // elements of the small images
    unsigned width; // of them
};

// Left upper one of the four elements that belong to element i.
__device__ __forceinline__ unsigned first_of_four(unsigned i, unsigned width) { return i / width * 4u * width + i % width * 2u; }

extern "C" __global__ void upsample2x_forward(const float* __restrict__ x, float* __restrict__ y, UpsampleParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) {
        const unsigned to = first_of_four(i, p.width);
        const float2 pair = make_float2(x[i], x[i]);
        *reinterpret_cast<float2*>(y + to) = pair;
        *reinterpret_cast<float2*>(y + to + 2u * p.width) = pair;
    }
}

extern "C" __global__ void upsample2x_backward(const float* __restrict__ gradient, float* __restrict__ dx, UpsampleParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) {
        const unsigned from = first_of_four(i, p.width);
        const float2 above = *reinterpret_cast<const float2*>(gradient + from);
        const float2 below = *reinterpret_cast<const float2*>(gradient + from + 2u * p.width);
        dx[i] = (above.x + above.y) + (below.x + below.y);
    }
}
