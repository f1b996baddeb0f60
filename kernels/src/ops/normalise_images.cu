// Pixels to what a network's first layer reads: rolled, coloured and normalised in one pass.
#include "common.cuh"

struct NormaliseImagesParameters {
    unsigned count;  // pixels of all samples, each of three channels
    unsigned pixels; // of a channel
    unsigned width;
    unsigned wraps;  // whether what is rolled out comes in on the other side, or black
    float scale[3];  // of each channel
    float offset[3];
    unsigned bf16;   // whether to round to 8 bits of mantissa
};

// The column that a roll brings to `x`; one beyond the row where black comes in. A roll that is no
// number is none.
__device__ __forceinline__ unsigned column_of(unsigned x, float roll, unsigned width, bool wraps) {
    const float whole = floorf(roll), length = float(width);
    if (wraps) {
        const float left = whole - floorf(whole / length) * length;
        const unsigned columns = left >= 0.0f && left < length ? unsigned(left) : 0u;
        return x < columns ? x + width - columns : x - columns;
    }
    const float columns = whole == whole ? fminf(fmaxf(whole, -length), length) : 0.0f;
    return unsigned(int(x) - int(columns)); // left of the row is far right of it
}

// Not fminf and fmaxf, which make a number of what is none.
__device__ __forceinline__ float within_bytes(float value) {
    return value < 0.0f ? 0.0f : value > 255.0f ? 255.0f : value;
}

// A thread for each pixel. `augment`, [samples, 6], has for each sample columns to roll by,
// saturation, a gain for each channel and an offset; null for none.
extern "C" __global__ void normalise_images(const unsigned char* __restrict__ images, const float* __restrict__ augment, float* __restrict__ y, NormaliseImagesParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) {
        const unsigned sample = i / p.pixels, at = i % p.pixels, first = sample * 3u * p.pixels;
        const unsigned char* image = images + first;
        float red = 0.0f, green = 0.0f, blue = 0.0f;
        if (augment == nullptr) {
            red = image[at], green = image[at + p.pixels], blue = image[at + 2u * p.pixels];
        } else {
            const float* mine = augment + sample * 6u;
            const unsigned x = at % p.width, column = column_of(x, mine[0], p.width, p.wraps != 0);
            if (column < p.width) {
                const unsigned from = at - x + column;
                const float r = image[from], g = image[from + p.pixels], b = image[from + 2u * p.pixels];
                const float grey = (r + g + b) / 3.0f, saturation = mine[1], offset = mine[5];
                red = within_bytes((grey + saturation * (r - grey)) * mine[2] + offset);
                green = within_bytes((grey + saturation * (g - grey)) * mine[3] + offset);
                blue = within_bytes((grey + saturation * (b - grey)) * mine[4] + offset);
            }
        }
        const float values[3] = {
            red * p.scale[0] + p.offset[0],
            green * p.scale[1] + p.offset[1],
            blue * p.scale[2] + p.offset[2],
        };
        float* output = y + first + at;
#pragma unroll
        for (unsigned channel = 0; channel < 3u; ++channel) {
            const float value = values[channel];
            output[channel * p.pixels] = p.bf16 != 0 ? __uint_as_float(to_bf16_pair(value, 0.0f) << 16) : value;
        }
    }
}
