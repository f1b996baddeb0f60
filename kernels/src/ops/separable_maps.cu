// Maps that are a column profile times a row profile, such as Gaussians, weighted for each channel.
#include "common.cuh"

struct SeparableParameters {
    unsigned count;    // elements of the output
    unsigned channels; // weights of a sample
    unsigned height;
    unsigned width;
    float least;       // a product of profiles below it is 0
};

// y[n, c, i, j] = weights[n, c] * (rows[n, i] * columns[n, j])
extern "C" __global__ void separable_maps(const float* __restrict__ columns, const float* __restrict__ rows, const float* __restrict__ weights, float* __restrict__ y, SeparableParameters p) {
    for (unsigned e = first_element(); e < p.count; e += element_stride()) {
        const unsigned j = e % p.width, i = e / p.width % p.height;
        const unsigned plane = e / p.width / p.height; // n * channels + c
        const unsigned sample = plane / p.channels;
        const float value = rows[sample * p.height + i] * columns[sample * p.width + j];
        y[e] = value < p.least ? 0.0f : weights[plane] * value;
    }
}
