// Where cells of the ground are seen by a pinhole camera that looks level. In doubles: a column that
// is rounded to the other side is another column, and there are few cells. A row of blocks has a
// sample.
#include "common.cuh"

struct PlaneParameters {
    unsigned samples;
    unsigned side;
    unsigned blocks; // partial sums of each number of a pose
    unsigned metres_per_cell[2];
    unsigned height_m[2];
    unsigned shift_range_m[2];
    unsigned heading_range_rad[2];
    unsigned stride[2];
};

// Depths up to this are behind the camera, metres.
constexpr double NEAREST_M = 1e-6;

struct Point {
    double across, depth;
    double across_by_heading, depth_by_heading;
};

struct Stand {
    double sine, cosine, along_m, across_m, metres_per_cell, centre;
    unsigned side;

    __device__ Point point(unsigned cell) const {
        const double right = metres_per_cell * (cell / side - centre), ahead = metres_per_cell * (cell % side - centre);
        const double forth = cosine * ahead - sine * right, sideways = cosine * right + sine * ahead;
        return {sideways + across_m, forth - along_m, forth, -sideways};
    }
};

__device__ __forceinline__ Stand stand_of(const float* pose, const PlaneParameters& p) {
    const double range_m = double_of(p.shift_range_m), angle = pose[2] * double_of(p.heading_range_rad);
    return {sin(angle), cos(angle), range_m * pose[0], range_m * pose[1], double_of(p.metres_per_cell), p.side / 2.0, p.side};
}

extern "C" __global__ void plane_grid_forward(const float* __restrict__ poses, const float4* __restrict__ cameras, float2* __restrict__ grid, PlaneParameters p) {
    const unsigned cells = p.side * p.side, sample = blockIdx.y;
    const Stand stand = stand_of(poses + 3u * sample, p);
    const float4 camera = cameras[sample];
    const double stride = double_of(p.stride), height_m = double_of(p.height_m);
    const double fx = camera.x / stride, fy = camera.y / stride, cx = camera.z / stride, cy = camera.w / stride;
    for (unsigned i = first_element(); i < cells; i += element_stride()) {
        const Point at = stand.point(i);
        const double depth = at.depth > NEAREST_M ? at.depth : NEAREST_M;
        grid[sample * cells + i] = make_float2(float((fx * at.across + cx * at.depth) / depth), float((fy * height_m + cy * at.depth) / depth));
    }
}

// 1 for cells in front of the camera, 0 for those behind it.
extern "C" __global__ void plane_grid_in_front(const float* __restrict__ poses, float* __restrict__ seen, PlaneParameters p) {
    const unsigned cells = p.side * p.side, sample = blockIdx.y;
    const Stand stand = stand_of(poses + 3u * sample, p);
    for (unsigned i = first_element(); i < cells; i += element_stride()) seen[sample * cells + i] = stand.point(i).depth > NEAREST_M ? 1.0f : 0.0f;
}

// With x = fx a / d + cx and y = fy h / d + cy: a block's share of the three sums of its sample.
extern "C" __global__ void plane_grid_partial(const float* __restrict__ poses, const float4* __restrict__ cameras, const float2* __restrict__ gradient, double* __restrict__ partial, PlaneParameters p) {
    const unsigned cells = p.side * p.side, sample = blockIdx.y;
    const Stand stand = stand_of(poses + 3u * sample, p);
    const float4 camera = cameras[sample];
    const double stride = double_of(p.stride), fx = camera.x / stride, fy_height = camera.y / stride * double_of(p.height_m);
    double to_along = 0.0, to_across = 0.0, to_heading = 0.0;
    for (unsigned i = first_element(); i < cells; i += element_stride()) {
        const float2 g = gradient[sample * cells + i];
        const Point at = stand.point(i);
        if (at.depth <= NEAREST_M || (g.x == 0.0f && g.y == 0.0f)) continue;
        const double by_across = g.x * fx / at.depth;
        const double by_depth = -(g.x * fx * at.across + g.y * fy_height) / (at.depth * at.depth);
        to_along -= by_depth;
        to_across += by_across;
        to_heading += by_across * at.across_by_heading + by_depth * at.depth_by_heading;
    }
    block_sums(to_along, to_across);
    to_heading = block_sum(to_heading);
    if (threadIdx.x != 0) return;
    double* mine = partial + 3u * sample * p.blocks + blockIdx.x;
    mine[0] = to_along, mine[p.blocks] = to_across, mine[2u * p.blocks] = to_heading;
}

extern "C" __global__ void plane_grid_to_pose(const double* __restrict__ partial, float* __restrict__ to_pose, PlaneParameters p) {
    for (unsigned i = first_element(); i < 3u * p.samples; i += element_stride()) {
        double sum = 0.0;
        for (unsigned block = 0; block < p.blocks; ++block) sum += partial[i * p.blocks + block];
        to_pose[i] = float(sum * (i % 3u == 2u ? double_of(p.heading_range_rad) : double_of(p.shift_range_m)));
    }
}
