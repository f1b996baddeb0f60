// CUDA's built-in functions that C++ does not have, and its 16-bit numbers.
#pragma once

// The C library reserves some of these names, hence macros.
#define __expf(x) (expf(x))
#define __logf(x) (logf(x))
#define __log2f(x) (log2f(x))
#define __sinf(x) (sinf(x))
#define __cosf(x) (cosf(x))
#define __powf(x, y) (powf((x), (y)))
#define __fdividef(x, y) ((x) / (y))
#define __fdiv_rn(x, y) ((x) / (y))
#define __frcp_rn(x) (1.0f / (x))
#define __fsqrt_rn(x) (sqrtf(x))
#define __fmaf_rn(x, y, z) (fmaf((x), (y), (z)))
#define __ldg(address) (*(address))
#define __ldcs(address) (*(address))
#define __ldcg(address) (*(address))
#define __stcs(address, value) ((void)(*(address) = (value)))
#define __trap() (emulated::fail("__trap() at %s:%d", __FILE__, __LINE__))

#define CROSSFIX_INLINE static inline __attribute__((unused))
CROSSFIX_INLINE float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
CROSSFIX_INLINE float __frsqrt_rn(float x) { return rsqrtf(x); }
CROSSFIX_INLINE float exp10f_(float x) { return std::pow(10.0f, x); }
CROSSFIX_INLINE float __saturatef(float x) { return !(x > 0) ? 0.0f : x < 1 ? x : 1.0f; }
// Rounded on their own: never contracted into a fused multiply-add.
CROSSFIX_INLINE __attribute__((noinline)) float __fmul_rn(float x, float y) { return x * y; }
CROSSFIX_INLINE __attribute__((noinline)) float __fadd_rn(float x, float y) { return x + y; }
CROSSFIX_INLINE __attribute__((noinline)) float __fsub_rn(float x, float y) { return x - y; }
template <class To, class From>
CROSSFIX_INLINE To crossfix_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "sizes differ");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}
CROSSFIX_INLINE int __float_as_int(float x) { return crossfix_bits<int>(x); }
CROSSFIX_INLINE unsigned __float_as_uint(float x) { return crossfix_bits<unsigned>(x); }
CROSSFIX_INLINE float __int_as_float(int x) { return crossfix_bits<float>(x); }
CROSSFIX_INLINE float __uint_as_float(unsigned x) { return crossfix_bits<float>(x); }
CROSSFIX_INLINE double __hiloint2double(int high, int low) {
    return crossfix_bits<double>(uint64_t(uint32_t(high)) << 32 | uint32_t(low));
}
CROSSFIX_INLINE int __float2int_rn(float x) { return int(std::nearbyint(x)); }
CROSSFIX_INLINE int __float2int_rd(float x) { return int(std::floor(x)); }
CROSSFIX_INLINE int __float2int_rz(float x) { return int(x); }
CROSSFIX_INLINE int __popc(unsigned x) { return __builtin_popcount(x); }
CROSSFIX_INLINE int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
CROSSFIX_INLINE int __ffs(int x) { return __builtin_ffs(x); }
CROSSFIX_INLINE unsigned __umulhi(unsigned x, unsigned y) { return unsigned(uint64_t(x) * y >> 32); }
CROSSFIX_INLINE int __mulhi(int x, int y) { return int(int64_t(x) * y >> 32); }
CROSSFIX_INLINE unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
    return (unsigned long long)((unsigned __int128)x * y >> 64);
}
CROSSFIX_INLINE unsigned __brev(unsigned x) {
    unsigned y = 0;
    for (int i = 0; i < 32; i++) y |= (x >> i & 1) << (31 - i);
    return y;
}
using std::isfinite;
using std::isinf;
using std::isnan;
template <class A, class B>
CROSSFIX_INLINE std::common_type_t<A, B> min(A a, B b) {
    using C = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point_v<C>) return std::fmin(C(a), C(b));
    else return C(a) < C(b) ? C(a) : C(b);
}
template <class A, class B>
CROSSFIX_INLINE std::common_type_t<A, B> max(A a, B b) {
    using C = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point_v<C>) return std::fmax(C(a), C(b));
    else return C(a) > C(b) ? C(a) : C(b);
}
#ifndef CUDART_INF_F
#define CUDART_INF_F INFINITY
#define CUDART_NAN_F NAN
#endif

// bfloat16 and half, converted to the nearest, ties to even.
struct __nv_bfloat16 {
    uint16_t bits;
};
struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};
CROSSFIX_INLINE float __bfloat162float(__nv_bfloat16 h) { return __uint_as_float(uint32_t(h.bits) << 16); }
CROSSFIX_INLINE __nv_bfloat16 __float2bfloat16(float f) {
    uint32_t bits = __float_as_uint(f);
    if ((bits & 0x7fffffff) > 0x7f800000) return {0x7fff};  // what the GPU gives for any NaN
    return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
CROSSFIX_INLINE __nv_bfloat16 __float2bfloat16_rn(float f) { return __float2bfloat16(f); }
CROSSFIX_INLINE __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
    return {__float2bfloat16(x), __float2bfloat16(y)};
}
CROSSFIX_INLINE __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return {bits}; }
CROSSFIX_INLINE unsigned short __bfloat16_as_ushort(__nv_bfloat16 h) { return h.bits; }
using nv_bfloat16 = __nv_bfloat16;
using nv_bfloat162 = __nv_bfloat162;
struct __half {
    uint16_t bits;
};
// By hand, as not every CPU's compiler has _Float16.
CROSSFIX_INLINE float __half2float(__half h) {
    uint32_t sign = uint32_t(h.bits & 0x8000) << 16, exponent = h.bits >> 10 & 31, fraction = h.bits & 1023;
    if (exponent == 31) return __uint_as_float(sign | 0x7f800000 | fraction << 13);
    float magnitude = exponent ? std::ldexp(float(1024 + fraction), int(exponent) - 25) : std::ldexp(float(fraction), -24);
    return sign ? -magnitude : magnitude;
}
CROSSFIX_INLINE __half __float2half(float f) {
    uint16_t sign = uint16_t(__float_as_uint(f) >> 16 & 0x8000);
    float magnitude = std::fabs(f);
    if (f != f) return {0x7fff};
    if (magnitude >= 65520.0f) return {uint16_t(sign | 0x7c00)};
    int exponent;
    std::frexp(magnitude, &exponent);
    int step = (exponent < -13 ? -13 : exponent) - 11;  // the exponent of the last bit kept
    int units = int(std::nearbyint(std::ldexp(magnitude, -step)));
    return {uint16_t(sign | (units + (step + 24) * 1024))};
}
using half = __half;
