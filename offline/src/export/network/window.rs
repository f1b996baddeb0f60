//! The decoders over a part of the patch: the same logits as over all of it, for less work.
//!
//! Each decoder step works on a *region*, a square of its grid: what the next step needs of it and two
//! pixels more on each side, as its two 3 × 3 convolutions look that far. At the border of the patch a
//! region ends where the patch does, and is padded like the whole. A region begins at an even pixel, so
//! that it is exactly what the step upsamples from half as many pixels of the step before.

use super::{Rolled, Translation, Value};
use crossfix_onboard::card::{
    HEATMAP_WINDOW, ORIENTATION_START, ORIENTATION_WINDOW, WINDOW_START, WindowOutput,
};
use tract_onnx::pb::tensor_proto::DataType;

/// Pixels that the two convolutions of a step look beyond a pixel.
const HALO: usize = 2;

/// What the windowed decoders share with the whole ones.
pub(super) struct Known<'a> {
    /// The unit descriptors of the coarsest level.
    pub first: &'a Value,
    pub rolled: &'a [Rolled],
    /// What the first convolutions of the location and the orientation steps make of the skips.
    pub from_skips: [&'a [Option<Value>]; 2],
    pub epsilon: &'a Value,
}

/// A square of a grid: row and column where it begins (`[1]` each, even), and its side.
struct Region {
    start: [Value; 2],
    side: usize,
}

/// Sides of the regions of all steps, whose grids have the sides `grids`, coarse to fine, when `needed`
/// pixels a side of the last are asked for.
pub(super) fn region_sides(grids: &[usize], needed: usize) -> Vec<usize> {
    let mut needed = needed;
    let mut sides: Vec<usize> = grids
        .iter()
        .rev()
        .map(|grid| {
            // One more where the start is moved to an even pixel.
            let side = (needed + 2 * HALO + 1).next_multiple_of(2).min(*grid);
            needed = side / 2;
            side
        })
        .collect();
    sides.reverse();
    sides
}

impl Translation<'_> {
    /// Adds the heatmap over the window that begins at [`WINDOW_START`], and the orientation around its
    /// mode; returns both and where the orientation begins.
    pub(super) fn windowed(
        &mut self,
        known: &Known,
        window: WindowOutput,
        temperature: f64,
    ) -> Vec<Value> {
        let model = self.model;
        let start = self.graph.integers(WINDOW_START, &[2], &[0, 0]);
        let start = [0, 1].map(|axis| self.graph.slice(&start, 0, axis, axis + 1));

        let coarsest = known.first.shape[3];
        let steps = 1..=model.location.len();
        let grids: Vec<usize> = steps.map(|step| coarsest << step).collect();
        let regions = self.regions(&grids, &start, window.side);
        let mut x = known.first.clone();
        let mut within = None;
        for (k, (step, region)) in model.location.iter().zip(&regions).enumerate() {
            let mut unit = self.source(&x, within, region);
            if k > 0 {
                unit = self.unit(&unit, known.epsilon);
            }
            let scores = self.scores(&unit, &known.rolled[k], known.epsilon);
            let joined = self.joined(&scores, &unit, k);
            let from_skip = self.part_of_skip(known.from_skips[0][k].as_ref(), region);
            x = self.step(step, &joined, from_skip.as_ref());
            within = Some(region);
        }
        let logits = self.crop(&x, within, &start, window.side);
        let heatmap = self.heatmap(&logits, temperature);
        let heatmap = self.graph.rename(&heatmap, HEATMAP_WINDOW);

        let mode = self.mode(&heatmap);
        let around = window.orientation_side;
        let furthest = self.number(grids[grids.len() - 1] - around);
        let before = self.number(around / 2);
        let nothing = self.number(0);
        let mut begin = Vec::new();
        for (mode, start) in mode.iter().zip(&start) {
            let at = self.graph.combine("Add", mode, start);
            let at = self.graph.combine("Sub", &at, &before);
            let at = self.graph.combine("Max", &at, &nothing);
            begin.push(self.graph.combine("Min", &at, &furthest));
        }
        let begin = [begin[0].clone(), begin[1].clone()];
        let regions = self.regions(&grids, &begin, around);
        let cells = self.source(known.first, None, &regions[0]);
        let stack = self.scores(&cells, &known.rolled[0], known.epsilon);
        let mut y = self.graph.concat(1, &[&stack, &cells]);
        let mut within = None;
        for (k, (step, region)) in model.orientation.iter().zip(&regions).enumerate() {
            if within.is_some() {
                y = self.source(&y, within, region);
            }
            let from_skip = self.part_of_skip(known.from_skips[1][k].as_ref(), region);
            y = self.step(step, &y, from_skip.as_ref());
            within = Some(region);
        }
        let vectors = self.crop(&y, within, &begin, around);
        let orientation = self.unit(&vectors, known.epsilon);
        let orientation = self.graph.rename(&orientation, ORIENTATION_WINDOW);
        let begin = self.graph.concat(0, &[&begin[0], &begin[1]]);
        let begin = self.graph.cast(&begin, DataType::Float);
        let begin = self.graph.rename(&begin, ORIENTATION_START);
        vec![heatmap, orientation, begin]
    }

    /// The region of each step, for `needed` pixels a side of the last from `start`.
    fn regions(&mut self, grids: &[usize], start: &[Value; 2], needed: usize) -> Vec<Region> {
        let sides = region_sides(grids, needed);
        let two = self.number(2);
        let mut start = start.clone();
        let mut regions = Vec::new();
        for (grid, side) in grids.iter().zip(&sides).rev() {
            let begin = start.map(|start| self.region_start(&start, *grid, *side));
            start = [0, 1].map(|axis| self.graph.combine("Div", &begin[axis], &two));
            regions.push(Region {
                start: begin,
                side: *side,
            });
        }
        regions.reverse();
        regions
    }

    /// Where a region of this side begins on a grid when pixels from `needed` on are asked of it.
    fn region_start(&mut self, needed: &Value, grid: usize, side: usize) -> Value {
        let nothing = self.number(0);
        if side == grid {
            return nothing;
        }
        let [halo, two, furthest] = [HALO, 2, grid - side].map(|value| self.number(value));
        let at = self.graph.combine("Sub", needed, &halo);
        let at = self.graph.combine("Max", &at, &nothing);
        let at = self.graph.combine("Div", &at, &two);
        let at = self.graph.combine("Mul", &at, &two);
        self.graph.combine("Min", &at, &furthest)
    }

    /// What the step of `region` upsamples: its half of `x`, which covers the region `within`, or all.
    fn source(&mut self, x: &Value, within: Option<&Region>, region: &Region) -> Value {
        let two = self.number(2);
        let start = [0, 1].map(|axis| self.graph.combine("Div", &region.start[axis], &two));
        self.crop(x, within, &start, region.side / 2)
    }

    fn part_of_skip(&mut self, from_skip: Option<&Value>, region: &Region) -> Option<Value> {
        from_skip.map(|skip| self.crop(skip, None, &region.start, region.side))
    }

    /// The square of `side` pixels from `start` of `x`, which covers the region `within`, or all.
    fn crop(
        &mut self,
        x: &Value,
        within: Option<&Region>,
        start: &[Value; 2],
        side: usize,
    ) -> Value {
        let mut x = x.clone();
        if x.shape[3] == side {
            return x;
        }
        let offsets: Vec<i64> = (0..side as i64).collect();
        let offsets = self
            .graph
            .integers(&format!("window_pixels_{side}"), &[side], &offsets);
        for axis in 0..2 {
            let from = match within {
                Some(region) => self.graph.combine("Sub", &start[axis], &region.start[axis]),
                None => start[axis].clone(),
            };
            let at = self.graph.combine("Add", &from, &offsets);
            x = self.graph.gather(&x, &at, 2 + axis);
        }
        x
    }

    /// Row and column of the largest probability of `[1, side, side]`, `[1]` each.
    fn mode(&mut self, heatmap: &Value) -> [Value; 2] {
        let side = heatmap.shape[2];
        let cells = self.graph.reshape(heatmap, &[1, side * side]);
        let at = self.graph.argmax(&cells, 1);
        let columns = self.number(side);
        let row = self.graph.combine("Div", &at, &columns);
        let before = self.graph.combine("Mul", &row, &columns);
        let column = self.graph.combine("Sub", &at, &before);
        [row, column]
    }

    fn number(&mut self, value: usize) -> Value {
        let name = format!("window_number_{value}");
        self.graph.integers(&name, &[1], &[value as i64])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a region begins, as the graph computes it.
    fn region_start(needed: usize, grid: usize, side: usize) -> usize {
        (needed.saturating_sub(HALO) / 2 * 2).min(grid - side)
    }

    #[test]
    fn regions_hold_what_is_needed_of_them_wherever_the_window_is() {
        let grids = [16, 32, 64, 128, 256, 512];
        for needed in [1, 5, 31, 32, 192, 193, 500] {
            let sides = region_sides(&grids, needed);
            for start in 0..=512 - needed {
                let (mut from, mut to) = (start, start + needed);
                for (grid, side) in grids.iter().zip(&sides).rev() {
                    let begin = region_start(from, *grid, *side);
                    let end = begin + side;
                    assert!(begin.is_multiple_of(2) && side.is_multiple_of(2) && end <= *grid);
                    // Its own pixels are right where both convolutions saw all they look at.
                    assert!(begin == 0 || begin + HALO <= from, "{needed} from {start}");
                    assert!(end == *grid || to + HALO <= end, "{needed} from {start}");
                    assert!(begin <= from && to <= end);
                    (from, to) = (begin / 2, end / 2);
                }
            }
        }
        assert_eq!(region_sides(&grids, 192), [16, 22, 34, 58, 104, 198]);
        assert_eq!(region_sides(&grids, 5), [10; 6]);
    }
}
