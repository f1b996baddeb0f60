// Unit length over all values of a sample. A sample is shared by several blocks; what they leave is
// added up in one order.
#include "common.cuh"

struct SampleNormaliseParameters {
    unsigned length;  // elements of a sample
    unsigned parts;   // blocks that share a sample, at most 256
    float epsilon;    // shorter samples are divided by it
};

// Grid of all: parts, samples. Each block's share of the sum of a · b; a and b may be one.
extern "C" __global__ void sample_normalise_dots(const float* a, const float* b, double* __restrict__ dots, SampleNormaliseParameters p) {
    const unsigned first = blockIdx.y * p.length;
    double sum = 0.0;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < p.length; i += p.parts * blockDim.x)
        sum += double(a[first + i]) * b[first + i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) dots[blockIdx.y * p.parts + blockIdx.x] = sum;
}

// The sum of a sample's parts, in all threads.
__device__ __forceinline__ double total_of(const double* dots, unsigned parts) {
    return block_sum(threadIdx.x < parts ? dots[blockIdx.y * parts + threadIdx.x] : 0.0);
}

// NaN does not become epsilon.
__device__ __forceinline__ double inverse_of(double length, float epsilon) { return 1.0 / (length < epsilon ? epsilon : length); }

extern "C" __global__ void sample_normalise_forward(const float* __restrict__ x, const double* __restrict__ squares, float* __restrict__ y, SampleNormaliseParameters p) {
    const double inverse = inverse_of(sqrt(total_of(squares, p.parts)), p.epsilon);
    const unsigned first = blockIdx.y * p.length;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < p.length; i += p.parts * blockDim.x)
        y[first + i] = float(x[first + i] * inverse);
}

// d(x / |x|) = (g - y (y · g)) / |x|, and g / epsilon for a short sample.
extern "C" __global__ void sample_normalise_backward(const float* __restrict__ y, const float* __restrict__ gradient, const double* __restrict__ squares, const double* __restrict__ dots, float* __restrict__ dx, SampleNormaliseParameters p) {
    const double length = sqrt(total_of(squares, p.parts)), dot = total_of(dots, p.parts);
    const double inverse = inverse_of(length, p.epsilon), along = length > p.epsilon ? dot * inverse : 0.0;
    const unsigned first = blockIdx.y * p.length;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < p.length; i += p.parts * blockDim.x)
        dx[first + i] = float(gradient[first + i] * inverse - y[first + i] * along);
}
