//! Filling polygons on a square grid of cells, by scan lines.

use std::ops::Range;

/// A point in cells: (column, row), (0, 0) the top-left corner of the grid.
pub type Point = [f32; 2];

/// Calls `span(row, columns)` for the cells whose centres lie inside the polygon (even-odd rule).
pub fn fill(side: usize, polygon: &[Point], mut span: impl FnMut(usize, Range<usize>)) {
    let mut crossings = Vec::with_capacity(8);
    for row in rows_of(side, polygon) {
        crossings_at(polygon, row as f32 + 0.5, &mut crossings);
        for pair in crossings.chunks_exact(2) {
            // The first and last cell whose centre lies in [left, right).
            let left = (pair[0] - 0.5).ceil().max(0.0) as usize;
            let right = (pair[1] - 0.5).ceil().clamp(0.0, side as f32) as usize;
            if left < right {
                span(row, left..right);
            }
        }
    }
}

/// Calls `cell(index, share)` for the cells that the polygon touches, with the share of each cell
/// that it covers: exact along rows, four scan lines per row across them.
pub fn fill_shares(side: usize, polygon: &[Point], mut cell: impl FnMut(usize, f32)) {
    const LINES: usize = 4;
    let bound = side as f32;
    let low = polygon.iter().fold(bound, |low, p| low.min(p[0])).max(0.0) as usize;
    let high = polygon
        .iter()
        .fold(0.0_f32, |high, p| high.max(p[0]))
        .min(bound)
        .ceil() as usize;
    if low >= high {
        return;
    }
    let mut shares = vec![0.0_f32; high - low];
    let mut crossings = Vec::with_capacity(8);
    for row in rows_of(side, polygon) {
        for line in 0..LINES {
            let y = row as f32 + (line as f32 + 0.5) / LINES as f32;
            crossings_at(polygon, y, &mut crossings);
            for pair in crossings.chunks_exact(2) {
                let (left, right) = (pair[0].max(low as f32), pair[1].min(high as f32));
                let mut x = left;
                while x < right {
                    let next = (x.floor() + 1.0).min(right);
                    shares[(x as usize).min(high - 1) - low] += (next - x) / LINES as f32;
                    x = next;
                }
            }
        }
        for (column, share) in shares.iter_mut().enumerate() {
            if *share > 0.0 {
                cell(row * side + low + column, *share);
                *share = 0.0;
            }
        }
    }
}

fn rows_of(side: usize, polygon: &[Point]) -> Range<usize> {
    let low = polygon
        .iter()
        .fold(f32::INFINITY, |low, p| low.min(p[1]))
        .max(0.0);
    let high = polygon
        .iter()
        .fold(f32::NEG_INFINITY, |high, p| high.max(p[1]));
    low as usize..(high.ceil().clamp(0.0, side as f32) as usize)
}

/// The sorted columns where the outline crosses the scan line.
fn crossings_at(polygon: &[Point], y: f32, crossings: &mut Vec<f32>) {
    crossings.clear();
    let mut previous = polygon[polygon.len() - 1];
    for &point in polygon {
        if (previous[1] <= y) != (point[1] <= y) {
            let t = (y - previous[1]) / (point[1] - previous[1]);
            crossings.push(previous[0] + t * (point[0] - previous[0]));
        }
        previous = point;
    }
    crossings.sort_unstable_by(f32::total_cmp);
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIANGLE: [Point; 3] = [[1.3, 1.1], [14.7, 3.2], [6.4, 15.9]];

    fn area(polygon: &[Point]) -> f32 {
        let n = polygon.len();
        let twice: f32 = (0..n)
            .map(|i| {
                let (a, b) = (polygon[i], polygon[(i + 1) % n]);
                a[0] * b[1] - b[0] * a[1]
            })
            .sum();
        twice.abs() / 2.0
    }

    #[test]
    fn cells_are_filled_when_their_centres_are_inside() {
        let mut cells = Vec::new();
        let square = [[1.0, 2.0], [3.0, 2.0], [3.0, 4.4], [1.0, 4.4]];
        fill(8, &square, |row, columns| {
            cells.extend(columns.map(|column| (row, column)));
        });
        assert_eq!(cells, [(2, 1), (2, 2), (3, 1), (3, 2)]);
    }

    #[test]
    fn shares_add_up_to_the_area() {
        let mut total = 0.0;
        fill_shares(20, &TRIANGLE, |_, share| {
            assert!(share <= 1.0 + 1e-5);
            total += share;
        });
        assert!(
            (total - area(&TRIANGLE)).abs() < 0.3,
            "{total} {}",
            area(&TRIANGLE)
        );
    }

    #[test]
    fn polygons_that_leave_the_grid_are_clipped() {
        let huge = [[-50.0, -50.0], [90.0, -50.0], [90.0, 90.0], [-50.0, 90.0]];
        let mut count = 0;
        fill(10, &huge, |_, columns| count += columns.len());
        assert_eq!(count, 100);
        let mut total = 0.0;
        fill_shares(10, &huge, |_, share| total += share);
        assert!((total - 100.0).abs() < 1e-3);
        let outside = [[-9.0, -9.0], [-2.0, -9.0], [-2.0, -1.0]];
        fill(10, &outside, |_, _| panic!("nothing to fill"));
        fill_shares(10, &outside, |_, _| panic!("nothing to fill"));
    }
}
