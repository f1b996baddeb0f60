//! The published networks with numbers from the golden vectors' formula, in full size and narrow.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use cpu_time::ThreadTime;
use crossfix_calibration::{Geodetic, Heatmap, PatchGeoreference, PatchSpec, RgbImage};
use crossfix_kernels::{Pixels, Tensor};
use crossfix_offline::export::{
    Verification, noise_input, seen_by, student_card, verify_export, with_camera, with_window,
    write_onnx, write_parity,
};
use crossfix_offline::import::names::published_shape;
use crossfix_offline::model::ggcvt::{self, GgcvtCamera};
use crossfix_offline::model::weights::{Arrays, read_arrays};
use crossfix_offline::model::{
    Ccvpe, CcvpeSpec, CrossViewModel, Ggcvt, GgcvtSpec, Input, ModelSpec, NetworkSpec, preset,
};
use crossfix_onboard::card::StudentCard;
use crossfix_onboard::matcher::{GroundStrip, Inside, Matcher, TractMatcher};

use crate::golden::{Generator, ccvpe_rule, ggcvt_rule};

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

/// A GGCVT network of `spec`, its numbers from the formula; `nudge` may change those of each
/// parameter.
///
/// # Errors
/// When the table cannot be built.
pub fn ggcvt_by_formula(
    spec: GgcvtSpec,
    generator: &Generator,
    mut nudge: impl FnMut(&str, &mut [f32]),
) -> Result<Ggcvt> {
    let mut model = Ggcvt::new(spec, 0)?;
    for parameter in model.parameters_mut().all_mut() {
        let shape = parameter.value.shape().to_vec();
        let (offset, scale) = ggcvt_rule(&parameter.name, &shape);
        let mut values = generator.fill(&parameter.name, parameter.value.len(), offset, scale);
        nudge(&parameter.name, &mut values);
        parameter.value = Tensor::new(values, &shape)?.with_gradient();
    }
    Ok(model)
}

/// The table of a published network of either kind, with a quarter of its channels and sides.
///
/// # Errors
/// When there is no such preset, or what is left of it cannot be built.
pub fn narrow_network(name: &str) -> Result<NetworkSpec> {
    Ok(if ggcvt::preset(name).is_some() {
        NetworkSpec::Ggcvt(narrow_ggcvt(name)?)
    } else {
        NetworkSpec::Ccvpe(narrow(name)?)
    })
}

/// A GGCVT table with a quarter of its channels, tokens and sides, over the same ground.
fn narrow_ggcvt(name: &str) -> Result<GgcvtSpec> {
    let mut spec = ggcvt::preset(name).with_context(|| format!("no preset {name}"))?;
    for side in [
        &mut spec.aerial_px,
        &mut spec.ground_rows,
        &mut spec.ground_columns,
        &mut spec.embedding,
        &mut spec.cross_width,
    ]
    .into_iter()
    .chain(&mut spec.widths)
    .chain(&mut spec.uncertainty)
    .chain(&mut spec.templates)
    {
        *side /= 4;
    }
    spec.window /= 2;
    match &mut spec.camera {
        GgcvtCamera::Panorama {
            metres_per_pixel, ..
        }
        | GgcvtCamera::Pinhole {
            metres_per_pixel, ..
        } => *metres_per_pixel *= 4.0,
    }
    let problems = spec.problems();
    ensure!(problems.is_empty(), "{name}, narrow: {problems:?}");
    Ok(spec)
}

/// The matrix of a camera like KITTI's (721.5 pixels of focal length in images of 1242 × 375) for
/// the ground images of a network that needs one.
fn camera(spec: &NetworkSpec) -> Option<[f64; 4]> {
    let NetworkSpec::Ggcvt(spec) = spec else {
        return None;
    };
    let GgcvtCamera::Pinhole { .. } = spec.camera else {
        return None;
    };
    let across = spec.ground_columns as f64 / 1242.0;
    let down = spec.ground_rows as f64 / 375.0;
    Some([721.5 * across, 721.5 * down, 609.6 * across, 172.9 * down])
}

/// A network of either kind, as it is exported.
fn by_formula(
    spec: &NetworkSpec,
    generator: &Generator,
    nudge: impl FnMut(&str, &mut [f32]),
) -> Result<Box<dyn CrossViewModel>> {
    Ok(match spec {
        NetworkSpec::Ccvpe(spec) => {
            Box::new(ccvpe_by_formula(spec.clone(), generator, nudge)?.with_left_bin())
        }
        NetworkSpec::Ggcvt(spec) => Box::new(ggcvt_by_formula(spec.clone(), generator, nudge)?),
    })
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
    /// What tract makes of the file, whole and cut as the daemon cuts it, against the training engine.
    pub found: Verification,
    /// What the daemon's matcher answers; nothing for pinhole pictures, which it refuses.
    pub driven: Option<Driven>,
    /// What it answers over a window, of networks that are exported with one.
    pub windowed: Option<Windowed>,
    /// Size of the file.
    pub megabytes: f64,
    /// CPU time of writing the file.
    pub export_s: f64,
    /// CPU time of loading it into tract, whole and cut, running both, and the training engine.
    pub verify_s: f64,
}

/// What the daemon's matcher makes of a file.
#[derive(Debug, Clone, Copy)]
pub struct Driven {
    /// The difference of the heatmap.
    pub difference: f64,
    /// The difference of the yaw residual that it reads around the heatmap's mode; 0 where the network
    /// tells none.
    pub yaw_difference_rad: f64,
    /// CPU time until the matcher is ready.
    pub load_s: f64,
    /// CPU time of one frame, least of `frames`: with a new patch, and with the same patch again.
    pub frame_ms: [f64; 2],
}

/// What the daemon's matcher makes of a window, against what it makes of the whole patch, over frames of
/// different pictures and places.
#[derive(Debug, Clone, Copy)]
pub struct Windowed {
    /// Frames.
    pub frames: usize,
    /// Frames with the mode in the same cell as the whole heatmap has it inside the window.
    pub same_mode: usize,
    /// The largest difference of a heatmap inside the window, relative to the largest probability there.
    pub difference: f64,
    /// CPU time of a frame on a patch seen before, least and median: the whole patch, and the window.
    pub frame_ms: [[f64; 2]; 2],
}

/// Exports a network of `spec` to `folder/NAME.onnx`, with a window of `window_m` metres if that is given, and
/// drives the daemon's matcher with it: up to three frames on a new patch each, and on the same patch; `frames`
/// over the window.
///
/// For other runtimes it leaves `NAME.safetensors` beside the file: inputs and what training makes of
/// them.
///
/// # Errors
/// When something cannot be written, read or run.
pub fn export(
    spec: &NetworkSpec,
    generator: &Generator,
    name: &str,
    folder: &Path,
    frames: usize,
    window_m: Option<f64>,
) -> Result<Exported> {
    let model = by_formula(spec, generator, |_, _| {})?;
    let model = model.as_ref();
    let path = folder.join(format!("{name}.onnx"));
    let mut card = student_card(model.describe(), 1.0, "MIT");
    let camera = camera(spec);
    if let Some(matrix) = camera {
        card = with_camera(card, matrix);
    }
    if let Some(side_m) = window_m {
        card = with_window(card, side_m);
    }
    let start = ThreadTime::now();
    let card = write_onnx(model, card, &path)?;
    let export_s = start.elapsed().as_secs_f64();
    ensure!(card.aerial_features.len() > 1 && !card.ground_descriptors.is_empty());
    let mut input = seen_by(
        &card,
        model.describe(),
        noise_input(model.describe(), 1, 5)?,
    );
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
    let start = ThreadTime::now();
    let found = verify_export(model, &path, &input)?;
    let verify_s = start.elapsed().as_secs_f64();
    let driven = camera.is_none().then(|| {
        let left_azimuth_rad = strip.left_azimuth_rad;
        let frames = frames.min(3);
        drive(&path, &card, &input, left_azimuth_rad, &expected, frames)
    });
    let windowed = card
        .window
        .map(|_| drive_windows(&path, &card, model.describe(), frames));
    Ok(Exported {
        found,
        driven: driven.transpose()?,
        windowed: windowed.transpose()?,
        megabytes: std::fs::metadata(&path)?.len() as f64 / 1e6,
        export_s,
        verify_s,
    })
}

/// Drives the daemon's matcher with the file, and compares its last answer.
fn drive(
    path: &Path,
    card: &StudentCard,
    input: &Input,
    left_azimuth_rad: f64,
    expected: &Arrays,
    frames: usize,
) -> Result<Driven> {
    let start = ThreadTime::now();
    let mut matcher = TractMatcher::load(path)?;
    let load_s = start.elapsed().as_secs_f64();
    let (ground, aerial) = (picture(&input.ground)?, picture(&input.aerial)?);
    let strip = GroundStrip {
        image: &ground,
        left_azimuth_rad,
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
            *least = least.min(start.elapsed().as_secs_f64() * 1e3);
            heatmap = answer.heatmap.probabilities().to_vec();
            yaw_rad = answer.yaw_residual_rad;
        }
    }
    let truth = &expected["heatmap"].1;
    let turn_rad = match (yaw_rad, expected.get("orientation")) {
        (Some(yaw_rad), Some((_, field))) => yaw_rad - yaw_around_mode(truth, field),
        (None, None) => 0.0,
        _ => bail!("a yaw that nobody knows, or none of one that is known"),
    };
    Ok(Driven {
        difference: relative_difference(&heatmap, truth),
        yaw_difference_rad: turn_rad.sin().atan2(turn_rad.cos()).abs(),
        load_s,
        frame_ms,
    })
}

/// Drives the daemon's matcher over the whole patch and over a window, with new pictures for each frame.
fn drive_windows(
    path: &Path,
    card: &StudentCard,
    spec: &ModelSpec,
    frames: usize,
) -> Result<Windowed> {
    let mut matcher = TractMatcher::load(path)?;
    let strip = card.ground.strip_spec(0.7);
    let side_m = card.aerial.patch_spec().side_m();
    let mut found = Windowed {
        frames,
        same_mode: 0,
        difference: 0.0,
        frame_ms: [[f64::INFINITY; 2]; 2],
    };
    let mut times_ms = [Vec::new(), Vec::new()];
    for frame in 0..frames {
        let input = noise_input(spec, 1, frame as u64)?;
        let (ground, aerial) = (picture(&input.ground)?, picture(&input.aerial)?);
        let strip = GroundStrip {
            image: &ground,
            left_azimuth_rad: strip.left_azimuth_rad,
        };
        let place = Geodetic::new(52.0 + frame as f64 * 1e-3, 4.0, 0.0)?;
        let key = PatchGeoreference::exactly_at(place, card.aerial.patch_spec())?.key();
        // All over the patch: the steps are no parts of 1.
        let at = |step: f64| ((frame as f64 * step).fract() - 0.5) * 0.9 * side_m;
        let inside = Inside {
            offset_m: [at(0.618), at(0.414)],
            radius_m: 0.04 * side_m,
        };
        // So that both find the aerial half in the cache.
        matcher.match_inside(strip, key, &aerial, inside)?;
        let start = ThreadTime::now();
        let whole = matcher.match_frame(strip, key, &aerial)?;
        times_ms[0].push(start.elapsed().as_secs_f64() * 1e3);
        let start = ThreadTime::now();
        let part = matcher.match_inside(strip, key, &aerial, inside)?;
        times_ms[1].push(start.elapsed().as_secs_f64() * 1e3);
        let cells = part
            .part
            .with_context(|| format!("frame {frame} as a whole"))?;
        let side = card.heatmap.side;
        let inside = |heatmap: &Heatmap| -> Vec<f32> {
            let rows = cells.rows(side);
            let told: Vec<f32> = rows
                .flat_map(|row| heatmap.probabilities()[row].to_vec())
                .collect();
            let sum: f64 = told.iter().map(|p| f64::from(*p)).sum();
            told.iter().map(|p| (f64::from(*p) / sum) as f32).collect()
        };
        let (part, whole) = (inside(&part.heatmap), inside(&whole.heatmap));
        let mode = |told: &[f32]| {
            let best = told.iter().copied().fold(0.0, f32::max);
            told.iter().position(|p| *p >= best)
        };
        found.difference = found.difference.max(relative_difference(&part, &whole));
        found.same_mode += usize::from(mode(&part) == mode(&whole));
    }
    for (times_ms, found) in times_ms.iter_mut().zip(&mut found.frame_ms) {
        times_ms.sort_by(f64::total_cmp);
        *found = [times_ms[0], times_ms[times_ms.len() / 2]];
    }
    Ok(found)
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
fn picture(images: &Pixels) -> Result<RgbImage> {
    let [_, _, height, width] = images.shape();
    let pixels = height * width;
    let values = (0..pixels).flat_map(|at| [0, 1, 2].map(|channel| channel * pixels + at));
    let bytes = images.host("picture")?;
    Ok(RgbImage {
        width,
        height,
        data: values.map(|at| bytes[at]).collect(),
    })
}
