// The soft margin between the true place and all others: one block for each sample's distances.
#include "common.cuh"

struct TripletParameters {
    unsigned length; // places of a sample
    float slope;
    float scale;     // backward: slope / wrong places of all samples
};

// Places come as floats, so that they can be an input of a recorded step.
__device__ __forceinline__ unsigned place_of(float number, const TripletParameters& p) { return min(unsigned(fmaxf(number, 0.0f)), p.length - 1u); }

// log(1 + e^x) without overflow; NaN stays NaN.
__device__ __forceinline__ float softplus(float x) { return (x > 0.0f ? x : x == x ? 0.0f : x) + log1pf(expf(-fabsf(x))); }

extern "C" __global__ void soft_margin_triplet_forward(const float* __restrict__ distances, const float* __restrict__ places, double* __restrict__ sums, TripletParameters p) {
    distances += blockIdx.x * p.length;
    const float here = distances[place_of(places[blockIdx.x], p)];
    double sum = 0.0;
    for (unsigned i = threadIdx.x; i < p.length; i += blockDim.x) sum += softplus(p.slope * (here - distances[i]));
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// Every place is pushed away by its own term, and the true one is pulled by all but its own.
extern "C" __global__ void soft_margin_triplet_backward(const float* __restrict__ distances, const float* __restrict__ places, const float* __restrict__ gradient, float* __restrict__ dx, TripletParameters p) {
    const unsigned place = place_of(places[blockIdx.x], p);
    distances += blockIdx.x * p.length;
    dx += blockIdx.x * p.length;
    const float here = distances[place], scale = p.scale * gradient[0];
    double sum = 0.0;
    for (unsigned i = threadIdx.x; i < p.length; i += blockDim.x) {
        if (i == place) continue;
        const float pull = scale * sigmoid(p.slope * (here - distances[i]));
        sum += pull;
        dx[i] = -pull;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) dx[place] = float(sum);
}
