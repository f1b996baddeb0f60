// Picks channels for each sample on its own.
#include "common.cuh"

struct GatherParameters {
    unsigned count;    // elements of what is written
    unsigned pixels;   // of a channel
    unsigned channels; // of a sample of the input
    unsigned picked;   // channels of a sample of the output
};

// y[n, r] = x[n, lists[n, r]]
extern "C" __global__ void gather_channels_forward(const float* __restrict__ x, const unsigned* __restrict__ lists, float* __restrict__ y, GatherParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) {
        const unsigned row = i / p.pixels; // n * picked + r
        const unsigned sample = row / p.picked;
        y[i] = x[(sample * p.channels + lists[row]) * p.pixels + i % p.pixels];
    }
}

// dx[n, c] = sum of gradient[n, r] over the r whose channel is c, in their order.
extern "C" __global__ void gather_channels_backward(const float* __restrict__ gradient, const unsigned* __restrict__ lists, float* __restrict__ dx, GatherParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) {
        const unsigned sample = i / p.pixels / p.channels, channel = i / p.pixels % p.channels;
        float sum = 0.0f;
        for (unsigned r = 0; r < p.picked; ++r) {
            const unsigned row = sample * p.picked + r;
            if (lists[row] == channel) sum += gradient[row * p.pixels + i % p.pixels];
        }
        dx[i] = sum;
    }
}
