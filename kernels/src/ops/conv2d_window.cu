// Sliding-window convolutions: depthwise ones, dense ones of 3 x 3 with few
// channels, and the gradients of both. A thread takes a strip of STRIP outputs below each other, so
// that it reads each row of the image once for all of them; neighbouring threads take neighbouring
// columns.
//
// Padding is in two tables: `row_at[j]` is the image row that row j of the padded image shows, or -1
// for zero; columns likewise. Output row i sees rows S i to S i + K - 1 of the padded image. The
// gradient of the input is such a convolution of the output's gradient with the flipped kernel.
#include "common.cuh"

#define STRIP 4

struct WindowParameters {
    unsigned items;         // strips: samples (and planes, for depthwise), strips of a column, columns
    unsigned rows;          // of the output
    unsigned columns;
    unsigned strips;        // of a column of the output
    unsigned input_width;
    unsigned input_plane;   // elements from channel to channel
    unsigned channels;      // of the image that is read
    unsigned outputs;       // channels of the image that is written
    unsigned output_step;   // elements of the weight from output channel to output channel
    unsigned channel_step;  // and from input channel to input channel
    unsigned flipped;        // whether the kernel is flipped
    unsigned parts;         // of the sum over strips, for the gradients of weights
};

// One strip: where it lies in the output, and what it sees of the image.
template <int K, int S>
struct Window {
    static const int ROWS = (STRIP - 1) * S + K;
    unsigned first_row, column, sample; // the sample, or the plane of a depthwise convolution
    int rows[ROWS], columns[K];

    __device__ __forceinline__ Window(unsigned item, const int* row_at, const int* column_at, const WindowParameters& p) {
        column = item % p.columns;
        const unsigned rest = item / p.columns;
        first_row = rest % p.strips * STRIP;
        sample = rest / p.strips;
#pragma unroll
        for (int j = 0; j < ROWS; ++j) rows[j] = row_at[first_row * S + j] * int(p.input_width);
#pragma unroll
        for (int v = 0; v < K; ++v) columns[v] = column_at[column * S + v];
    }

    // Row j of the window; 0 beyond the image.
    __device__ __forceinline__ void read(const float* plane, int j, float* x) const {
#pragma unroll
        for (int v = 0; v < K; ++v) x[v] = rows[j] >= 0 && columns[v] >= 0 ? plane[rows[j] + columns[v]] : 0.0f;
    }

    __device__ __forceinline__ bool has(int i, const WindowParameters& p) const { return first_row + i < p.rows; }

    __device__ __forceinline__ unsigned output(int i, const WindowParameters& p) const {
        return (first_row + i) * p.columns + column;
    }
};

// Grid: strips of all planes.
template <int K, int S>
__device__ __forceinline__ void depthwise(const float* image, const float* weight, const float* bias, const int* row_at, const int* column_at, float* y, const WindowParameters& p) {
    const unsigned item = blockIdx.x * blockDim.x + threadIdx.x;
    if (item >= p.items) return;
    const Window<K, S> window(item, row_at, column_at, p);
    const unsigned channel = window.sample % p.channels;
    const float* plane = image + window.sample * p.input_plane;
    float w[K * K], sums[STRIP];
#pragma unroll
    for (int tap = 0; tap < K * K; ++tap) w[tap] = weight[channel * (K * K) + (p.flipped ? K * K - 1 - tap : tap)];
#pragma unroll
    for (int i = 0; i < STRIP; ++i) sums[i] = bias != nullptr ? bias[channel] : 0.0f;
#pragma unroll
    for (int j = 0; j < Window<K, S>::ROWS; ++j) {
        float x[K];
        window.read(plane, j, x);
#pragma unroll
        for (int i = 0; i < STRIP; ++i) {
            if (j < i * S || j >= i * S + K) continue;
#pragma unroll
            for (int v = 0; v < K; ++v) sums[i] = fmaf(w[(j - i * S) * K + v], x[v], sums[i]);
        }
    }
    y += window.sample * p.rows * p.columns;
#pragma unroll
    for (int i = 0; i < STRIP; ++i)
        if (window.has(i, p)) y[window.output(i, p)] = sums[i];
}

// Grid: channels, parts of the strips of a channel. Writes [parts, channels, K, K].
template <int K, int S>
__device__ __forceinline__ void depthwise_gradient(const float* image, const float* gradient, const int* row_at, const int* column_at, float* partial, const WindowParameters& p) {
    __shared__ float of_warps[8][K * K];
    const unsigned channel = blockIdx.x;
    float sums[K * K];
#pragma unroll
    for (int tap = 0; tap < K * K; ++tap) sums[tap] = 0.0f;
    for (unsigned item = blockIdx.y * blockDim.x + threadIdx.x; item < p.items; item += p.parts * blockDim.x) {
        const Window<K, S> window(item, row_at, column_at, p);
        const unsigned plane = window.sample * p.channels + channel;
        const float* from = image + plane * p.input_plane;
        const float* to = gradient + plane * p.rows * p.columns;
        float g[STRIP];
#pragma unroll
        for (int i = 0; i < STRIP; ++i) g[i] = window.has(i, p) ? to[window.output(i, p)] : 0.0f;
#pragma unroll
        for (int j = 0; j < Window<K, S>::ROWS; ++j) {
            float x[K];
            window.read(from, j, x);
#pragma unroll
            for (int i = 0; i < STRIP; ++i) {
                if (j < i * S || j >= i * S + K) continue;
#pragma unroll
                for (int v = 0; v < K; ++v) sums[(j - i * S) * K + v] = fmaf(g[i], x[v], sums[(j - i * S) * K + v]);
            }
        }
    }
#pragma unroll
    for (int tap = 0; tap < K * K; ++tap) {
        const float sum = warp_sum(sums[tap]);
        if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32][tap] = sum;
    }
    __syncthreads();
    if (threadIdx.x >= K * K) return;
    float sum = 0.0f;
    for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) sum += of_warps[warp][threadIdx.x];
    partial[(blockIdx.y * p.channels + channel) * (K * K) + threadIdx.x] = sum;
}

#define FORWARD_ARGUMENTS const float* __restrict__ image, const float* __restrict__ weight, const float* __restrict__ bias, const int* __restrict__ row_at, const int* __restrict__ column_at, float* __restrict__ y, WindowParameters p
#define GRADIENT_ARGUMENTS const float* __restrict__ image, const float* __restrict__ gradient, const int* __restrict__ row_at, const int* __restrict__ column_at, float* __restrict__ partial, WindowParameters p

extern "C" __global__ void __launch_bounds__(256) depthwise_3_1(FORWARD_ARGUMENTS) {
    depthwise<3, 1>(image, weight, bias, row_at, column_at, y, p);
}

extern "C" __global__ void __launch_bounds__(256) depthwise_3_1_to_weight(GRADIENT_ARGUMENTS) {
    depthwise_gradient<3, 1>(image, gradient, row_at, column_at, partial, p);
}

extern "C" __global__ void __launch_bounds__(256) depthwise_3_2(FORWARD_ARGUMENTS) {
    depthwise<3, 2>(image, weight, bias, row_at, column_at, y, p);
}

extern "C" __global__ void __launch_bounds__(256) depthwise_3_2_to_weight(GRADIENT_ARGUMENTS) {
    depthwise_gradient<3, 2>(image, gradient, row_at, column_at, partial, p);
}

extern "C" __global__ void __launch_bounds__(256) depthwise_5_1(FORWARD_ARGUMENTS) {
    depthwise<5, 1>(image, weight, bias, row_at, column_at, y, p);
}

extern "C" __global__ void __launch_bounds__(256) depthwise_5_1_to_weight(GRADIENT_ARGUMENTS) {
    depthwise_gradient<5, 1>(image, gradient, row_at, column_at, partial, p);
}

extern "C" __global__ void __launch_bounds__(256) depthwise_5_2(FORWARD_ARGUMENTS) {
    depthwise<5, 2>(image, weight, bias, row_at, column_at, y, p);
}

extern "C" __global__ void __launch_bounds__(256) depthwise_5_2_to_weight(GRADIENT_ARGUMENTS) {
    depthwise_gradient<5, 2>(image, gradient, row_at, column_at, partial, p);
}

#define TAPS 9
#define OUTPUTS 16  // channels that a block of the dense convolution writes
#define CHANNELS 8  // whose weights are in shared memory at a time

// Grid: strips of all samples, tiles of output channels.
template <int S>
__device__ __forceinline__ void dense(const float* image, const float* weight, const float* bias, const int* row_at, const int* column_at, float* y, const WindowParameters& p) {
    __shared__ __align__(16) float weights[CHANNELS][TAPS][OUTPUTS];
    const unsigned item = blockIdx.x * blockDim.x + threadIdx.x, first_output = blockIdx.y * OUTPUTS;
    const Window<3, S> window(item < p.items ? item : 0, row_at, column_at, p);
    image += window.sample * p.channels * p.input_plane;
    float sums[STRIP][OUTPUTS];
#pragma unroll
    for (int i = 0; i < STRIP; ++i)
#pragma unroll
        for (int o = 0; o < OUTPUTS; ++o) sums[i][o] = 0.0f;
    for (unsigned first = 0; first < p.channels; first += CHANNELS) {
        __syncthreads(); // the last weights are still being read
        for (unsigned e = threadIdx.x; e < CHANNELS * TAPS * OUTPUTS; e += blockDim.x) {
            const unsigned tap = e % TAPS, channel = e / TAPS % CHANNELS, output = e / (TAPS * CHANNELS);
            const bool there = first + channel < p.channels && first_output + output < p.outputs;
            const unsigned at = (first_output + output) * p.output_step + (first + channel) * p.channel_step;
            weights[channel][p.flipped ? TAPS - 1 - tap : tap][output] = there ? weight[at + tap] : 0.0f;
        }
        __syncthreads();
        const unsigned count = p.channels - first < CHANNELS ? p.channels - first : CHANNELS;
        for (unsigned channel = 0; channel < count; ++channel) {
            float x[Window<3, S>::ROWS][3];
#pragma unroll
            for (int j = 0; j < Window<3, S>::ROWS; ++j) window.read(image + (first + channel) * p.input_plane, j, x[j]);
#pragma unroll
            for (int tap = 0; tap < TAPS; ++tap) {
#pragma unroll
                for (int o = 0; o < OUTPUTS; o += 4) {
                    const float4 w = *reinterpret_cast<const float4*>(&weights[channel][tap][o]);
#pragma unroll
                    for (int i = 0; i < STRIP; ++i) {
                        const float seen = x[i * S + tap / 3][tap % 3];
                        sums[i][o] = fmaf(w.x, seen, sums[i][o]);
                        sums[i][o + 1] = fmaf(w.y, seen, sums[i][o + 1]);
                        sums[i][o + 2] = fmaf(w.z, seen, sums[i][o + 2]);
                        sums[i][o + 3] = fmaf(w.w, seen, sums[i][o + 3]);
                    }
                }
            }
        }
    }
    if (item >= p.items) return;
    y += window.sample * p.outputs * p.rows * p.columns;
#pragma unroll
    for (int o = 0; o < OUTPUTS; ++o) {
        if (first_output + o >= p.outputs) break;
        const float more = bias != nullptr ? bias[first_output + o] : 0.0f;
#pragma unroll
        for (int i = 0; i < STRIP; ++i)
            if (window.has(i, p)) y[(first_output + o) * p.rows * p.columns + window.output(i, p)] = sums[i][o] + more;
    }
}

#define GRADIENTS 8  // output channels of a warp of the weight's gradient

// Grid: eights of input channels, one for each warp; eights of output channels; parts of the strips.
// Writes [parts, outputs, channels, 3, 3]. The warps read the same gradients at about the same time.
template <int S>
__device__ __forceinline__ void dense_gradient(const float* image, const float* gradient, const int* row_at, const int* column_at, float* partial, const WindowParameters& p) {
    const unsigned lane = threadIdx.x % 32, channel = blockIdx.x * 8 + threadIdx.x / 32;
    const unsigned first_output = blockIdx.y * GRADIENTS;
    if (channel >= p.channels) return;
    float sums[GRADIENTS][TAPS];
#pragma unroll
    for (int o = 0; o < GRADIENTS; ++o)
#pragma unroll
        for (int tap = 0; tap < TAPS; ++tap) sums[o][tap] = 0.0f;
    for (unsigned item = blockIdx.z * 32 + lane; item < p.items; item += p.parts * 32) {
        const Window<3, S> window(item, row_at, column_at, p);
        const float* plane = image + (window.sample * p.channels + channel) * p.input_plane;
        float x[Window<3, S>::ROWS][3];
#pragma unroll
        for (int j = 0; j < Window<3, S>::ROWS; ++j) window.read(plane, j, x[j]);
        const float* to = gradient + (window.sample * p.outputs + first_output) * p.rows * p.columns;
#pragma unroll
        for (int o = 0; o < GRADIENTS; ++o) {
            const bool there = first_output + o < p.outputs;
#pragma unroll
            for (int i = 0; i < STRIP; ++i) {
                const float g = there && window.has(i, p) ? to[o * p.rows * p.columns + window.output(i, p)] : 0.0f;
#pragma unroll
                for (int tap = 0; tap < TAPS; ++tap) sums[o][tap] = fmaf(g, x[i * S + tap / 3][tap % 3], sums[o][tap]);
            }
        }
    }
#pragma unroll
    for (int o = 0; o < GRADIENTS; ++o)
#pragma unroll
        for (int tap = 0; tap < TAPS; ++tap) {
            const float sum = warp_sum(sums[o][tap]);
            if (lane == 0 && first_output + o < p.outputs)
                partial[((blockIdx.z * p.outputs + first_output + o) * p.channels + channel) * TAPS + tap] = sum;
        }
}

extern "C" __global__ void __launch_bounds__(256, 2) conv2d_window_1(FORWARD_ARGUMENTS) {
    dense<1>(image, weight, bias, row_at, column_at, y, p);
}

extern "C" __global__ void __launch_bounds__(256, 2) conv2d_window_1_to_weight(GRADIENT_ARGUMENTS) {
    dense_gradient<1>(image, gradient, row_at, column_at, partial, p);
}

extern "C" __global__ void __launch_bounds__(256) conv2d_window_2(FORWARD_ARGUMENTS) {
    dense<2>(image, weight, bias, row_at, column_at, y, p);
}

extern "C" __global__ void __launch_bounds__(256) conv2d_window_2_to_weight(GRADIENT_ARGUMENTS) {
    dense_gradient<2>(image, gradient, row_at, column_at, partial, p);
}
