// Pixels to what a network's first layer reads: rolled, brightened, normalised, in one pass.
#include "common.cuh"

struct NormaliseImagesParameters {
    unsigned count;  // elements of all images
    unsigned pixels; // of a channel
    unsigned width;
    float scale[3];  // of each channel
    float offset[3];
    unsigned bf16;   // whether to round to 8 bits of mantissa
};

// A roll modulo the width; one that is no number is none.
__device__ __forceinline__ unsigned columns_of(float roll, unsigned width) {
    const float whole = floorf(roll), turns = floorf(whole / width);
    const float columns = whole - turns * width;
    return columns >= 0.0f && columns < width ? unsigned(columns) : 0u;
}

// `augment`, [samples, 4], has for each sample columns to roll by and a gain for each channel; null
// for none.
template <typename Pixel>
__device__ __forceinline__ void normalise(const Pixel* pixels, const float* augment, float* y, const NormaliseImagesParameters& p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) {
        const unsigned plane = i / p.pixels, channel = plane % 3u;
        unsigned from = i;
        float gain = 1.0f;
        if (augment != nullptr) {
            const float* mine = augment + plane / 3u * 4u;
            const unsigned x = i % p.width, roll = columns_of(mine[0], p.width);
            from = i - x + (x < roll ? x + p.width - roll : x - roll);
            gain = mine[1 + channel];
        }
        // Chosen, not indexed: an index would copy the parameters to local memory.
        const float scale = channel == 0 ? p.scale[0] : channel == 1 ? p.scale[1] : p.scale[2];
        const float offset = channel == 0 ? p.offset[0] : channel == 1 ? p.offset[1] : p.offset[2];
        const float value = float(pixels[from]) * gain * scale + offset;
        y[i] = p.bf16 != 0 ? __uint_as_float(to_bf16_pair(value, 0.0f) << 16) : value;
    }
}

extern "C" __global__ void normalise_images_bytes(const unsigned char* __restrict__ pixels, const float* __restrict__ augment, float* __restrict__ y, NormaliseImagesParameters p) {
    normalise(pixels, augment, y, p);
}

extern "C" __global__ void normalise_images_values(const float* __restrict__ pixels, const float* __restrict__ augment, float* __restrict__ y, NormaliseImagesParameters p) {
    normalise(pixels, augment, y, p);
}
