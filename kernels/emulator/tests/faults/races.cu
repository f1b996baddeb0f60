// Planted faults: accesses that nothing orders. The lines that a report has to name are marked.

// Sums 256 numbers as a tree; the barrier between the rounds is missing.
extern "C" __global__ void __launch_bounds__(256) missing_barrier(const float* x, float* sum) {
    __shared__ float partial[256];
    const unsigned t = threadIdx.x;
    partial[t] = x[t];
    __syncthreads();
    for (unsigned half = 128; half > 0; half /= 2) {
        if (t < half) partial[t] += partial[t + half]; // FAULT 0
    }
    if (t == 0) sum[0] = partial[0];
}

// Reverses a block's elements through shared memory.
extern "C" __global__ void reverse_without_barrier(const float* x, float* y) {
    __shared__ float tile[64];
    tile[threadIdx.x] = x[threadIdx.x]; // FAULT 1
    y[threadIdx.x] = tile[63 - threadIdx.x]; // FAULT 2
}

// A warp hands values on through shared memory; a shuffle or a vote would not order them either.
extern "C" __global__ void missing_syncwarp(const float* x, float* y) {
    __shared__ float line[32];
    line[threadIdx.x] = x[threadIdx.x]; // FAULT 3
    float all = __ballot_sync(0xffffffffu, x[threadIdx.x] > 0.0f) ? 1.0f : 0.0f;
    y[threadIdx.x] = all * line[(threadIdx.x + 1) & 31]; // FAULT 4
}

// Blocks add to one number without atomics: right in every order that runs blocks whole.
extern "C" __global__ void blocks_share_a_sum(float* sum) {
    if (threadIdx.x == 0) sum[0] += 1.0f; // FAULT 5
}

// A mixture of atomic and plain accesses.
extern "C" __global__ void half_atomic(float* sum) {
    if (threadIdx.x > 0) atomicAdd(sum, 1.0f); // FAULT 6
    else sum[0] += 1.0f; // FAULT 7
}
