// Shared by all kernels: sums over warps and blocks, constants, activations. Kernels include nothing
// else, so NVRTC needs no toolkit headers.
#pragma once

// The emulator defines its own.
#ifndef EXTERN_SHARED
#define EXTERN_SHARED(T, name) extern __shared__ __align__(16) unsigned char shared_memory_##name[]; T* name = reinterpret_cast<T*>(shared_memory_##name)
#endif

#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif

#define FULL_WARP 0xffffffffu

// The buffer at an address that came in a kernel's parameters, low half first.
__device__ __forceinline__ float* buffer_at(const unsigned words[2]) {
    return reinterpret_cast<float*>(static_cast<unsigned long long>(words[1]) << 32 | words[0]);
}

// The double whose bits came in a kernel's parameters, low half first.
__device__ __forceinline__ double double_of(const unsigned words[2]) { return __hiloint2double(int(words[1]), int(words[0])); }

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

// Division by a launch constant, as a multiplication, for numerators below 2^31 (Granlund,
// Montgomery 1994, "Division by Invariant Integers using Multiplication", figure 4.1). The host
// makes it.
struct Divider {
    unsigned divisor;
    unsigned multiplier;
    unsigned shift;
};

__device__ __forceinline__ unsigned quotient(unsigned n, const Divider& d) {
    return (__umulhi(n, d.multiplier) + n) >> d.shift;
}

// A pack: the neighbours that a thread loads or stores at once. Four where the length of planes is a
// multiple of four, so that no pack crosses two planes, else one. Buffers begin at 256-byte boundaries.
template <unsigned W>
struct Pack {
    float at[W];
};

template <unsigned W>
__device__ __forceinline__ Pack<W> load_pack(const float* from, unsigned index) {
    Pack<W> pack;
    if constexpr (W == 4) {
        const float4 v = reinterpret_cast<const float4*>(from)[index];
        pack.at[0] = v.x, pack.at[1] = v.y, pack.at[2] = v.z, pack.at[3] = v.w;
    } else if constexpr (W == 2) {
        const float2 v = reinterpret_cast<const float2*>(from)[index];
        pack.at[0] = v.x, pack.at[1] = v.y;
    } else {
        static_assert(W == 1, "one, two or four elements");
        pack.at[0] = from[index];
    }
    return pack;
}

template <unsigned W>
__device__ __forceinline__ void store_pack(float* to, unsigned index, const Pack<W>& pack) {
    if constexpr (W == 4) reinterpret_cast<float4*>(to)[index] = make_float4(pack.at[0], pack.at[1], pack.at[2], pack.at[3]);
    else if constexpr (W == 2) reinterpret_cast<float2*>(to)[index] = make_float2(pack.at[0], pack.at[1]);
    else to[index] = pack.at[0];
}

// A thread's share of the sum over `packs` packs of a plane that is one block's, with several in
// flight; pack(i) gives one of them.
template <unsigned W, typename F>
__device__ __forceinline__ float plane_sum(unsigned packs, F pack) {
    constexpr unsigned K = 4;
    float sums[W] = {};
    for (unsigned i = threadIdx.x; i < packs; i += K * blockDim.x) {
        Pack<W> some[K];
#pragma unroll
        for (unsigned k = 0; k < K; ++k)
            if (i + k * blockDim.x < packs) some[k] = pack(i + k * blockDim.x);
#pragma unroll
        for (unsigned k = 0; k < K; ++k) {
            if (i + k * blockDim.x >= packs) continue;
            for (unsigned e = 0; e < W; ++e) sums[e] += some[k].at[e];
        }
    }
    float sum = sums[0];
    for (unsigned e = 1; e < W; ++e) sum += sums[e];
    return sum;
}

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

// As block_sum, two sums at once.
template <typename T>
__device__ __forceinline__ void block_sums(T& a, T& b) {
    __shared__ T partial[64];
    const unsigned lane = thread_of_block() & 31u, warp = thread_of_block() >> 5;
    const bool has = lane < threads_of_block() / 32u;
    a = warp_sum(a), b = warp_sum(b);
    __syncthreads();
    if (lane == 0) partial[warp] = a, partial[32 + warp] = b;
    __syncthreads();
    a = warp_sum(has ? partial[lane] : T(0)), b = warp_sum(has ? partial[32 + lane] : T(0));
}

// Sum over the threads along y of each x, the same bits in all of them, of a block of at most 256
// threads, a power of two of them along y: neighbouring pixels whose channels are shared. All must
// call it, once.
__device__ __forceinline__ float sum_along_y(float value) {
    __shared__ float shared[256];
    const unsigned here = threadIdx.y * blockDim.x + threadIdx.x;
    shared[here] = value;
    __syncthreads();
    for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
        if (threadIdx.y < half) shared[here] += shared[here + half * blockDim.x];
        __syncthreads();
    }
    return shared[threadIdx.x];
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

// To a few units in the last place: two instructions of the special function unit, so that
// activations wait for memory only. 0 where the denominator is above 2^126.
__device__ __forceinline__ float sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }

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

// Tensor cores, from sm_80 on. Fragments as the PTX ISA lays them out; the emulator has its own.
#ifndef CROSSFIX_EMULATED
// To 10 bits of mantissa, nearest, ties away from zero.
__device__ __forceinline__ unsigned to_tf32(float value) {
#if __CUDA_ARCH__ >= 800
    unsigned rounded;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(value));
    return rounded;
#else
    return __float_as_uint(value);
#endif
}

// d[16, 8] += a[16, 8] · b[8, 8]
__device__ __forceinline__ void mma_tf32_16x8x8(float* d, const unsigned* a, const unsigned* b) {
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    __trap(); // the launcher asks for full precision there
#endif
}

// d[16, 8] += a[16, 16] · b[16, 8]
__device__ __forceinline__ void mma_bf16_16x8x16(float* d, const unsigned* a, const unsigned* b) {
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    __trap();
#endif
}
#endif

// Two numbers rounded to bf16 (nearest, ties to even; NaN stays NaN), `low` in the low half.
__device__ __forceinline__ unsigned to_bf16_pair(float low, float high) {
#if !defined(CROSSFIX_EMULATED) && __CUDA_ARCH__ >= 800
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#else
    unsigned pair = 0;
    const float values[2] = {low, high};
    for (int i = 0; i < 2; ++i) {
        unsigned bits = __float_as_uint(values[i]);
        bits = values[i] == values[i] ? bits + 0x7fffu + ((bits >> 16) & 1u) : 0x7fffffffu;
        pair |= (bits >> 16) << (16 * i);
    }
    return pair;
#endif
}
