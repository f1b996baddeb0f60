// A rectangle cut from every image; its gradient lies in zeros.
#include "common.cuh"

struct CropParameters {
    unsigned count;  // elements written: of the rectangles forward, of the images backward
    unsigned width;  // of an image
    unsigned pixels; // of an image
    unsigned top;
    unsigned left;
    unsigned cut_height;
    unsigned cut_width;
};

extern "C" __global__ void crop2d_forward(const float* __restrict__ x, float* __restrict__ y, CropParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) {
        const unsigned column = i % p.cut_width, row = i / p.cut_width % p.cut_height, plane = i / p.cut_width / p.cut_height;
        y[i] = x[plane * p.pixels + (p.top + row) * p.width + p.left + column];
    }
}

extern "C" __global__ void crop2d_backward(const float* __restrict__ gradient, float* __restrict__ dx, CropParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) {
        // Before the rectangle these wrap around to large numbers.
        const unsigned row = i % p.pixels / p.width - p.top, column = i % p.width - p.left;
        const bool inside = row < p.cut_height && column < p.cut_width;
        dx[i] = inside ? gradient[(i / p.pixels * p.cut_height + row) * p.cut_width + column] : 0.0f;
    }
}
