// Unit length over the channels of each pixel. Threads along x are neighbouring pixels of a sample,
// threads along y share their channels.
#include "common.cuh"

struct NormaliseParameters {
    unsigned channels;
    unsigned pixels;   // of a channel
    unsigned tiles;    // blocks of a sample
    float epsilon;     // shorter vectors are divided by it
};

// Of each thread's channels, this many are in flight; where there are fewer, the first again.
#define IN_FLIGHT 8

// use(i, f(i)) for the elements i of a thread's channels, counted from the first of its pixel.
template <typename F, typename Use>
__device__ __forceinline__ void for_channels(const NormaliseParameters& p, F f, Use use) {
    for (unsigned c = threadIdx.y; c < p.channels; c += IN_FLIGHT * blockDim.y) {
        float values[IN_FLIGHT];
#pragma unroll
        for (unsigned k = 0; k < IN_FLIGHT; ++k) {
            const unsigned channel = c + k * blockDim.y;
            values[k] = f((channel < p.channels ? channel : c) * p.pixels);
        }
#pragma unroll
        for (unsigned k = 0; k < IN_FLIGHT; ++k) {
            const unsigned channel = c + k * blockDim.y;
            if (channel < p.channels) use(channel * p.pixels, values[k]);
        }
    }
}

// Where the thread's pixel begins among the images and among the lengths, and whether it is one;
// where it is not, the last one is read and nothing written.
struct Pixel {
    unsigned first, index;
    bool here;
};

__device__ __forceinline__ Pixel pixel_of_thread(const NormaliseParameters& p) {
    const unsigned sample = blockIdx.x / p.tiles, pixel = blockIdx.x % p.tiles * blockDim.x + threadIdx.x;
    const unsigned within = min(pixel, p.pixels - 1);
    return {sample * p.channels * p.pixels + within, sample * p.pixels + within, pixel < p.pixels};
}

extern "C" __global__ void __launch_bounds__(256) l2_normalise_forward(const float* __restrict__ x, float* __restrict__ y, float* __restrict__ norms, NormaliseParameters p) {
    const Pixel pixel = pixel_of_thread(p);
    x += pixel.first;
    float sum = 0.0f;
    for_channels(p, [=](unsigned i) { return x[i] * x[i]; }, [&](unsigned, float square) { sum += square; });
    const float norm = sqrtf(sum_along_y(sum));
    if (!pixel.here) return;
    const float divisor = norm < p.epsilon ? p.epsilon : norm;
    y += pixel.first;
    for_channels(p, [=](unsigned i) { return x[i]; }, [=](unsigned i, float value) { y[i] = value / divisor; });
    if (threadIdx.y == 0) norms[pixel.index] = norm;
}

// d(x / |x|) = (g - y (y · g)) / |x|; a vector shorter than epsilon was divided by a constant.
extern "C" __global__ void __launch_bounds__(256) l2_normalise_backward(const float* __restrict__ y, const float* __restrict__ norms, const float* __restrict__ gradient, float* __restrict__ dx, NormaliseParameters p) {
    const Pixel pixel = pixel_of_thread(p);
    y += pixel.first, gradient += pixel.first;
    const float norm = norms[pixel.index], divisor = norm < p.epsilon ? p.epsilon : norm;
    float along = 0.0f;
    for_channels(p, [=](unsigned i) { return y[i] * gradient[i]; }, [&](unsigned, float product) { along += product; });
    along = sum_along_y(along);
    if (!pixel.here) return;
    if (norm <= p.epsilon) along = 0.0f;
    dx += pixel.first;
    for_channels(p, [=](unsigned i) { return gradient[i] - y[i] * along; }, [=](unsigned i, float value) { dx[i] = value / divisor; });
}
