// Softmax over samples, and the sums that it and the losses over it need. A sample is shared by
// several blocks; what they leave is added up in one order.
#include "common.cuh"

struct SampleParameters {
    unsigned length;           // elements of a sample
    unsigned samples;
    unsigned parts;            // blocks that share a sample
    float inverse_temperature;
    float threshold;           // targets count strictly above it
};

// Grid: parts, samples. For each block: largest logit, sum of exponentials below it, sum of the
// targets that count, and sum of logits weighted by them.
extern "C" __global__ void samples_partial(const float* __restrict__ logits, const float* __restrict__ target, double* __restrict__ partial, SampleParameters p) {
    const unsigned sample = blockIdx.y, first = blockIdx.x * blockDim.x + threadIdx.x, stride = p.parts * blockDim.x;
    logits += sample * p.length;
    float most = -INFINITY;
    for (unsigned i = first; i < p.length; i += stride) most = logits[i] > most ? logits[i] : most;
    most = block_max(most);
    // A part without elements has nothing to subtract from; -inf - -inf would be NaN.
    const float reference = most == -INFINITY ? 0.0f : most;
    double sum = 0.0, weight = 0.0, weighted = 0.0;
    for (unsigned i = first; i < p.length; i += stride) sum += expf((logits[i] - reference) * p.inverse_temperature);
    if (target != nullptr) {
        target += sample * p.length;
        for (unsigned i = first; i < p.length; i += stride) {
            const float t = target[i];
            if (t > p.threshold && t != 0.0f) {
                weight += t;
                weighted += double(t) * logits[i];
            }
        }
    }
    sum = block_sum(sum);
    weight = block_sum(weight);
    weighted = block_sum(weighted);
    if (threadIdx.x == 0) {
        double* mine = partial + (sample * p.parts + blockIdx.x) * 4;
        mine[0] = reference;
        mine[1] = sum;
        mine[2] = weight;
        mine[3] = weighted;
    }
}

// One block for each sample: log of the softmax's denominator, weight, weighted sum of logits.
extern "C" __global__ void samples_combine(const double* __restrict__ partial, double* __restrict__ statistics, SampleParameters p) {
    const unsigned sample = blockIdx.x;
    const double* mine = partial + (sample * p.parts + threadIdx.x) * 4;
    const bool has = threadIdx.x < p.parts;
    const double most = block_max(has ? mine[0] : -1.0e300);
    const double sum = block_sum(has ? mine[1] * exp((mine[0] - most) * p.inverse_temperature) : 0.0);
    const double weight = block_sum(has ? mine[2] : 0.0);
    const double weighted = block_sum(has ? mine[3] : 0.0);
    if (threadIdx.x == 0) {
        statistics[sample * 3] = most * p.inverse_temperature + log(sum);
        statistics[sample * 3 + 1] = weight;
        statistics[sample * 3 + 2] = weighted;
    }
}

extern "C" __global__ void softmax_forward(const float* __restrict__ logits, const double* __restrict__ statistics, float* __restrict__ y, SampleParameters p) {
    const unsigned sample = blockIdx.y, first = blockIdx.x * blockDim.x + threadIdx.x;
    const double log_sum = statistics[sample * 3];
    for (unsigned i = first; i < p.length; i += p.parts * blockDim.x)
        y[sample * p.length + i] = expf(float(logits[sample * p.length + i] - log_sum));
}

// Each block's share of the sum of y · gradient.
extern "C" __global__ void softmax_along(const float* __restrict__ y, const float* __restrict__ gradient, double* __restrict__ along, SampleParameters p) {
    const unsigned sample = blockIdx.y, first = blockIdx.x * blockDim.x + threadIdx.x;
    double sum = 0.0;
    for (unsigned i = first; i < p.length; i += p.parts * blockDim.x)
        sum += double(y[sample * p.length + i]) * gradient[sample * p.length + i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) along[sample * p.parts + blockIdx.x] = sum;
}

// dx = y (gradient - sum of y · gradient)
extern "C" __global__ void softmax_backward(const float* __restrict__ y, const float* __restrict__ gradient, const double* __restrict__ along, float* __restrict__ dx, SampleParameters p) {
    const unsigned sample = blockIdx.y, first = blockIdx.x * blockDim.x + threadIdx.x;
    const double mean = block_sum(threadIdx.x < p.parts ? along[sample * p.parts + threadIdx.x] : 0.0);
    for (unsigned i = first; i < p.length; i += p.parts * blockDim.x) {
        const unsigned here = sample * p.length + i;
        dx[here] = float(y[here] * (gradient[here] - mean));
    }
}
