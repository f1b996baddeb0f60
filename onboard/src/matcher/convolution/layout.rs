//! Where a convolution finds its pixels: a padded copy of the image in which each tap of the kernel
//! sees neighbouring output pixels side by side.

/// The sizes of a convolution; pairs are rows, columns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub channels: usize,
    pub input: [usize; 2],
    pub output: [usize; 2],
    pub kernel: [usize; 2],
    pub stride: usize,
    /// Zeros above and left of the image.
    pub before: [usize; 2],
}

impl Layout {
    /// From one output row to the next, in the padded copy as in the sums.
    pub fn pitch(&self) -> usize {
        self.output[1] + (self.kernel[1] - 1) / self.stride
    }

    /// Sums from the first output pixel to the last, with those between the rows.
    pub fn pixels(&self) -> usize {
        self.pitch() * (self.output[0] - 1) + self.output[1]
    }

    /// Pixels of one channel whose row and column have the same remainders modulo the stride.
    fn plane(&self) -> usize {
        self.pitch() * (self.output[0] + (self.kernel[0] - 1) / self.stride)
    }

    /// Where the first output pixel finds each tap: channel, kernel row, kernel column.
    pub fn taps(&self) -> Vec<usize> {
        let (stride, [rows, columns]) = (self.stride, self.kernel);
        let place = |channel: usize, row: usize, column: usize| {
            let phase = row % stride * stride + column % stride;
            (phase * self.channels + channel) * self.plane()
                + row / stride * self.pitch()
                + column / stride
        };
        (0..self.channels)
            .flat_map(|channel| (0..rows).map(move |row| (channel, row)))
            .flat_map(|(channel, row)| (0..columns).map(move |column| place(channel, row, column)))
            .collect()
    }

    /// Copies `image` [channel, row, column] into `padded`, with `slack` zeros behind it.
    pub fn pad(&self, image: &[f32], slack: usize, padded: &mut Vec<f32>) {
        let (stride, pitch) = (self.stride, self.pitch());
        let [height, width] = self.input;
        padded.clear();
        padded.resize(stride * stride * self.channels * self.plane() + slack, 0.0);
        let planes = padded.chunks_exact_mut(self.plane());
        for (index, plane) in planes.enumerate().take(stride * stride * self.channels) {
            let (phase, channel) = (index / self.channels, index % self.channels);
            let image = &image[channel * height * width..][..height * width];
            // The first column of this phase that the image has, and where that goes.
            let (first, to) = Self::first(phase % stride, self.before[1], stride);
            for (row, line) in plane.chunks_exact_mut(pitch).enumerate() {
                let Some(y) = (row * stride + phase / stride).checked_sub(self.before[0]) else {
                    continue;
                };
                if y >= height || first >= width || to >= pitch {
                    continue;
                }
                let from = &image[y * width + first..(y + 1) * width];
                let line = &mut line[to..];
                if stride == 1 {
                    let length = from.len().min(line.len());
                    line[..length].copy_from_slice(&from[..length]);
                } else {
                    let from = from.iter().step_by(stride);
                    line.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
                }
            }
        }
    }

    /// The first image column whose padded column is `phase` modulo the stride, and its place among
    /// those.
    fn first(phase: usize, before: usize, stride: usize) -> (usize, usize) {
        let place = before.saturating_sub(phase).div_ceil(stride);
        (place * stride + phase - before, place)
    }
}
