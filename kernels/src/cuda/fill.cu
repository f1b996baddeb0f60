// Fills a buffer with one value.
#include "common.cuh"

struct FillParameters {
    unsigned count;
    float value;
};

extern "C" __global__ void fill_forward(float* y, FillParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) y[i] = p.value;
}
