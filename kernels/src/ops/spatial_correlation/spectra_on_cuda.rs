//! The GPU side through spectra, for large templates.
//!
//! As on the CPU, two channels are the real and imaginary part of one image, large enough for
//! the map; sides are powers of two here, so that one kernel (radix-2 FFT in shared memory) transforms
//! rows and columns.

use super::{OP, Plan};
use crate::cuda::{Cuda, DeviceBuffer, Kernel, Launch, Source, count, parameters};
use crate::error::Result;
use crate::tape::Tape;
use crate::tensor::Tensor;
use std::f64::consts::PI;

pub(crate) static SOURCE: Source = Source {
    name: "ops/spatial_spectra.cu",
    text: include_str!("../spatial_spectra.cu"),
    hot: &[
        "spectra_pack",
        "spectra_unpack",
        "spectra_lines",
        "spectra_correlate",
        "spectra_product",
    ],
};
const fn kernel(entry: &'static str) -> Kernel {
    Kernel {
        source: &SOURCE,
        entry,
    }
}
static PACK: Kernel = kernel("spectra_pack");
static UNPACK: Kernel = kernel("spectra_unpack");
static LINES: Kernel = kernel("spectra_lines");
static CORRELATE: Kernel = kernel("spectra_correlate");
static PRODUCT: Kernel = kernel("spectra_product");

/// The longest side that is transformed.
const LONGEST: usize = 1024;
/// Elements that a block keeps in shared memory, 16 KiB, unless one line is longer.
const SHARED: usize = 2048;

parameters! {
    struct SpectraParameters {
        count: u32,
        rows: u32,
        columns: u32,
        channels: u32,
        pairs: u32,
        height: u32,
        width: u32,
        conjugate: u32,
        scale: f32,
    }
}

parameters! {
    struct LinesParameters {
        length: u32,
        bits: u32,
        lines: u32,
        along: u32,
        beside: u32,
        shared: u32,
        twiddle: u32,
        direction: f32,
    }
}

/// Complex images of two channels each, or their spectra: interleaved real and imaginary parts.
struct Spectra {
    values: DeviceBuffer,
    images: usize,
}

/// Sizes of the transform, and images of a sample.
#[derive(Clone, Copy)]
struct Transform {
    rows: usize,
    columns: usize,
    channels: usize,
    samples: usize,
}

#[derive(Clone, Copy)]
enum Direction {
    Forth,
    Back,
}

/// Whether a map of this size can be transformed.
pub(super) fn fits(plan: &Plan) -> bool {
    plan.search.iter().all(|side| *side <= LONGEST)
}

/// Whether spectra are estimated to be faster; nobody has measured it yet. For each channel the
/// sum's multiplications are compared with the elements that the transforms move some twenty
/// times, each at what a large GPU does in the same time.
pub(super) fn is_faster(plan: &Plan) -> bool {
    /// Multiplications in the time in which the passes over an element are made.
    const UNIT: f64 = 500.0;
    let product = |[rows, columns]: [usize; 2]| rows as f64 * columns as f64;
    let area = product(plan.search.map(usize::next_power_of_two));
    fits(plan) && product(plan.template) * product(plan.places()) > UNIT * area
}

pub(super) fn correlation(
    tape: &mut Tape,
    cuda: &Cuda,
    inputs: [&Tensor; 2],
    plan: Plan,
) -> Result<Tensor> {
    let [template, search] = inputs;
    let t = Transform {
        // A line of one element has no butterfly.
        rows: plan.search[0].next_power_of_two().max(2),
        columns: plan.search[1].next_power_of_two().max(2),
        channels: plan.channels,
        samples: template.len() / plan.template_len(),
    };
    count(OP, search.len())?;
    count(OP, 2 * t.images() * t.area())?;
    let templates = t.spectra(cuda, template.buffer(), plan.template)?;
    let maps = t.spectra(cuda, search.buffer(), plan.search)?;
    let mut sums = cuda.any(2 * t.samples * t.area())?;
    let parameters = t.parameters(t.samples * t.area(), [0, 0]);
    let launch = Launch::new(&CORRELATE).over(parameters.count as usize);
    // SAFETY: spectra_correlate(templates, maps, sums, SpectraParameters): `sums` has `count`
    // elements, by which the kernel guards its index, one image of `rows` · `columns` for each
    // sample; the others have `pairs` images for each.
    unsafe {
        launch
            .input(&templates.values)
            .input(&maps.values)
            .output(&mut sums)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    // Of one channel: the real part.
    let one = Transform { channels: 1, ..t };
    let sums = Spectra {
        values: sums,
        images: t.samples,
    };
    let places = plan.places();
    let output = one.numbers(cuda, sums, places)?;
    let mut output = Tensor::from_device(output, &[t.samples, places[0], places[1]]);
    let saved = tape
        .needs_gradient(&inputs)
        .then(|| (cuda.clone(), templates, maps));
    let shapes = [template.shape().to_vec(), search.shape().to_vec()];
    tape.record(&mut output, &inputs, move |gradient| {
        let (cuda, templates, maps) = saved.expect("saved whenever recorded");
        // g ⋆ s for the template, and the convolution of g with t for the map.
        let gradient = one.spectra(&cuda, gradient.buffer(), places)?;
        let to_template = t.product(&cuda, &maps, &gradient, true)?;
        let to_template = t.numbers(&cuda, to_template, plan.template)?;
        let to_search = t.product(&cuda, &templates, &gradient, false)?;
        let to_search = t.numbers(&cuda, to_search, plan.search)?;
        Ok(vec![
            Some(Tensor::from_device(to_template, &shapes[0])),
            Some(Tensor::from_device(to_search, &shapes[1])),
        ])
    });
    Ok(output)
}

impl Transform {
    fn area(&self) -> usize {
        self.rows * self.columns
    }

    /// Images of a sample.
    fn pairs(&self) -> usize {
        self.channels.div_ceil(2)
    }

    fn images(&self) -> usize {
        self.samples * self.pairs()
    }

    fn parameters(&self, count: usize, plane: [usize; 2]) -> SpectraParameters {
        SpectraParameters {
            count: count as u32,
            rows: self.rows as u32,
            columns: self.columns as u32,
            channels: self.channels as u32,
            pairs: self.pairs() as u32,
            height: plane[0] as u32,
            width: plane[1] as u32,
            conjugate: 0,
            scale: 1.0 / self.area() as f32,
        }
    }

    /// Copies planes into complex images, with zero padding.
    fn spectra(&self, cuda: &Cuda, planes: &DeviceBuffer, size: [usize; 2]) -> Result<Spectra> {
        let elements = self.images() * self.area();
        let mut values = cuda.any(2 * elements)?;
        let parameters = self.parameters(elements, size);
        let launch = Launch::new(&PACK).over(elements);
        // SAFETY: spectra_pack(planes, images, SpectraParameters): the images have `count`
        // elements, by which the kernel guards its index; it reads of the planes what lies inside
        // `height` and `width`, of the channels that there are.
        unsafe {
            launch
                .input(planes)
                .output(&mut values)
                .parameters(&parameters)
                .enqueue(cuda)?;
        }
        let mut spectra = Spectra {
            values,
            images: self.images(),
        };
        self.lines(cuda, &mut spectra, Direction::Forth)?;
        Ok(spectra)
    }

    /// Inverse FFT, cropped to `size`.
    fn numbers(&self, cuda: &Cuda, mut spectra: Spectra, size: [usize; 2]) -> Result<DeviceBuffer> {
        self.lines(cuda, &mut spectra, Direction::Back)?;
        let elements = self.samples * self.channels * size[0] * size[1];
        let mut planes = cuda.any(elements)?;
        let parameters = self.parameters(elements, size);
        let launch = Launch::new(&UNPACK).over(elements);
        // SAFETY: spectra_unpack(images, planes, SpectraParameters): the planes have `count`
        // elements, by which the kernel guards its index, and lie inside the images.
        unsafe {
            launch
                .input(&spectra.values)
                .output(&mut planes)
                .parameters(&parameters)
                .enqueue(cuda)?;
        }
        Ok(planes)
    }

    /// Each image times the spectrum of its sample's gradient, or the conjugate of that.
    fn product(
        &self,
        cuda: &Cuda,
        images: &Spectra,
        gradient: &Spectra,
        conjugate: bool,
    ) -> Result<Spectra> {
        let mut values = cuda.any(images.values.len())?;
        let parameters = SpectraParameters {
            conjugate: u32::from(conjugate),
            ..self.parameters(images.values.len() / 2, [0, 0])
        };
        let launch = Launch::new(&PRODUCT).over(parameters.count as usize);
        // SAFETY: spectra_product(images, gradients, products, SpectraParameters): images and
        // products have `count` elements, by which the kernel guards its index, `pairs` images for
        // each one of the gradients.
        unsafe {
            launch
                .input(&images.values)
                .input(&gradient.values)
                .output(&mut values)
                .parameters(&parameters)
                .enqueue(cuda)?;
        }
        Ok(Spectra {
            values,
            images: images.images,
        })
    }

    /// Unnormalised FFT of rows, then columns, in place.
    fn lines(&self, cuda: &Cuda, spectra: &mut Spectra, direction: Direction) -> Result<()> {
        // Twiddle factors e^(iφ) of half the longest line; shorter lines read every second one, and so on.
        let twiddles: Vec<f32> = (0..LONGEST / 2)
            .flat_map(|k| {
                let (sin, cos) = (2.0 * PI * k as f64 / LONGEST as f64).sin_cos();
                [cos as f32, sin as f32]
            })
            .collect();
        let twiddles = cuda.constant(&twiddles)?;
        let (rows, columns) = (self.rows, self.columns);
        for [length, lines, along, beside] in
            [[columns, rows, 1, columns], [rows, columns, columns, 1]]
        {
            let shared = (SHARED / length).clamp(1, lines);
            let parameters = LinesParameters {
                length: length as u32,
                bits: length.ilog2(),
                lines: lines as u32,
                along: along as u32,
                beside: beside as u32,
                shared: shared as u32,
                twiddle: (LONGEST / length) as u32,
                direction: match direction {
                    Direction::Forth => -1.0,
                    Direction::Back => 1.0,
                },
            };
            // SAFETY: spectra_lines(images, twiddles, LinesParameters): blocks of `shared` lines,
            // a power of two as `lines` is, cover the lines of each image; shared memory holds
            // them; `twiddles` has half of the longest line, of which every `twiddle`th is read.
            unsafe {
                Launch::new(&LINES)
                    .grid([lines / shared, spectra.images, 1])
                    .shared(shared * length * 2 * size_of::<f32>())
                    .output(&mut spectra.values)
                    .input(&twiddles)
                    .parameters(&parameters)
                    .enqueue(cuda)?;
            }
        }
        Ok(())
    }
}
