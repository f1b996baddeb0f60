// Cosine similarity of a descriptor with rolled windows of channels: the norms, and what they
// multiply. Sums of products over channels and pixels are matrix products.
#include "common.cuh"

struct MatchingParameters {
    unsigned samples;
    unsigned orientations;
    unsigned windows;      // whose norms differ
    unsigned channels;
    unsigned length;       // of the descriptor and the window
    unsigned pixels;
    unsigned parts;        // blocks that share a sample's scores, at most 256
};

// 1 / sqrt(x), and 0 for 0: scores against nothing are 0.
__device__ __forceinline__ float inverse_root(float squared) { return squared == 0.0f ? 0.0f : 1.0f / sqrtf(squared); }

// One block for each sample: the descriptor as each orientation sees it, zero outside the window,
// and its inverse length.
extern "C" __global__ void rolled_matching_roll(const float* __restrict__ ground, const unsigned* __restrict__ starts, float* __restrict__ rolled, float* __restrict__ inverse, MatchingParameters p) {
    ground += blockIdx.x * p.length;
    rolled += blockIdx.x * p.orientations * p.channels;
    for (unsigned i = threadIdx.x; i < p.orientations * p.channels; i += blockDim.x) {
        const unsigned j = (i % p.channels + p.channels - starts[i / p.channels]) % p.channels;
        rolled[i] = j < p.length ? ground[j] : 0.0f;
    }
    double squares = 0.0;
    for (unsigned j = threadIdx.x; j < p.length; j += blockDim.x) squares += double(ground[j]) * ground[j];
    squares = block_sum(squares);
    if (threadIdx.x == 0) inverse[blockIdx.x] = inverse_root(float(squares));
}

extern "C" __global__ void rolled_matching_norms(const float* __restrict__ aerial, const unsigned* __restrict__ windows, float* __restrict__ inverse, MatchingParameters p) {
    const unsigned count = p.samples * p.windows * p.pixels;
    for (unsigned i = first_element(); i < count; i += element_stride()) {
        const unsigned pixel = i % p.pixels, window = i / p.pixels % p.windows, sample = i / p.pixels / p.windows;
        const float* here = aerial + sample * p.channels * p.pixels + pixel;
        unsigned channel = windows[window];
        float squares = 0.0f;
        for (unsigned j = 0; j < p.length; ++j) {
            const float x = here[channel * p.pixels];
            squares = fmaf(x, x, squares);
            channel = channel + 1 < p.channels ? channel + 1 : 0;
        }
        inverse[i] = inverse_root(squares);
    }
}

extern "C" __global__ void rolled_matching_scale(const float* __restrict__ x, const float* __restrict__ inverse, const float* __restrict__ inverse_ground, const unsigned* __restrict__ window_of, float* __restrict__ y, MatchingParameters p) {
    const unsigned count = p.samples * p.orientations * p.pixels;
    for (unsigned i = first_element(); i < count; i += element_stride()) {
        const unsigned pixel = i % p.pixels, orientation = i / p.pixels % p.orientations, sample = i / p.pixels / p.orientations;
        y[i] = x[i] * (inverse_ground[sample] * inverse[(sample * p.windows + window_of[orientation]) * p.pixels + pixel]);
    }
}

// Each block's share of the sum of gradient · score of its sample.
extern "C" __global__ void rolled_matching_along(const float* __restrict__ gradient, const float* __restrict__ scores, double* __restrict__ along, MatchingParameters p) {
    const unsigned count = p.orientations * p.pixels, first = blockIdx.y * count;
    double sum = 0.0;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += p.parts * blockDim.x)
        sum += double(gradient[first + i]) * scores[first + i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) along[blockIdx.y * p.parts + blockIdx.x] = sum;
}

extern "C" __global__ void rolled_matching_pull(const float* __restrict__ gradient, const float* __restrict__ scores, const float* __restrict__ inverse, const unsigned* __restrict__ window_of, float* __restrict__ pull, MatchingParameters p) {
    const unsigned count = p.samples * p.windows * p.pixels;
    for (unsigned i = first_element(); i < count; i += element_stride()) {
        const unsigned pixel = i % p.pixels, window = i / p.pixels % p.windows, sample = i / p.pixels / p.windows;
        float sum = 0.0f;
        for (unsigned r = 0; r < p.orientations; ++r) {
            if (window_of[r] != window) continue;
            const unsigned here = (sample * p.orientations + r) * p.pixels + pixel;
            sum = fmaf(gradient[here], scores[here], sum);
        }
        pull[i] = sum * inverse[i] * inverse[i];
    }
}

// found -= pull · aerial, for every window that holds the channel.
extern "C" __global__ void rolled_matching_to_aerial(const float* __restrict__ aerial, const float* __restrict__ pull, const unsigned* __restrict__ windows, float* __restrict__ found, MatchingParameters p) {
    const unsigned count = p.samples * p.channels * p.pixels;
    for (unsigned i = first_element(); i < count; i += element_stride()) {
        const unsigned pixel = i % p.pixels, channel = i / p.pixels % p.channels, sample = i / p.pixels / p.channels;
        float sum = 0.0f;
        for (unsigned window = 0; window < p.windows; ++window)
            if ((channel + p.channels - windows[window]) % p.channels < p.length) sum += pull[(sample * p.windows + window) * p.pixels + pixel];
        found[i] -= sum * aerial[i];
    }
}

// One block for each sample; products [N, R, C] of the scaled gradient with the aerial channels.
extern "C" __global__ void rolled_matching_to_ground(const float* __restrict__ ground, const float* __restrict__ products, const unsigned* __restrict__ starts, const double* __restrict__ along, const float* __restrict__ inverse_ground, float* __restrict__ found, MatchingParameters p) {
    const unsigned sample = blockIdx.x;
    const double inverse = inverse_ground[sample];
    const double pull = block_sum(threadIdx.x < p.parts ? along[sample * p.parts + threadIdx.x] : 0.0) * inverse * inverse;
    for (unsigned j = threadIdx.x; j < p.length; j += blockDim.x) {
        double sum = 0.0;
        for (unsigned r = 0; r < p.orientations; ++r)
            sum += products[(sample * p.orientations + r) * p.channels + (starts[r] + j) % p.channels];
        found[sample * p.length + j] = float(sum - pull * ground[sample * p.length + j]);
    }
}
