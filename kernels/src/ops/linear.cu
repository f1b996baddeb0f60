// The bias's gradient of a fully connected layer; the rest are matrix products.
#include "common.cuh"

struct LinearParameters {
    unsigned rows;
    unsigned columns;
};

extern "C" __global__ void linear_to_bias(const float* __restrict__ gradient, float* __restrict__ sums, LinearParameters p) {
    for (unsigned i = first_element(); i < p.columns; i += element_stride()) {
        float sum = 0.0f;
        for (unsigned row = 0; row < p.rows; ++row) sum += gradient[row * p.columns + i];
        sums[i] = sum;
    }
}
