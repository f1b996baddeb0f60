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
    unsigned wide;         // whether a pack is four pixels, else one
    Divider in_map;        // by packs of a map of pixels
    Divider in_scores;     // by orientations
    Divider in_channels;   // by channels
    unsigned tiles;        // blocks of a map that find norms
};

// 1 / sqrt(x), and 0 for 0: scores against nothing are 0.
__device__ __forceinline__ float inverse_root(float squared) { return squared == 0.0f ? 0.0f : 1.0f / sqrtf(squared); }

#define ROLLED 1024 // numbers of a block of rolled_matching_roll

// Grid: (ROLLED at a time, samples). The descriptor as each orientation sees it, zero outside the
// window, and, by the first block, its inverse length.
extern "C" __global__ void rolled_matching_roll(const float* __restrict__ ground, const unsigned* __restrict__ starts, float* __restrict__ rolled, float* __restrict__ inverse, MatchingParameters p) {
    ground += blockIdx.y * p.length;
    rolled += blockIdx.y * p.orientations * p.channels;
    const unsigned end = min((blockIdx.x + 1) * ROLLED, p.orientations * p.channels);
    for (unsigned i = blockIdx.x * ROLLED + threadIdx.x; i < end; i += blockDim.x) {
        const unsigned r = quotient(i, p.in_channels), far = i - r * p.channels + p.channels - starts[r];
        const unsigned j = far < p.channels ? far : far - p.channels;
        rolled[i] = j < p.length ? ground[j] : 0.0f;
    }
    if (blockIdx.x != 0) return;
    double squares = 0.0;
    for (unsigned j = threadIdx.x; j < p.length; j += blockDim.x) squares += double(ground[j]) * ground[j];
    squares = block_sum(squares);
    if (threadIdx.x == 0) inverse[blockIdx.y] = inverse_root(float(squares));
}

// Blocks of a sample's window: threads along x are neighbouring pixels, threads along y share the
// window's channels, of which each has several in flight: where there are fewer, the first again.
extern "C" __global__ void __launch_bounds__(256) rolled_matching_norms(const float* __restrict__ aerial, const unsigned* __restrict__ windows, float* __restrict__ inverse, MatchingParameters p) {
    constexpr unsigned K = 8;
    const unsigned map = blockIdx.x / p.tiles, pixel = blockIdx.x % p.tiles * blockDim.x + threadIdx.x;
    const unsigned sample = map / p.windows, start = windows[map % p.windows];
    const float* here = aerial + sample * p.channels * p.pixels + min(pixel, p.pixels - 1);
    float squares = 0.0f;
    for (unsigned j = threadIdx.y; j < p.length; j += K * blockDim.y) {
        float values[K];
#pragma unroll
        for (unsigned k = 0; k < K; ++k) {
            const unsigned far = start + (j + k * blockDim.y < p.length ? j + k * blockDim.y : j);
            values[k] = here[(far < p.channels ? far : far - p.channels) * p.pixels];
        }
#pragma unroll
        for (unsigned k = 0; k < K; ++k) squares = fmaf(values[k], j + k * blockDim.y < p.length ? values[k] : 0.0f, squares);
    }
    squares = sum_along_y(squares);
    if (threadIdx.y == 0 && pixel < p.pixels) inverse[map * p.pixels + pixel] = inverse_root(squares);
}

template <unsigned W>
__device__ __forceinline__ void scale(const float* __restrict__ x, const float* __restrict__ inverse, const float* __restrict__ inverse_ground, const unsigned* __restrict__ window_of, float* __restrict__ y, const MatchingParameters& p) {
    const unsigned packs = p.in_map.divisor, count = p.samples * p.orientations * packs;
#pragma unroll 2
    for (unsigned i = first_element(); i < count; i += element_stride()) {
        const unsigned map = quotient(i, p.in_map), sample = quotient(map, p.in_scores);
        const unsigned window = sample * p.windows + window_of[map - sample * p.orientations];
        Pack<W> value = load_pack<W>(x, i);
        const Pack<W> of_aerial = load_pack<W>(inverse, window * packs + i - map * packs);
        const float of_ground = inverse_ground[sample];
        for (unsigned e = 0; e < W; ++e) value.at[e] *= of_ground * of_aerial.at[e];
        store_pack(y, i, value);
    }
}

extern "C" __global__ void rolled_matching_scale(const float* __restrict__ x, const float* __restrict__ inverse, const float* __restrict__ inverse_ground, const unsigned* __restrict__ window_of, float* __restrict__ y, MatchingParameters p) {
    if (p.wide) scale<4>(x, inverse, inverse_ground, window_of, y, p);
    else scale<1>(x, inverse, inverse_ground, window_of, y, p);
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

template <unsigned W>
__device__ __forceinline__ void to_aerial(const float* __restrict__ aerial, const float* __restrict__ pull, const unsigned* __restrict__ windows, float* __restrict__ found, const MatchingParameters& p) {
    const unsigned packs = p.in_map.divisor, count = p.samples * p.channels * packs;
    for (unsigned i = first_element(); i < count; i += element_stride()) {
        const unsigned map = quotient(i, p.in_map), sample = quotient(map, p.in_channels);
        const unsigned channel = map - sample * p.channels, here = i - map * packs;
        const Pack<W> value = load_pack<W>(aerial, i);
        Pack<W> result = load_pack<W>(found, i), sum = {};
        for (unsigned window = 0; window < p.windows; ++window) {
            const unsigned far = channel + p.channels - windows[window];
            if ((far < p.channels ? far : far - p.channels) >= p.length) continue;
            const Pack<W> more = load_pack<W>(pull, (sample * p.windows + window) * packs + here);
            for (unsigned e = 0; e < W; ++e) sum.at[e] += more.at[e];
        }
        for (unsigned e = 0; e < W; ++e) result.at[e] -= sum.at[e] * value.at[e];
        store_pack(found, i, result);
    }
}

// found -= pull · aerial, for every window that holds the channel.
extern "C" __global__ void rolled_matching_to_aerial(const float* __restrict__ aerial, const float* __restrict__ pull, const unsigned* __restrict__ windows, float* __restrict__ found, MatchingParameters p) {
    if (p.wide) to_aerial<4>(aerial, pull, windows, found, p);
    else to_aerial<1>(aerial, pull, windows, found, p);
}

// Grid: (a thread for each number of the descriptor, samples); products [N, R, C] of the scaled
// gradient with the aerial channels.
extern "C" __global__ void rolled_matching_to_ground(const float* __restrict__ ground, const float* __restrict__ products, const unsigned* __restrict__ starts, const double* __restrict__ along, const float* __restrict__ inverse_ground, float* __restrict__ found, MatchingParameters p) {
    const unsigned sample = blockIdx.y, j = blockIdx.x * blockDim.x + threadIdx.x;
    const double inverse = inverse_ground[sample];
    const double pull = block_sum(threadIdx.x < p.parts ? along[sample * p.parts + threadIdx.x] : 0.0) * inverse * inverse;
    if (j >= p.length) return;
    double sum = 0.0;
#pragma unroll 8
    for (unsigned r = 0; r < p.orientations; ++r) {
        const unsigned far = starts[r] + j;
        sum += products[(sample * p.orientations + r) * p.channels + (far < p.channels ? far : far - p.channels)];
    }
    found[sample * p.length + j] = float(sum - pull * ground[sample * p.length + j]);
}
