// Planted faults: threads that wait for each other.

extern "C" __global__ void divergent_barrier(float* y) {
    if (threadIdx.x < 16) {
        __syncthreads(); // FAULT 1
    }
    y[threadIdx.x] = 1.0f;
}

extern "C" __global__ void two_barriers_for_one(float* y) {
    if (threadIdx.x < 32) {
        __syncthreads(); // FAULT 2
    } else {
        __syncthreads(); // FAULT 3
    }
    y[threadIdx.x] = 1.0f;
}

// Half a warp shuffles with all of it, the other half waits for the block.
extern "C" __global__ void barrier_against_shuffle(float* y) {
    if (threadIdx.x & 1) {
        __syncthreads(); // FAULT 4
    } else {
        y[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 2); // FAULT 5
    }
}

extern "C" __global__ void shuffle_outside_its_mask(float* y) {
    y[threadIdx.x] = __shfl_xor_sync(0xffffu, 1.0f, 2); // FAULT 6
}

// Reads lanes that do not take part: the result is nothing to rely on.
extern "C" __global__ void shuffle_from_absent_lanes(float* y) {
    if (threadIdx.x < 16) y[threadIdx.x] = __shfl_xor_sync(0xffffu, 1.0f, 16);
}

extern "C" __global__ void waits_in_a_loop(volatile float* y) {
    if (threadIdx.x == 0) {
        while (y[0] == 0.0f) {
        }
    } else {
        y[0] = 1.0f;
    }
}

extern "C" __global__ void __launch_bounds__(64) bounded(float* y) { y[threadIdx.x] = 1.0f; }
