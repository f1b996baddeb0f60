//! Cases of the published CCVPE networks: the network and the images of one, a forward pass compared layer
//! by layer, and comparisons of losses and gradients. Every setting comes from the case's JSON file.

use std::sync::{Mutex, MutexGuard};

use anyhow::{Context, Result, bail};
use crossfix_kernels::ops::BatchNormMode;
use crossfix_kernels::{Gradients, Tape, Tensor};
use crossfix_offline::model::loss::{LossConfig, PoseTarget};
use crossfix_offline::model::{
    Ccvpe, CrossViewModel, Extent, ForwardOptions, NormalisedInput, Prediction, Share, preset,
    spec::Padding,
};

use crate::golden::{
    Case, Comparison, Generator, forward_tolerance, gradient_tolerance, l2, nudge,
};
use crate::published::ccvpe_by_formula;

/// One network in memory at a time: training a published one takes several GB.
pub fn alone() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The network of a case, its numbers from the formula.
///
/// # Errors
/// When the case lacks what is needed, or the network cannot be run.
pub fn network(case: &Case, rounding: u32) -> Result<Ccvpe> {
    let net = case.text("/net")?;
    let mut spec = match net {
        "vigor" | "prior" => preset("ccvpe-vigor"),
        "kitti" => preset("ccvpe-kitti"),
        "oxford" => preset("ccvpe-oxford"),
        _ => bail!("{}: unknown network {net:?}", case.name),
    }
    .context("a preset")?;
    let (ground, aerial) = (case.shape4("/grd")?, case.shape4("/sat")?);
    spec.ground_rows = ground[2];
    spec.ground_columns = ground[3];
    spec.aerial_px = aerial[2];
    spec.ground_wraps = case.json["circular_padding"].as_bool().unwrap_or(false);
    if let Ok(degrees) = case.number("/ori_noise") {
        let bin_deg = 360.0 / spec.orientation_bins as f64;
        spec.orientation_prior = Some((degrees / bin_deg).trunc() as usize);
    }
    if case
        .text("/padding")
        .is_ok_and(|padding| padding == "reflect")
    {
        spec.padding = Padding::Reflect;
    }
    let generator = Generator::new(case.text("/seed")?);
    ccvpe_by_formula(spec, &generator, |name, values| {
        nudge(&generator, name, rounding, values);
    })
}

/// The images of a case.
///
/// # Errors
/// When the case lacks what is needed, or the network cannot be run.
pub fn images(case: &Case, rounding: u32) -> Result<NormalisedInput> {
    let generator = Generator::new(case.text("/seed")?);
    let (offset, amplitude) = (case.number("/input/offset")?, case.number("/input/amp")?);
    let image = |name: &str, path: &str| -> Result<Tensor> {
        let shape = case.shape4(path)?;
        let mut pixels = generator.images(name, shape, offset, amplitude);
        nudge(&generator, name, rounding, &mut pixels);
        Ok(Tensor::new(pixels, &shape)?)
    };
    Ok(NormalisedInput {
        ground: image("grd", "/grd")?,
        aerial: image("sat", "/sat")?,
        ground_left_bin: Vec::new(),
    })
}

/// Batch statistics, no stochastic depth, the whole network.
pub fn training(extent: Extent) -> ForwardOptions<'static> {
    ForwardOptions {
        batch_norm: BatchNormMode::Train { momentum: 0.01 },
        drop_connect: None,
        share: Share::default(),
        extent,
    }
}

/// Our name of a checkpoint, and whether it is stored before a `SiLU` that we fuse.
pub fn layer(golden: &str) -> (String, bool) {
    if let Some(k) = golden.strip_prefix("grd_descriptor") {
        return (format!("grd_feature_to_descriptor{k}.2"), false);
    }
    if golden == "sat_descriptor_map" {
        return ("sat_feature_to_descriptors.1".into(), false);
    }
    if let Some((encoder, part)) = golden.split_once('.') {
        let part = match part {
            "stem_conv" => ("_conv_stem".to_string(), false),
            "stem_bn" => ("_bn0".to_string(), true),
            "head_bn" => ("_bn1".to_string(), true),
            block => (block.replace("block", "_blocks."), false),
        };
        return (format!("{encoder}_efficientnet.{}", part.0), part.1);
    }
    if golden.starts_with("conv") {
        return (format!("{golden}.2"), false);
    }
    (golden.into(), false)
}

/// `SiLU` in double precision.
pub fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

/// Runs `model` and compares every checkpoint that the case stores.
///
/// # Errors
/// When the case lacks what is needed, or the network cannot be run.
pub fn forward(
    case: &Case,
    model: &mut Ccvpe,
    tape: &mut Tape,
    input: &NormalisedInput,
    options: ForwardOptions,
    comparison: &mut Comparison,
) -> Result<Prediction> {
    let stored: Vec<(&str, String, bool)> = case
        .tensor_names()
        .into_iter()
        .filter(|name| !name.contains('/'))
        .map(|name| {
            let (ours, fused) = layer(name);
            (name, ours, fused)
        })
        .collect();
    let mut seen = Vec::new();
    let mut compare = |golden: &str, fused: bool, found: &Tensor| {
        let Some(stored) = case.tensor(golden) else {
            return comparison.fail(format!("{golden}: listed but not stored"));
        };
        if found.shape() != stored.shape() {
            let expected = stored.shape();
            return comparison.fail(format!("{golden}: {:?}, not {expected:?}", found.shape()));
        }
        let allowed = forward_tolerance(stored.about("f32_rel_l2"));
        let map = |x| if fused { silu(x) } else { x };
        match stored.relative_error(found.data(), map) {
            Ok(error) => comparison.note(golden, error, allowed),
            Err(error) => comparison.fail(format!("{golden}: {error}")),
        }
        if !fused {
            let size = stored.about("l2");
            comparison.close(&format!("|{golden}|"), l2(found.data()), size, allowed);
        }
    };
    let mut watch = |name: &str, found: &Tensor| {
        for (golden, ours, fused) in &stored {
            if ours == name {
                seen.push((*golden).to_string());
                compare(golden, *fused, found);
            }
        }
    };
    let prediction = model.forward_normalised(tape, input, options, Some(&mut watch))?;
    let side = model.spec().heatmap_side();
    let mut outputs: Vec<(String, Tensor)> = (1..)
        .zip(&prediction.levels)
        .map(|(k, level)| (format!("score{k}"), level.clone()))
        .collect();
    if let Some(logits) = &prediction.logits {
        outputs.push(("logits".into(), logits.clone()));
        let heatmaps = prediction.heatmaps()?;
        let heatmaps = Tensor::new(
            heatmaps.data().to_vec(),
            &[input.ground.shape()[0], 1, side, side],
        )?;
        outputs.push(("heatmap".into(), heatmaps));
    }
    outputs.extend(prediction.orientation.clone().map(|o| ("ori".into(), o)));
    for (name, found) in &outputs {
        if case.tensor(name).is_some() {
            compare(name, false, found);
            seen.push(name.clone());
        }
    }
    for (golden, _, _) in &stored {
        if !seen.iter().any(|name| name == golden) {
            comparison.fail(format!("{golden}: no layer of ours gives it"));
        }
    }
    Ok(prediction)
}

/// Where a heatmap peaks, and the direction there.
pub struct Mode {
    /// Heatmap row.
    pub row: usize,
    /// Heatmap column.
    pub column: usize,
    /// Of the cell.
    pub probability: f64,
    /// Of the direction there.
    pub cosine: f64,
    /// Of the direction there.
    pub sine: f64,
    /// Of the heatmap, nats.
    pub entropy: f64,
}

/// Of each sample's heatmap.
///
/// # Errors
/// When the case lacks what is needed, or the network cannot be run.
pub fn modes(prediction: &Prediction) -> Result<Vec<Mode>> {
    let field = prediction.orientation.as_ref().context("a field")?;
    let side = field.shape()[3];
    let cells = side * side;
    let heatmaps = prediction.heatmaps()?;
    let mut modes = Vec::new();
    for (heatmap, field) in heatmaps
        .data()
        .chunks_exact(cells)
        .zip(field.data().chunks_exact(2 * cells))
    {
        let first_largest = (0..cells).fold(0, |best, at| {
            if heatmap[at] > heatmap[best] {
                at
            } else {
                best
            }
        });
        modes.push(Mode {
            row: first_largest / side,
            column: first_largest % side,
            probability: f64::from(heatmap[first_largest]),
            cosine: f64::from(field[first_largest]),
            sine: f64::from(field[cells + first_largest]),
            entropy: entropy(heatmap),
        });
    }
    Ok(modes)
}

/// Entropy of a heatmap, nats.
pub fn entropy(heatmap: &[f32]) -> f64 {
    let terms = heatmap.iter().map(|p| f64::from(*p));
    terms.filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum()
}

/// Degrees between two directions.
pub fn degrees_apart(a: f64, b: f64) -> f64 {
    ((a - b + 180.0).rem_euclid(360.0) - 180.0).abs()
}

/// The larger of what the two precisions of `PyTorch` differ by, relative, and nothing.
pub fn spread(f32_run: f64, f64_run: f64) -> f64 {
    ((f32_run - f64_run) / f64_run).abs()
}

/// The supervised loss's settings, in the terms of ours.
pub fn supervised(case: &Case, model: &Ccvpe) -> (LossConfig, Vec<PoseTarget>) {
    let side = model.spec().heatmap_side() as f64;
    // The published grid has `side` samples on an interval of length `side`: they are
    // side / (side - 1) apart. Ours are 1 apart, so everything else shrinks by that.
    let shrink = (side - 1.0) / side;
    let items = case.json["gt_items"].as_array();
    let targets = items.into_iter().flatten().map(|item| {
        let number = |key: &str| item[key].as_f64().unwrap_or(f64::NAN);
        let place = |offset: f64| (side / 2.0 - offset) * shrink + 0.5;
        PoseTarget {
            column: place(number("x_offset")),
            row: place(number("y_offset")),
            residual_rad: number("angle_deg").to_radians(),
            weight: 1.0,
            map: None,
        }
    });
    let config = LossConfig {
        weighted: false,
        info_nce: case.number_or("/weights/infonce", 1e4) as f32,
        triplet: 0.0,
        heatmap: case.number_or("/weights/ce", 1.0) as f32,
        orientation: case.number_or("/weights/ori", 10.0) as f32,
        entropy: 0.0,
        levels: None,
        temperature: case.number_or("/temperature", 0.1) as f32,
        threshold: case.number_or("/positive_threshold", 0.01) as f32,
        sigma_m: case.number_or("/sigma", 4.0) * shrink * model.spec().metres_per_cell(),
        all_bins_at_first_level: true,
    };
    (config, targets.collect())
}

/// Compares one number with both of `PyTorch`'s precisions.
pub fn compare_number(case: &Case, comparison: &mut Comparison, path: [&str; 2], found: f64) {
    let golden = |precision: &str| {
        let pointer = path.join("/").replace("PRECISION", precision);
        case.number_or(&pointer, f64::NAN)
    };
    let expected = golden("f64");
    let allowed = forward_tolerance(spread(golden("f32"), expected).max(0.0));
    comparison.close(path[1], found, expected, allowed);
}

/// Compares the norm of every parameter's gradient, and the stored gradients.
///
/// # Errors
/// When the case lacks what is needed, or the network cannot be run.
pub fn compare_gradients(
    case: &Case,
    model: &Ccvpe,
    gradients: &Gradients,
    comparison: &mut Comparison,
) -> Result<()> {
    let norms = case.json["grad_l2"].as_object().context("grad_l2")?;
    let largest = norms
        .values()
        .filter_map(|norm| norm["l2"].as_f64())
        .fold(0.0, f64::max);
    let mut noise = 0;
    for parameter in model.parameters().all() {
        let name = &parameter.name;
        let gradient = gradients.get(&parameter.value);
        let found = gradient.map_or(0.0, |gradient| l2(gradient.data()));
        let Some(golden) = norms.get(name) else {
            comparison.fail(format!("{name}: not in the vectors"));
            continue;
        };
        let Some(expected) = golden["l2"].as_f64() else {
            comparison.note(&format!("{name}, which gets none"), found, 0.0);
            continue;
        };
        if expected < 1e-6 * largest {
            noise += 1;
            continue;
        }
        let allowed = gradient_tolerance(golden["f32_rel"].as_f64().unwrap_or(0.0));
        comparison.close(&format!("|gradient of {name}|"), found, expected, allowed);
        if let (Some(stored), Some(gradient)) = (case.tensor(&format!("grad/{name}")), gradient) {
            let allowed = gradient_tolerance(stored.about("f32_rel_l2"));
            let error = stored.relative_error(gradient.data(), |x| x)?;
            comparison.note(&format!("gradient of {name}"), error, allowed);
        }
    }
    for (name, golden) in norms {
        let ours = model.parameters().all().iter().any(|p| &p.name == name);
        if !ours && !golden.is_null() && !golden["l2"].is_null() {
            comparison.fail(format!("{name}: has a gradient there and is unknown here"));
        }
    }
    println!("{}: {noise} gradients of noise left out", case.name);
    Ok(())
}

/// Runs a case that has gradients until it is within its bounds, at most four times, each time
/// with other last bits in the weights and images.
///
/// A `ReLU` or a maximum that is undecided to within rounding falls on either side, and then the
/// gradients before it jump by up to 1e-3 in any f32 arithmetic. Which ones do changes with the
/// rounding; an error of ours would stay.
///
/// # Errors
/// When the case lacks what is needed, or the network cannot be run.
pub fn with_roundings(case: &Case, run: impl Fn(u32) -> Result<Comparison>) -> Result<()> {
    let mut last = Ok(());
    for rounding in 0..4 {
        last = run(rounding)?.finish();
        match &last {
            Ok(()) => break,
            Err(error) => println!("{} with rounding {rounding}: {error}", case.name),
        }
    }
    last
}
