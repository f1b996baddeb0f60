// Reads images at real-valued places, bilinearly. A thread has one point and a slice of channels.
//
// The gradient of the image adds up whatever points touch a pixel. It is summed in 64-bit integers,
// in units far below the last bit of the largest gradient of the plane: integers come out the same
// in any order, so atomics keep runs equal to the bit.
#include "common.cuh"

struct GridSampleParameters {
    unsigned channels;
    unsigned height;
    unsigned width;
    unsigned points;  // of one sample
    unsigned slice;   // channels of one thread
    unsigned outside; // 0 empty, 1 zeros, 2 border
    int bits;         // of a unit of the sums below the power of two of the largest gradient
};

struct Tap {
    unsigned index[4];
    float weight[4];
    float slope_x[4];
    float slope_y[4];
};

__device__ __forceinline__ bool inside(float at, unsigned length) { return at >= 0.0f && at < float(length); }

// The nearest coordinate inside; whether moving the point moves it.
__device__ __forceinline__ float clamped(float at, unsigned length, float& moves) {
    const float last = float(length - 1u);
    moves = at < 0.0f || at > last ? 0.0f : 1.0f;
    return at < 0.0f ? 0.0f : at > last ? last : at;
}

// The four pixels a point reads, how much of each, and how that changes with x and y.
__device__ __forceinline__ Tap tap_of(float x, float y, const GridSampleParameters& p) {
    Tap tap;
    for (int k = 0; k < 4; ++k) {
        tap.index[k] = 0u;
        tap.weight[k] = tap.slope_x[k] = tap.slope_y[k] = 0.0f;
    }
    float moves_x = 1.0f, moves_y = 1.0f;
    if (p.outside == 2) {
        x = clamped(x, p.width, moves_x);
        y = clamped(y, p.height, moves_y);
    }
    const float left = floorf(x), top = floorf(y), across = x - left, down = y - top;
    // Far points, infinities and NaN end here; what remains fits an int.
    if (!inside(left + 1.0f, p.width + 1u) || !inside(top + 1.0f, p.height + 1u)) return tap;
    if (p.outside == 0 && !(left >= 0.0f && inside(left + 1.0f, p.width) && top >= 0.0f && inside(top + 1.0f, p.height))) return tap;
    for (int k = 0; k < 4; ++k) {
        const bool right = k & 1, low = k >> 1;
        const int column = int(left) + right, row = int(top) + low;
        if (column < 0 || row < 0 || column >= int(p.width) || row >= int(p.height)) continue;
        const float of_x = right ? across : 1.0f - across, of_y = low ? down : 1.0f - down;
        tap.index[k] = unsigned(row) * p.width + unsigned(column);
        tap.weight[k] = of_x * of_y;
        tap.slope_x[k] = (right ? of_y : -of_y) * moves_x;
        tap.slope_y[k] = (low ? of_x : -of_x) * moves_y;
    }
    return tap;
}

__device__ __forceinline__ float read(const float* plane, const Tap& tap, const float* factors) {
    float sum = 0.0f;
    for (int k = 0; k < 4; ++k) sum = fmaf(factors[k], plane[tap.index[k]], sum);
    return sum;
}

// Grid of the ones for points: blocks of points, slices of channels, samples.
extern "C" __global__ void grid_sample_forward(const float* __restrict__ x, const float2* __restrict__ grid, float* __restrict__ y, GridSampleParameters p) {
    const unsigned point = blockIdx.x * blockDim.x + threadIdx.x, sample = blockIdx.z;
    if (point >= p.points) return;
    const float2 at = grid[sample * p.points + point];
    const Tap tap = tap_of(at.x, at.y, p);
    const unsigned end = min((blockIdx.y + 1u) * p.slice, p.channels);
    for (unsigned channel = blockIdx.y * p.slice; channel < end; ++channel) {
        const unsigned plane = sample * p.channels + channel;
        y[plane * p.points + point] = read(x + plane * p.height * p.width, tap, tap.weight);
    }
}

extern "C" __global__ void grid_sample_to_grid(const float* __restrict__ x, const float2* __restrict__ grid, const float* __restrict__ gradient, float2* __restrict__ to_grid, GridSampleParameters p) {
    const unsigned point = blockIdx.x * blockDim.x + threadIdx.x, sample = blockIdx.z;
    if (point >= p.points) return;
    const float2 at = grid[sample * p.points + point];
    const Tap tap = tap_of(at.x, at.y, p);
    float to_x = 0.0f, to_y = 0.0f;
    for (unsigned channel = 0; channel < p.channels; ++channel) {
        const unsigned plane = sample * p.channels + channel;
        const float g = gradient[plane * p.points + point];
        to_x = fmaf(g, read(x + plane * p.height * p.width, tap, tap.slope_x), to_x);
        to_y = fmaf(g, read(x + plane * p.height * p.width, tap, tap.slope_y), to_y);
    }
    to_grid[sample * p.points + point] = make_float2(to_x, to_y);
}

// One block for each plane: its largest gradient, infinite where one is no number.
extern "C" __global__ void grid_sample_largest(const float* __restrict__ gradient, float* __restrict__ largest, GridSampleParameters p) {
    gradient += blockIdx.x * p.points;
    float most = 0.0f;
    for (unsigned i = threadIdx.x; i < p.points; i += blockDim.x) {
        const float size = fabsf(gradient[i]);
        most = size <= most ? most : size < INFINITY ? size : INFINITY;
    }
    most = block_max(most);
    if (threadIdx.x == 0) largest[blockIdx.x] = most;
}

extern "C" __global__ void grid_sample_scatter(const float2* __restrict__ grid, const float* __restrict__ gradient, const float* __restrict__ largest, unsigned long long* sums, GridSampleParameters p) {
    const unsigned point = blockIdx.x * blockDim.x + threadIdx.x, sample = blockIdx.z;
    if (point >= p.points) return;
    const float2 at = grid[sample * p.points + point];
    const Tap tap = tap_of(at.x, at.y, p);
    const unsigned end = min((blockIdx.y + 1u) * p.slice, p.channels);
    for (unsigned channel = blockIdx.y * p.slice; channel < end; ++channel) {
        const unsigned plane = sample * p.channels + channel;
        const float g = gradient[plane * p.points + point], most = largest[plane];
        if (g == 0.0f || !(most < INFINITY)) continue;
        const double units = ldexp(double(g), p.bits - ilogbf(most));
        for (int k = 0; k < 4; ++k)
            if (tap.weight[k] != 0.0f)
                atomicAdd(&sums[plane * p.height * p.width + tap.index[k]], (unsigned long long)llrint(units * tap.weight[k]));
    }
}

// Grid: planes, blocks of pixels. From units back to numbers. A plane with a gradient that is no number becomes all NaN.
extern "C" __global__ void grid_sample_settle(const long long* __restrict__ sums, const float* __restrict__ largest, float* __restrict__ to_input, GridSampleParameters p) {
    const unsigned pixels = p.height * p.width, plane = blockIdx.x;
    const float most = largest[plane];
    for (unsigned i = blockIdx.y * blockDim.x + threadIdx.x; i < pixels; i += gridDim.y * blockDim.x) {
        const double sum = most > 0.0f && most < INFINITY ? ldexp(double(sums[plane * pixels + i]), ilogbf(most) - p.bits) : 0.0;
        to_input[plane * pixels + i] = most < INFINITY ? float(sum) : most - most;
    }
}
