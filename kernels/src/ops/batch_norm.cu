// Batch normalisation with the activation that follows it.
#include "common.cuh"

struct BatchNormParameters {
    unsigned samples;
    unsigned channels;
    unsigned pixels;     // of a plane
    unsigned parts;      // blocks that share a channel, at most 256
    float momentum;
    float epsilon;
    unsigned activation; // 0 nothing, 1 SiLU, 2 ReLU
    unsigned own;        // whether the batch's own statistics normalised
};

// As they lie in memory: mean, 1 / sigma, gamma, beta.
__device__ __forceinline__ float4 channel_at(const float* channels, unsigned channel) {
    return reinterpret_cast<const float4*>(channels)[channel];
}

__device__ __forceinline__ float before_activation(float x, const float4& c) { return fmaf(x - c.x, c.z * c.y, c.w); }

__device__ __forceinline__ float activated(float x, unsigned activation) {
    return activation == 1 ? silu(x) : activation == 2 ? relu(x) : x;
}

__device__ __forceinline__ float slope(float x, unsigned activation) {
    return activation == 1 ? silu_slope(x) : activation == 2 ? relu_slope(x) : 1.0f;
}

// Element of the images for element i of a channel.
__device__ __forceinline__ unsigned in_channel(unsigned i, unsigned channel, const BatchNormParameters& p) {
    return (i / p.pixels * p.channels + channel) * p.pixels + i % p.pixels;
}

// Grid: parts, channels. Sums of the distances from the channel's first element and of their
// squares: near the mean, so that f32 keeps its digits.
extern "C" __global__ void batch_norm_moments(const float* __restrict__ x, double* __restrict__ partial, BatchNormParameters p) {
    const unsigned channel = blockIdx.y, count = p.samples * p.pixels;
    const float reference = x[channel * p.pixels];
    float sum = 0.0f, squares = 0.0f;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += p.parts * blockDim.x) {
        const float distance = x[in_channel(i, channel, p)] - reference;
        sum += distance;
        squares = fmaf(distance, distance, squares);
    }
    const double all = block_sum(double(sum)), all_squares = block_sum(double(squares));
    if (threadIdx.x == 0) {
        partial[(channel * p.parts + blockIdx.x) * 2] = all;
        partial[(channel * p.parts + blockIdx.x) * 2 + 1] = all_squares;
    }
}

// One block for each channel.
extern "C" __global__ void batch_norm_statistics(const float* __restrict__ x, const double* __restrict__ partial, const float* __restrict__ gamma, const float* __restrict__ beta, float* __restrict__ running_mean, float* __restrict__ running_variance, float* __restrict__ channels, BatchNormParameters p) {
    const unsigned channel = blockIdx.x;
    const bool has = threadIdx.x < p.parts;
    const double* mine = partial + (channel * p.parts + threadIdx.x) * 2;
    const double sum = block_sum(has ? mine[0] : 0.0), squares = block_sum(has ? mine[1] : 0.0);
    if (threadIdx.x != 0) return;
    const double count = double(p.samples) * p.pixels, distance = sum / count;
    const float mean = float(x[channel * p.pixels] + distance);
    const double spread = squares / count - distance * distance;
    const float variance = float(spread > 0.0 || spread != spread ? spread : 0.0);
    running_mean[channel] += p.momentum * (mean - running_mean[channel]);
    running_variance[channel] += p.momentum * (float(variance * count / (count - 1.0)) - running_variance[channel]);
    reinterpret_cast<float4*>(channels)[channel] = make_float4(mean, 1.0f / sqrtf(variance + p.epsilon), gamma[channel], beta[channel]);
}

extern "C" __global__ void batch_norm_frozen(const float* __restrict__ mean, const float* __restrict__ variance, const float* __restrict__ gamma, const float* __restrict__ beta, float* __restrict__ channels, BatchNormParameters p) {
    for (unsigned c = first_element(); c < p.channels; c += element_stride())
        reinterpret_cast<float4*>(channels)[c] = make_float4(mean[c], 1.0f / sqrtf(variance[c] + p.epsilon), gamma[c], beta[c]);
}

extern "C" __global__ void batch_norm_forward(const float* __restrict__ x, const float* __restrict__ channels, float* __restrict__ y, BatchNormParameters p) {
    const unsigned count = p.samples * p.channels * p.pixels;
    for (unsigned i = first_element(); i < count; i += element_stride())
        y[i] = activated(before_activation(x[i], channel_at(channels, i / p.pixels % p.channels)), p.activation);
}

// Grid: parts, channels. Sums of the gradient before the activation, plain and times the distance
// from the mean.
extern "C" __global__ void batch_norm_backward_sums(const float* __restrict__ x, const float* __restrict__ gradient, const float* __restrict__ channels, double* __restrict__ partial, BatchNormParameters p) {
    const unsigned channel = blockIdx.y, count = p.samples * p.pixels;
    const float4 c = channel_at(channels, channel);
    float plain = 0.0f, centred = 0.0f;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += p.parts * blockDim.x) {
        const unsigned here = in_channel(i, channel, p);
        const float bent = gradient[here] * slope(before_activation(x[here], c), p.activation);
        plain += bent;
        centred = fmaf(bent, x[here] - c.x, centred);
    }
    const double all = block_sum(double(plain)), all_centred = block_sum(double(centred));
    if (threadIdx.x == 0) {
        partial[(channel * p.parts + blockIdx.x) * 2] = all;
        partial[(channel * p.parts + blockIdx.x) * 2 + 1] = all_centred;
    }
}

// One block for each channel.
extern "C" __global__ void batch_norm_backward_totals(const double* __restrict__ partial, const float* __restrict__ channels, float* __restrict__ to_gamma, float* __restrict__ to_beta, BatchNormParameters p) {
    const unsigned channel = blockIdx.x;
    const bool has = threadIdx.x < p.parts;
    const double* mine = partial + (channel * p.parts + threadIdx.x) * 2;
    const double plain = block_sum(has ? mine[0] : 0.0), centred = block_sum(has ? mine[1] : 0.0);
    if (threadIdx.x != 0) return;
    to_gamma[channel] = float(centred * channel_at(channels, channel).y);
    to_beta[channel] = float(plain);
}

extern "C" __global__ void batch_norm_to_input(const float* __restrict__ x, const float* __restrict__ gradient, const float* __restrict__ channels, const float* __restrict__ to_gamma, const float* __restrict__ to_beta, float* __restrict__ dx, BatchNormParameters p) {
    const unsigned count = p.samples * p.channels * p.pixels;
    const float share = 1.0f / (float(p.samples) * p.pixels);
    for (unsigned i = first_element(); i < count; i += element_stride()) {
        const unsigned channel = i / p.pixels % p.channels;
        const float4 c = channel_at(channels, channel);
        const float scale = c.z * c.y;
        float value = scale * gradient[i] * slope(before_activation(x[i], c), p.activation);
        // The statistics moved with the input too.
        if (p.own) value -= scale * share * (to_beta[channel] + (x[i] - c.x) * c.y * to_gamma[channel]);
        dx[i] = value;
    }
}
