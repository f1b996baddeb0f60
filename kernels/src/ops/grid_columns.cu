// The columns of a grid of places.
#include "common.cuh"

struct ColumnsParameters {
    unsigned count; // places
    float nudge;
};

extern "C" __global__ void grid_columns(const float2* __restrict__ grid, float* __restrict__ columns, ColumnsParameters p) {
    for (unsigned i = first_element(); i < p.count; i += element_stride()) columns[i] = grid[i].x + p.nudge;
}
