// Joins image batches along their channels, one launch for each part.
#include "common.cuh"

#define IN_FLIGHT 4 // packs that a thread moves

// In packs: four elements where planes are multiples of four, else one.
struct ConcatParameters {
    unsigned count;       // of the part
    unsigned wide;        // whether they are four
    Divider in_sample;    // by those of the part in a sample
    unsigned joined_span; // of the joined tensor in each sample
    unsigned offset;      // of them before this part
};

__device__ __forceinline__ unsigned place(unsigned i, const ConcatParameters& p) {
    const unsigned sample = quotient(i, p.in_sample);
    return sample * (p.joined_span - p.in_sample.divisor) + p.offset + i;
}

// To the joined tensor, or from there. Whether all packs of the block are there says `Full`:
// without a condition between them, their loads stay together.
template <unsigned W, bool Join, bool Full>
__device__ __forceinline__ void move_packs(const float* __restrict__ from, float* __restrict__ to, unsigned first, const ConcatParameters& p) {
    Pack<W> packs[IN_FLIGHT];
#pragma unroll
    for (unsigned k = 0; k < IN_FLIGHT; ++k) {
        const unsigned i = first + k * blockDim.x;
        if (Full || i < p.count) packs[k] = load_pack<W>(from, Join ? i : place(i, p));
    }
#pragma unroll
    for (unsigned k = 0; k < IN_FLIGHT; ++k) {
        const unsigned i = first + k * blockDim.x;
        if (Full || i < p.count) store_pack(to, Join ? place(i, p) : i, packs[k]);
    }
}

template <unsigned W, bool Join>
__device__ __forceinline__ void move(const float* __restrict__ from, float* __restrict__ to, const ConcatParameters& p) {
    const unsigned begin = blockIdx.x * IN_FLIGHT * blockDim.x;
    if (begin + IN_FLIGHT * blockDim.x <= p.count) move_packs<W, Join, true>(from, to, begin + threadIdx.x, p);
    else move_packs<W, Join, false>(from, to, begin + threadIdx.x, p);
}

extern "C" __global__ void __launch_bounds__(256, 4) concat_join(const float* __restrict__ part, float* __restrict__ joined, ConcatParameters p) {
    if (p.wide) move<4, true>(part, joined, p);
    else move<1, true>(part, joined, p);
}

extern "C" __global__ void __launch_bounds__(256, 4) concat_part(const float* __restrict__ joined, float* __restrict__ part, ConcatParameters p) {
    if (p.wide) move<4, false>(joined, part, p);
    else move<1, false>(joined, part, p);
}
