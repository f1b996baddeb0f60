// Sums of squares in a window that slides over a map: squares over the channels, then sums along
// rows and columns. Backward slides the same window over the gradient.
#include "common.cuh"

struct EnergyParameters {
    unsigned count;    // elements written
    unsigned channels;
    unsigned pixels;   // of a channel
};

extern "C" __global__ void window_energy_squares(const float* __restrict__ x, float* __restrict__ squares, EnergyParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) {
        const float* here = x + i / p.pixels * p.channels * p.pixels + i % p.pixels;
        double sum = 0.0;
        for (unsigned channel = 0; channel < p.channels; ++channel) sum += double(here[channel * p.pixels]) * here[channel * p.pixels];
        squares[i] = float(sum);
    }
}

struct SlideParameters {
    unsigned count;       // elements written
    unsigned inner;       // elements from one place along the axis to the next
    unsigned length;      // places along the axis, read
    unsigned out_length;  // and written
    unsigned behind;      // places read before the one written
    unsigned window;      // places read
    float factor;
};

// y at a place of an axis: the sum over a window that ends at the axis's ends.
extern "C" __global__ void window_energy_slide(const float* __restrict__ x, float* __restrict__ y, SlideParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) {
        const unsigned place = i / p.inner % p.out_length;
        const unsigned first = place < p.behind ? 0u : place - p.behind;
        const unsigned last = min(place + p.window - p.behind, p.length);
        const float* line = x + i / p.inner / p.out_length * p.length * p.inner + i % p.inner;
        double sum = 0.0;
        for (unsigned at = first; at < last; ++at) sum += line[at * p.inner];
        y[i] = float(sum * p.factor);
    }
}

// dx = x · (twice the sum of the gradients of the windows that hold the pixel)
extern "C" __global__ void window_energy_to_input(const float* __restrict__ x, const float* __restrict__ twice, float* __restrict__ dx, EnergyParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride())
        dx[i] = x[i] * twice[i / p.pixels / p.channels * p.pixels + i % p.pixels];
}
