// Squeeze and excitation behind the mean pool: the gate of each plane, the planes times their
// gates, and the way back.
#include "common.cuh"

#define CHANNELS 256 // that a block of the gate kernel writes
#define SHARERS 4    // threads of a channel there
#define UNITS 16     // hidden ones that a block of the backward one finds
#define GROUPS 64    // of its threads, which share the channels

struct SqueezeParameters {
    unsigned samples;
    unsigned channels;
    unsigned hidden;
};

// Sum of f(i) over i = first, first + step, ... below count. K of them are always found, so that
// nothing stands between their loads: where there are fewer, the first again.
template <unsigned K, typename F>
__device__ __forceinline__ float strided_sum(unsigned first, unsigned step, unsigned count, F f) {
    float sum = 0.0f;
    for (unsigned i = first; i < count; i += K * step) {
        float values[K];
#pragma unroll
        for (unsigned k = 0; k < K; ++k) values[k] = f(i + k * step < count ? i + k * step : i);
#pragma unroll
        for (unsigned k = 0; k < K; ++k) sum += i + k * step < count ? values[k] : 0.0f;
    }
    return sum;
}

// gates [N, C] = sigmoid(expand · silu(hidden) + bias), and hidden [N, S] = reduce · means + bias.
// Grid: (CHANNELS at a time, samples). Every block finds all of its sample's hidden units, a warp
// for each, in shared memory; then each channel is found by SHARERS neighbours.
extern "C" __global__ void __launch_bounds__(1024, 1) squeeze_excite_gates(const float* __restrict__ means, const float* __restrict__ reduce, const float* __restrict__ reduce_bias, const float* __restrict__ expand, const float* __restrict__ expand_bias, float* __restrict__ hidden, float* __restrict__ gates, SqueezeParameters p) {
    EXTERN_SHARED(float, active);
    const unsigned sample = blockIdx.y, lane = threadIdx.x & 31u, warps = blockDim.x / 32u;
    const float* mean = means + sample * p.channels;
    for (unsigned unit = threadIdx.x / 32u; unit < p.hidden; unit += warps) {
        const float* weights = reduce + unit * p.channels;
        const float sum = warp_sum(strided_sum<12>(lane, 32, p.channels, [=](unsigned c) { return weights[c] * mean[c]; })) + reduce_bias[unit];
        if (lane != 0) continue;
        active[unit] = silu(sum);
        if (blockIdx.x == 0) hidden[sample * p.hidden + unit] = sum;
    }
    __syncthreads();
    const unsigned channel = blockIdx.x * CHANNELS + threadIdx.x / SHARERS, sharer = threadIdx.x % SHARERS;
    const float* weights = expand + channel * p.hidden;
    float sum = channel < p.channels ? strided_sum<12>(sharer, SHARERS, p.hidden, [=](unsigned unit) { return weights[unit] * active[unit]; }) : 0.0f;
    for (unsigned distance = 1; distance < SHARERS; distance *= 2) sum += __shfl_xor_sync(FULL_WARP, sum, distance);
    if (channel < p.channels && sharer == 0) gates[sample * p.channels + channel] = sigmoid(sum + expand_bias[channel]);
}

// The gradient before the sigmoid, of the one behind it.
__device__ __forceinline__ float excited(const float* to_gates, const float* gates, unsigned i) {
    return to_gates[i] * gates[i] * (1.0f - gates[i]);
}

// to_hidden [N, S]: the gradient before the SiLU. Grid: (UNITS at a time, samples); a thread adds
// up every GROUPS-th channel of one unit.
extern "C" __global__ void __launch_bounds__(1024, 1) squeeze_excite_to_hidden(const float* __restrict__ to_gates, const float* __restrict__ gates, const float* __restrict__ expand, const float* __restrict__ hidden, float* __restrict__ to_hidden, SqueezeParameters p) {
    __shared__ float shared[GROUPS][UNITS + 1];
    const unsigned sample = blockIdx.y, group = threadIdx.x / UNITS, within = threadIdx.x % UNITS, unit = blockIdx.x * UNITS + within;
    float sum = 0.0f;
    if (unit < p.hidden)
        sum = strided_sum<6>(group, GROUPS, p.channels, [=](unsigned c) { return excited(to_gates, gates, sample * p.channels + c) * expand[c * p.hidden + unit]; });
    shared[group][within] = sum;
    __syncthreads();
    if (group != 0 || unit >= p.hidden) return;
    sum = 0.0f;
    for (unsigned g = 0; g < GROUPS; ++g) sum += shared[g][within];
    to_hidden[sample * p.hidden + unit] = sum * silu_slope(hidden[sample * p.hidden + unit]);
}

// All other gradients of the two layers: of their weights and biases, and of the means. A thread
// finds one number at a time, summing over samples, or, for the means, over hidden units.
extern "C" __global__ void __launch_bounds__(256, 4) squeeze_excite_to_weights(const float* __restrict__ to_gates, const float* __restrict__ gates, const float* __restrict__ means, const float* __restrict__ hidden, const float* __restrict__ to_hidden, const float* __restrict__ reduce, float* __restrict__ to_means, float* __restrict__ to_reduce, float* __restrict__ to_reduce_bias, float* __restrict__ to_expand, float* __restrict__ to_expand_bias, SqueezeParameters p) {
    const unsigned weights = p.channels * p.hidden, of_means = p.samples * p.channels;
    const unsigned count = 2 * weights + of_means + p.channels + p.hidden;
    for (unsigned i = first_element(); i < count; i += element_stride()) {
        unsigned at = i;
        if (at < of_means) {
            const unsigned sample = at / p.channels, c = at % p.channels;
            to_means[at] = strided_sum<8>(0, 1, p.hidden, [=](unsigned unit) { return to_hidden[sample * p.hidden + unit] * reduce[unit * p.channels + c]; });
            continue;
        }
        at -= of_means;
        if (at < weights) {
            const unsigned unit = at / p.channels, c = at % p.channels;
            to_reduce[at] = strided_sum<8>(0, 1, p.samples, [=](unsigned n) { return to_hidden[n * p.hidden + unit] * means[n * p.channels + c]; });
            continue;
        }
        at -= weights;
        if (at < weights) {
            const unsigned c = at / p.hidden, unit = at % p.hidden;
            to_expand[at] = strided_sum<8>(0, 1, p.samples, [=](unsigned n) { return excited(to_gates, gates, n * p.channels + c) * silu(hidden[n * p.hidden + unit]); });
            continue;
        }
        at -= weights;
        if (at < p.channels) {
            to_expand_bias[at] = strided_sum<8>(0, 1, p.samples, [=](unsigned n) { return excited(to_gates, gates, n * p.channels + at); });
        } else {
            const unsigned unit = at - p.channels;
            to_reduce_bias[unit] = strided_sum<8>(0, 1, p.samples, [=](unsigned n) { return to_hidden[n * p.hidden + unit]; });
        }
    }
}

#define IN_FLIGHT 4 // packs of one image that a thread moves

struct PlaneParameters {
    unsigned count;   // packs of the images: four elements, or one
    unsigned wide;    // whether they are four
    Divider in_plane; // by packs of a plane
    float share;      // 1 / pixels
};

// Whether all packs of the block are there says `Full`: without a condition between them, their
// loads stay together.
template <unsigned W, bool Full>
__device__ __forceinline__ void scaled_packs(const float* __restrict__ x, const float* __restrict__ gates, const float* __restrict__ to_means, float* __restrict__ y, unsigned first, const PlaneParameters& p) {
    Pack<W> packs[IN_FLIGHT];
#pragma unroll
    for (unsigned k = 0; k < IN_FLIGHT; ++k)
        if (Full || first + k * blockDim.x < p.count) packs[k] = load_pack<W>(x, first + k * blockDim.x);
#pragma unroll
    for (unsigned k = 0; k < IN_FLIGHT; ++k) {
        const unsigned i = first + k * blockDim.x;
        if (!Full && i >= p.count) continue;
        const unsigned plane = quotient(i, p.in_plane);
        const float gate = gates[plane], more = to_means ? to_means[plane] * p.share : 0.0f;
        for (unsigned e = 0; e < W; ++e) packs[k].at[e] = to_means ? fmaf(packs[k].at[e], gate, more) : packs[k].at[e] * gate;
        store_pack(y, i, packs[k]);
    }
}

// A block writes IN_FLIGHT packs for each of its threads.
template <unsigned W>
__device__ __forceinline__ void scaled(const float* __restrict__ x, const float* __restrict__ gates, const float* __restrict__ to_means, float* __restrict__ y, const PlaneParameters& p) {
    const unsigned begin = blockIdx.x * IN_FLIGHT * blockDim.x;
    if (begin + IN_FLIGHT * blockDim.x <= p.count) scaled_packs<W, true>(x, gates, to_means, y, begin + threadIdx.x, p);
    else scaled_packs<W, false>(x, gates, to_means, y, begin + threadIdx.x, p);
}

extern "C" __global__ void __launch_bounds__(256, 4) squeeze_excite_scale(const float* __restrict__ x, const float* __restrict__ gates, float* __restrict__ y, PlaneParameters p) {
    if (p.wide) scaled<4>(x, gates, nullptr, y, p);
    else scaled<1>(x, gates, nullptr, y, p);
}

// Through the gates, and through the means that made them.
extern "C" __global__ void __launch_bounds__(256, 4) squeeze_excite_to_input(const float* __restrict__ gradient, const float* __restrict__ gates, const float* __restrict__ to_means, float* __restrict__ dx, PlaneParameters p) {
    if (p.wide) scaled<4>(gradient, gates, to_means, dx, p);
    else scaled<1>(gradient, gates, to_means, dx, p);
}

template <unsigned W>
__device__ __forceinline__ float product_sum(const float* __restrict__ a, const float* __restrict__ b, unsigned packs) {
    const unsigned first = blockIdx.x * packs;
    return plane_sum<W>(packs, [=](unsigned i) {
        Pack<W> x = load_pack<W>(a, first + i);
        const Pack<W> y = load_pack<W>(b, first + i);
        for (unsigned e = 0; e < W; ++e) x.at[e] *= y.at[e];
        return x;
    });
}

// One block for each plane.
extern "C" __global__ void __launch_bounds__(1024) squeeze_excite_products(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ sums, PlaneParameters p) {
    const unsigned packs = p.in_plane.divisor;
    const float sum = block_sum(p.wide ? product_sum<4>(a, b, packs) : product_sum<1>(a, b, packs));
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}
