//! What a CCVPE network looks like, as data: everything a preset fixes and an exporter needs.

use super::{GroundCamera, LevelMap, MapSpec, ModelSpec, NetworkKind};
use serde::{Deserialize, Serialize};

/// A table that asks for more is refused: it is damaged or hostile.
const MOST_PARAMETERS: usize = 200_000_000;

/// A CCVPE network: encoders, matching levels, decoders, and the images it was made for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CcvpeSpec {
    /// Name of the preset.
    pub preset: String,
    /// Rows of the ground image.
    pub ground_rows: usize,
    /// Columns of the ground image.
    pub ground_columns: usize,
    /// Side of the square aerial image, pixels.
    pub aerial_px: usize,
    /// Ground resolution the aerial image is trained at.
    pub metres_per_pixel: f64,
    /// Whether the ground image closes on itself, so that its columns are padded by wrapping.
    pub ground_wraps: bool,
    /// How the aerial encoder and the decoders pad their borders.
    pub padding: Padding,
    /// The two encoders (independent weights, one table).
    pub encoder: EncoderSpec,
    /// Bins that divide the full circle.
    pub orientation_bins: usize,
    /// Bins searched on each side of the given heading; `None` searches all.
    pub orientation_prior: Option<usize>,
    /// The ground image covers only some bins, and its left edge lies on the bin given with each
    /// sample; otherwise it covers the whole circle, north in the centre, or (limited field of
    /// view as published) the columns that are left of a whole circle whose right end was cut off.
    pub ground_left_bin: bool,
    /// Which of the rolled aerial channels a ground descriptor that is shorter is compared with.
    #[serde(default)]
    pub window: Window,
    /// The orientation bins run with the angle, not against it. Turns the targets' bins only.
    #[serde(default)]
    pub bins_run_with_angle: bool,
    /// Side, in feature pixels, of the cell that one aerial descriptor sees.
    pub descriptor_cell: usize,
    /// Matching levels, coarsest first; each has twice the grid of the one before.
    pub levels: Vec<LevelSpec>,
    /// Location decoder: one step between levels and one from the finest level to the heatmap.
    pub location: Vec<StepSpec>,
    /// Orientation decoder, the same number of steps.
    pub orientation: Vec<StepSpec>,
}

/// How a convolution reads beyond the border.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// Zeros.
    Zero,
    /// Mirrored, without repeating the border.
    Reflect,
}

/// Which part of the rolled aerial channels a shorter ground descriptor is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// As many as it has, from the first.
    #[default]
    First,
    /// As many as it has, from the middle (Oxford `RobotCar`).
    Centre,
}

/// A convolutional encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderSpec {
    /// Channels of a 3×3 stride-2 convolution before the blocks, if any.
    pub stem: Option<usize>,
    /// The blocks, in order.
    pub blocks: Vec<BlockSpec>,
    /// Channels of a 1×1 convolution after the blocks, if any.
    pub head: Option<usize>,
    /// Batch-norm epsilon.
    pub epsilon: f32,
}

/// One block: a plain convolution, or an inverted bottleneck with squeeze-and-excite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockSpec {
    /// The kind.
    pub kind: BlockKind,
    /// Kernel side.
    pub kernel: usize,
    /// Stride.
    pub stride: usize,
    /// Output channels. Equal input and output shapes add a skip connection.
    pub channels: usize,
}

/// What a block is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockKind {
    /// Convolution, batch norm, `SiLU`.
    Conv,
    /// `MBConv` with this expansion.
    MbConv {
        /// Hidden channels over input channels.
        expand: usize,
    },
}

/// One matching level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LevelSpec {
    /// Cells along a side.
    pub grid: usize,
    /// Ground channels for each feature column (`c_k`).
    pub ground_channels: usize,
    /// Aerial channels (`C_k`).
    pub aerial_channels: usize,
    /// Channels that one orientation bin rolls (`s_k`).
    pub shift: usize,
}

/// One decoder step: transposed convolution to twice the side, concatenation with an encoder
/// block's output, then two 3×3 convolutions with a `ReLU` between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepSpec {
    /// Channels after the transposed convolution.
    pub up: usize,
    /// Index of the aerial encoder block that is concatenated.
    pub skip: Option<usize>,
    /// Channels between the two convolutions.
    pub hidden: usize,
    /// Channels after the second.
    pub out: usize,
}

impl CcvpeSpec {
    /// What those outside see of the network.
    pub fn describe(&self) -> ModelSpec {
        let map = |side: usize| MapSpec {
            side,
            cell_px: self.aerial_px as f64 / side as f64,
            metres_per_cell: self.metres_per_pixel * self.aerial_px as f64 / side as f64,
        };
        let all_searched = self.orientation_prior.is_none();
        let levels = self.levels.iter().enumerate().map(|(k, level)| LevelMap {
            map: map(level.grid),
            searched: (k == 0 && !all_searched).then(|| self.searched_channels()),
        });
        // A ground descriptor covers as much of the circle as of the aerial channels.
        let field_of_view_deg = self.levels.first().map_or(360.0, |level| {
            let window = self.ground_feature_columns() * level.ground_channels;
            360.0 * window as f64 / level.aerial_channels as f64
        });
        ModelSpec {
            preset: self.preset.clone(),
            kind: NetworkKind::Ccvpe,
            ground_rows: self.ground_rows,
            ground_columns: self.ground_columns,
            aerial_px: self.aerial_px,
            metres_per_pixel: self.metres_per_pixel,
            heatmap: map(self.heatmap_side()),
            levels: levels.collect(),
            camera: if self.ground_left_bin {
                GroundCamera::OnBin {
                    bins: self.ground_feature_columns(),
                }
            } else if self.ground_wraps {
                GroundCamera::Panorama
            } else if self.ground_columns <= 2 * self.ground_rows {
                GroundCamera::CutPanorama
            } else {
                GroundCamera::Pinhole
            },
            field_of_view_deg,
            orientation_bins: self.orientation_bins,
            columns_per_bin: self.encoder.stride(),
            orientation_prior: self.orientation_prior,
        }
    }

    /// Feature columns of the ground image: the number of local ground descriptors.
    pub fn ground_feature_columns(&self) -> usize {
        self.encoder.output_side(self.ground_columns)
    }

    /// Feature rows of the ground image.
    pub fn ground_feature_rows(&self) -> usize {
        self.encoder.output_side(self.ground_rows)
    }

    /// First of the rolled aerial channels that level `level` compares.
    pub fn window_offset(&self, level: usize) -> usize {
        let length = self.ground_feature_columns() * self.levels[level].ground_channels;
        match self.window {
            Window::First => 0,
            Window::Centre => self.levels[level].aerial_channels.saturating_sub(length) / 2,
        }
    }

    /// Cells along a side of the heatmap.
    pub fn heatmap_side(&self) -> usize {
        self.levels.last().map_or(0, |level| level.grid * 2)
    }

    /// Side of a heatmap cell.
    pub fn metres_per_cell(&self) -> f64 {
        self.metres_per_pixel * self.aerial_px as f64 / self.heatmap_side() as f64
    }

    /// Width of an orientation bin in radians.
    pub fn bin_rad(&self) -> f64 {
        std::f64::consts::TAU / self.orientation_bins as f64
    }

    /// Bins that location searches, in channel order, relative to the given heading.
    pub fn searched_bins(&self) -> Vec<isize> {
        match self.orientation_prior {
            None => (0..self.orientation_bins as isize).collect(),
            Some(n) => (-(n as isize)..=n as isize).collect(),
        }
    }

    /// The bins of the score stack that level `level` returns: all at the first (the orientation
    /// decoder reads them), those searched at the others.
    pub fn stack_bins(&self, level: usize) -> Vec<isize> {
        if level == 0 {
            (0..self.orientation_bins as isize).collect()
        } else {
            self.searched_bins()
        }
    }

    /// Where the searched bins are in the first level's stack.
    pub fn searched_channels(&self) -> Vec<usize> {
        let bins = self.orientation_bins as isize;
        let searched = self.searched_bins();
        searched
            .iter()
            .map(|bin| bin.rem_euclid(bins) as usize)
            .collect()
    }

    /// Everything wrong with the table, in words; empty when a network can be built from it.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |good: bool, problem: String| {
            if !good {
                problems.push(problem);
            }
        };
        let stride = self.encoder.stride();
        check(
            !self.levels.is_empty() && self.levels.len() <= 8,
            format!("{} levels (1 to 8 can be built)", self.levels.len()),
        );
        check(
            self.location.len() == self.levels.len() && self.orientation.len() == self.levels.len(),
            format!(
                "{} location and {} orientation steps for {} levels (one each is needed)",
                self.location.len(),
                self.orientation.len(),
                self.levels.len()
            ),
        );
        check(
            self.metres_per_pixel.is_finite() && self.metres_per_pixel > 0.0,
            format!("{} metres per pixel", self.metres_per_pixel),
        );
        check(
            (1..=4096).contains(&self.ground_rows)
                && (1..=8192).contains(&self.ground_columns)
                && (1..=4096).contains(&self.aerial_px),
            "image sides outside 1 to 4096 (8192 columns)".into(),
        );
        check(
            (1..=360).contains(&self.orientation_bins),
            format!("{} orientation bins (1 to 360)", self.orientation_bins),
        );
        check(
            self.orientation_prior
                .is_none_or(|n| n <= self.orientation_bins / 2),
            "an orientation prior beyond half of the bins".into(),
        );
        check(
            self.encoder
                .blocks
                .iter()
                .all(|b| (1..=2).contains(&b.stride) && matches!(b.kernel, 3 | 5))
                && (1..=64).contains(&self.encoder.blocks.len()),
            "encoder blocks need kernel 3 or 5 and stride 1 or 2".into(),
        );
        let widest = self
            .channels()
            .into_iter()
            .chain(self.levels.iter().map(|l| l.aerial_channels))
            .max()
            .unwrap_or(0);
        check(
            widest <= 8192,
            format!("a layer of {widest} channels (at most 8192)"),
        );
        check(
            self.channels().into_iter().all(|c| c > 0),
            "a layer without channels".into(),
        );
        let size = self.approximate_parameters();
        check(
            size <= MOST_PARAMETERS,
            format!("about {size} parameters (at most {MOST_PARAMETERS})"),
        );
        if !problems.is_empty() {
            return problems;
        }
        let mut check = |good: bool, problem: String| {
            if !good {
                problems.push(problem);
            }
        };
        check(
            self.aerial_px.is_multiple_of(stride),
            format!("an aerial side that is not a multiple of the encoder stride {stride}"),
        );
        check(
            self.ground_feature_rows() > 0 && self.ground_feature_columns() > 0,
            "a ground image too small for its encoder".into(),
        );
        check(
            self.padding == Padding::Zero || self.aerial_px / stride > 2,
            "mirrored borders need aerial features of more than two rows".into(),
        );
        check(
            self.levels[0].grid * self.descriptor_cell * stride == self.aerial_px,
            format!(
                "first grid {} × cell {} × stride {stride} is not the aerial side {}",
                self.levels[0].grid, self.descriptor_cell, self.aerial_px
            ),
        );
        for (k, level) in self.levels.iter().enumerate() {
            let window = self.ground_feature_columns() * level.ground_channels;
            check(
                level.grid == self.levels[0].grid << k,
                format!("level {k} has grid {}", level.grid),
            );
            check(
                window <= level.aerial_channels,
                format!(
                    "level {k} compares {window} ground with {} aerial channels",
                    level.aerial_channels
                ),
            );
            let step = &self.location[k];
            let out = self
                .levels
                .get(k + 1)
                .map_or(1, |next| next.aerial_channels);
            check(
                step.out == out,
                format!(
                    "location step {k} gives {} channels, {out} needed",
                    step.out
                ),
            );
            let last = k + 1 == self.levels.len();
            check(
                !last || self.orientation[k].out == 2,
                "the last orientation step must give two channels".into(),
            );
            for step in [step, &self.orientation[k]] {
                let fits = step.skip.is_none_or(|block| {
                    block < self.encoder.blocks.len()
                        && self.aerial_px / self.encoder.stride_after(block) == level.grid * 2
                });
                check(fits, format!("step {k} takes a skip of another size"));
            }
        }
        problems
    }

    /// About how many numbers the network holds; a bound for tables that came from a file.
    fn approximate_parameters(&self) -> usize {
        let product =
            |factors: &[usize]| factors.iter().fold(1, |p: usize, f| p.saturating_mul(*f));
        let mut total = 0usize;
        let mut add = |factors: &[usize]| total = total.saturating_add(product(factors));
        let mut inputs = self.encoder.stem.unwrap_or(3);
        for block in &self.encoder.blocks {
            match block.kind {
                BlockKind::Conv => add(&[2, inputs, block.channels, block.kernel * block.kernel]),
                BlockKind::MbConv { expand } => {
                    add(&[2, inputs, expand, inputs.saturating_add(block.channels)]);
                    add(&[inputs, expand, inputs]);
                }
            }
            inputs = block.channels;
        }
        let features = self.encoder.channels();
        add(&[2, inputs, features]);
        let mut orientation = self.orientation_bins;
        for (k, level) in self.levels.iter().enumerate() {
            if k == 0 {
                let cell = [self.descriptor_cell, self.descriptor_cell];
                add(&[features, cell[0], cell[1], level.aerial_channels]);
                orientation += level.aerial_channels;
            }
            add(&[features, level.ground_channels]);
            let decoders = [
                (self.location.get(k), level.aerial_channels),
                (self.orientation.get(k), orientation),
            ];
            for (step, inputs) in decoders {
                let Some(step) = step else { continue };
                let block = step.skip.and_then(|block| self.encoder.blocks.get(block));
                let skip = block.map_or(0, |block| block.channels);
                add(&[4, inputs, step.up]);
                add(&[9, step.up + skip, step.hidden]);
                add(&[9, step.hidden, step.out]);
            }
            orientation = self.orientation.get(k).map_or(1, |step| step.out);
        }
        total
    }

    fn channels(&self) -> Vec<usize> {
        let mut all = vec![self.descriptor_cell];
        all.extend(self.encoder.stem);
        all.extend(self.encoder.head);
        all.extend(self.encoder.blocks.iter().map(|b| b.channels));
        for l in &self.levels {
            all.extend([l.ground_channels, l.aerial_channels, l.grid]);
        }
        for s in self.location.iter().chain(&self.orientation) {
            all.extend([s.up, s.hidden, s.out]);
        }
        all
    }
}

impl EncoderSpec {
    /// Image pixels for each output feature pixel.
    pub fn stride(&self) -> usize {
        self.stride_after(self.blocks.len().saturating_sub(1))
    }

    /// Image pixels for each pixel of the output of block `index`.
    pub fn stride_after(&self, index: usize) -> usize {
        let stem = if self.stem.is_some() { 2 } else { 1 };
        let strides = self.blocks.iter().take(index + 1).map(|b| b.stride);
        strides.fold(stem, usize::saturating_mul)
    }

    /// Rows or columns of the features of an image with `side` of them; 0 when it is too small.
    pub fn output_side(&self, side: usize) -> usize {
        let stem = self.stem.map(|_| (3, 2));
        let blocks = self.blocks.iter().map(|b| (b.kernel, b.stride));
        stem.into_iter().chain(blocks).fold(side, |side, (k, s)| {
            let (before, after) = Self::padding(k, s);
            match (side + before + after).checked_sub(k) {
                Some(room) if side > 0 => room / s + 1,
                _ => 0,
            }
        })
    }

    /// Channels that come out.
    pub fn channels(&self) -> usize {
        self.head
            .or_else(|| self.blocks.last().map(|block| block.channels))
            .unwrap_or(3)
    }

    /// Padding before and after for a kernel and stride: constants, whatever the image size
    /// (`EfficientNet`'s static padding for a 224 pixel image).
    pub fn padding(kernel: usize, stride: usize) -> (usize, usize) {
        let total = kernel - stride;
        (total / 2, total - total / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoder_padding_follows_the_published_table() {
        assert_eq!(EncoderSpec::padding(3, 1), (1, 1));
        assert_eq!(EncoderSpec::padding(5, 1), (2, 2));
        assert_eq!(EncoderSpec::padding(3, 2), (0, 1));
        assert_eq!(EncoderSpec::padding(5, 2), (1, 2));
    }
}
