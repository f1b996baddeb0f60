// Stops training on the device when a step is not finite, and writes down how steps went, so that
// the host need not look at every one.
#include "common.cuh"

#define KEPT 64 // tensors of one launch

struct GuardParameters {
    unsigned columns; // values of a step
    unsigned rows;    // steps that the log holds
    unsigned lengths; // of gradients: all together, then of each parameter
};

struct GuardTensors {
    unsigned value[KEPT][2]; // addresses, low half first
    unsigned kept[KEPT][2];
    unsigned count[KEPT]; // elements
};

// state[0] becomes 1 with the first step whose first value (the loss) or whose length of all
// gradients is not finite, and stays; state[1] counts the steps before it. log[row] holds the
// values of a step and the length of its gradients. The lengths of the step that failed go to
// `broken`; lengths[0] = infinity keeps the optimiser from moving, in that step and all later.
// One block.
extern "C" __global__ void guard_verdict(const float* values, float* lengths, unsigned* state, float* log, float* broken, GuardParameters p) {
    const bool stopped = state[0] != 0u;
    const unsigned good_steps = state[1];
    const float length = lengths[0];
    const bool good = length < INFINITY && fabsf(values[0]) < INFINITY;
    if (!stopped) {
        float* row = log + good_steps % p.rows * (p.columns + 1);
        for (unsigned i = threadIdx.x; i < p.columns; i += blockDim.x) row[i] = values[i];
        if (threadIdx.x == 0) row[p.columns] = length;
        if (!good) {
            for (unsigned i = threadIdx.x; i < p.lengths; i += blockDim.x) broken[i] = lengths[i];
        }
    }
    __syncthreads(); // all have read what changes now
    if (threadIdx.x != 0) return;
    if (good && !stopped) {
        state[1] = good_steps + 1u;
    } else {
        state[0] = 1u;
        lengths[0] = INFINITY;
    }
}

// After a good step the kept copies follow the values; once stopped, the values are put back.
// Grid: (any, tensors of this launch).
extern "C" __global__ void guard_keep(const unsigned* state, GuardTensors p) {
    float* value = buffer_at(p.value[blockIdx.y]);
    float* kept = buffer_at(p.kept[blockIdx.y]);
    const bool stopped = state[0] != 0u;
    for (unsigned i = first_element(); i < p.count[blockIdx.y]; i += element_stride()) {
        if (stopped) value[i] = kept[i];
        else kept[i] = value[i];
    }
}
