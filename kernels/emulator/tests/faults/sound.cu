// No faults: what the emulator must not complain about, and must compute right.
#include "common.cuh"

extern "C" __global__ void sound_sum(const float* x, float* sum, int count) {
    float own = 0.0f;
    for (int i = int(threadIdx.x); i < count; i += int(blockDim.x)) own += x[i];
    own = block_sum(own);
    own = block_sum(threadIdx.x == 0 ? own : 0.0f);
    if (threadIdx.x == 0) sum[blockIdx.x] = own;
}

// Shared memory within a warp, ordered by __syncwarp, in half warps too.
extern "C" __global__ void sound_warp(const float* x, float* y) {
    __shared__ float line[64];
    const unsigned t = threadIdx.x, lane = t & 31u;
    line[t] = x[t];
    __syncwarp();
    float v = line[t ^ 1u];
    __syncwarp();
    const unsigned half = lane < 16 ? 0x0000ffffu : 0xffff0000u;
    line[t] = v;
    __syncwarp(half);
    v += line[t ^ 15u];
    v += __shfl_down_sync(half, v, 1, 16) + __shfl_up_sync(half, v, 1, 16);
    y[t] = v + float(__popc(__ballot_sync(0xffffffffu, lane < 5)));
}

extern "C" __global__ void sound_atomics(int* counts) {
    const int seen = __syncthreads_count(threadIdx.x < 7);
    if (threadIdx.x == 0) atomicAdd(&counts[0], seen);
    atomicMax(&counts[1], int(threadIdx.x));
}

// y[16, 8] = a[16, 16] b[16, 8] with a double-buffered copy: one warp, two steps of 8.
extern "C" __global__ void sound_tf32(const float* a, const float* b, float* y) {
    __shared__ float left[2][16][8];
    const unsigned lane = threadIdx.x, group = lane / 4u, within = lane % 4u;
    for (unsigned step = 0; step < 2; step++) {
        for (unsigned i = lane; i < 32; i += 32) {
            const unsigned row = i / 2u, part = i % 2u * 4u;
            copy_async_16(&left[step][row][part], &a[row * 16 + step * 8 + part]);
        }
        copy_async_commit();
    }
    float d[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (unsigned step = 0; step < 2; step++) {
        if (step == 0) copy_async_wait<1>();
        else copy_async_wait<0>();
        __syncwarp();
        const unsigned fa[4] = {to_tf32(left[step][group][within]), to_tf32(left[step][group + 8][within]),
                                to_tf32(left[step][group][within + 4]), to_tf32(left[step][group + 8][within + 4])};
        const unsigned fb[2] = {to_tf32(b[(step * 8 + within) * 8 + group]), to_tf32(b[(step * 8 + within + 4) * 8 + group])};
        mma_tf32_16x8x8(d, fa, fb);
    }
    for (unsigned i = 0; i < 4; i++) y[(group + i / 2 * 8) * 8 + within * 2 + i % 2] = d[i];
}

__device__ unsigned pack(float low, float high) {
    return unsigned(__bfloat16_as_ushort(__float2bfloat16(low))) | unsigned(__bfloat16_as_ushort(__float2bfloat16(high))) << 16;
}

// The same product in one bf16 instruction, the left factor through ldmatrix.
extern "C" __global__ void sound_bf16(const float* a, const float* b, float* y) {
    __shared__ __align__(16) __nv_bfloat16 left[16][16];
    const unsigned lane = threadIdx.x, group = lane / 4u, within = lane % 4u;
    for (unsigned i = lane; i < 256; i += 32) left[i / 16][i % 16] = __float2bfloat16(a[i]);
    __syncwarp();
    unsigned fa[4];
    ldmatrix_x4(fa, &left[lane % 16][lane / 16 * 8]);
    const unsigned fb[2] = {pack(b[within * 2 * 8 + group], b[(within * 2 + 1) * 8 + group]),
                            pack(b[(within * 2 + 8) * 8 + group], b[(within * 2 + 9) * 8 + group])};
    float d[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    mma_bf16_16x8x16(d, fa, fb);
    for (unsigned i = 0; i < 4; i++) y[(group + i / 2 * 8) * 8 + within * 2 + i % 2] = d[i];
}
