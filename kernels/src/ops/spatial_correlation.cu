// How well a template fits at each place of a map: the sum as defined, from tiles in shared
// memory. Both gradients are correlations too: that of the template lays the gradient on the map,
// that of the map is the flipped template on the zero-padded gradient.
#include "common.cuh"

struct CorrelateParameters {
    int template_rows;
    int template_columns;
    int map_rows;
    int map_columns;
    int rows;             // of the output
    int columns;
    int pad_rows;         // zeros above and to the left of the map
    int pad_columns;
    unsigned channels;
    unsigned depth;       // channels added up in one output, before `parts` of them are
    unsigned parts;       // outputs of a sample
    unsigned one_template; // whether the channels of a sample share a template
    unsigned one_map;      // or a map
    unsigned flipped;       // whether the template is read from its end
};

#define TILE_ROWS 32
#define TILE_COLUMNS 64
#define CHUNK_ROWS 8
#define CHUNK_COLUMNS 32
#define MAP_COLUMNS (TILE_COLUMNS + CHUNK_COLUMNS)

// Grid: outputs, tiles. Blocks of 32 × 8: a thread has 8 neighbours in a row, a warp 32 rows, whose
// odd pitch keeps them in banks of their own. A step of 8 template columns reads 8 map values and
// two float4 for 64 multiplications.
extern "C" __global__ void __launch_bounds__(256) correlate_tiles(const float* __restrict__ templates, const float* __restrict__ maps, float* __restrict__ output, CorrelateParameters p) {
    __shared__ float tile[TILE_ROWS + CHUNK_ROWS - 1][MAP_COLUMNS + 1];
    __shared__ __align__(16) float factors[CHUNK_ROWS][CHUNK_COLUMNS];
    const int across = (p.columns + TILE_COLUMNS - 1) / TILE_COLUMNS, thread = thread_of_block();
    const int top = blockIdx.y / across * TILE_ROWS, left = blockIdx.y % across * TILE_COLUMNS;
    const unsigned sample = blockIdx.x / p.parts, first = blockIdx.x % p.parts * p.depth;
    float total[8] = {};
    for (unsigned channel = first; channel < min(first + p.depth, p.channels); ++channel) {
        const unsigned plane = sample * p.channels + channel;
        const float* factor = templates + (p.one_template ? sample : plane) * p.template_rows * p.template_columns;
        const float* map = maps + (p.one_map ? sample : plane) * p.map_rows * p.map_columns;
        for (int i = 0; i < p.template_rows; i += CHUNK_ROWS) {
            const int above = top + i - p.pad_rows; // first row of the map that is read
            if (above >= p.map_rows || above + TILE_ROWS + CHUNK_ROWS - 1 <= 0) continue;
            for (int j = 0; j < p.template_columns; j += CHUNK_COLUMNS) {
                const int before = left + j - p.pad_columns;
                if (before >= p.map_columns || before + MAP_COLUMNS <= 0) continue;
                __syncthreads(); // somebody may still read the last tile
                {
                    const int row = i + thread / CHUNK_COLUMNS, column = j + thread % CHUNK_COLUMNS;
                    const int at = row * p.template_columns + column, last = p.template_rows * p.template_columns - 1;
                    const bool inside = row < p.template_rows && column < p.template_columns;
                    factors[thread / CHUNK_COLUMNS][thread % CHUNK_COLUMNS] = inside ? factor[p.flipped ? last - at : at] : 0.0f;
                }
                for (int e = thread; e < (TILE_ROWS + CHUNK_ROWS - 1) * MAP_COLUMNS; e += 256) {
                    const int row = above + e / MAP_COLUMNS, column = before + e % MAP_COLUMNS;
                    const bool inside = row >= 0 && row < p.map_rows && column >= 0 && column < p.map_columns;
                    tile[e / MAP_COLUMNS][e % MAP_COLUMNS] = inside ? map[row * p.map_columns + column] : 0.0f;
                }
                __syncthreads();
                float part[8] = {};
                for (int row = 0; row < CHUNK_ROWS; ++row) {
                    const float* line = &tile[threadIdx.x + row][threadIdx.y * 8];
                    float window[16];
#pragma unroll
                    for (int k = 0; k < 8; ++k) window[k] = line[k];
#pragma unroll
                    for (int step = 0; step < CHUNK_COLUMNS; step += 8) {
#pragma unroll
                        for (int k = 0; k < 8; ++k) window[8 + k] = line[step + 8 + k];
#pragma unroll
                        for (int k = 0; k < 8; k += 4) {
                            const float4 f = *reinterpret_cast<const float4*>(&factors[row][step + k]);
#pragma unroll
                            for (int x = 0; x < 8; ++x) {
                                part[x] = fmaf(f.x, window[k + x], part[x]);
                                part[x] = fmaf(f.y, window[k + x + 1], part[x]);
                                part[x] = fmaf(f.z, window[k + x + 2], part[x]);
                                part[x] = fmaf(f.w, window[k + x + 3], part[x]);
                            }
                        }
#pragma unroll
                        for (int k = 0; k < 8; ++k) window[k] = window[8 + k];
                    }
                }
                // Partial sums of a few hundred terms, so that a million terms keep their precision.
#pragma unroll
                for (int x = 0; x < 8; ++x) total[x] += part[x];
            }
        }
    }
    const int row = top + threadIdx.x;
    float* to = output + (blockIdx.x * p.rows + row) * p.columns;
    for (int x = 0; x < 8; ++x) {
        const int column = left + threadIdx.y * 8 + x;
        if (row < p.rows && column < p.columns) to[column] = total[x];
    }
}

struct CorrelateSumParameters {
    unsigned count;  // elements of the sum
    unsigned places; // of them in one sample
    unsigned parts;
};

extern "C" __global__ void correlate_sum(const float* __restrict__ partial, float* __restrict__ output, CorrelateSumParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) {
        const float* mine = partial + i / p.places * p.parts * p.places + i % p.places;
        double sum = 0.0;
        for (unsigned part = 0; part < p.parts; ++part) sum += mine[part * p.places];
        output[i] = float(sum);
    }
}
