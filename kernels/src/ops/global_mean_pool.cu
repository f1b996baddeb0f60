// Mean of each channel over the whole image: one block for each plane.
#include "common.cuh"

struct MeanPoolParameters {
    unsigned count;   // packs of the images: four elements, or one
    unsigned wide;    // whether they are four
    Divider in_plane; // by packs of a plane
    float share;      // 1 / pixels
};

extern "C" __global__ void __launch_bounds__(1024) global_mean_pool_forward(const float* __restrict__ x, float* __restrict__ y, MeanPoolParameters p) {
    const unsigned packs = p.in_plane.divisor;
    float sum = p.wide ? plane_sum<4>(packs, [=](unsigned i) { return load_pack<4>(x, blockIdx.x * packs + i); })
                       : plane_sum<1>(packs, [=](unsigned i) { return load_pack<1>(x, blockIdx.x * packs + i); });
    sum = block_sum(sum);
    if (threadIdx.x == 0) y[blockIdx.x] = sum * p.share;
}

extern "C" __global__ void global_mean_pool_backward(const float* __restrict__ gradient, float* __restrict__ dx, MeanPoolParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) {
        const float value = gradient[quotient(i, p.in_plane)] * p.share;
        if (p.wide) store_pack<4>(dx, i, {{value, value, value, value}});
        else store_pack<1>(dx, i, {{value}});
    }
}
