// Adam over many parameters in one launch, with the length of all gradients bounded.
#include "common.cuh"

#define TENSORS 64   // of one launch; what they need fits the 4 KiB of kernel parameters
#define PARTIALS 32  // blocks, and partial sums, of each tensor

struct AdamTensors {
    unsigned parameter[TENSORS][2]; // addresses, low half first
    unsigned gradient[TENSORS][2];
    unsigned first[TENSORS][2];
    unsigned second[TENSORS][2];
    unsigned count[TENSORS]; // elements
    unsigned slot[TENSORS];  // index among all parameters
    float weight_decay;
    float first_share;
    float second_share;
    float epsilon;
};

struct AdamNormParameters {
    unsigned count;     // parameters
    float most;         // the norm is bounded by this, where it is above 0
};

// partial[slot][block] = sum of the squares of the gradient's elements that the block sees, in
// double as on the processor. Grid: (PARTIALS, tensors of this launch).
extern "C" __global__ void adam_squares(double* partial, AdamTensors p) {
    const float* gradient = buffer_at(p.gradient[blockIdx.y]);
    const unsigned count = p.count[blockIdx.y];
    double sum = 0.0;
    for (unsigned i = first_element(); i < count; i += element_stride()) {
        const double g = gradient[i];
        sum += g * g;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[p.slot[blockIdx.y] * PARTIALS + blockIdx.x] = sum;
}

// norm[0] = length of all gradients together, norm[1 + slot] = length of each; factor[0] = what
// bounds the first. One block; each parameter by itself, then in order, so that runs agree.
extern "C" __global__ void adam_norm(const double* partial, float* norm, float* factor, AdamNormParameters p) {
    double total = 0.0;
    for (unsigned slot = threadIdx.x; slot < p.count; slot += blockDim.x) {
        double sum = 0.0;
        for (unsigned i = 0; i < PARTIALS; ++i) sum += partial[slot * PARTIALS + i];
        norm[1 + slot] = float(sqrt(sum));
        total += sum;
    }
    total = sqrt(block_sum(total));
    if (threadIdx.x == 0) {
        norm[0] = float(total);
        const double bound = p.most / (total + 1e-6);
        factor[0] = p.most > 0.0f && bound < 1.0 ? float(bound) : 1.0f;
    }
}

// One step of each parameter; none when the norm is not finite, so that the last good values stay.
// coefficients[slot] = (length of the step, correction of the root). Grid: (any, tensors).
extern "C" __global__ void adam_update(const float* coefficients, const float* norm, const float* factor, AdamTensors p) {
    if (!(norm[0] < INFINITY)) return;
    float* parameter = buffer_at(p.parameter[blockIdx.y]);
    const float* gradient = buffer_at(p.gradient[blockIdx.y]);
    float* first = buffer_at(p.first[blockIdx.y]);
    float* second = buffer_at(p.second[blockIdx.y]);
    const float step_size = coefficients[2 * p.slot[blockIdx.y]];
    const float root_correction = coefficients[2 * p.slot[blockIdx.y] + 1];
    const float bound = factor[0];
    for (unsigned i = first_element(); i < p.count[blockIdx.y]; i += element_stride()) {
        const float x = parameter[i];
        const float g = bound * gradient[i] + p.weight_decay * x;
        const float m = first[i] + p.first_share * (g - first[i]);
        const float v = second[i] + p.second_share * (g * g - second[i]);
        first[i] = m;
        second[i] = v;
        parameter[i] = x - step_size * m / (sqrtf(v) * root_correction + p.epsilon);
    }
}
