// The subset of CUDA C++ that our kernels use, as plain C++17. Comes before every emulated .cu.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>
#include "emulator.h"

#define CROSSFIX_EMULATED 1
#define __CUDA_ARCH__ 900
#ifdef CROSSFIX_SCAN
#define __global__ __crossfix_global__
#define __launch_bounds__(...) __crossfix_bounds__(__VA_ARGS__)
#else
#define __global__ __attribute__((noinline, unused))
#define __launch_bounds__(...)
#endif
#define __device__ __attribute__((unused))
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __constant__ static
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))
#define __restrict__ __restrict
// The build script gathers a .cu's static shared variables in one linker section, so that each
// block can start from poison.
#define __shared__ static __attribute__((aligned(16)))
#define EXTERN_SHARED(T, name) T* name = reinterpret_cast<T*>(emulated::dynamic_shared)

#define CROSSFIX_HERE (emulated::Place{__FILE__, __LINE__})

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
static constexpr int warpSize = 32;

// Vector types, with CUDA's alignment: a misaligned float4 is a fault there, and reported here.
#define CROSSFIX_VECTORS(T, name, align2, align4)                                              \
    struct alignas(align2) name##2 { T x, y; };                                                \
    struct name##3 { T x, y, z; };                                                             \
    struct alignas(align4) name##4 { T x, y, z, w; };                                          \
    static inline __attribute__((unused)) name##2 make_##name##2(T x, T y) { return {x, y}; }  \
    static inline __attribute__((unused)) name##3 make_##name##3(T x, T y, T z) {              \
        return {x, y, z};                                                                      \
    }                                                                                          \
    static inline __attribute__((unused)) name##4 make_##name##4(T x, T y, T z, T w) {         \
        return {x, y, z, w};                                                                   \
    }
CROSSFIX_VECTORS(float, float, 8, 16)
CROSSFIX_VECTORS(int, int, 8, 16)
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
static inline __attribute__((unused)) uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline __attribute__((unused)) uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
    return {x, y, z, w};
}
struct alignas(16) double2 { double x, y; };

// Barriers of a block.
#define __syncthreads() ((void)emulated::barrier(0, CROSSFIX_HERE))
#define __syncthreads_count(p) (emulated::barrier((p) != 0, CROSSFIX_HERE))
#define __syncthreads_or(p) (emulated::barrier((p) != 0, CROSSFIX_HERE) != 0)
#define __syncthreads_and(p) (emulated::barrier((p) == 0, CROSSFIX_HERE) == 0)
static inline __attribute__((unused)) void __threadfence() {}
static inline __attribute__((unused)) void __threadfence_block() {}

// Collective operations of a warp.
namespace emulated {
template <class T>
T shuffle_as(unsigned mask, T value, int source, Place place) {
    static_assert(sizeof(T) <= 8, "a shuffle moves at most eight bytes");
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    bits = shuffle(mask, bits, source, place);
    std::memcpy(&value, &bits, sizeof(T));
    return value;
}
// A source lane outside the segment of `width` lanes returns the own value, as CUDA specifies.
template <class T>
T shuffle_relative(unsigned mask, T value, int source, Place place, int width = 32) {
    int own = int(lane()), first = own & ~(width - 1);
    bool inside = source >= first && source < first + width;
    return shuffle_as(mask, value, inside ? source : own, place);
}
template <class T>
T shuffle_index(unsigned mask, T value, int source, Place place, int width = 32) {
    int own = int(lane()), first = own & ~(width - 1);
    return shuffle_as(mask, value, first + (source & (width - 1)), place);
}
static inline __attribute__((unused)) unsigned mask_or_all(unsigned mask = 0xffffffffu) { return mask; }
}  // namespace emulated
#define __syncwarp(...) (emulated::sync_warp(emulated::mask_or_all(__VA_ARGS__), CROSSFIX_HERE))
#define __shfl_sync(m, v, s, ...) \
    (emulated::shuffle_index((m), (v), int(s), CROSSFIX_HERE, ##__VA_ARGS__))
#define __shfl_down_sync(m, v, d, ...) \
    (emulated::shuffle_relative((m), (v), int(emulated::lane()) + int(d), CROSSFIX_HERE, ##__VA_ARGS__))
#define __shfl_up_sync(m, v, d, ...) \
    (emulated::shuffle_relative((m), (v), int(emulated::lane()) - int(d), CROSSFIX_HERE, ##__VA_ARGS__))
#define __shfl_xor_sync(m, v, x, ...) \
    (emulated::shuffle_relative((m), (v), int(emulated::lane()) ^ int(x), CROSSFIX_HERE, ##__VA_ARGS__))
#define __ballot_sync(m, p) (emulated::ballot((m), (p) != 0, CROSSFIX_HERE))
#define __any_sync(m, p) (emulated::ballot((m), (p) != 0, CROSSFIX_HERE) != 0)
#define __all_sync(m, p) (emulated::ballot((m), (p) == 0, CROSSFIX_HERE) == 0)
#define __activemask() (0xffffffffu)

// Atomics. One fiber runs at a time, so plain code is atomic; the race detector is told.
#define CROSSFIX_ATOMIC template <class T, class U> \
    static __attribute__((no_sanitize("thread"), noinline, unused)) T
#define CROSSFIX_ATOMIC_BODY(next)                   \
    {                                                \
        emulated::note_atomic(address, sizeof(T), __builtin_return_address(0)); \
        T old = *address, value = T(operand);        \
        (void)value;                                 \
        *address = (next);                           \
        return old;                                  \
    }
CROSSFIX_ATOMIC atomicAdd(T* address, U operand) CROSSFIX_ATOMIC_BODY(T(old + value))
CROSSFIX_ATOMIC atomicSub(T* address, U operand) CROSSFIX_ATOMIC_BODY(T(old - value))
CROSSFIX_ATOMIC atomicMax(T* address, U operand) CROSSFIX_ATOMIC_BODY(value > old ? value : old)
CROSSFIX_ATOMIC atomicMin(T* address, U operand) CROSSFIX_ATOMIC_BODY(value < old ? value : old)
CROSSFIX_ATOMIC atomicOr(T* address, U operand) CROSSFIX_ATOMIC_BODY(T(old | value))
CROSSFIX_ATOMIC atomicAnd(T* address, U operand) CROSSFIX_ATOMIC_BODY(T(old & value))
CROSSFIX_ATOMIC atomicExch(T* address, U operand) CROSSFIX_ATOMIC_BODY(value)
CROSSFIX_ATOMIC atomicInc(T* address, U operand) CROSSFIX_ATOMIC_BODY(old >= value ? T(0) : T(old + 1))
template <class T>
static __attribute__((no_sanitize("thread"), noinline, unused)) T atomicCAS(T* address, T compare, T value) {
    emulated::note_atomic(address, sizeof(T), __builtin_return_address(0));
    T old = *address;
    if (old == compare) *address = value;
    return old;
}

#include "cuda_math.h"
#include "cuda_tensor_core.h"

// How a launch calls a kernel: with an array of pointers to its arguments, as for cuLaunchKernel.
namespace emulated {
template <auto F>
struct Call;
template <class... A, void (*F)(A...)>
struct Call<F> {
    static constexpr size_t bytes[sizeof...(A) + 1] = {sizeof(std::decay_t<A>)..., 0};
    static constexpr size_t count = sizeof...(A);
    template <size_t... I>
    static void go(void** arguments, std::index_sequence<I...>) {
        F(*static_cast<std::decay_t<A>*>(arguments[I])...);
    }
    static void call(void** arguments) { go(arguments, std::index_sequence_for<A...>{}); }
};
constexpr unsigned first_of(unsigned first = 0, unsigned = 0, unsigned = 0) { return first; }
}  // namespace emulated
#define CROSSFIX_ENTRY(name, kernel, ...)                                                 \
    {name, &emulated::Call<&kernel>::call, emulated::Call<&kernel>::bytes,                \
     emulated::Call<&kernel>::count, emulated::first_of(__VA_ARGS__)}
