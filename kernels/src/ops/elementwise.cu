// The element-by-element operations and their gradients.
#include "common.cuh"

struct ElementwiseParameters {
    unsigned count;
    float factor; // of scale
};

// y = f(x), four elements at a time; buffers begin at 256-byte boundaries.
template <typename F>
__device__ __forceinline__ void map(const float* x, float* y, unsigned count, F f) {
    const unsigned quads = count / 4;
    for (unsigned i = first_element(); i < quads; i += element_stride()) {
        const float4 v = reinterpret_cast<const float4*>(x)[i];
        reinterpret_cast<float4*>(y)[i] = make_float4(f(v.x), f(v.y), f(v.z), f(v.w));
    }
    for (unsigned i = 4 * quads + first_element(); i < count; i += element_stride()) y[i] = f(x[i]);
}

// y = f(a, b); y may be a.
template <typename F>
__device__ __forceinline__ void zip(const float* a, const float* b, float* y, unsigned count, F f) {
    const unsigned quads = count / 4;
    for (unsigned i = first_element(); i < quads; i += element_stride()) {
        const float4 u = reinterpret_cast<const float4*>(a)[i];
        const float4 v = reinterpret_cast<const float4*>(b)[i];
        reinterpret_cast<float4*>(y)[i] = make_float4(f(u.x, v.x), f(u.y, v.y), f(u.z, v.z), f(u.w, v.w));
    }
    for (unsigned i = 4 * quads + first_element(); i < count; i += element_stride()) y[i] = f(a[i], b[i]);
}

extern "C" __global__ void add_forward(const float* a, const float* b, float* y, ElementwiseParameters p) {
    zip(a, b, y, p.count, [](float a, float b) { return a + b; });
}

extern "C" __global__ void add_assign(float* sum, const float* more, ElementwiseParameters p) {
    zip(sum, more, sum, p.count, [](float sum, float more) { return sum + more; });
}

extern "C" __global__ void scale_forward(const float* x, float* y, ElementwiseParameters p) {
    map(x, y, p.count, [=](float x) { return p.factor * x; });
}

extern "C" __global__ void relu_forward(const float* x, float* y, ElementwiseParameters p) {
    map(x, y, p.count, [](float x) { return relu(x); });
}

extern "C" __global__ void relu_backward(const float* x, const float* gradient, float* dx, ElementwiseParameters p) {
    zip(x, gradient, dx, p.count, [](float x, float g) { return g * relu_slope(x); });
}

extern "C" __global__ void silu_forward(const float* x, float* y, ElementwiseParameters p) {
    map(x, y, p.count, [](float x) { return silu(x); });
}

extern "C" __global__ void silu_backward(const float* x, const float* gradient, float* dx, ElementwiseParameters p) {
    zip(x, gradient, dx, p.count, [](float x, float g) { return g * silu_slope(x); });
}

extern "C" __global__ void sigmoid_forward(const float* x, float* y, ElementwiseParameters p) {
    map(x, y, p.count, [](float x) { return sigmoid(x); });
}

// From the output y, not the input.
extern "C" __global__ void sigmoid_backward(const float* y, const float* gradient, float* dx, ElementwiseParameters p) {
    zip(y, gradient, dx, p.count, [](float y, float g) { return g * y * (1.0f - y); });
}

// The normal distribution and its density.
__device__ __forceinline__ float normal(float x) { return 0.5f * erfcf(-0.70710678f * x); }
__device__ __forceinline__ float normal_density(float x) { return 0.39894228f * expf(-0.5f * x * x); }

extern "C" __global__ void gelu_forward(const float* x, float* y, ElementwiseParameters p) {
    map(x, y, p.count, [](float x) { return x * normal(x); });
}

extern "C" __global__ void gelu_backward(const float* x, const float* gradient, float* dx, ElementwiseParameters p) {
    zip(x, gradient, dx, p.count, [](float x, float g) { return g * (x * normal_density(x) + normal(x)); });
}
