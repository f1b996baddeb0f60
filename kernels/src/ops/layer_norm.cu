// Layer norm over the channels of each pixel. Blocks of 32 pixels by 8 threads that share their
// channels; neighbours in a warp are neighbours in memory.
#include "common.cuh"

struct LayerNormParameters {
    unsigned count;    // pixels of all samples
    unsigned channels;
    unsigned pixels;   // of a channel
    unsigned parts;    // blocks that share a channel's sums, at most 256
    float epsilon;
};

// Sum over the 8 threads of a pixel, in one order, the same bits in all of them. All threads of
// the block must call it.
__device__ __forceinline__ float pixel_sum(float value) {
    __shared__ float partial[8][32];
    __syncthreads(); // somebody may still read the last call's
    partial[threadIdx.y][threadIdx.x] = value;
    __syncthreads();
    float sum = 0.0f;
    for (unsigned i = 0; i < 8; ++i) sum += partial[i][threadIdx.x];
    return sum;
}

// Of the pixel's first channel.
__device__ __forceinline__ unsigned first_channel(unsigned pixel, const LayerNormParameters& p) {
    return pixel / p.pixels * p.channels * p.pixels + pixel % p.pixels;
}

// moments: mean and 1 / sigma of each pixel.
extern "C" __global__ void layer_norm_forward(const float* __restrict__ x, const float* __restrict__ gamma, const float* __restrict__ beta, float* __restrict__ y, float2* __restrict__ moments, LayerNormParameters p) {
    const unsigned pixel = blockIdx.x * 32u + threadIdx.x, end = pixel < p.count ? p.channels : 0u;
    const unsigned first = pixel < p.count ? first_channel(pixel, p) : 0u;
    float sum = 0.0f, squares = 0.0f;
    for (unsigned c = threadIdx.y; c < end; c += 8) sum += x[first + c * p.pixels];
    const float mean = pixel_sum(sum) / p.channels;
    for (unsigned c = threadIdx.y; c < end; c += 8) {
        const float distance = x[first + c * p.pixels] - mean;
        squares = fmaf(distance, distance, squares);
    }
    const float inverse = 1.0f / sqrtf(pixel_sum(squares) / p.channels + p.epsilon);
    for (unsigned c = threadIdx.y; c < end; c += 8)
        y[first + c * p.pixels] = (x[first + c * p.pixels] - mean) * inverse * gamma[c] + beta[c];
    if (end > 0 && threadIdx.y == 0) moments[pixel] = make_float2(mean, inverse);
}

// With n the normalised input and u = gamma · g: dx = (u - mean(u) - n mean(u n)) / sigma.
extern "C" __global__ void layer_norm_to_input(const float* __restrict__ x, const float* __restrict__ gamma, const float2* __restrict__ moments, const float* __restrict__ gradient, float* __restrict__ dx, LayerNormParameters p) {
    const unsigned pixel = blockIdx.x * 32u + threadIdx.x, end = pixel < p.count ? p.channels : 0u;
    const unsigned first = pixel < p.count ? first_channel(pixel, p) : 0u;
    const float2 moment = pixel < p.count ? moments[pixel] : make_float2(0.0f, 0.0f);
    float plain = 0.0f, along = 0.0f;
    for (unsigned c = threadIdx.y; c < end; c += 8) {
        const float u = gradient[first + c * p.pixels] * gamma[c];
        plain += u;
        along = fmaf(u, (x[first + c * p.pixels] - moment.x) * moment.y, along);
    }
    plain = pixel_sum(plain) / p.channels;
    along = pixel_sum(along) / p.channels;
    for (unsigned c = threadIdx.y; c < end; c += 8) {
        const float normal = (x[first + c * p.pixels] - moment.x) * moment.y;
        dx[first + c * p.pixels] = (gradient[first + c * p.pixels] * gamma[c] - plain - normal * along) * moment.y;
    }
}

// Grid: parts, channels. Each block's share of a channel's sums of g · n and of g.
extern "C" __global__ void layer_norm_sums(const float* __restrict__ x, const float2* __restrict__ moments, const float* __restrict__ gradient, double* __restrict__ partial, LayerNormParameters p) {
    float along = 0.0f, plain = 0.0f;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < p.count; i += p.parts * blockDim.x) {
        const unsigned here = first_channel(i, p) + blockIdx.y * p.pixels;
        const float2 moment = moments[i];
        along = fmaf(gradient[here], (x[here] - moment.x) * moment.y, along);
        plain += gradient[here];
    }
    const double all_along = block_sum(double(along)), all = block_sum(double(plain));
    if (threadIdx.x == 0) {
        partial[(blockIdx.y * p.parts + blockIdx.x) * 2] = all_along;
        partial[(blockIdx.y * p.parts + blockIdx.x) * 2 + 1] = all;
    }
}

// One block for each channel.
extern "C" __global__ void layer_norm_totals(const double* __restrict__ partial, float* __restrict__ to_gamma, float* __restrict__ to_beta, LayerNormParameters p) {
    const bool has = threadIdx.x < p.parts;
    const double* mine = partial + (blockIdx.x * p.parts + threadIdx.x) * 2;
    const double along = block_sum(has ? mine[0] : 0.0), plain = block_sum(has ? mine[1] : 0.0);
    if (threadIdx.x != 0) return;
    to_gamma[blockIdx.x] = float(along);
    to_beta[blockIdx.x] = float(plain);
}
