// Weighs the rows of a feature map into one descriptor, column outer, channel inner.
#include "common.cuh"

struct CollapseParameters {
    unsigned samples;
    unsigned channels;
    unsigned rows;
    unsigned columns;
};

extern "C" __global__ void collapse_rows_forward(const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ bias, float* __restrict__ y, CollapseParameters p) {
    const unsigned count = p.samples * p.columns * p.channels;
    for (unsigned i = first_element(); i < count; i += element_stride()) {
        const unsigned channel = i % p.channels, column = i / p.channels % p.columns, sample = i / p.channels / p.columns;
        const float* here = x + (sample * p.channels + channel) * p.rows * p.columns + column;
        float sum = bias[0];
        for (unsigned row = 0; row < p.rows; ++row) sum += weight[row] * here[row * p.columns];
        y[i] = sum;
    }
}

extern "C" __global__ void collapse_rows_to_input(const float* __restrict__ weight, const float* __restrict__ gradient, float* __restrict__ dx, CollapseParameters p) {
    const unsigned count = p.samples * p.channels * p.rows * p.columns;
    for (unsigned i = first_element(); i < count; i += element_stride()) {
        const unsigned column = i % p.columns, row = i / p.columns % p.rows, plane = i / p.columns / p.rows;
        const unsigned sample = plane / p.channels, channel = plane % p.channels;
        dx[i] = weight[row] * gradient[(sample * p.columns + column) * p.channels + channel];
    }
}

// Block r < rows: the gradient of weight r. One block more: that of the bias.
extern "C" __global__ void __launch_bounds__(1024) collapse_rows_to_weight(const float* __restrict__ x, const float* __restrict__ gradient, float* __restrict__ to_weight, float* __restrict__ to_bias, CollapseParameters p) {
    const unsigned row = blockIdx.x, count = p.samples * p.channels * p.columns;
    double sum = 0.0;
#pragma unroll 4
    for (unsigned i = threadIdx.x; i < count; i += blockDim.x) {
        const unsigned column = i % p.columns, plane = i / p.columns;
        const unsigned sample = plane / p.channels, channel = plane % p.channels;
        const float g = gradient[(sample * p.columns + column) * p.channels + channel];
        sum += row < p.rows ? double(x[(plane * p.rows + row) * p.columns + column]) * g : double(g);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) (row < p.rows ? to_weight + row : to_bias)[0] = float(sum);
}
