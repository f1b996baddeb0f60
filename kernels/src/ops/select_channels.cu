// Picks channels by index; backward sums over the places where a channel was picked.
#include "common.cuh"

struct SelectParameters {
    unsigned count;    // elements written
    unsigned channels; // of the input
    unsigned selected; // of the output
    unsigned pixels;   // of a channel
};

extern "C" __global__ void select_channels_forward(const float* __restrict__ x, const unsigned* __restrict__ table, float* __restrict__ y, SelectParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) {
        const unsigned pixel = i % p.pixels, plane = i / p.pixels;
        const unsigned sample = plane / p.selected, channel = table[plane % p.selected];
        y[i] = x[(sample * p.channels + channel) * p.pixels + pixel];
    }
}

extern "C" __global__ void select_channels_backward(const float* __restrict__ gradient, const unsigned* __restrict__ table, float* __restrict__ dx, SelectParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) {
        const unsigned pixel = i % p.pixels, plane = i / p.pixels;
        const unsigned sample = plane / p.channels, channel = plane % p.channels;
        float sum = 0.0f;
        for (unsigned k = 0; k < p.selected; ++k)
            if (table[k] == channel) sum += gradient[(sample * p.selected + k) * p.pixels + pixel];
        dx[i] = sum;
    }
}
