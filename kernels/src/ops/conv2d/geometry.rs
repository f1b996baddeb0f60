//! Sizes and padding of one convolution, checked once.

use super::{Conv2d, Pad};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

const OP: &str = "conv2d";

/// Everything about a convolution except the values.
pub(in crate::ops) struct Geometry {
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
    /// For each row of the padded image, the row of the image it copies; `None` is zero.
    rows: Vec<Option<usize>>,
    /// The same for columns.
    columns: Vec<Option<usize>>,
    /// The padded columns to the left and right of the image, and the columns they copy.
    fringe: Vec<(usize, Option<usize>)>,
    left: usize,
    padding: [usize; 4],
    /// Of rows and of columns.
    pads: [Pad; 2],
}

/// Along one axis, for each output and tap: the input it reads, or -1 for zero.
pub(in crate::ops) struct Sources {
    /// `[outputs, taps]`.
    pub table: Vec<i32>,
    pub taps: usize,
    /// Entries for each tap of the kernel.
    pub repeat: usize,
}

impl Sources {
    pub fn outputs(&self) -> usize {
        self.table.len() / self.taps
    }
}

impl Geometry {
    pub fn new(
        input: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        options: &Conv2d,
    ) -> Result<Self> {
        let weight = weight.dims4(OP, "weight")?;
        if let Some(bias) = bias {
            bias.expect_shape(OP, "bias", &weight[..1])?;
        }
        Self::of_shapes(input.dims4(OP, "input")?, weight, options)
    }

    /// For an input and a weight of these shapes.
    pub fn of_shapes(input: [usize; 4], weight: [usize; 4], options: &Conv2d) -> Result<Self> {
        let [batch, channels, height, width] = input;
        let [outputs, per_group, kernel_height, kernel_width] = weight;
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
                weight,
            ));
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
            fringe: fringe(&columns, left, width),
            rows,
            columns,
            left,
            padding: options.padding,
            pads: [options.rows, options.columns],
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

    pub fn padded_width(&self) -> usize {
        self.columns.len()
    }

    /// Multiplications for one output pixel.
    pub fn group_taps(&self) -> usize {
        self.channels / self.groups * self.kernel_height * self.kernel_width
    }

    /// For each row of the padded image, the row of the image it copies; `None` is zero.
    pub fn rows(&self) -> &[Option<usize>] {
        &self.rows
    }

    /// The padded columns to the left and right of the image, and the columns they copy.
    pub fn fringe(&self) -> &[(usize, Option<usize>)] {
        &self.fringe
    }

    /// Where the image begins in a padded row.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Whether the padded image differs from the image.
    pub fn is_padded(&self) -> bool {
        self.rows.len() != self.height || self.columns.len() != self.width || self.stride != 1
    }

    /// Whether each output pixel sees one input pixel, the one in its place.
    pub fn is_pointwise(&self) -> bool {
        self.kernel_height * self.kernel_width == 1 && !self.is_padded()
    }

    /// Columns of the padded image with the same remainder modulo the stride (one phase).
    pub fn phase_width(&self) -> usize {
        self.columns.len().div_ceil(self.stride)
    }

    /// From one row of the padded image to the next.
    pub fn row_step(&self) -> usize {
        self.phase_width() * self.stride
    }

    /// From one channel of the padded image to the next.
    pub fn plane_step(&self) -> usize {
        self.rows.len() * self.row_step()
    }

    /// All channels of the padded image.
    pub fn padded_len(&self) -> usize {
        self.channels * self.plane_step()
    }

    /// For each tap its offset from the first output pixel in the padded image of its group, in the
    /// order of the weight: [channel, kernel row, kernel column].
    pub fn tap_offsets(&self) -> Vec<usize> {
        let mut offsets = vec![0; self.group_taps()];
        self.tap_offsets_from(0, self.plane_step(), &mut offsets);
        offsets
    }

    /// The same for the taps from `first`, in a padded image that holds only `plane_step` elements (some
    /// rows) of each channel.
    pub fn tap_offsets_from(&self, first: usize, plane_step: usize, offsets: &mut [usize]) {
        for (tap, offset) in (first..).zip(offsets) {
            *offset = self.tap_offset(tap, plane_step);
        }
    }

    /// The same for one tap.
    pub fn tap_offset(&self, tap: usize, plane_step: usize) -> usize {
        let kernel = self.kernel_height * self.kernel_width;
        let (channel, tap) = (tap / kernel, tap % kernel);
        let (ky, kx) = (tap / self.kernel_width, tap % self.kernel_width);
        let column = kx % self.stride * self.phase_width() + kx / self.stride;
        channel * plane_step + ky * self.row_step() + column
    }

    /// Offset of an output pixel from the first one in the padded image.
    pub fn pixel_offset(&self, pixel: usize) -> usize {
        let (row, column) = (pixel / self.output_width, pixel % self.output_width);
        row * self.stride * self.row_step() + column
    }

    /// The convolution that maps the gradient of the output to that of the input, where the transpose is
    /// itself a convolution: for stride 1, unless padding reflects, or wraps to another length.
    pub fn transposed(&self) -> Option<Self> {
        let transpose = |pad: Pad, [before, after]: [usize; 2], kernel: usize, length: usize| {
            let before = (kernel - 1).checked_sub(before)?;
            let after = (kernel - 1).checked_sub(after)?;
            let fits = match pad {
                Pad::Zero => true,
                Pad::Circular => before + after == kernel - 1,
                Pad::Reflect => before + after == 2 * (kernel - 1),
            };
            let pad = if pad == Pad::Reflect { Pad::Zero } else { pad };
            let columns = fits.then(|| padded_axis("", length, [before, after], pad))?;
            Some((columns.ok()?, before))
        };
        if self.stride != 1 {
            return None;
        }
        let [top, bottom, left, right] = self.padding;
        let (rows, _) = transpose(
            self.pads[0],
            [top, bottom],
            self.kernel_height,
            self.output_height,
        )?;
        let (columns, left) = transpose(
            self.pads[1],
            [left, right],
            self.kernel_width,
            self.output_width,
        )?;
        Some(Self {
            channels: self.outputs,
            height: self.output_height,
            width: self.output_width,
            outputs: self.channels,
            output_height: self.height,
            output_width: self.width,
            fringe: fringe(&columns, left, self.output_width),
            rows,
            columns,
            left,
            ..*self
        })
    }

    /// The input rows and columns that the rows and columns of the output read.
    pub fn sources(&self) -> [Sources; 2] {
        let of = |padded: &[Option<usize>], outputs: usize, taps: usize| {
            let sources = (0..outputs).flat_map(|i| &padded[i * self.stride..][..taps]);
            let table = sources.map(|s| s.map_or(-1, |s| s as i32)).collect();
            Sources {
                table,
                taps,
                repeat: 1,
            }
        };
        [
            of(&self.rows, self.output_height, self.kernel_height),
            of(&self.columns, self.output_width, self.kernel_width),
        ]
    }

    /// The transpose of [`Geometry::sources`]: for each row and column of the image and each tap, the output
    /// rows and columns that read it; as many entries as the most often copied one has.
    pub fn transposed_sources(&self) -> [Sources; 2] {
        let of = |padded: &[Option<usize>], length: usize, outputs: usize, taps: usize| {
            let mut uses = vec![Vec::new(); length * taps];
            for output in 0..outputs {
                for (tap, source) in padded[output * self.stride..][..taps].iter().enumerate() {
                    if let Some(source) = source {
                        uses[source * taps + tap].push(output as i32);
                    }
                }
            }
            let repeat = uses.iter().map(Vec::len).max().unwrap_or(0).max(1);
            for of_tap in &mut uses {
                of_tap.resize(repeat, -1);
            }
            Sources {
                table: uses.concat(),
                taps: taps * repeat,
                repeat,
            }
        };
        [
            of(
                &self.rows,
                self.height,
                self.output_height,
                self.kernel_height,
            ),
            of(
                &self.columns,
                self.width,
                self.output_width,
                self.kernel_width,
            ),
        ]
    }
}

fn fringe(columns: &[Option<usize>], left: usize, width: usize) -> Vec<(usize, Option<usize>)> {
    let outside = (0..left).chain(left + width..columns.len());
    outside.map(|column| (column, columns[column])).collect()
}

/// For each padded position along one axis, the position it copies.
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
