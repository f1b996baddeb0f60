// Every pixel of a map attends to all rows of two neighbouring columns of an image.
//
// Keys and values are transposed first, so that the channels of a token and the tokens of a column are
// contiguous: [samples · heads, columns, rows, depth].
#include "common.cuh"

struct ColumnAttentionParameters {
    unsigned count;   // elements of the image
    unsigned heads;
    unsigned depth;   // channels of a head
    unsigned rows;    // of the image
    unsigned columns;
    unsigned pixels;  // of the map
    float scale;
};

extern "C" __global__ void column_attention_transpose(const float* __restrict__ image, float* __restrict__ transposed, ColumnAttentionParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) {
        const unsigned d = i % p.depth, row = i / p.depth % p.rows, column = i / p.depth / p.rows % p.columns;
        transposed[i] = image[((i / p.depth / p.rows / p.columns * p.depth + d) * p.rows + row) * p.columns + column];
    }
}

// The column on one side (0 or 1) of a place, inside the image; NaN is column 0.
__device__ __forceinline__ unsigned neighbour(float place, unsigned side, unsigned columns) {
    const float at = floorf(place) + side;
    return at > 0.0f ? at < columns - 1u ? unsigned(at) : columns - 1u : 0u;
}

// First element of a pixel's token in a transposed image.
__device__ __forceinline__ unsigned token_of(unsigned token, float place, const ColumnAttentionParameters& p) {
    const unsigned side = token < p.rows ? 0u : 1u;
    return ((blockIdx.y * p.columns + neighbour(place, side, p.columns)) * p.rows + token - side * p.rows) * p.depth;
}

// Sum over the head's channels of a map at `pixel` times a token.
__device__ __forceinline__ float dot(const float* map, unsigned pixel, const float* token, const ColumnAttentionParameters& p) {
    float sum = 0.0f;
    for (unsigned d = 0; d < p.depth; ++d) sum = fmaf(map[d * p.pixels + pixel], token[d], sum);
    return sum;
}

// to[d, pixel] = Σ shares[token] · from[token, d], a thread for each channel.
__device__ __forceinline__ void mix(const float* shares, const float* from, float* to, unsigned pixel, float place, const ColumnAttentionParameters& p) {
    for (unsigned d = threadIdx.x & 31u; d < p.depth; d += 32) {
        float sum = 0.0f;
        for (unsigned token = 0; token < 2u * p.rows; ++token) sum = fmaf(shares[token], from[token_of(token, place, p) + d], sum);
        to[d * p.pixels + pixel] = sum;
    }
}

// Grid of the next two: blocks of 8 pixels, samples · heads. A warp for each pixel.
extern "C" __global__ void column_attention_forward(const float* __restrict__ query, const float* __restrict__ key, const float* __restrict__ value, const float* __restrict__ places, float* shares, float* __restrict__ output, ColumnAttentionParameters p) {
    const unsigned lane = threadIdx.x & 31u, pixel = blockIdx.x * 8u + (threadIdx.x >> 5), tokens = 2u * p.rows;
    if (pixel >= p.pixels) return;
    const float place = places[blockIdx.y / p.heads * p.pixels + pixel];
    const unsigned channel = blockIdx.y * p.depth * p.pixels;
    float* row = shares + (blockIdx.y * p.pixels + pixel) * tokens;
    float most = -INFINITY, sum = 0.0f;
    for (unsigned t = lane; t < tokens; t += 32) {
        const float score = p.scale * dot(query + channel, pixel, key + token_of(t, place, p), p);
        row[t] = score;
        most = score > most ? score : most;
    }
    most = warp_max(most);
    for (unsigned t = lane; t < tokens; t += 32) sum += row[t] = expf(row[t] - most);
    const float inverse = 1.0f / warp_sum(sum);
    for (unsigned t = lane; t < tokens; t += 32) row[t] *= inverse;
    __syncwarp();
    mix(row, value, output + channel, pixel, place, p);
}

// With p the shares and g the gradient: dp = g · v, ds = p (dp - Σ p dp) / √d.
extern "C" __global__ void column_attention_to_query(const float* __restrict__ key, const float* __restrict__ value, const float* __restrict__ places, const float* __restrict__ shares, const float* __restrict__ gradient, float* slopes, float* __restrict__ to_query, ColumnAttentionParameters p) {
    const unsigned lane = threadIdx.x & 31u, pixel = blockIdx.x * 8u + (threadIdx.x >> 5), tokens = 2u * p.rows;
    if (pixel >= p.pixels) return;
    const float place = places[blockIdx.y / p.heads * p.pixels + pixel];
    const unsigned channel = blockIdx.y * p.depth * p.pixels, first = (blockIdx.y * p.pixels + pixel) * tokens;
    float mean = 0.0f;
    for (unsigned t = lane; t < tokens; t += 32) {
        const float d = dot(gradient + channel, pixel, value + token_of(t, place, p), p);
        slopes[first + t] = d;
        mean = fmaf(d, shares[first + t], mean);
    }
    mean = warp_sum(mean);
    for (unsigned t = lane; t < tokens; t += 32) slopes[first + t] = shares[first + t] * (slopes[first + t] - mean) * p.scale;
    __syncwarp();
    mix(slopes + first, key, to_query + channel, pixel, place, p);
}

// Grid: shares of a column's elements, columns, samples · heads. A thread for each row and channel
// gathers from the pixels that attend to the column, which the block looks for in order.
extern "C" __global__ void column_attention_to_image(const float* __restrict__ query, const float* __restrict__ places, const float* __restrict__ shares, const float* __restrict__ slopes, const float* __restrict__ gradient, float* __restrict__ to_key, float* __restrict__ to_value, ColumnAttentionParameters p) {
    __shared__ unsigned hits[256];
    __shared__ unsigned found[8];
    const unsigned lane = threadIdx.x & 31u, warp = threadIdx.x >> 5, column = blockIdx.y;
    const unsigned element = blockIdx.x * blockDim.x + threadIdx.x, row = element % p.rows, d = element / p.rows;
    const unsigned channel = (blockIdx.z * p.depth + d) * p.pixels, end = d < p.depth ? 256u : 0u;
    float of_key = 0.0f, of_value = 0.0f;
    for (unsigned side = 0; side < 2; ++side) {
        for (unsigned base = 0; base < p.pixels; base += 256) {
            const unsigned pixel = base + threadIdx.x;
            const bool hit = pixel < p.pixels && neighbour(places[blockIdx.z / p.heads * p.pixels + pixel], side, p.columns) == column;
            const unsigned votes = __ballot_sync(FULL_WARP, hit);
            if (lane == 0) found[warp] = __popc(votes);
            __syncthreads();
            unsigned before = 0, total = 0;
            for (unsigned w = 0; w < 8; ++w) {
                before += w < warp ? found[w] : 0u;
                total += found[w];
            }
            if (hit) hits[before + __popc(votes & ((1u << lane) - 1u))] = pixel;
            __syncthreads();
            for (unsigned h = 0; h < min(total, end); ++h) {
                const unsigned share = (blockIdx.z * p.pixels + hits[h]) * 2u * p.rows + side * p.rows + row;
                of_key = fmaf(query[channel + hits[h]], slopes[share], of_key);
                of_value = fmaf(gradient[channel + hits[h]], shares[share], of_value);
            }
            __syncthreads(); // before the next hits are written
        }
    }
    if (end == 0) return;
    const unsigned to = ((blockIdx.z * p.depth + d) * p.rows + row) * p.columns + column;
    to_key[to] = of_key;
    to_value[to] = of_value;
}
