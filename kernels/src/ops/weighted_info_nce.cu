// InfoNCE weighted by a target. The statistics of each sample (softmax.cu): log of the
// denominator, sum of the targets that count, those targets · scores.
#include "common.cuh"

struct SampleParameters {
    unsigned length;           // elements of a sample
    unsigned samples;
    unsigned parts;
    float inverse_temperature;
    float threshold;           // targets count strictly above it
};

extern "C" __global__ void weighted_info_nce_loss(const double* __restrict__ statistics, float* __restrict__ loss, double* __restrict__ total, SampleParameters p) {
    double sum = 0.0, weight = 0.0;
    for (unsigned sample = threadIdx.x; sample < p.samples; sample += blockDim.x) {
        const double* s = statistics + sample * 3;
        sum += s[1] * s[0] - s[2] * p.inverse_temperature;
        weight += s[1];
    }
    sum = block_sum(sum);
    weight = block_sum(weight);
    if (threadIdx.x == 0) {
        loss[0] = float(sum / weight);
        total[0] = weight;
    }
}

extern "C" __global__ void weighted_info_nce_backward(const float* __restrict__ scores, const float* __restrict__ target, const double* __restrict__ statistics, const double* __restrict__ total, const float* __restrict__ gradient, float* __restrict__ dx, SampleParameters p) {
    const float scale = float(gradient[0] * double(p.inverse_temperature) / total[0]);
    for (unsigned i = first_element(); i < p.samples * p.length; i += element_stride()) {
        const double* s = statistics + i / p.length * 3;
        const float weight = float(s[1]);
        const float probability = expf(float(double(scores[i]) * p.inverse_temperature - s[0]));
        const float counted = target[i] > p.threshold ? target[i] : 0.0f;
        dx[i] = weight > 0.0f ? scale * (weight * probability - counted) : 0.0f;
    }
}
