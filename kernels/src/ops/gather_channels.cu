// Picks channels for each sample on its own.
#include "common.cuh"

struct GatherParameters {
    unsigned count;    // elements of what is written
    unsigned pixels;   // of a channel
    unsigned channels; // of a sample of the input
    unsigned picked;   // channels of a sample of the output
};

// Numbers of channels come as floats, so that they can be an input of a recorded step.
__device__ __forceinline__ unsigned channel_of(float number, const GatherParameters& p) {
    return min(unsigned(fmaxf(number, 0.0f)), p.channels - 1u);
}

// y[n, r] = x[n, lists[n, r]]
extern "C" __global__ void gather_channels_forward(const float* __restrict__ x, const float* __restrict__ lists, float* __restrict__ y, GatherParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) {
        const unsigned row = i / p.pixels; // n * picked + r
        const unsigned sample = row / p.picked;
        y[i] = x[(sample * p.channels + channel_of(lists[row], p)) * p.pixels + i % p.pixels];
    }
}

// dx[n, c] = sum of gradient[n, r] over the r whose channel is c, in their order.
extern "C" __global__ void gather_channels_backward(const float* __restrict__ gradient, const float* __restrict__ lists, float* __restrict__ dx, GatherParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) {
        const unsigned sample = i / p.pixels / p.channels, channel = i / p.pixels % p.channels;
        float sum = 0.0f;
        for (unsigned r = 0; r < p.picked; ++r) {
            const unsigned row = sample * p.picked + r;
            if (channel_of(lists[row], p) == channel) sum += gradient[row * p.pixels + i % p.pixels];
        }
        dx[i] = sum;
    }
}
