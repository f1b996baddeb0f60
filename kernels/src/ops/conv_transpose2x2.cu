// The copies of a transposed convolution: between [N, O, 2, 2, H / 2, W / 2], what the matrix
// product makes, and the image [N, O, H, W].
#include "common.cuh"

struct SquareParameters {
    unsigned count;
    unsigned outputs; // channels
    unsigned height;  // of the image
    unsigned width;
};

// Where V neighbours of the product lie, in packs of V, and their two rows in the image, in packs
// of 2 V.
struct Squares {
    unsigned plane, corner[4], row[2];
};

template <unsigned V>
__device__ __forceinline__ Squares squares_at(unsigned i, const SquareParameters& p) {
    const unsigned columns = p.width / (2 * V), rows = p.height / 2;
    const unsigned line = i / columns, column = i - line * columns, plane = line / rows, y = line - plane * rows;
    Squares at;
    at.plane = plane;
    for (unsigned corner = 0; corner < 4; ++corner) at.corner[corner] = ((plane * 4 + corner) * rows + y) * columns + column;
    for (unsigned dy = 0; dy < 2; ++dy) at.row[dy] = (2 * line + dy) * columns + column;
    return at;
}

template <unsigned V>
__device__ __forceinline__ void spread(const float* __restrict__ product, const float* __restrict__ bias, float* __restrict__ y, const SquareParameters& p) {
    for (unsigned i = first_element(); i < p.count / (4 * V); i += element_stride()) {
        const Squares at = squares_at<V>(i, p);
        Pack<V> corners[4];
        for (unsigned corner = 0; corner < 4; ++corner) corners[corner] = load_pack<V>(product, at.corner[corner]);
        const float shift = bias[at.plane % p.outputs];
        for (unsigned dy = 0; dy < 2; ++dy) {
            Pack<2 * V> row;
            for (unsigned x = 0; x < 2 * V; ++x) row.at[x] = corners[2 * dy + x % 2].at[x / 2] + shift;
            store_pack(y, at.row[dy], row);
        }
    }
}

template <unsigned V>
__device__ __forceinline__ void gather(const float* __restrict__ gradient, float* __restrict__ product, const SquareParameters& p) {
    for (unsigned i = first_element(); i < p.count / (4 * V); i += element_stride()) {
        const Squares at = squares_at<V>(i, p);
        Pack<2 * V> rows[2];
        for (unsigned dy = 0; dy < 2; ++dy) rows[dy] = load_pack<2 * V>(gradient, at.row[dy]);
        for (unsigned corner = 0; corner < 4; ++corner) {
            Pack<V> values;
            for (unsigned x = 0; x < V; ++x) values.at[x] = rows[corner / 2].at[2 * x + corner % 2];
            store_pack(product, at.corner[corner], values);
        }
    }
}

extern "C" __global__ void __launch_bounds__(256, 4) conv_transpose2x2_spread(const float* __restrict__ product, const float* __restrict__ bias, float* __restrict__ y, SquareParameters p) {
    if (p.width % 4 == 0) spread<2>(product, bias, y, p);
    else spread<1>(product, bias, y, p);
}

extern "C" __global__ void __launch_bounds__(256, 4) conv_transpose2x2_gather(const float* __restrict__ gradient, const float*, float* __restrict__ product, SquareParameters p) {
    if (p.width % 4 == 0) gather<2>(gradient, product, p);
    else gather<1>(gradient, product, p);
}
