// What every kernel may use. No kernel includes anything else, so that NVRTC needs no header of a
// toolkit: sums over warps and blocks, constants, activations.
#pragma once

// The emulator defines its own.
#ifndef EXTERN_SHARED
#define EXTERN_SHARED(T, name) extern __shared__ __align__(16) unsigned char shared_memory_##name[]; T* name = reinterpret_cast<T*>(shared_memory_##name)
#endif

#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif

#define FULL_WARP 0xffffffffu

// Index of the thread in its block, whatever the block's shape.
__device__ __forceinline__ unsigned thread_of_block() {
    return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}

__device__ __forceinline__ unsigned threads_of_block() {
    return blockDim.x * blockDim.y * blockDim.z;
}

// First element and stride of a loop over elements in a one-dimensional launch.
__device__ __forceinline__ unsigned first_element() { return blockIdx.x * blockDim.x + threadIdx.x; }
__device__ __forceinline__ unsigned element_stride() { return gridDim.x * blockDim.x; }

// Sum over the 32 threads of a warp, the same bits in all of them. All must call it.
template <typename T>
__device__ __forceinline__ T warp_sum(T value) {
    for (int distance = 16; distance > 0; distance >>= 1) value += __shfl_xor_sync(FULL_WARP, value, distance);
    return value;
}

template <typename T>
__device__ __forceinline__ T warp_max(T value) {
    for (int distance = 16; distance > 0; distance >>= 1) {
        T other = __shfl_xor_sync(FULL_WARP, value, distance);
        value = value < other ? other : value;
    }
    return value;
}

// Sum over a block of whole warps, the same bits in all threads and runs. All threads must call
// it; it may be called again at once.
template <typename T>
__device__ __forceinline__ T block_sum(T value) {
    __shared__ T partial[32];
    const unsigned lane = thread_of_block() & 31u, warp = thread_of_block() >> 5;
    value = warp_sum(value);
    __syncthreads(); // somebody may still read the last call's sums
    if (lane == 0) partial[warp] = value;
    __syncthreads();
    return warp_sum(lane < threads_of_block() / 32u ? partial[lane] : T(0));
}

// As block_sum, for the largest.
template <typename T>
__device__ __forceinline__ T block_max(T value) {
    __shared__ T partial[32];
    const unsigned lane = thread_of_block() & 31u, warp = thread_of_block() >> 5;
    value = warp_max(value);
    __syncthreads();
    if (lane == 0) partial[warp] = value;
    __syncthreads();
    return warp_max(partial[lane < threads_of_block() / 32u ? lane : 0]);
}

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

__device__ __forceinline__ float silu(float x) { return x * sigmoid(x); }

// s + x s (1 - s), with s the sigmoid of x.
__device__ __forceinline__ float silu_slope(float x) {
    const float s = sigmoid(x);
    return s * (x * (1.0f - s) + 1.0f);
}

// max(x, 0), except that NaN stays NaN.
__device__ __forceinline__ float relu(float x) { return x < 0.0f ? 0.0f : x; }

// 1 where x is positive, else 0; NaN stays NaN.
__device__ __forceinline__ float relu_slope(float x) { return x > 0.0f ? 1.0f : (x <= 0.0f ? 0.0f : x); }
