// From a correlation to a distance, element by element.
#include "common.cuh"

struct DistanceParameters {
    unsigned count;
    float epsilon; // a shorter root is replaced by it
};

// √(energy · confidence); a product below zero, where there is none, has root 0. NaN stays NaN.
__device__ __forceinline__ float root_of(float energy, float confidence) {
    const float product = energy * confidence;
    return sqrtf(product < 0.0f ? 0.0f : product);
}

extern "C" __global__ void correlation_distance_forward(const float* __restrict__ correlation, const float* __restrict__ energy, const float* __restrict__ confidence, float* __restrict__ distance, DistanceParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) {
        const float root = root_of(energy[i], confidence[i]);
        distance[i] = 2.0f - 2.0f * correlation[i] / (root < p.epsilon ? p.epsilon : root);
    }
}

// d(1 / √(e q)) / de = -q / (2 √(e q)³); where epsilon was taken, nothing moves the root.
extern "C" __global__ void correlation_distance_backward(const float* __restrict__ correlation, const float* __restrict__ energy, const float* __restrict__ confidence, const float* __restrict__ gradient, float* __restrict__ to_correlation, float* __restrict__ to_energy, float* __restrict__ to_confidence, DistanceParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) {
        const float root = root_of(energy[i], confidence[i]), g = gradient[i];
        const bool moves = !(root < p.epsilon);
        const float length = moves ? root : p.epsilon;
        const float slope = moves ? g * correlation[i] / (length * length * length) : 0.0f;
        to_correlation[i] = -2.0f * g / length;
        to_energy[i] = slope * confidence[i];
        to_confidence[i] = slope * energy[i];
    }
}
