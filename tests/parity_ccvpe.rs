//! The published CCVPE networks, layer by layer: outputs, losses, gradients, an adaptation step
//! and ten optimiser steps against golden vectors.
//!
//! Every setting comes from a case's JSON file, so `CROSSFIX_GOLDENS=FOLDER` checks any other set
//! of vectors in the same format. Begin with [`network`].

use anyhow::{Context, Result, bail, ensure};
use crossfix_kernels::ops::BatchNormMode;
use crossfix_kernels::optim::Adam;

use crossfix_kernels::{Gradients, Tape, Tensor};
use crossfix_offline::model::loss::{
    self, Loss, LossConfig, PoseTarget, gaussian, level_target, max_pool,
};
use crossfix_offline::model::{
    Ccvpe, CrossViewModel, Extent, ForwardOptions, NormalisedInput, Prediction, preset,
    spec::Padding,
};
use crossfix_tests::golden::{
    Case, Comparison, Generator, cases, ccvpe_rule, fnv1a, forward_tolerance, gradient_tolerance,
    l2, nudge, splitmix64, uniform,
};
use crossfix_tests::published::ccvpe_by_formula;
use serde_json::Value;
use std::sync::{Mutex, MutexGuard};

/// One network in memory at a time: training a published one takes several GB.
fn alone() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The network of a case, its numbers from the formula.
fn network(case: &Case, rounding: u32) -> Result<Ccvpe> {
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
fn images(case: &Case, rounding: u32) -> Result<NormalisedInput> {
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
fn training(extent: Extent) -> ForwardOptions<'static> {
    ForwardOptions {
        batch_norm: BatchNormMode::Train { momentum: 0.01 },
        drop_connect: None,
        extent,
    }
}

/// Our name of a checkpoint, and whether it is stored before a `SiLU` that we fuse.
fn layer(golden: &str) -> (String, bool) {
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

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

/// Runs `model` and compares every checkpoint that the case stores.
fn forward(
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
struct Mode {
    row: usize,
    column: usize,
    probability: f64,
    cosine: f64,
    sine: f64,
    entropy: f64,
}

fn modes(prediction: &Prediction) -> Result<Vec<Mode>> {
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

fn entropy(heatmap: &[f32]) -> f64 {
    let terms = heatmap.iter().map(|p| f64::from(*p));
    terms.filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum()
}

/// Degrees between two directions.
fn degrees_apart(a: f64, b: f64) -> f64 {
    ((a - b + 180.0).rem_euclid(360.0) - 180.0).abs()
}

/// The larger of what the two precisions of `PyTorch` differ by, relative, and nothing.
fn spread(f32_run: f64, f64_run: f64) -> f64 {
    ((f32_run - f64_run) / f64_run).abs()
}

#[test]
fn generator_gives_the_published_numbers() -> Result<()> {
    for case in cases(&["rng"])? {
        let generator = Generator::new(case.text("/seed")?);
        let hex = |value: &Value| u64::from_str_radix(value.as_str().unwrap_or("?"), 16);
        let list = |name: &str| case.json[name].as_array().cloned().unwrap_or_default();
        for entry in list("fnv1a64") {
            let text = entry["text"].as_str().context("text")?;
            ensure!(
                fnv1a(text.as_bytes()) == hex(&entry["fnv1a64_hex"])?,
                "{text}"
            );
        }
        for entry in list("splitmix64") {
            let state = match entry["state"].as_str() {
                Some(text) => u64::from_str_radix(text.trim_start_matches("0x"), 16)?,
                None => entry["state"].as_u64().context("state")?,
            };
            ensure!(splitmix64(state) == hex(&entry["output_hex"])?, "{state}");
        }
        for entry in list("uniform") {
            let name = entry["name"].as_str().context("name")?;
            let index = entry["index"].as_u64().context("index")?;
            ensure!(generator.key(name) == hex(&entry["key_hex"])?, "{name}");
            let steps = entry["u_times_2p23"].as_i64().context("u")?;
            let u = uniform(generator.key(name), index);
            ensure!((u * 8_388_608.0) as i64 == steps, "{name} {index}");
        }
        let (mut parameters, mut inputs) = (0, 0);
        for entry in list("parameters") {
            let name = entry["name"].as_str().context("name")?;
            let index = entry["index"].as_u64().context("index")? as usize;
            let (offset, scale) = if entry["rules"] == "ccvpe" {
                let shape = entry["shape"].as_array().context("shape")?;
                let shape = shape.iter().filter_map(Value::as_u64);
                ccvpe_rule(name, &shape.map(|axis| axis as usize).collect::<Vec<_>>())
            } else {
                let number = |key: &str| entry[key].as_f64().context("a number");
                (number("offset")?, number("scale")?)
            };
            let values = generator.fill(name, index + 1, offset, scale);
            let bits = u64::from(values[index].to_bits());
            ensure!(bits == hex(&entry["bits_hex"])?, "{name}");
            parameters += 1;
        }
        for entry in list("inputs") {
            // "grd 1x3x320x640 offset 0 amp 2"
            let text = entry["input"].as_str().context("input")?;
            let words: Vec<&str> = text.split(' ').collect();
            let axes: Vec<usize> = words[1].split('x').flat_map(str::parse).collect();
            let shape = <[usize; 4]>::try_from(axes).ok().context("four axes")?;
            let values = generator.images(words[0], shape, words[3].parse()?, words[5].parse()?);
            let index = entry["index"].as_u64().context("index")? as usize;
            let expected = entry["value_f32"].as_f64().context("value")? as f32;
            ensure!(values[index] == expected, "{text} {index}");
            inputs += 1;
        }
        println!("{}: {parameters} parameters, {inputs} pixels", case.name);
        ensure!(parameters > 0 && inputs > 0, "nothing was compared");
    }
    Ok(())
}

#[test]
fn published_networks_answer_as_published() -> Result<()> {
    let _alone = alone();
    for case in cases(&["ccvpe_forward"])? {
        let mut comparison = Comparison::new(&case.name);
        let mut model = network(&case, 0)?;
        let options = ForwardOptions::evaluation(Extent::Everything);
        let (mut tape, input) = (Tape::inference(), images(&case, 0)?);
        let prediction = forward(
            &case,
            &mut model,
            &mut tape,
            &input,
            options,
            &mut comparison,
        )?;
        let logits = case.tensor("logits").context("logits")?;
        for (sample, mode) in modes(&prediction)?.iter().enumerate() {
            let golden = &case.json["decoded"]["f64"][sample];
            let number = |key: &str| golden[key].as_f64().unwrap_or(f64::NAN);
            if number("logit_gap") > 10.0 * logits.about("f32_max_abs") {
                let found = [mode.row, mode.column];
                if found.map(|at| at as f64) != [number("row"), number("col")] {
                    comparison.fail(format!("peak {sample} at {found:?}, not as in {golden}"));
                }
                let allowed = forward_tolerance(logits.about("f32_rel_l2"));
                comparison.close(
                    "probability",
                    mode.probability,
                    number("prob"),
                    2.0 * allowed,
                );
                let field = case.tensor("ori").context("ori")?.about("f32_max_abs");
                let turned = (mode.cosine - number("cos")).hypot(mode.sine - number("sin"));
                comparison.note("direction", turned, forward_tolerance(field));
            }
        }
        comparison.finish()?;
    }
    Ok(())
}

/// The supervised loss's settings, in the terms of ours.
fn supervised(case: &Case, model: &Ccvpe) -> (LossConfig, Vec<PoseTarget>) {
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
fn compare_number(case: &Case, comparison: &mut Comparison, path: [&str; 2], found: f64) {
    let golden = |precision: &str| {
        let pointer = path.join("/").replace("PRECISION", precision);
        case.number_or(&pointer, f64::NAN)
    };
    let expected = golden("f64");
    let allowed = forward_tolerance(spread(golden("f32"), expected).max(0.0));
    comparison.close(path[1], found, expected, allowed);
}

/// Compares the norm of every parameter's gradient, and the stored gradients.
fn compare_gradients(
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
fn with_roundings(case: &Case, run: impl Fn(u32) -> Result<Comparison>) -> Result<()> {
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

#[test]
fn losses_and_gradients_are_the_published_ones() -> Result<()> {
    let _alone = alone();
    for case in cases(&["ccvpe_train"])? {
        with_roundings(&case, |rounding| supervised_step(&case, rounding))?;
    }
    Ok(())
}

fn supervised_step(case: &Case, rounding: u32) -> Result<Comparison> {
    let mut comparison = Comparison::new(&case.name);
    let mut model = network(case, rounding)?;
    let (mut tape, input) = (Tape::training(), images(case, rounding)?);
    let options = training(Extent::Everything);
    let prediction = forward(
        case,
        &mut model,
        &mut tape,
        &input,
        options,
        &mut comparison,
    )?;
    let (config, targets) = supervised(case, &model);
    let spec = model.spec().clone();
    let loss = loss::loss(&mut tape, &spec, &prediction, &targets, &config)?;
    drop(prediction);
    let losses = "/losses/PRECISION";
    let mut compare = |name: &str, found: f64| {
        compare_number(case, &mut comparison, [losses, name], found);
    };
    for (k, term) in (1..).zip(&loss.info_nce) {
        compare(&format!("infonce{k}"), f64::from(*term));
    }
    compare("ce", f64::from(loss.heatmap.context("a heatmap loss")?));
    let orientation = loss.orientation.context("an orientation loss")?;
    compare("ori", f64::from(orientation));
    compare("total", f64::from(loss.total.item()?));
    let gradients = tape.backward(&loss.total)?;
    compare_gradients(case, &model, &gradients, &mut comparison)?;
    compare_statistics(case, &model, &mut comparison)?;
    Ok(comparison)
}

/// Compares the running statistics after one step.
fn compare_statistics(case: &Case, model: &Ccvpe, comparison: &mut Comparison) -> Result<()> {
    let parameters = model.parameters();
    for name in case.tensor_names() {
        let Some(path) = name.strip_prefix("bn_after/") else {
            continue;
        };
        let (norm, what) = path.rsplit_once('.').context("a name")?;
        let names = parameters.statistics_names();
        let index = names.iter().position(|name| name == norm);
        let statistics = &parameters.all_statistics()[index.with_context(|| norm.to_string())?];
        let found = match what {
            "running_mean" => &statistics.mean,
            _ => &statistics.variance,
        };
        let stored = case.tensor(name).context("stored")?;
        let allowed = forward_tolerance(stored.about("f32_rel_l2"));
        comparison.note(name, stored.relative_error(found.data(), |x| x)?, allowed);
    }
    Ok(())
}

/// The adaptation loss's settings: Gaussian on the integer grid, the first K' levels.
fn adaptation(case: &Case, model: &Ccvpe, levels: usize) -> LossConfig {
    LossConfig {
        weighted: false,
        info_nce: 1.0,
        triplet: 0.0,
        heatmap: 0.0,
        orientation: 0.0,
        entropy: 0.0,
        levels: Some(levels),
        temperature: case.number_or("/temperature", 0.1) as f32,
        threshold: case.number_or("/positive_threshold", 0.01) as f32,
        sigma_m: case.number_or("/sigma", 4.0) * model.spec().metres_per_cell(),
        all_bins_at_first_level: false,
    }
}

/// The target of a mode: with a prior, an angle beyond it is clamped.
fn pseudo_target(model: &Ccvpe, row: f64, column: f64, angle_deg: f64) -> PoseTarget {
    let spec = model.spec();
    let angle = (angle_deg + 180.0).rem_euclid(360.0) - 180.0;
    let residual_rad = match spec.orientation_prior {
        None => angle.to_radians(),
        Some(n) => {
            let most = n as f64 * spec.bin_rad();
            angle.to_radians().clamp(-most, most)
        }
    };
    PoseTarget {
        column: column + 0.5,
        row: row + 0.5,
        residual_rad,
        weight: 1.0,
        map: None,
    }
}

/// One adaptation loss of a training pass.
fn adaptation_loss(
    tape: &mut Tape,
    model: &Ccvpe,
    prediction: &Prediction,
    targets: &[PoseTarget],
    config: &LossConfig,
) -> Result<Loss> {
    Ok(loss::loss(tape, model.spec(), prediction, targets, config)?)
}

#[test]
fn adaptation_step_is_the_published_one() -> Result<()> {
    let _alone = alone();
    for case in cases(&["adapt_ccvpe"])? {
        with_roundings(&case, |rounding| adaptation_step(&case, rounding))?;
    }
    Ok(())
}

fn adaptation_step(case: &Case, rounding: u32) -> Result<Comparison> {
    let mut comparison = Comparison::new(&case.name);
    let mut model = network(case, rounding)?;
    let input = images(case, rounding)?;

    // The teacher's modes.
    let options = ForwardOptions::evaluation(Extent::Everything);
    let teacher = model.forward_normalised(&mut Tape::inference(), &input, options, None)?;
    let mut targets = Vec::new();
    for (sample, mode) in modes(&teacher)?.iter().enumerate() {
        let golden = |precision: &str, key: &str| {
            case.number_or(
                &format!("/{precision}/teacher_modes/{sample}/{key}"),
                f64::NAN,
            )
        };
        let found = [mode.row as f64, mode.column as f64];
        if found != [golden("f64", "row"), golden("f64", "col")] {
            comparison.fail(format!("mode {sample} at {found:?}"));
        }
        let angle = mode.sine.atan2(mode.cosine).to_degrees();
        let [single, double] = ["f32", "f64"].map(|run| golden(run, "angle_deg"));
        let allowed = 360.0 * forward_tolerance(degrees_apart(single, double) / 360.0);
        comparison.note("angle at the mode", degrees_apart(angle, double), allowed);
        let path = ["/PRECISION", &format!("teacher_entropy/{sample}")];
        compare_number(case, &mut comparison, path, mode.entropy);
        targets.push(pseudo_target(&model, found[0], found[1], angle));
    }

    compare_pooled(case, &model, &targets, &mut comparison);

    // The student's step.
    let mut tape = Tape::training();
    let options = training(Extent::Location);
    let student = model.forward_normalised(&mut tape, &input, options, None)?;
    let side = model.spec().heatmap_side();
    let heatmaps = student.heatmaps()?;
    for (sample, heatmap) in heatmaps.data().chunks_exact(side * side).enumerate() {
        let path = ["/PRECISION", &format!("student_entropy_train/{sample}")];
        compare_number(case, &mut comparison, path, entropy(heatmap));
    }
    let levels = model.spec().levels.len();
    let all = adaptation(case, &model, levels);
    let positive = LossConfig {
        threshold: 0.0,
        ..all.clone()
    };
    let scratch = &mut Tape::inference();
    let terms = adaptation_loss(scratch, &model, &student, &targets, &all)?.info_nce;
    let loose = adaptation_loss(scratch, &model, &student, &targets, &positive)?.info_nce;
    for (k, (term, loose)) in terms.iter().zip(&loose).enumerate() {
        let path = ["/PRECISION", &format!("infonce/{k}")];
        compare_number(case, &mut comparison, path, f64::from(*term));
        if let Ok(expected) = case.number(&format!("/f64/infonce_threshold_0/{k}")) {
            let single = case.number_or(&format!("/f32/infonce/{k}"), f64::NAN);
            let double = case.number_or(&format!("/f64/infonce/{k}"), f64::NAN);
            let allowed = forward_tolerance(spread(single, double));
            let name = format!("infonce_threshold_0/{k}");
            comparison.close(&name, f64::from(*loose), expected, allowed);
        }
    }
    let config = adaptation(case, &model, case.number("/K_prime")? as usize);
    let loss = adaptation_loss(&mut tape, &model, &student, &targets, &config)?;
    let found = f64::from(loss.total.item()?);
    compare_number(case, &mut comparison, ["/PRECISION", "loss"], found);
    drop(student);
    let gradients = tape.backward(&loss.total)?;
    compare_gradients(case, &model, &gradients, &mut comparison)?;
    Ok(comparison)
}

/// Compares the pseudo ground truth of every level: how many cells count, their sum, the largest.
fn compare_pooled(case: &Case, model: &Ccvpe, targets: &[PoseTarget], comparison: &mut Comparison) {
    let spec = model.spec();
    let side = spec.heatmap_side();
    let threshold = case.number_or("/positive_threshold", 0.01) as f32;
    for (k, level) in spec.levels.iter().enumerate() {
        let cells = targets.iter().flat_map(|target| {
            let map = gaussian(side, target, case.number_or("/sigma", 4.0));
            let pooled = max_pool(&map, side, level.grid);
            let bins = spec.searched_bins();
            level_target(&pooled, target.residual_rad, &bins, spec.orientation_bins)
        });
        let cells: Vec<f32> = cells.collect();
        let golden = |key: &str| case.number_or(&format!("/pooled/level{}/{key}", k + 1), f64::NAN);
        let name = |what: &str| format!("pooled level {} {what}", k + 1);
        let sum: f64 = cells.iter().map(|cell| f64::from(*cell)).sum();
        comparison.close(&name("sum"), sum, golden("sum"), 2e-5);
        let largest = cells.iter().fold(0.0f32, |most, cell| most.max(*cell));
        comparison.close(&name("max"), f64::from(largest), golden("max"), 2e-5);
        let counted = cells.iter().filter(|cell| **cell > threshold).count();
        let expected = golden("n_above_threshold");
        comparison.close(&name("count"), counted as f64, expected, 0.0);
    }
}

#[test]
#[ignore = "ten training steps of two published networks; tests/run --full runs them"]
fn ten_optimiser_steps_lose_as_published() -> Result<()> {
    let _alone = alone();
    for case in cases(&["ccvpe_steps"])? {
        let mut comparison = Comparison::new(&case.name);
        let mut model = network(&case, 0)?;
        let input = images(&case, 0)?;
        let adapts = case.text("/mode")? == "adapt";
        let (config, targets) = if adapts {
            let modes = case.json["teacher_modes_row_col_deg"].as_array();
            let targets = modes.into_iter().flatten().map(|mode| {
                let [row, column, angle] =
                    [0, 1, 2].map(|at| mode[at].as_f64().unwrap_or(f64::NAN));
                pseudo_target(&model, row, column, angle)
            });
            let levels = case.number("/K_prime")? as usize;
            (adaptation(&case, &model, levels), targets.collect())
        } else {
            supervised(&case, &model)
        };
        let number = |key: &str| case.number(&format!("/optimiser/{key}"));
        let betas = [number("beta1")?, number("beta2")?];
        let mut adam = Adam::new(betas, number("eps")?, number("weight_decay")?);
        let [single, double] =
            ["f32", "f64"].map(|run| case.numbers(&format!("/result/{run}/losses")));
        let (single, double) = (single?, double?);
        for step in 0..case.number("/steps")? as usize {
            let mut tape = Tape::training();
            let extent = match config.levels {
                Some(levels) if adapts => Extent::Levels(levels),
                _ => Extent::Everything,
            };
            let prediction = model.forward_normalised(&mut tape, &input, training(extent), None)?;
            let loss = adaptation_loss(&mut tape, &model, &prediction, &targets, &config)?;
            drop(prediction);
            let found = f64::from(loss.total.item()?);
            let allowed = gradient_tolerance(spread(single[step], double[step]));
            let name = format!("loss {}", step + 1);
            comparison.close(&name, found, double[step], allowed);
            let gradients = tape.backward(&loss.total)?;
            adam.step(model.parameters_mut().all_mut(), &gradients, number("lr")?)?;
        }
        let arrays = crossfix_offline::model::weights::arrays_of(&model);
        let finals = case.json.pointer("/result/f64/final_l2");
        let finals = finals.and_then(Value::as_object).context("final_l2")?;
        for (name, expected) in finals {
            let expected = expected.as_f64().context("a norm")?;
            let found = &arrays.get(name).with_context(|| name.clone())?.1;
            let single = case.json["result"]["f32"]["final_l2"][name].as_f64();
            let allowed = forward_tolerance(spread(single.unwrap_or(expected), expected));
            comparison.close(&format!("|{name}|"), l2(found), expected, allowed);
        }
        comparison.finish()?;
    }
    Ok(())
}
