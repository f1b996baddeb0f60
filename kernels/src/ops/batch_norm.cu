// Batch normalisation with the activation that follows it.
//
// A channel whose elements fit the registers of one block takes one launch each way, which reads
// it once. A longer one is summed by several blocks, and the images are written by other kernels.
#include "common.cuh"

#define IN_FLIGHT 4 // packs that a thread has asked for before it uses the first

struct BatchNormParameters {
    unsigned samples;
    unsigned channels;
    unsigned pixels;     // of a plane
    unsigned wide;       // whether a pack is four elements, else one
    Divider in_plane;    // by packs of a plane
    Divider in_sample;   // by channels
    unsigned parts;      // blocks that share a channel, at most 256
    float momentum;
    float epsilon;
    unsigned activation; // 0 nothing, 1 SiLU, 2 ReLU
    float share;         // 1 / elements of a channel where its own statistics normalised, else 0
};

struct Plain {
    static __device__ __forceinline__ float value(float x) { return x; }
    static __device__ __forceinline__ float slope(float) { return 1.0f; }
};
struct Silu {
    static __device__ __forceinline__ float value(float x) { return silu(x); }
    static __device__ __forceinline__ float slope(float x) { return silu_slope(x); }
};
struct Relu {
    static __device__ __forceinline__ float value(float x) { return relu(x); }
    static __device__ __forceinline__ float slope(float x) { return relu_slope(x); }
};
// body<W, A>(...) with what the parameters say: packs of W elements, activation A.
#define SPECIALISED(body, ...)                                    \
    if (p.wide) {                                                 \
        if (p.activation == 1) body<4, Silu>(__VA_ARGS__);        \
        else if (p.activation == 2) body<4, Relu>(__VA_ARGS__);   \
        else body<4, Plain>(__VA_ARGS__);                         \
    } else {                                                      \
        if (p.activation == 1) body<1, Silu>(__VA_ARGS__);        \
        else if (p.activation == 2) body<1, Relu>(__VA_ARGS__);   \
        else body<1, Plain>(__VA_ARGS__);                         \
    }

// As they lie in memory: mean, 1 / sigma, gamma, beta.
__device__ __forceinline__ float4 channel_at(const float* channels, unsigned channel) {
    return reinterpret_cast<const float4*>(channels)[channel];
}

__device__ __forceinline__ float before_activation(float x, const float4& c) { return fmaf(x - c.x, c.z * c.y, c.w); }

__device__ __forceinline__ unsigned packs_of_channel(const BatchNormParameters& p) { return p.samples * p.in_plane.divisor; }

__device__ __forceinline__ unsigned packs_of_images(const BatchNormParameters& p) { return packs_of_channel(p) * p.channels; }

// Pack of the images for pack i of a channel.
__device__ __forceinline__ unsigned in_channel(unsigned i, unsigned channel, const BatchNormParameters& p) {
    const unsigned sample = quotient(i, p.in_plane), plane = sample * p.channels + channel;
    return (plane - sample) * p.in_plane.divisor + i;
}

// Channel of a pack of the images.
__device__ __forceinline__ unsigned channel_of(unsigned i, const BatchNormParameters& p) {
    const unsigned plane = quotient(i, p.in_plane);
    return plane - quotient(plane, p.in_sample) * p.channels;
}

// What a channel is normalised with, from the sums over it of the distances from `reference` and
// of their squares; moves the running statistics. For one thread of the channel.
__device__ __forceinline__ float4 settled(float reference, double sum, double squares, float gamma, float beta, float* running_mean, float* running_variance, unsigned channel, const BatchNormParameters& p) {
    const double count = double(p.samples) * p.pixels, distance = sum / count;
    const float mean = float(reference + distance);
    const double spread = squares / count - distance * distance;
    const float variance = float(spread > 0.0 || spread != spread ? spread : 0.0);
    running_mean[channel] += p.momentum * (mean - running_mean[channel]);
    running_variance[channel] += p.momentum * (float(variance * count / (count - 1.0)) - running_variance[channel]);
    return make_float4(mean, 1.0f / sqrtf(variance + p.epsilon), gamma, beta);
}

// The sums are those of the distances from the channel's first element and of their squares: near
// the mean, so that f32 keeps its digits.
template <unsigned W>
__device__ __forceinline__ void add_moments(const Pack<W>& pack, float reference, float& sum, float& squares) {
    for (unsigned e = 0; e < W; ++e) {
        const float distance = pack.at[e] - reference;
        sum += distance;
        squares = fmaf(distance, distance, squares);
    }
}

template <unsigned K>
struct Kept {};

// One block for each channel, of which a thread keeps K packs.
template <unsigned W, typename A, unsigned K>
__device__ __forceinline__ void forward_whole(Kept<K>, float4& shared_channel, const float* __restrict__ x, const float* __restrict__ gamma, const float* __restrict__ beta, float* __restrict__ running_mean, float* __restrict__ running_variance, float* __restrict__ channels, float* __restrict__ y, const BatchNormParameters& p) {
    const unsigned channel = blockIdx.x, count = packs_of_channel(p);
    const float reference = x[channel * p.pixels];
    Pack<W> kept[K];
#pragma unroll
    for (unsigned k = 0; k < K; ++k) {
        const unsigned i = threadIdx.x + k * blockDim.x;
        if (i < count) kept[k] = load_pack<W>(x, in_channel(i, channel, p));
    }
    float sum = 0.0f, squares = 0.0f;
#pragma unroll
    for (unsigned k = 0; k < K; ++k)
        if (threadIdx.x + k * blockDim.x < count) add_moments(kept[k], reference, sum, squares);
    double all = sum, all_squares = squares;
    block_sums(all, all_squares);
    if (threadIdx.x == 0) {
        shared_channel = settled(reference, all, all_squares, gamma[channel], beta[channel], running_mean, running_variance, channel, p);
        reinterpret_cast<float4*>(channels)[channel] = shared_channel;
    }
    __syncthreads();
    const float4 c = shared_channel;
#pragma unroll
    for (unsigned k = 0; k < K; ++k) {
        const unsigned i = threadIdx.x + k * blockDim.x;
        if (i >= count) continue;
        for (unsigned e = 0; e < W; ++e) kept[k].at[e] = A::value(before_activation(kept[k].at[e], c));
        store_pack(y, in_channel(i, channel, p), kept[k]);
    }
}

extern "C" __global__ void __launch_bounds__(1024) batch_norm_forward_whole(const float* __restrict__ x, const float* __restrict__ gamma, const float* __restrict__ beta, float* __restrict__ running_mean, float* __restrict__ running_variance, float* __restrict__ channels, float* __restrict__ y, BatchNormParameters p) {
    __shared__ float4 shared_channel;
    SPECIALISED(forward_whole, Kept<4>(), shared_channel, x, gamma, beta, running_mean, running_variance, channels, y, p)
}

// Blackwell's compiler has no registers left for eight.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
#define KEPT_LONG 6
#else
#define KEPT_LONG 8
#endif

extern "C" __global__ void __launch_bounds__(1024) batch_norm_forward_long(const float* __restrict__ x, const float* __restrict__ gamma, const float* __restrict__ beta, float* __restrict__ running_mean, float* __restrict__ running_variance, float* __restrict__ channels, float* __restrict__ y, BatchNormParameters p) {
    __shared__ float4 shared_channel;
    SPECIALISED(forward_whole, Kept<KEPT_LONG>(), shared_channel, x, gamma, beta, running_mean, running_variance, channels, y, p)
}

// Adds the moments of a part.
template <unsigned W>
__device__ __forceinline__ void moments_of_part(const float* __restrict__ x, unsigned channel, float reference, float& sum, float& squares, const BatchNormParameters& p) {
    const unsigned count = packs_of_channel(p), stride = p.parts * blockDim.x;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += IN_FLIGHT * stride) {
        Pack<W> packs[IN_FLIGHT];
#pragma unroll
        for (unsigned k = 0; k < IN_FLIGHT; ++k)
            if (i + k * stride < count) packs[k] = load_pack<W>(x, in_channel(i + k * stride, channel, p));
#pragma unroll
        for (unsigned k = 0; k < IN_FLIGHT; ++k)
            if (i + k * stride < count) add_moments(packs[k], reference, sum, squares);
    }
}

// Grid: parts, channels.
extern "C" __global__ void __launch_bounds__(256) batch_norm_moments(const float* __restrict__ x, double* __restrict__ partial, BatchNormParameters p) {
    const unsigned channel = blockIdx.y;
    const float reference = x[channel * p.pixels];
    float sum = 0.0f, squares = 0.0f;
    if (p.wide) moments_of_part<4>(x, channel, reference, sum, squares, p);
    else moments_of_part<1>(x, channel, reference, sum, squares, p);
    double all = sum, all_squares = squares;
    block_sums(all, all_squares);
    if (threadIdx.x == 0) {
        partial[(channel * p.parts + blockIdx.x) * 2] = all;
        partial[(channel * p.parts + blockIdx.x) * 2 + 1] = all_squares;
    }
}

// Sums over the parts of a channel, by a thread for each of at most 256.
__device__ __forceinline__ void sum_parts(const double* partial, unsigned channel, double& a, double& b, const BatchNormParameters& p) {
    const bool has = threadIdx.x < p.parts;
    const double* mine = partial + (channel * p.parts + threadIdx.x) * 2;
    a = has ? mine[0] : 0.0, b = has ? mine[1] : 0.0;
    block_sums(a, b);
}

// One block for each channel.
extern "C" __global__ void batch_norm_statistics(const float* __restrict__ x, const double* __restrict__ partial, const float* __restrict__ gamma, const float* __restrict__ beta, float* __restrict__ running_mean, float* __restrict__ running_variance, float* __restrict__ channels, BatchNormParameters p) {
    const unsigned channel = blockIdx.x;
    double sum, squares;
    sum_parts(partial, channel, sum, squares, p);
    if (threadIdx.x == 0)
        reinterpret_cast<float4*>(channels)[channel] = settled(x[channel * p.pixels], sum, squares, gamma[channel], beta[channel], running_mean, running_variance, channel, p);
}

extern "C" __global__ void batch_norm_frozen(const float* __restrict__ mean, const float* __restrict__ variance, const float* __restrict__ gamma, const float* __restrict__ beta, float* __restrict__ channels, BatchNormParameters p) {
    for (unsigned c = first_element(); c < p.channels; c += element_stride())
        reinterpret_cast<float4*>(channels)[c] = make_float4(mean[c], 1.0f / sqrtf(variance[c] + p.epsilon), gamma[c], beta[c]);
}

// Whether all packs of the block are there says `Full`: without a condition between them, their
// loads stay together.
template <unsigned W, typename A, bool Full>
__device__ __forceinline__ void forward_packs(const float* __restrict__ x, const float* __restrict__ channels, float* __restrict__ y, unsigned first, unsigned count, const BatchNormParameters& p) {
    Pack<W> packs[IN_FLIGHT];
#pragma unroll
    for (unsigned k = 0; k < IN_FLIGHT; ++k)
        if (Full || first + k * blockDim.x < count) packs[k] = load_pack<W>(x, first + k * blockDim.x);
#pragma unroll
    for (unsigned k = 0; k < IN_FLIGHT; ++k) {
        const unsigned i = first + k * blockDim.x;
        if (!Full && i >= count) continue;
        const float4 c = channel_at(channels, channel_of(i, p));
        for (unsigned e = 0; e < W; ++e) packs[k].at[e] = A::value(before_activation(packs[k].at[e], c));
        store_pack(y, i, packs[k]);
    }
}

// A block writes IN_FLIGHT packs for each of its threads.
template <unsigned W, typename A>
__device__ __forceinline__ void forward(const float* __restrict__ x, const float* __restrict__ channels, float* __restrict__ y, const BatchNormParameters& p) {
    const unsigned count = packs_of_images(p), begin = blockIdx.x * IN_FLIGHT * blockDim.x;
    if (begin + IN_FLIGHT * blockDim.x <= count) forward_packs<W, A, true>(x, channels, y, begin + threadIdx.x, count, p);
    else forward_packs<W, A, false>(x, channels, y, begin + threadIdx.x, count, p);
}

extern "C" __global__ void __launch_bounds__(256, 4) batch_norm_forward(const float* __restrict__ x, const float* __restrict__ channels, float* __restrict__ y, BatchNormParameters p) {
    SPECIALISED(forward, x, channels, y, p)
}

// Gradient of an element: scale · (gradient before the activation), and, as the statistics moved
// with the input too, - shift - slope · (distance from the mean).
struct ToInput {
    float scale, shift, slope;
};

__device__ __forceinline__ ToInput to_input_of(const float4& c, float to_gamma, float to_beta, const BatchNormParameters& p) {
    const float scale = c.z * c.y, share = scale * p.share;
    if (p.share == 0.0f) return {scale, 0.0f, 0.0f}; // whatever the sums are
    return {scale, share * to_beta, share * c.y * to_gamma};
}

// The sums are those of the gradient before the activation, plain and times the distance from the
// mean. One block for each channel, of which a thread keeps four packs.
template <unsigned W, typename A>
__device__ __forceinline__ void backward_whole(const float* __restrict__ x, const float* __restrict__ gradient, const float* __restrict__ channels, float* __restrict__ to_gamma, float* __restrict__ to_beta, float* __restrict__ dx, const BatchNormParameters& p) {
    constexpr unsigned K = 4;
    const unsigned channel = blockIdx.x, count = packs_of_channel(p);
    const float4 c = channel_at(channels, channel);
    Pack<W> far[K], bent[K];
#pragma unroll
    for (unsigned k = 0; k < K; ++k) {
        const unsigned i = threadIdx.x + k * blockDim.x;
        if (i >= count) continue;
        const unsigned here = in_channel(i, channel, p);
        far[k] = load_pack<W>(x, here);
        bent[k] = load_pack<W>(gradient, here);
    }
    float plain = 0.0f, centred = 0.0f;
#pragma unroll
    for (unsigned k = 0; k < K; ++k) {
        if (threadIdx.x + k * blockDim.x >= count) continue;
        for (unsigned e = 0; e < W; ++e) {
            bent[k].at[e] *= A::slope(before_activation(far[k].at[e], c));
            far[k].at[e] -= c.x;
            plain += bent[k].at[e];
            centred = fmaf(bent[k].at[e], far[k].at[e], centred);
        }
    }
    double all = plain, all_centred = centred;
    block_sums(all, all_centred);
    const float gamma_gradient = float(all_centred * c.y), beta_gradient = float(all);
    if (threadIdx.x == 0) {
        to_gamma[channel] = gamma_gradient;
        to_beta[channel] = beta_gradient;
    }
    const ToInput t = to_input_of(c, gamma_gradient, beta_gradient, p);
#pragma unroll
    for (unsigned k = 0; k < K; ++k) {
        const unsigned i = threadIdx.x + k * blockDim.x;
        if (i >= count) continue;
        for (unsigned e = 0; e < W; ++e) bent[k].at[e] = t.scale * bent[k].at[e] - fmaf(far[k].at[e], t.slope, t.shift);
        store_pack(dx, in_channel(i, channel, p), bent[k]);
    }
}

extern "C" __global__ void __launch_bounds__(1024) batch_norm_backward_whole(const float* __restrict__ x, const float* __restrict__ gradient, const float* __restrict__ channels, float* __restrict__ to_gamma, float* __restrict__ to_beta, float* __restrict__ dx, BatchNormParameters p) {
    SPECIALISED(backward_whole, x, gradient, channels, to_gamma, to_beta, dx, p)
}

// Adds the sums of a part.
template <unsigned W, typename A>
__device__ __forceinline__ void sums_of_part(const float* __restrict__ x, const float* __restrict__ gradient, unsigned channel, const float4& c, float& plain, float& centred, const BatchNormParameters& p) {
    const unsigned count = packs_of_channel(p), stride = p.parts * blockDim.x;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += IN_FLIGHT * stride) {
        Pack<W> inputs[IN_FLIGHT], gradients[IN_FLIGHT];
#pragma unroll
        for (unsigned k = 0; k < IN_FLIGHT; ++k) {
            if (i + k * stride >= count) continue;
            const unsigned here = in_channel(i + k * stride, channel, p);
            inputs[k] = load_pack<W>(x, here);
            gradients[k] = load_pack<W>(gradient, here);
        }
#pragma unroll
        for (unsigned k = 0; k < IN_FLIGHT; ++k) {
            if (i + k * stride >= count) continue;
            for (unsigned e = 0; e < W; ++e) {
                const float bent = gradients[k].at[e] * A::slope(before_activation(inputs[k].at[e], c));
                plain += bent;
                centred = fmaf(bent, inputs[k].at[e] - c.x, centred);
            }
        }
    }
}

// Grid: parts, channels.
extern "C" __global__ void __launch_bounds__(256) batch_norm_backward_sums(const float* __restrict__ x, const float* __restrict__ gradient, const float* __restrict__ channels, double* __restrict__ partial, BatchNormParameters p) {
    const unsigned channel = blockIdx.y;
    const float4 c = channel_at(channels, channel);
    float plain = 0.0f, centred = 0.0f;
    SPECIALISED(sums_of_part, x, gradient, channel, c, plain, centred, p)
    double all = plain, all_centred = centred;
    block_sums(all, all_centred);
    if (threadIdx.x == 0) {
        partial[(channel * p.parts + blockIdx.x) * 2] = all;
        partial[(channel * p.parts + blockIdx.x) * 2 + 1] = all_centred;
    }
}

// One block for each channel.
extern "C" __global__ void batch_norm_backward_totals(const double* __restrict__ partial, const float* __restrict__ channels, float* __restrict__ to_gamma, float* __restrict__ to_beta, BatchNormParameters p) {
    const unsigned channel = blockIdx.x;
    double plain, centred;
    sum_parts(partial, channel, plain, centred, p);
    if (threadIdx.x != 0) return;
    to_gamma[channel] = float(centred * channel_at(channels, channel).y);
    to_beta[channel] = float(plain);
}

// A block writes two packs for each of its threads.
template <unsigned W, typename A>
__device__ __forceinline__ void to_input(const float* __restrict__ x, const float* __restrict__ gradient, const float* __restrict__ channels, const float* __restrict__ to_gamma, const float* __restrict__ to_beta, float* __restrict__ dx, const BatchNormParameters& p) {
    constexpr unsigned K = IN_FLIGHT / 2;
    const unsigned count = packs_of_images(p), first = blockIdx.x * K * blockDim.x + threadIdx.x;
    Pack<W> inputs[K], gradients[K];
#pragma unroll
    for (unsigned k = 0; k < K; ++k) {
        if (first + k * blockDim.x >= count) continue;
        inputs[k] = load_pack<W>(x, first + k * blockDim.x);
        gradients[k] = load_pack<W>(gradient, first + k * blockDim.x);
    }
#pragma unroll
    for (unsigned k = 0; k < K; ++k) {
        const unsigned i = first + k * blockDim.x;
        if (i >= count) continue;
        const unsigned channel = channel_of(i, p);
        const float4 c = channel_at(channels, channel);
        const ToInput t = to_input_of(c, to_gamma[channel], to_beta[channel], p);
        for (unsigned e = 0; e < W; ++e) {
            const float bent = gradients[k].at[e] * A::slope(before_activation(inputs[k].at[e], c));
            gradients[k].at[e] = t.scale * bent - fmaf(inputs[k].at[e] - c.x, t.slope, t.shift);
        }
        store_pack(dx, i, gradients[k]);
    }
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_to_input(const float* __restrict__ x, const float* __restrict__ gradient, const float* __restrict__ channels, const float* __restrict__ to_gamma, const float* __restrict__ to_beta, float* __restrict__ dx, BatchNormParameters p) {
    SPECIALISED(to_input, x, gradient, channels, to_gamma, to_beta, dx, p)
}
