// Adds up partial sums: one block.
#include "common.cuh"

struct TotalParameters {
    unsigned count;
    float scale;
};

extern "C" __global__ void total(const double* __restrict__ partial, float* __restrict__ sum, TotalParameters p) {
    double value = 0.0;
    for (unsigned i = threadIdx.x; i < p.count; i += blockDim.x) value += partial[i];
    value = block_sum(value);
    if (threadIdx.x == 0) sum[0] = float(value * p.scale);
}
