// The largest channel of each pixel, and which it was.
#include "common.cuh"

struct MaxChannelsParameters {
    unsigned count;    // elements written
    unsigned channels;
    unsigned pixels;   // of a channel
};

extern "C" __global__ void max_channels_forward(const float* __restrict__ x, float* __restrict__ y, unsigned* __restrict__ winners, MaxChannelsParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) {
        const float* here = x + i / p.pixels * p.channels * p.pixels + i % p.pixels;
        float best = here[0];
        unsigned winner = 0;
        for (unsigned channel = 1; channel < p.channels; ++channel) {
            const float value = here[channel * p.pixels];
            if (value > best || value != value) {
                best = value;
                winner = channel;
            }
        }
        y[i] = best;
        winners[i] = winner;
    }
}

extern "C" __global__ void max_channels_backward(const float* __restrict__ gradient, const unsigned* __restrict__ winners, float* __restrict__ dx, MaxChannelsParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) {
        const unsigned plane = i / p.pixels;
        const unsigned pixel = plane / p.channels * p.pixels + i % p.pixels;
        dx[i] = winners[pixel] == plane % p.channels ? gradient[pixel] : 0.0f;
    }
}
