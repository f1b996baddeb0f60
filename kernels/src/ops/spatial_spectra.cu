// Spectra for correlations: two channels are the real and imaginary part of one image, sides are
// powers of two up to 1024.
#include "common.cuh"

struct SpectraParameters {
    unsigned count;    // elements written
    unsigned rows;     // of an image
    unsigned columns;
    unsigned channels; // of a sample
    unsigned pairs;    // images of a sample
    unsigned height;   // of a plane of numbers
    unsigned width;
    unsigned conjugate; // of product: whether the gradient's spectrum is
    float scale;       // of unpack
};

extern "C" __global__ void spectra_pack(const float* __restrict__ planes, float2* __restrict__ images, SpectraParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) {
        const unsigned column = i % p.columns, row = i / p.columns % p.rows, image = i / p.columns / p.rows;
        const unsigned channel = image % p.pairs * 2u, at = ((image / p.pairs * p.channels + channel) * p.height + row) * p.width + column;
        const bool inside = row < p.height && column < p.width;
        images[i] = make_float2(inside ? planes[at] : 0.0f, inside && channel + 1u < p.channels ? planes[at + p.height * p.width] : 0.0f);
    }
}

extern "C" __global__ void spectra_unpack(const float2* __restrict__ images, float* __restrict__ planes, SpectraParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) {
        const unsigned column = i % p.width, row = i / p.width % p.height, plane = i / p.width / p.height;
        const unsigned channel = plane % p.channels, image = plane / p.channels * p.pairs + channel / 2u;
        const float2 z = images[(image * p.rows + row) * p.columns + column];
        planes[i] = p.scale * (channel % 2u == 0 ? z.x : z.y);
    }
}

struct LinesParameters {
    unsigned length;  // of a line, a power of two
    unsigned bits;    // its logarithm
    unsigned lines;   // of an image, a power of two
    unsigned along;   // elements from one place of a line to the next
    unsigned beside;  // elements from one line to the next
    unsigned shared;  // lines of a block, a power of two
    unsigned twiddle; // twiddles from one of this length to the next
    float direction;  // -1 forth, 1 back
};

// Grid: parts of the lines of an image, images. Radix-2 FFT, decimation in time: lines are read in
// bit-reversed order, then each stage doubles the length of the butterflies. twiddles: e^(iφ) for φ
// up to π.
extern "C" __global__ void __launch_bounds__(256) spectra_lines(float2* images, const float2* __restrict__ twiddles, LinesParameters p) {
    EXTERN_SHARED(float2, line);
    images += blockIdx.y * p.lines * p.length + blockIdx.x * p.shared * p.beside;
    for (unsigned e = threadIdx.x; e < p.shared * p.length; e += 256) {
        const unsigned own = p.along == 1 ? e / p.length : e % p.shared, place = p.along == 1 ? e % p.length : e / p.shared;
        line[own * p.length + (__brev(place) >> (32u - p.bits))] = images[own * p.beside + place * p.along];
    }
    for (unsigned half = 1; half < p.length; half *= 2) {
        __syncthreads();
        for (unsigned e = threadIdx.x; e < p.shared * p.length / 2; e += 256) {
            const unsigned within = e % half, low = (e - within) * 2 + within;
            const float2 w = twiddles[within * (p.length / 2 / half) * p.twiddle];
            const float2 a = line[low], b = line[low + half];
            const float x = b.x * w.x - p.direction * b.y * w.y, y = b.y * w.x + p.direction * b.x * w.y;
            line[low] = make_float2(a.x + x, a.y + y);
            line[low + half] = make_float2(a.x - x, a.y - y);
        }
    }
    __syncthreads();
    for (unsigned e = threadIdx.x; e < p.shared * p.length; e += 256) {
        const unsigned own = p.along == 1 ? e / p.length : e % p.shared, place = p.along == 1 ? e % p.length : e / p.shared;
        images[own * p.beside + place * p.along] = line[own * p.length + place];
    }
}

// For each sample: the sum over its images of conj(template) · map.
extern "C" __global__ void spectra_correlate(const float2* __restrict__ templates, const float2* __restrict__ maps, float2* __restrict__ sums, SpectraParameters p) {
    const unsigned area = p.rows * p.columns;
    for (unsigned i = first_element(); i < p.count; i += element_stride()) {
        const unsigned first = i / area * p.pairs * area + i % area;
        float2 sum = make_float2(0.0f, 0.0f);
        for (unsigned pair = 0; pair < p.pairs; ++pair) {
            const float2 t = templates[first + pair * area], s = maps[first + pair * area];
            sum.x += t.x * s.x + t.y * s.y;
            sum.y += t.x * s.y - t.y * s.x;
        }
        sums[i] = sum;
    }
}

// Images of a sample times the spectrum of its gradient, or the conjugate of that.
extern "C" __global__ void spectra_product(const float2* __restrict__ images, const float2* __restrict__ gradients, float2* __restrict__ products, SpectraParameters p) {
    const unsigned area = p.rows * p.columns;
    const float sign = p.conjugate != 0 ? -1.0f : 1.0f;
    for (unsigned i = first_element(); i < p.count; i += element_stride()) {
        const float2 z = images[i], g = gradients[i / area / p.pairs * area + i % area];
        products[i] = make_float2(z.x * g.x - sign * z.y * g.y, sign * z.x * g.y + z.y * g.x);
    }
}
