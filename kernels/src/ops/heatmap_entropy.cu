// Gradient of the entropy of heatmaps. The statistics of each sample (softmax.cu) against its own
// probabilities: log of the denominator, sum of probabilities, probabilities · logits.
#include "common.cuh"

struct SampleParameters {
    unsigned length;           // elements of a sample
    unsigned samples;
    unsigned parts;
    float inverse_temperature;
    float threshold;
};

extern "C" __global__ void heatmap_entropy_backward(const float* __restrict__ logits, const double* __restrict__ statistics, const float* __restrict__ gradient, float* __restrict__ dx, SampleParameters p) {
    const double scale = double(gradient[0]) / p.samples;
    for (unsigned i = first_element(); i < p.samples * p.length; i += element_stride()) {
        const double* s = statistics + i / p.length * 3;
        const float probability = expf(float(logits[i] - s[0]));
        dx[i] = float(-scale * probability * (logits[i] - s[2] / s[1]));
    }
}
