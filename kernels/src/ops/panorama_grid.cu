// Where the ground around a camera is seen in its panorama. In doubles: a column that is rounded to
// the other side is another column, and there are few cells.
#include "common.cuh"

struct PanoramaParameters {
    unsigned count; // cells of all samples
    unsigned side;
    unsigned rows;
    unsigned columns;
    unsigned cell_px[2];
    unsigned height_m[2];
    unsigned top_rad[2];
    unsigned span_rad[2];
};

constexpr double PI = 3.14159265358979323846;

extern "C" __global__ void panorama_grid(const float2* __restrict__ views, float2* __restrict__ grid, PanoramaParameters p) {
    const double centre = 0.5 * p.side - 0.5, cell_px = double_of(p.cell_px), height_m = double_of(p.height_m);
    const double top_rad = double_of(p.top_rad), span_rad = double_of(p.span_rad);
    for (unsigned i = first_element(); i < p.count; i += element_stride()) {
        const unsigned line = i / p.side;
        const float2 view = views[line / p.side]; // metres of a pixel, turn
        const double south = line % p.side - centre, east = i % p.side - centre;
        double azimuth = fmod(atan2(south, east) - 0.5 * PI + view.y, 2.0 * PI);
        if (azimuth < 0.0) azimuth += 2.0 * PI;
        const double below_up = atan2(hypot(south, east) * (view.x * cell_px), -height_m);
        grid[i] = make_float2(float(azimuth / (2.0 * PI) * p.columns), float((below_up - top_rad) / span_rad * p.rows));
    }
}
