// Joins image batches along their channels, one launch for each part.
#include "common.cuh"

struct ConcatParameters {
    unsigned count;       // elements of the part
    unsigned span;        // of them in each sample
    unsigned joined_span; // elements of the joined tensor in each sample
    unsigned offset;      // of them before this part
};

__device__ __forceinline__ unsigned place(unsigned i, const ConcatParameters& p) {
    return i / p.span * p.joined_span + p.offset + i % p.span;
}

extern "C" __global__ void concat_join(const float* __restrict__ part, float* __restrict__ joined, ConcatParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) joined[place(i, p)] = part[i];
}

extern "C" __global__ void concat_part(const float* __restrict__ joined, float* __restrict__ part, ConcatParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) part[i] = joined[place(i, p)];
}
