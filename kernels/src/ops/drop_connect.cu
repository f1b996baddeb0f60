// Each sample times its own factor; 0 for a dropped one, whatever it held.
#include "common.cuh"

struct DropParameters {
    unsigned count;
    unsigned length; // elements of a sample
};

extern "C" __global__ void drop_connect_scale(const float* __restrict__ x, const float* __restrict__ factors, float* __restrict__ y, DropParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) {
        const float factor = factors[i / p.length];
        y[i] = factor > 0.0f ? factor * x[i] : 0.0f;
    }
}
