// Convolution as a product of matrices that reads the image as it goes (implicit im2col), its
// gradients, and the depthwise ones.
//
// Padding, stride and direction are in two tables: `row_source[i, u]` is the image row that output
// row i sees through tap u, or -1 for zero; columns likewise. The gradient of the input is a
// convolution of the output's gradient with other tables.
#include "common.cuh"

#define TILE 64   // outputs of a block along both axes
#define DEPTH 16  // products between two barriers
#define STEP 72   // from row to row in shared memory: lanes of a fragment fall on different banks
#define THREADS 256

enum Arithmetic { F32, TF32, BF16 };

struct ConvolutionParameters {
    unsigned rows;          // output channels
    unsigned depth;         // channels times taps
    unsigned samples;
    unsigned pixels;        // of an output channel
    unsigned columns;       // of them in a row
    unsigned row_taps;
    unsigned column_taps;
    unsigned input_width;
    unsigned input_sample;  // elements from sample to sample
    unsigned output_sample;
    unsigned weight_row;    // elements of the weight from output channel to output channel
    unsigned input_offset;  // where the group begins
    unsigned output_offset;
    unsigned weight_offset;
    unsigned bias_offset;
    unsigned parts;         // of the sum over pixels, for the gradient of the weight
};

// One product of the sum: where its weight is, the channel it reads, and its row and column tap.
struct Tap {
    unsigned weight, plane, row, column;
};

__device__ __forceinline__ Tap tap_at(const uint4* taps, unsigned k) {
    const uint4 tap = taps[k];
    return {tap.x, tap.y, tap.z, tap.w};
}

// Two matrices [DEPTH, TILE], double buffered.
struct Panels {
    float a[2][DEPTH][STEP];
    float b[2][DEPTH][STEP];
};

// The sums of one thread. F32: 4 x 4 neighbours. Tensor cores: 2 x 2 fragments of 16 x 8, the
// eight warps two down and four across.
template <Arithmetic A>
struct Sums {
    float value[16];

    __device__ __forceinline__ Sums() {
#pragma unroll
        for (int i = 0; i < 16; ++i) value[i] = 0.0f;
    }

    __device__ __forceinline__ void add(const float (*a)[STEP], const float (*b)[STEP]) {
        const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        if (A == F32) {
            const unsigned m = threadIdx.x / 16 * 4, n = threadIdx.x % 16 * 4;
#pragma unroll
            for (int k = 0; k < DEPTH; ++k) {
                const float4 left = *reinterpret_cast<const float4*>(&a[k][m]);
                const float4 right = *reinterpret_cast<const float4*>(&b[k][n]);
                const float x[4] = {left.x, left.y, left.z, left.w};
                const float y[4] = {right.x, right.y, right.z, right.w};
#pragma unroll
                for (int i = 0; i < 4; ++i)
#pragma unroll
                    for (int j = 0; j < 4; ++j) value[4 * i + j] = fmaf(x[i], y[j], value[4 * i + j]);
            }
            return;
        }
        const unsigned group = lane / 4, within = lane % 4;
        const unsigned m = warp / 4 * 32 + group, n = warp % 4 * 16 + group;
        const int deep = A == TF32 ? 8 : 16;
#pragma unroll
        for (int first = 0; first < DEPTH; first += deep) {
            unsigned left[2][4], right[2][2];
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const unsigned row = m + 16 * i, column = n + 8 * i;
                if (A == TF32) {
                    const unsigned k = first + within;
                    left[i][0] = to_tf32(a[k][row]);
                    left[i][1] = to_tf32(a[k][row + 8]);
                    left[i][2] = to_tf32(a[k + 4][row]);
                    left[i][3] = to_tf32(a[k + 4][row + 8]);
                    right[i][0] = to_tf32(b[k][column]);
                    right[i][1] = to_tf32(b[k + 4][column]);
                } else {
                    const unsigned k = first + 2 * within;
                    left[i][0] = to_bf16_pair(a[k][row], a[k + 1][row]);
                    left[i][1] = to_bf16_pair(a[k][row + 8], a[k + 1][row + 8]);
                    left[i][2] = to_bf16_pair(a[k + 8][row], a[k + 9][row]);
                    left[i][3] = to_bf16_pair(a[k + 8][row + 8], a[k + 9][row + 8]);
                    right[i][0] = to_bf16_pair(b[k][column], b[k + 1][column]);
                    right[i][1] = to_bf16_pair(b[k + 8][column], b[k + 9][column]);
                }
            }
#pragma unroll
            for (int i = 0; i < 2; ++i)
#pragma unroll
                for (int j = 0; j < 2; ++j) {
                    float* d = value + 8 * i + 4 * j;
                    if (A == TF32) mma_tf32_16x8x8(d, left[i], right[j]);
                    else mma_bf16_16x8x16(d, left[i], right[j]);
                }
        }
    }

    // Calls store(m, n, value) for each sum, m and n within the tile.
    template <typename Store>
    __device__ __forceinline__ void each(Store store) const {
        const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
        for (int i = 0; i < 16; ++i) {
            if (A == F32) {
                store(threadIdx.x / 16 * 4 + i / 4, threadIdx.x % 16 * 4 + i % 4, value[i]);
            } else {
                const unsigned m = warp / 4 * 32 + i / 8 * 16 + i % 4 / 2 * 8 + lane / 4;
                const unsigned n = warp % 4 * 16 + i / 4 % 2 * 8 + lane % 4 * 2 + i % 2;
                store(m, n, value[i]);
            }
        }
    }
};

// The tile's sums over [begin, end) of the depth. `load(k, a, b)` fetches what this thread brings
// of the DEPTH products from k on, four numbers of each matrix; `place(a, b, buffer)` puts them.
template <Arithmetic A, typename Load, typename Place>
__device__ __forceinline__ void multiply(Sums<A>& sums, Panels& panels, unsigned begin, unsigned end, Load load, Place place) {
    float a[4], b[4];
    load(begin, a, b);
    int buffer = 0;
    for (unsigned k = begin; k < end; k += DEPTH) {
        place(a, b, buffer);
        __syncthreads(); // what was read from this buffer was read before the last barrier
        if (k + DEPTH < end) load(k + DEPTH, a, b);
        sums.add(panels.a[buffer], panels.b[buffer]);
        buffer ^= 1;
    }
}

// Grid: tiles of pixels over all samples, tiles of output channels.
template <Arithmetic A>
__device__ __forceinline__ void forward(const float* image, const float* weight, const float* bias, const uint4* taps, const int* row_source, const int* column_source, float* y, const ConvolutionParameters& p) {
    __shared__ Panels panels;
    const unsigned first_pixel = blockIdx.x * TILE, first_row = blockIdx.y * TILE;
    // A thread brings four neighbouring products of one weight row, and one pixel's every fourth.
    const unsigned m = threadIdx.x / 4, mk = threadIdx.x % 4 * 4;
    const unsigned n = threadIdx.x % TILE, nk = threadIdx.x / TILE;
    const unsigned pixel = first_pixel + n;
    const bool inside = pixel < p.samples * p.pixels;
    const unsigned sample = pixel / p.pixels, within = pixel % p.pixels;
    const int* rows = row_source + within / p.columns * p.row_taps;
    const int* columns = column_source + within % p.columns * p.column_taps;
    image += p.input_offset + (inside ? sample : 0) * p.input_sample;
    weight += p.weight_offset + (first_row + m) * p.weight_row;
    Sums<A> sums;
    multiply<A>(
        sums, panels, 0, p.depth,
        [&](unsigned k, float* a, float* b) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const unsigned here = k + mk + i;
                a[i] = here < p.depth && first_row + m < p.rows ? weight[tap_at(taps, here).weight] : 0.0f;
            }
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const unsigned here = k + nk + 4 * i;
                b[i] = 0.0f;
                if (here < p.depth && inside) {
                    const Tap tap = tap_at(taps, here);
                    const int row = rows[tap.row], column = columns[tap.column];
                    if (row >= 0 && column >= 0) b[i] = image[tap.plane + row * p.input_width + column];
                }
            }
        },
        [&](const float* a, const float* b, int buffer) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                panels.a[buffer][mk + i][m] = a[i];
                panels.b[buffer][nk + 4 * i][n] = b[i];
            }
        });
    sums.each([&](unsigned m, unsigned n, float value) {
        const unsigned row = first_row + m, pixel = first_pixel + n;
        if (row >= p.rows || pixel >= p.samples * p.pixels) return;
        if (bias != nullptr) value += bias[p.bias_offset + row];
        y[p.output_offset + pixel / p.pixels * p.output_sample + row * p.pixels + pixel % p.pixels] = value;
    });
}

// Grid: tiles of products (the weight's columns), tiles of output channels, parts of the sum over
// pixels. Writes [parts, rows, depth], the products in the order of the taps.
template <Arithmetic A>
__device__ __forceinline__ void to_weight(const float* image, const float* gradient, const uint4* taps, const int* row_source, const int* column_source, float* partial, const ConvolutionParameters& p) {
    __shared__ Panels panels;
    const unsigned first_tap = blockIdx.x * TILE, first_row = blockIdx.y * TILE;
    const unsigned all = p.samples * p.pixels, share = ((all + p.parts - 1) / p.parts + DEPTH - 1) / DEPTH * DEPTH;
    const unsigned begin = blockIdx.z * share, end = begin + share < all ? begin + share : all;
    // A thread brings one pixel of the DEPTH, for every 16th row and every 16th tap.
    const unsigned q = threadIdx.x % DEPTH, first = threadIdx.x / DEPTH;
    Tap mine[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const unsigned k = first_tap + first + 16 * i;
        mine[i] = tap_at(taps, k < p.depth ? k : 0);
    }
    image += p.input_offset;
    gradient += p.output_offset;
    Sums<A> sums;
    multiply<A>(
        sums, panels, begin, end,
        [&](unsigned k, float* a, float* b) {
            const unsigned pixel = k + q;
            const bool inside = pixel < end;
            const unsigned sample = pixel / p.pixels, within = pixel % p.pixels;
            const int* rows = row_source + within / p.columns * p.row_taps;
            const int* columns = column_source + within % p.columns * p.column_taps;
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const unsigned row = first_row + first + 16 * i;
                a[i] = inside && row < p.rows ? gradient[sample * p.output_sample + row * p.pixels + within] : 0.0f;
                b[i] = 0.0f;
                if (inside && first_tap + first + 16 * i < p.depth) {
                    const int y = rows[mine[i].row], x = columns[mine[i].column];
                    if (y >= 0 && x >= 0) b[i] = image[sample * p.input_sample + mine[i].plane + y * p.input_width + x];
                }
            }
        },
        [&](const float* a, const float* b, int buffer) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                panels.a[buffer][q][first + 16 * i] = a[i];
                panels.b[buffer][q][first + 16 * i] = b[i];
            }
        });
    partial += blockIdx.z * p.rows * p.depth;
    sums.each([&](unsigned m, unsigned n, float value) {
        if (first_row + m < p.rows && first_tap + n < p.depth) partial[(first_row + m) * p.depth + first_tap + n] = value;
    });
}

extern "C" __global__ void __launch_bounds__(THREADS) conv2d_forward_f32(const float* __restrict__ image, const float* __restrict__ weight, const float* __restrict__ bias, const uint4* __restrict__ taps, const int* __restrict__ row_source, const int* __restrict__ column_source, float* __restrict__ y, ConvolutionParameters p) {
    forward<F32>(image, weight, bias, taps, row_source, column_source, y, p);
}

extern "C" __global__ void __launch_bounds__(THREADS) conv2d_forward_tf32(const float* __restrict__ image, const float* __restrict__ weight, const float* __restrict__ bias, const uint4* __restrict__ taps, const int* __restrict__ row_source, const int* __restrict__ column_source, float* __restrict__ y, ConvolutionParameters p) {
    forward<TF32>(image, weight, bias, taps, row_source, column_source, y, p);
}

extern "C" __global__ void __launch_bounds__(THREADS) conv2d_forward_bf16(const float* __restrict__ image, const float* __restrict__ weight, const float* __restrict__ bias, const uint4* __restrict__ taps, const int* __restrict__ row_source, const int* __restrict__ column_source, float* __restrict__ y, ConvolutionParameters p) {
    forward<BF16>(image, weight, bias, taps, row_source, column_source, y, p);
}

extern "C" __global__ void __launch_bounds__(THREADS) conv2d_to_weight_f32(const float* __restrict__ image, const float* __restrict__ gradient, const uint4* __restrict__ taps, const int* __restrict__ row_source, const int* __restrict__ column_source, float* __restrict__ partial, ConvolutionParameters p) {
    to_weight<F32>(image, gradient, taps, row_source, column_source, partial, p);
}

extern "C" __global__ void __launch_bounds__(THREADS) conv2d_to_weight_tf32(const float* __restrict__ image, const float* __restrict__ gradient, const uint4* __restrict__ taps, const int* __restrict__ row_source, const int* __restrict__ column_source, float* __restrict__ partial, ConvolutionParameters p) {
    to_weight<TF32>(image, gradient, taps, row_source, column_source, partial, p);
}

extern "C" __global__ void __launch_bounds__(THREADS) conv2d_to_weight_bf16(const float* __restrict__ image, const float* __restrict__ gradient, const uint4* __restrict__ taps, const int* __restrict__ row_source, const int* __restrict__ column_source, float* __restrict__ partial, ConvolutionParameters p) {
    to_weight<BF16>(image, gradient, taps, row_source, column_source, partial, p);
}

struct ReduceParameters {
    unsigned count;  // elements of the sum
    unsigned parts;  // added up
    unsigned offset; // of the sum in the output
};

// sum[offset + i] = partial[0, i] + partial[1, i] + ... A block takes 32 elements, each of its
// eight rows of threads every eighth part.
extern "C" __global__ void conv2d_reduce(const float* __restrict__ partial, float* __restrict__ sum, ReduceParameters p) {
    __shared__ float sums[8][33];
    const unsigned i = blockIdx.x * 32 + threadIdx.x;
    float value = 0.0f;
    if (i < p.count) {
#pragma unroll 8
        for (unsigned part = threadIdx.y; part < p.parts; part += 8) value += partial[part * p.count + i];
    }
    sums[threadIdx.y][threadIdx.x] = value;
    __syncthreads();
    if (threadIdx.y != 0 || i >= p.count) return;
    for (unsigned row = 1; row < 8; ++row) value += sums[row][threadIdx.x];
    sum[p.offset + i] = value;
}

struct ColumnsParameters {
    unsigned channels;
    unsigned pixels;        // from `first` on
    unsigned first;         // pixel of an output channel
    unsigned columns;       // of an output row
    unsigned row_taps;
    unsigned column_taps;
    unsigned input_width;
    unsigned input_plane;   // elements from channel to channel
    unsigned first_sample;
};

#define TAPS_IN_REGISTERS 9

// What a matrix product sees of the image: [samples, channels, taps, pixels], the pixels of the
// output in a row, for a piece of the output. Grid: pixels, channels that stride, samples.
extern "C" __global__ void conv2d_columns(const float* __restrict__ image, const int* __restrict__ row_source, const int* __restrict__ column_source, float* __restrict__ found, ColumnsParameters p) {
    const unsigned pixel = blockIdx.x * blockDim.x + threadIdx.x, taps = p.row_taps * p.column_taps;
    if (pixel >= p.pixels) return;
    const int* rows = row_source + (p.first + pixel) / p.columns * p.row_taps;
    const int* columns = column_source + (p.first + pixel) % p.columns * p.column_taps;
    image += (p.first_sample + blockIdx.z) * p.channels * p.input_plane;
    found += blockIdx.z * p.channels * taps * p.pixels + pixel;
    if (p.row_taps == 3 && p.column_taps == 3) {
        int from[TAPS_IN_REGISTERS];
#pragma unroll
        for (int tap = 0; tap < TAPS_IN_REGISTERS; ++tap) {
            const int row = rows[tap / 3], column = columns[tap % 3];
            from[tap] = row >= 0 && column >= 0 ? row * int(p.input_width) + column : -1;
        }
        for (unsigned channel = blockIdx.y; channel < p.channels; channel += gridDim.y) {
            const float* plane = image + channel * p.input_plane;
            float* to = found + channel * TAPS_IN_REGISTERS * p.pixels;
#pragma unroll
            for (int tap = 0; tap < TAPS_IN_REGISTERS; ++tap) to[tap * p.pixels] = from[tap] >= 0 ? plane[from[tap]] : 0.0f;
        }
        return;
    }
    for (unsigned channel = blockIdx.y; channel < p.channels; channel += gridDim.y) {
        const float* plane = image + channel * p.input_plane;
        float* to = found + channel * taps * p.pixels;
        for (unsigned tap = 0; tap < taps; ++tap) {
            const int row = rows[tap / p.column_taps], column = columns[tap % p.column_taps];
            to[tap * p.pixels] = row >= 0 && column >= 0 ? plane[row * p.input_width + column] : 0.0f;
        }
    }
}

struct ArrangeParameters {
    unsigned rows;
    unsigned depth;
    unsigned weight_row; // elements of the weight from row to row
};

// The weight as the matrix [rows, depth] that meets the columns. Grid: products, rows that stride.
extern "C" __global__ void conv2d_arrange_weight(const float* __restrict__ weight, const uint4* __restrict__ taps, float* __restrict__ arranged, ArrangeParameters p) {
    const unsigned k = blockIdx.x * blockDim.x + threadIdx.x;
    if (k >= p.depth) return;
    const unsigned from = taps[k].x;
    for (unsigned row = blockIdx.y; row < p.rows; row += gridDim.y) arranged[row * p.depth + k] = weight[row * p.weight_row + from];
}

struct ChannelParameters {
    unsigned samples;
    unsigned channels;
    unsigned pixels;
    unsigned parts;  // of the sum over pixels
};

// Grid: channels, parts. Writes [parts, channels].
extern "C" __global__ void conv2d_channel_sums(const float* __restrict__ x, float* __restrict__ partial, ChannelParameters p) {
    const unsigned channel = blockIdx.x, share = (p.pixels + p.parts - 1) / p.parts;
    const unsigned begin = blockIdx.y * share, end = begin + share < p.pixels ? begin + share : p.pixels;
    double sum = 0.0;
    for (unsigned sample = 0; sample < p.samples; ++sample) {
        const float* plane = x + (sample * p.channels + channel) * p.pixels;
        float some = 0.0f;
#pragma unroll 4
        for (unsigned i = begin + threadIdx.x; i < end; i += blockDim.x) some += plane[i];
        sum += some;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.y * p.channels + channel] = float(sum);
}

extern "C" __global__ void conv2d_add_bias(const float* __restrict__ bias, float* __restrict__ y, ChannelParameters p) {
    const unsigned count = p.samples * p.channels * p.pixels;
    for (unsigned i = first_element(); i < count; i += element_stride()) y[i] += bias[i / p.pixels % p.channels];
}

struct DepthwiseParameters {
    unsigned count;       // elements of the output (of the gradient, for depthwise_to_weight)
    unsigned channels;
    unsigned samples;
    unsigned rows;        // of the output
    unsigned columns;
    unsigned input_height;
    unsigned input_width;
    unsigned row_taps;    // of the tables: kernel rows times row_repeat
    unsigned column_taps;
    unsigned row_repeat;  // table entries for one kernel row
    unsigned column_repeat;
};

extern "C" __global__ void depthwise_forward(const float* __restrict__ image, const float* __restrict__ weight, const float* __restrict__ bias, const int* __restrict__ row_source, const int* __restrict__ column_source, float* __restrict__ y, DepthwiseParameters p) {
    const unsigned kernel_columns = p.column_taps / p.column_repeat, kernel = p.row_taps / p.row_repeat * kernel_columns;
    for (unsigned i = first_element(); i < p.count; i += element_stride()) {
        const unsigned column = i % p.columns, row = i / p.columns % p.rows, plane = i / p.columns / p.rows;
        const unsigned channel = plane % p.channels;
        const float* from = image + plane * p.input_height * p.input_width;
        const float* w = weight + channel * kernel;
        const int* rows = row_source + row * p.row_taps;
        const int* columns = column_source + column * p.column_taps;
        float sum = bias != nullptr ? bias[channel] : 0.0f;
        for (unsigned u = 0; u < p.row_taps; ++u) {
            const int source_row = rows[u];
            if (source_row < 0) continue;
            const float* line = from + source_row * p.input_width;
            const float* weights = w + u / p.row_repeat * kernel_columns;
            for (unsigned v = 0; v < p.column_taps; ++v) {
                const int source_column = columns[v];
                if (source_column >= 0) sum = fmaf(weights[v / p.column_repeat], line[source_column], sum);
            }
        }
        y[i] = sum;
    }
}

// One block for each channel and tap.
extern "C" __global__ void depthwise_to_weight(const float* __restrict__ image, const float* __restrict__ gradient, const int* __restrict__ row_source, const int* __restrict__ column_source, float* __restrict__ to_weight, DepthwiseParameters p) {
    const unsigned channel = blockIdx.x, tap = blockIdx.y;
    const unsigned u = tap / p.column_taps, v = tap % p.column_taps, pixels = p.rows * p.columns;
    double sum = 0.0;
    for (unsigned sample = 0; sample < p.samples; ++sample) {
        const float* from = image + (sample * p.channels + channel) * p.input_height * p.input_width;
        const float* g = gradient + (sample * p.channels + channel) * pixels;
        float partial = 0.0f;
        for (unsigned i = threadIdx.x; i < pixels; i += blockDim.x) {
            const int row = row_source[i / p.columns * p.row_taps + u], column = column_source[i % p.columns * p.column_taps + v];
            if (row >= 0 && column >= 0) partial = fmaf(g[i], from[row * p.input_width + column], partial);
        }
        sum += partial;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) to_weight[channel * p.row_taps * p.column_taps + tap] = float(sum);
}
