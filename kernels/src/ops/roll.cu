// Rolls a tensor along one axis; backward is the roll the other way.
#include "common.cuh"

struct RollParameters {
    unsigned count;  // elements
    unsigned span;   // elements of the axis and all axes after it
    unsigned from;   // element of a span that comes first in the result
};

extern "C" __global__ void roll_forward(const float* __restrict__ x, float* __restrict__ y, RollParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) {
        const unsigned within = i % p.span;
        const unsigned moved = within + p.from; // below 2 span, so below 2^32
        y[i] = x[i - within + (moved < p.span ? moved : moved - p.span)];
    }
}
