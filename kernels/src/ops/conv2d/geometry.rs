//! Sizes of one convolution, checked once, and the copy into and out of padded images.

use super::{Conv2d, Pad};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

const OP: &str = "conv2d";

/// Everything about a convolution except the numbers.
pub(super) struct Geometry {
    pub batch: usize,
    pub channels: usize,
    pub height: usize,
    pub width: usize,
    pub outputs: usize,
    pub kernel_height: usize,
    pub kernel_width: usize,
    pub output_height: usize,
    pub output_width: usize,
    pub stride: usize,
    pub groups: usize,
    /// For each row of the padded image, the image row it shows; `None` is zero.
    rows: Vec<Option<usize>>,
    /// The same for columns.
    columns: Vec<Option<usize>>,
    left: usize,
}

impl Geometry {
    pub fn new(
        input: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        options: &Conv2d,
    ) -> Result<Self> {
        let [batch, channels, height, width] = input.dims4(OP, "input")?;
        let [outputs, per_group, kernel_height, kernel_width] = weight.dims4(OP, "weight")?;
        let Conv2d { stride, groups, .. } = *options;
        if stride == 0 {
            return Err(Error::argument(OP, "stride 0 never moves; use 1 or more"));
        }
        if groups == 0 || !channels.is_multiple_of(groups) || !outputs.is_multiple_of(groups) {
            return Err(Error::argument(
                OP,
                format!(
                    "{groups} groups do not divide {channels} input and {outputs} output channels"
                ),
            ));
        }
        if per_group != channels / groups {
            return Err(Error::shape(
                OP,
                "weight for this input and these groups",
                [outputs, channels / groups, kernel_height, kernel_width],
                weight.shape(),
            ));
        }
        if let Some(bias) = bias {
            bias.expect_shape(OP, "bias", &[outputs])?;
        }
        let [top, bottom, left, right] = options.padding;
        let rows = padded_axis("rows", height, [top, bottom], options.rows)?;
        let columns = padded_axis("columns", width, [left, right], options.columns)?;
        if kernel_height > rows.len() || kernel_width > columns.len() {
            return Err(Error::shape(
                OP,
                "padded image",
                format!("at least the kernel, {kernel_height} × {kernel_width}"),
                [rows.len(), columns.len()],
            ));
        }
        Ok(Self {
            batch,
            channels,
            height,
            width,
            outputs,
            kernel_height,
            kernel_width,
            output_height: (rows.len() - kernel_height) / stride + 1,
            output_width: (columns.len() - kernel_width) / stride + 1,
            stride,
            groups,
            rows,
            columns,
            left,
        })
    }

    pub fn output_shape(&self) -> [usize; 4] {
        [
            self.batch,
            self.outputs,
            self.output_height,
            self.output_width,
        ]
    }

    /// Pixels of one output channel.
    pub fn output_pixels(&self) -> usize {
        self.output_height * self.output_width
    }

    /// Pixels of one input channel.
    pub fn pixels(&self) -> usize {
        self.height * self.width
    }

    pub fn padded_height(&self) -> usize {
        self.rows.len()
    }

    pub fn padded_width(&self) -> usize {
        self.columns.len()
    }

    pub fn padded_pixels(&self) -> usize {
        self.rows.len() * self.columns.len()
    }

    pub fn is_padded(&self) -> bool {
        self.rows.len() != self.height || self.columns.len() != self.width
    }

    /// Writes every channel of `image` with its padding around it.
    pub fn pad(&self, image: &[f32], padded: &mut [f32]) {
        let planes = image.chunks_exact(self.pixels());
        for (plane, padded) in planes.zip(padded.chunks_exact_mut(self.padded_pixels())) {
            let padded_rows = padded.chunks_exact_mut(self.padded_width());
            for (padded_row, source) in padded_rows.zip(&self.rows) {
                let Some(source) = source else {
                    padded_row.fill(0.0);
                    continue;
                };
                let row = &plane[source * self.width..][..self.width];
                let (before, rest) = padded_row.split_at_mut(self.left);
                let (middle, after) = rest.split_at_mut(self.width);
                middle.copy_from_slice(row);
                for (value, source) in before.iter_mut().zip(&self.columns) {
                    *value = source.map_or(0.0, |column| row[column]);
                }
                let sources = &self.columns[self.left + self.width..];
                for (value, source) in after.iter_mut().zip(sources) {
                    *value = source.map_or(0.0, |column| row[column]);
                }
            }
        }
    }

    /// The transpose of [`Geometry::pad`]: adds every padded pixel to the pixel it showed.
    pub fn fold(&self, padded: &[f32], image: &mut [f32]) {
        let planes = image.chunks_exact_mut(self.pixels());
        for (plane, padded) in planes.zip(padded.chunks_exact(self.padded_pixels())) {
            let padded_rows = padded.chunks_exact(self.padded_width());
            for (padded_row, source) in padded_rows.zip(&self.rows) {
                let Some(source) = source else { continue };
                let row = &mut plane[source * self.width..][..self.width];
                let middle = &padded_row[self.left..];
                for (sum, value) in row.iter_mut().zip(middle) {
                    *sum += value;
                }
                for (column, (value, source)) in padded_row.iter().zip(&self.columns).enumerate() {
                    let inside = (self.left..self.left + self.width).contains(&column);
                    if let (false, Some(source)) = (inside, source) {
                        row[*source] += value;
                    }
                }
            }
        }
    }
}

/// For each padded position along one axis, the position it shows.
fn padded_axis(
    axis: &str,
    length: usize,
    [before, after]: [usize; 2],
    pad: Pad,
) -> Result<Vec<Option<usize>>> {
    let reach = match pad {
        Pad::Zero => usize::MAX,
        Pad::Circular => length,
        Pad::Reflect => length - 1,
    };
    if before.max(after) > reach {
        return Err(Error::argument(
            OP,
            format!(
                "{axis}: {pad:?} padding of {before} and {after} on {length} pixels; at most {reach}"
            ),
        ));
    }
    let last = length - 1;
    Ok((0..before + length + after)
        .map(|padded| match (padded.checked_sub(before), pad) {
            (Some(inside), _) if inside < length => Some(inside),
            (_, Pad::Zero) => None,
            (_, Pad::Circular) => Some((padded + length - before) % length),
            (None, Pad::Reflect) => Some(before - padded),
            (Some(beyond), Pad::Reflect) => Some(2 * last - beyond),
        })
        .collect())
}
