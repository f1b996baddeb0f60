// Maximum over square windows that tile the image, and where it was.
#include "common.cuh"

struct MaxPoolParameters {
    unsigned count; // elements written
    unsigned height;
    unsigned width;
    unsigned window;
};

extern "C" __global__ void max_pool2d_forward(const float* __restrict__ x, float* __restrict__ y, unsigned* __restrict__ winners, MaxPoolParameters p) {
    const unsigned rows = p.height / p.window, columns = p.width / p.window;
    for (unsigned i = first_element(); i < p.count; i += element_stride()) {
        const unsigned plane = i / (rows * columns), row = i / columns % rows, column = i % columns;
        const unsigned corner = (plane * p.height + row * p.window) * p.width + column * p.window;
        unsigned winner = corner;
        float best = x[corner];
        for (unsigned dy = 0; dy < p.window; ++dy) {
            for (unsigned dx = 0; dx < p.window; ++dx) {
                const unsigned here = corner + dy * p.width + dx;
                const float value = x[here];
                if (value > best || (value != value && best == best)) {
                    best = value;
                    winner = here;
                }
            }
        }
        y[i] = best;
        winners[i] = winner;
    }
}

extern "C" __global__ void max_pool2d_backward(const float* __restrict__ gradient, const unsigned* __restrict__ winners, float* __restrict__ dx, MaxPoolParameters p) {
    const unsigned rows = p.height / p.window, columns = p.width / p.window;
    for (unsigned i = first_element(); i < p.count; i += element_stride()) {
        const unsigned plane = i / (p.height * p.width);
        const unsigned row = i / p.width % p.height / p.window, column = i % p.width / p.window;
        float value = 0.0f;
        if (row < rows && column < columns) {
            const unsigned window = (plane * rows + row) * columns + column;
            if (winners[window] == i) value = gradient[window];
        }
        dx[i] = value;
    }
}
