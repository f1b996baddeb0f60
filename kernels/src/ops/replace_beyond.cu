// Replaces what reaches a limit.
#include "common.cuh"

struct ReplaceParameters {
    unsigned count;
};

extern "C" __global__ void replace_beyond_forward(const float* __restrict__ x, const float* __restrict__ limits, const float* __restrict__ replacements, float* __restrict__ y, ReplaceParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) y[i] = fabsf(x[i]) >= limits[i] ? replacements[i] : x[i];
}

// What was replaced carries no gradient on.
extern "C" __global__ void replace_beyond_backward(const float* __restrict__ x, const float* __restrict__ limits, const float* __restrict__ gradient, float* __restrict__ dx, ReplaceParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) dx[i] = fabsf(x[i]) >= limits[i] ? 0.0f : gradient[i];
}
