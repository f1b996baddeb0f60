// Attention within square windows. Grid of all but the table's: windows, samples · heads; a block's
// warps share the window's tokens.
#include "common.cuh"

struct WindowAttentionParameters {
    unsigned samples;
    unsigned heads;
    unsigned depth;   // channels of a head
    unsigned width;   // of the image
    unsigned pixels;
    unsigned side;    // of a window
    unsigned windows; // of an image
    float scale;
};

// Pixel of a token of this block's window.
__device__ __forceinline__ unsigned pixel_of(unsigned token, const WindowAttentionParameters& p) {
    const unsigned across = p.width / p.side;
    const unsigned row = blockIdx.x / across * p.side + token / p.side, column = blockIdx.x % across * p.side + token % p.side;
    return row * p.width + column;
}

// Of this block's shares, [tokens, tokens].
__device__ __forceinline__ unsigned first_share(unsigned tokens, const WindowAttentionParameters& p) {
    return (blockIdx.y * p.windows + blockIdx.x) * tokens * tokens;
}

// One number for each token, in all threads of the warp: sum over the head's channels of a at
// `pixel` times b at `other`.
__device__ __forceinline__ float dot(const float* a, unsigned pixel, const float* b, unsigned other, const WindowAttentionParameters& p) {
    float sum = 0.0f;
    for (unsigned d = 0; d < p.depth; ++d) sum = fmaf(a[d * p.pixels + pixel], b[d * p.pixels + other], sum);
    return sum;
}

// to[d, pixel] = factor · Σ shares[token] · from[d, token], by a warp.
__device__ __forceinline__ void mix(const float* shares, const float* from, float* to, unsigned pixel, float factor, const WindowAttentionParameters& p) {
    const unsigned lane = threadIdx.x & 31u, tokens = p.side * p.side;
    for (unsigned d = 0; d < p.depth; ++d) {
        float sum = 0.0f;
        for (unsigned j = lane; j < tokens; j += 32) sum = fmaf(shares[j], from[d * p.pixels + pixel_of(j, p)], sum);
        sum = warp_sum(sum);
        if (lane == 0) to[d * p.pixels + pixel] = factor * sum;
    }
}

// A warp for each query. Lanes read back only the shares that they wrote.
extern "C" __global__ void window_attention_forward(const float* __restrict__ query, const float* __restrict__ key, const float* __restrict__ value, const float* __restrict__ table, const float* __restrict__ mask, float* shares, float* __restrict__ output, WindowAttentionParameters p) {
    const unsigned lane = threadIdx.x & 31u, tokens = p.side * p.side, head = blockIdx.y % p.heads;
    const unsigned channel = blockIdx.y * p.depth * p.pixels, span = 2u * p.side - 1u;
    for (unsigned i = threadIdx.x >> 5; i < tokens; i += blockDim.x >> 5) {
        float* row = shares + first_share(tokens, p) + i * tokens;
        float most = -INFINITY, sum = 0.0f;
        for (unsigned j = lane; j < tokens; j += 32) {
            const unsigned down = i / p.side + p.side - 1u - j / p.side, across = i % p.side + p.side - 1u - j % p.side;
            float score = p.scale * dot(query + channel, pixel_of(i, p), key + channel, pixel_of(j, p), p);
            score += table[(down * span + across) * p.heads + head];
            if (mask != nullptr && mask[blockIdx.y / p.heads * p.pixels + pixel_of(j, p)] == 0.0f) score -= 100.0f;
            row[j] = score;
            most = score > most ? score : most;
        }
        most = warp_max(most);
        for (unsigned j = lane; j < tokens; j += 32) sum += row[j] = expf(row[j] - most);
        const float inverse = 1.0f / warp_sum(sum);
        for (unsigned j = lane; j < tokens; j += 32) row[j] *= inverse;
        mix(row, value + channel, output + channel, pixel_of(i, p), 1.0f, p);
    }
}

// A warp for each query. With p the shares and g the gradient: dp = g · v, ds = p (dp - Σ p dp).
extern "C" __global__ void window_attention_to_query(const float* __restrict__ key, const float* __restrict__ value, const float* __restrict__ shares, const float* __restrict__ gradient, float* slopes, float* __restrict__ to_query, WindowAttentionParameters p) {
    const unsigned lane = threadIdx.x & 31u, tokens = p.side * p.side, channel = blockIdx.y * p.depth * p.pixels;
    for (unsigned i = threadIdx.x >> 5; i < tokens; i += blockDim.x >> 5) {
        const unsigned first = first_share(tokens, p) + i * tokens;
        float mean = 0.0f;
        for (unsigned j = lane; j < tokens; j += 32) {
            const float d = dot(gradient + channel, pixel_of(i, p), value + channel, pixel_of(j, p), p);
            slopes[first + j] = d;
            mean = fmaf(d, shares[first + j], mean);
        }
        mean = warp_sum(mean);
        for (unsigned j = lane; j < tokens; j += 32) slopes[first + j] = shares[first + j] * (slopes[first + j] - mean);
        mix(slopes + first, key + channel, to_query + channel, pixel_of(i, p), p.scale, p);
    }
}

// A thread for each channel and key.
extern "C" __global__ void window_attention_to_key(const float* __restrict__ query, const float* __restrict__ shares, const float* __restrict__ slopes, const float* __restrict__ gradient, float* __restrict__ to_key, float* __restrict__ to_value, WindowAttentionParameters p) {
    const unsigned tokens = p.side * p.side, first = first_share(tokens, p);
    for (unsigned e = threadIdx.x; e < p.depth * tokens; e += blockDim.x) {
        const unsigned j = e % tokens, channel = (blockIdx.y * p.depth + e / tokens) * p.pixels;
        float of_key = 0.0f, of_value = 0.0f;
        for (unsigned i = 0; i < tokens; ++i) {
            of_key = fmaf(query[channel + pixel_of(i, p)], slopes[first + i * tokens + j], of_key);
            of_value = fmaf(gradient[channel + pixel_of(i, p)], shares[first + i * tokens + j], of_value);
        }
        to_key[channel + pixel_of(j, p)] = p.scale * of_key;
        to_value[channel + pixel_of(j, p)] = of_value;
    }
}

// Grid: rows of the table, heads. All pairs of tokens of all windows that lie so far apart.
extern "C" __global__ void window_attention_to_table(const float* __restrict__ slopes, float* __restrict__ to_table, WindowAttentionParameters p) {
    const unsigned tokens = p.side * p.side, span = 2u * p.side - 1u, last = p.side - 1u;
    const int down = int(blockIdx.x / span) - int(last), across = int(blockIdx.x % span) - int(last);
    const unsigned rows = p.side - abs(down), columns = p.side - abs(across);
    double sum = 0.0;
    for (unsigned e = threadIdx.x; e < p.samples * p.windows * rows * columns; e += blockDim.x) {
        const unsigned window = e / columns / rows % p.windows, sample = e / columns / rows / p.windows;
        const unsigned y = e / columns % rows + max(down, 0), x = e % columns + max(across, 0);
        const unsigned query = y * p.side + x, key = (y - down) * p.side + x - across;
        sum += slopes[(((sample * p.heads + blockIdx.y) * p.windows + window) * tokens + query) * tokens + key];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) to_table[blockIdx.x * p.heads + blockIdx.y] = float(sum);
}
