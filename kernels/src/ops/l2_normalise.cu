// Unit length over the channels of each pixel: one thread for each pixel.
#include "common.cuh"

struct NormaliseParameters {
    unsigned count;    // pixels of all samples
    unsigned channels;
    unsigned pixels;   // of a channel
    float epsilon;     // shorter vectors are divided by it
};

__device__ __forceinline__ unsigned first_channel(unsigned i, const NormaliseParameters& p) {
    return i / p.pixels * p.channels * p.pixels + i % p.pixels;
}

extern "C" __global__ void l2_normalise_forward(const float* __restrict__ x, float* __restrict__ y, float* __restrict__ norms, NormaliseParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) {
        const unsigned first = first_channel(i, p), end = first + p.channels * p.pixels;
        float sum = 0.0f;
        for (unsigned k = first; k < end; k += p.pixels) sum += x[k] * x[k];
        const float norm = sqrtf(sum), divisor = norm < p.epsilon ? p.epsilon : norm;
        for (unsigned k = first; k < end; k += p.pixels) y[k] = x[k] / divisor;
        norms[i] = norm;
    }
}

// d(x / |x|) = (g - y (y · g)) / |x|; a vector shorter than epsilon was divided by a constant.
extern "C" __global__ void l2_normalise_backward(const float* __restrict__ y, const float* __restrict__ norms, const float* __restrict__ gradient, float* __restrict__ dx, NormaliseParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) {
        const unsigned first = first_channel(i, p), end = first + p.channels * p.pixels;
        const float norm = norms[i], divisor = norm < p.epsilon ? p.epsilon : norm;
        float along = 0.0f;
        if (norm > p.epsilon)
            for (unsigned k = first; k < end; k += p.pixels) along += y[k] * gradient[k];
        for (unsigned k = first; k < end; k += p.pixels) dx[k] = (gradient[k] - y[k] * along) / divisor;
    }
}
