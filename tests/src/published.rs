//! The published networks with numbers from the golden vectors' formula, in full size and narrow.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use cpu_time::ThreadTime;
use crossfix_calibration::{Geodetic, PatchGeoreference, PatchSpec, RgbImage};
use crossfix_kernels::Tensor;
use crossfix_offline::export::{
    noise_input, student_card, verify_export, write_onnx, write_parity,
};
use crossfix_offline::import::names::published_shape;
use crossfix_offline::model::weights::read_arrays;
use crossfix_offline::model::{Ccvpe, CcvpeSpec, CrossViewModel, preset};
use crossfix_onboard::matcher::{GroundStrip, Matcher, TractMatcher};

use crate::golden::{Generator, ccvpe_rule, nudge};

/// Drawings of other last bits, as many as the golden vectors' cases get.
const ROUNDINGS: u32 = 3;

/// A network of `spec`, its numbers from the formula; `nudge` may change those of each parameter.
///
/// # Errors
/// When the table cannot be built.
pub fn ccvpe_by_formula(
    spec: CcvpeSpec,
    generator: &Generator,
    mut nudge: impl FnMut(&str, &mut [f32]),
) -> Result<Ccvpe> {
    let mut model = Ccvpe::new(spec, 0)?;
    let parameters = model.parameters_mut();
    for parameter in parameters.all_mut() {
        let own = parameter.value.shape().to_vec();
        let shape = published_shape(&parameter.name, &own);
        let (offset, scale) = ccvpe_rule(&parameter.name, &shape);
        let mut values = generator.fill(&parameter.name, parameter.value.len(), offset, scale);
        nudge(&parameter.name, &mut values);
        parameter.value = Tensor::new(values, &own)?.with_gradient();
    }
    let names = parameters.statistics_names().to_vec();
    for (name, statistics) in names.iter().zip(parameters.all_statistics_mut()) {
        let channels = statistics.mean.len();
        for (what, values) in [
            ("running_mean", &mut statistics.mean),
            ("running_var", &mut statistics.variance),
        ] {
            let name = format!("{name}.{what}");
            let (offset, scale) = ccvpe_rule(&name, &[channels]);
            let drawn = generator.fill(&name, channels, offset, scale);
            *values = Tensor::new(drawn, &[channels])?;
        }
    }
    Ok(model)
}

/// The table of a published network with a quarter of its channels and of its aerial side, and few
/// ground rows: every layer, level and bin is there, in a size that a test can run.
///
/// # Errors
/// When there is no such preset, or what is left of it cannot be built.
pub fn narrow(name: &str) -> Result<CcvpeSpec> {
    let mut spec = preset(name).with_context(|| format!("no preset {name}"))?;
    let quarter = |channels: usize| (channels / 4).max(2);
    spec.aerial_px /= 4;
    spec.ground_rows = spec.ground_rows.min(64);
    spec.encoder.stem = spec.encoder.stem.map(quarter);
    spec.encoder.head = spec.encoder.head.map(quarter);
    for block in &mut spec.encoder.blocks {
        block.channels = quarter(block.channels);
    }
    for level in &mut spec.levels {
        level.grid /= 4;
        // The window, the shift and the turn must stay in proportion.
        if level.ground_channels % 4 == 0 && level.shift % 4 == 0 {
            level.ground_channels /= 4;
            level.aerial_channels /= 4;
            level.shift /= 4;
        }
    }
    let levels = spec.levels.clone();
    for (k, step) in spec.location.iter_mut().enumerate() {
        step.up = quarter(step.up);
        step.hidden = quarter(step.hidden);
        step.out = levels.get(k + 1).map_or(1, |level| level.aerial_channels);
    }
    for step in &mut spec.orientation {
        step.up = quarter(step.up);
        step.hidden = quarter(step.hidden);
        step.out = if step.out == 2 { 2 } else { quarter(step.out) };
    }
    let problems = spec.problems();
    ensure!(problems.is_empty(), "{name}, narrow: {problems:?}");
    Ok(spec)
}

/// What came of exporting a network and running the file.
#[derive(Debug, Clone, Copy)]
pub struct Exported {
    /// Largest difference between tract and the training engine, relative to the largest value, of
    /// heatmap and orientation: the file whole, and cut as the daemon cuts it.
    pub difference: [f64; 2],
    /// The same of the orientation at the heatmap's mode.
    pub difference_at_mode: f64,
    /// How far the training engine itself moves with other last bits in its weights, the most of
    /// three drawings. A direction whose vector is all but zero turns far.
    pub spread: [f64; 2],
    /// The difference of the heatmap that the daemon's matcher answers.
    pub matcher_difference: f64,
    /// The difference of the yaw residual that it reads around the heatmap's mode.
    pub matcher_yaw_difference_rad: f64,
    /// Size of the file.
    pub megabytes: f64,
    /// CPU time of writing the file.
    pub export_s: f64,
    /// CPU time until the matcher is ready.
    pub load_s: f64,
    /// CPU time of one frame, least of `frames`: with a new patch, and with the same patch again.
    pub frame_ms: [f64; 2],
}

/// Exports a network of `spec` to `folder/NAME.onnx`, and drives the daemon's matcher with it: `frames`
/// frames on a new patch each, and on the same patch.
///
/// For other runtimes it leaves `NAME.safetensors` beside the file (inputs and what training makes of
/// them), and `NAME.nudged1` to `3` (the same with other last bits in the weights).
///
/// # Errors
/// When something cannot be written, read or run.
pub fn export(
    spec: CcvpeSpec,
    generator: &Generator,
    name: &str,
    folder: &Path,
    frames: usize,
) -> Result<Exported> {
    let model = &ccvpe_by_formula(spec, generator, |_, _| {})?.with_left_bin();
    let seconds = |start: ThreadTime| start.elapsed().as_secs_f64();
    let path = folder.join(format!("{name}.onnx"));
    let start = ThreadTime::now();
    let card = write_onnx(model, student_card(model.describe(), 1.0, "MIT"), &path)?;
    let export_s = seconds(start);
    ensure!(
        card.aerial_features.len() > 1
            && card.ground_descriptors.len() == model.spec().levels.len()
    );
    let mut input = noise_input(model.describe(), 1, 5)?;
    // A front camera that looks somewhere; a panorama begins in the south.
    let strip = card.ground.strip_spec(0.7);
    if let Some(bin) = input.ground_left_bin.first_mut() {
        *bin = card
            .ground
            .left_bin(strip.left_azimuth_rad)
            .context("a bin")?;
    }
    let parity = folder.join(format!("{name}.safetensors"));
    write_parity(&parity, model, 1.0, &input)?;
    let (expected, _) = read_arrays(&parity)?;
    let found = verify_export(model, &path, &input)?;
    let difference = [
        found.max_relative_error_heatmap,
        found
            .max_relative_error_orientation
            .context("an orientation")?,
    ];
    let mut spread = [0.0f64; 2];
    for rounding in 1..=ROUNDINGS {
        let nudged = ccvpe_by_formula(model.spec().clone(), generator, |name, values| {
            nudge(generator, name, rounding, values);
        })?;
        let other = folder.join(format!("{name}.nudged{rounding}"));
        write_parity(&other, &nudged, 1.0, &input)?;
        let (other, _) = read_arrays(&other)?;
        for (worst, name) in spread.iter_mut().zip(["heatmap", "orientation"]) {
            *worst = worst.max(relative_difference(&other[name].1, &expected[name].1));
        }
    }

    let start = ThreadTime::now();
    let mut matcher = TractMatcher::load(&path)?;
    let load_s = seconds(start);
    let (ground, aerial) = (picture(&input.ground), picture(&input.aerial));
    let strip = GroundStrip {
        image: &ground,
        left_azimuth_rad: strip.left_azimuth_rad,
    };
    let mut frame_ms = [f64::INFINITY; 2];
    let (mut heatmap, mut yaw_rad) = (Vec::new(), None);
    for frame in 0..frames {
        let place = Geodetic::new(52.0 + frame as f64 * 1e-3, 4.0, 0.0)?;
        let spec = PatchSpec {
            size_px: card.aerial.size_px,
            metres_per_pixel: card.aerial.metres_per_pixel,
        };
        let key = PatchGeoreference::exactly_at(place, spec)?.key();
        for least in &mut frame_ms {
            let start = ThreadTime::now();
            let answer = matcher.match_frame(strip, key, &aerial)?;
            *least = least.min(seconds(start) * 1e3);
            heatmap = answer.heatmap.probabilities().to_vec();
            yaw_rad = answer.yaw_residual_rad;
        }
    }
    let expected_yaw_rad = yaw_around_mode(&expected["heatmap"].1, &expected["orientation"].1);
    let turn_rad = yaw_rad.context("no frame, or no yaw")? - expected_yaw_rad;
    Ok(Exported {
        difference,
        difference_at_mode: found.max_error_orientation_at_mode,
        spread,
        matcher_difference: relative_difference(&heatmap, &expected["heatmap"].1),
        matcher_yaw_difference_rad: turn_rad.sin().atan2(turn_rad.cos()).abs(),
        megabytes: std::fs::metadata(&path)?.len() as f64 / 1e6,
        export_s,
        load_s,
        frame_ms,
    })
}

/// The angle of the mean of `orientation` `[2, side, side]` over the mode of `heatmap` `[side, side]`
/// and its neighbours, weighted by probability: what driving uses of it.
fn yaw_around_mode(heatmap: &[f32], orientation: &[f32]) -> f64 {
    let side = heatmap.len().isqrt();
    let mode = (0..heatmap.len()).max_by(|a, b| heatmap[*a].total_cmp(&heatmap[*b]));
    let mode = mode.unwrap_or(0);
    let near = |at: &usize| {
        (at / side).abs_diff(mode / side) <= 1 && (at % side).abs_diff(mode % side) <= 1
    };
    let sum = |part: &[f32]| -> f64 {
        let cells = (0..heatmap.len()).filter(near);
        cells.map(|at| f64::from(heatmap[at] * part[at])).sum()
    };
    let (cosines, sines) = orientation.split_at(heatmap.len());
    sum(sines).atan2(sum(cosines))
}

/// max |a - b| / max |b|; infinite for other lengths, and when there is no number to compare.
fn relative_difference(found: &[f32], expected: &[f32]) -> f64 {
    let size = expected.iter().fold(0.0, |size, b| b.abs().max(size));
    let differences = found
        .iter()
        .zip(expected)
        .map(|(a, b)| (a - b).abs() / size);
    // The greatest by total order, in which NaN is greater than every number.
    let worst = differences.max_by(f32::total_cmp).unwrap_or(f32::NAN);
    if found.len() == expected.len() && worst.is_finite() {
        f64::from(worst)
    } else {
        f64::INFINITY
    }
}

/// The first sample of `[N, 3, H, W]` pixels.
fn picture(images: &Tensor) -> RgbImage {
    let [height, width] = [images.shape()[2], images.shape()[3]];
    let pixels = height * width;
    let values = (0..pixels).flat_map(|at| [0, 1, 2].map(|channel| channel * pixels + at));
    RgbImage {
        width,
        height,
        data: values.map(|at| images.data()[at] as u8).collect(),
    }
}
