//! The published GGCVT networks, layer by layer: distance maps, losses, gradients, poses of the
//! rotation optimiser and an adaptation step against golden vectors.
//!
//! Every setting comes from a case's JSON file, so `CROSSFIX_GOLDENS=FOLDER` checks any other set
//! of vectors in the same format. Begin with [`network`].

use anyhow::{Context, Result, bail, ensure};
use crossfix_kernels::{Tape, Tensor};
use crossfix_offline::model::ggcvt::adaptation::{self, LabelLoss};
use crossfix_offline::model::ggcvt::loss::{self, Centre, best_cells};
use crossfix_offline::model::ggcvt::{
    Ggcvt, GgcvtCamera, GgcvtInput, GgcvtOptions, GgcvtPrediction, GgcvtSpec, GroundProjection,
    preset,
};
use crossfix_tests::golden::{
    Case, Comparison, Generator, cases, forward_tolerance, gradient_tolerance, l2,
};
use crossfix_tests::published::ggcvt_by_formula;
use serde_json::Value;
use std::sync::{Mutex, MutexGuard};

/// One network in memory at a time: training a published one takes several GB.
fn alone() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The network of a case, its numbers from the formula.
fn network(case: &Case) -> Result<Ggcvt> {
    let net = case.text("/net")?;
    let name = match net {
        "ggcvt_vigor" => "ggcvt-vigor",
        "ggcvt_kitti_3dof" => "ggcvt-kitti3",
        "ggcvt_kitti_2dof" => "ggcvt-kitti2",
        _ => bail!("{}: unknown network {net:?}", case.name),
    };
    let mut spec = preset(name).context("a preset")?;
    let ground = case.shape4("/grd")?;
    spec.ground_rows = ground[2];
    spec.ground_columns = ground[3];
    if let GgcvtCamera::Pinhole {
        shift_range_m,
        heading_range_deg,
        iterations,
        ..
    } = &mut spec.camera
    {
        *shift_range_m = case.number_or("/shift_range_lon", 20.0);
        *heading_range_deg = case.number("/rotation_range")?;
        if *iterations > 0 {
            *iterations = case.number("/N_iters")? as usize;
        }
    }
    ggcvt_by_formula(spec, &Generator::new(case.text("/seed")?), |_, _| {})
}

/// One row of a list of lists, or of a list.
fn row(case: &Case, path: &str, sample: usize) -> Result<f64> {
    let nested = case.number(&format!("{path}/{sample}/0"));
    nested.or_else(|_| case.number(&format!("{path}/{sample}")))
}

/// Images and views of a case; `given` says whether pinhole headings are known.
fn input(case: &Case, spec: &GgcvtSpec, given: bool) -> Result<GgcvtInput> {
    let generator = Generator::new(case.text("/seed")?);
    let (offset, amplitude) = (
        case.number_or("/input/offset", 0.5),
        case.number_or("/input/amp", 0.5),
    );
    let ground = case.shape4("/grd")?;
    let aerial = case.shape4("/sat");
    let aerial = aerial.unwrap_or([ground[0], 3, spec.aerial_px, spec.aerial_px]);
    let image = |name: &str, shape: [usize; 4]| {
        Tensor::new(generator.images(name, shape, offset, amplitude), &shape)
    };
    let projection = |sample: usize| -> Result<GroundProjection> {
        Ok(match spec.camera {
            GgcvtCamera::Panorama { .. } => {
                let range_deg = case.number("/rotation_range")?;
                GroundProjection::Panorama {
                    metres_per_pixel: row(case, "/meter_per_pixel", sample)?,
                    turn_rad: (row(case, "/gt_rot", sample)? * range_deg).to_radians(),
                }
            }
            GgcvtCamera::Pinhole { .. } => {
                let k = |at: &str| case.number(&format!("/camera_k/{sample}/{at}"));
                GroundProjection::Pinhole {
                    camera: [k("0/0")?, k("1/1")?, k("0/2")?, k("1/2")?],
                    heading: if given {
                        Some(row(case, "/gt_heading", sample)? as f32)
                    } else {
                        None
                    },
                }
            }
        })
    };
    Ok(GgcvtInput {
        ground: image("grd", ground)?,
        aerial: image("sat", aerial)?,
        projections: (0..ground[0]).map(projection).collect::<Result<_>>()?,
    })
}

/// Our name of a checkpoint; `None` for layers that nothing depends on.
fn layer(golden: &str) -> Option<String> {
    let level = || golden.chars().find(char::is_ascii_digit).unwrap_or('?');
    let unused = golden.starts_with("sat_conf") || golden == "sat.conv_dec3";
    (!unused).then(|| match golden {
        "grd2sat8_attn" => "overhead.0".into(),
        "dec4" => "overhead.1.correction".into(),
        "dec2" => "overhead.2.correction".into(),
        "u0" => "columns".into(),
        "geo_mask" => "in_front".into(),
        _ if golden.starts_with("iter0_proj") => {
            let level = golden.trim_start_matches("iter0_proj");
            format!("rotation.0.{level}.projected")
        }
        _ if golden.starts_with("sat.") => golden.replace("sat.", "SatFeatureNet."),
        _ if golden.ends_with("_l2norm") => format!("aerial.{}.unit", level()),
        _ if golden.ends_with("_rect") => format!("aerial.{}", level()),
        _ if golden.starts_with("uncertainty") => format!("uncertainty.{}", level()),
        _ if golden.starts_with("grd_enc") => format!("ground_encoder.{}", level()),
        _ if golden.starts_with("grd_feat") => format!("ground.{}", level()),
        _ if golden.starts_with("proj") => format!("projected.{}", level()),
        _ if golden.starts_with("cvattn.") => {
            let kind = if golden.contains("self") {
                "self"
            } else {
                "cross"
            };
            let part = if golden.ends_with("embed") {
                ".patch_embed"
            } else {
                ""
            };
            format!("CVattn.{kind}_attention_layers.{}{part}", level())
        }
        _ => golden.into(),
    })
}

/// `[N, C, H, W]` as tokens `[N, H · W, C]`.
fn tokens(map: &Tensor) -> Vec<f32> {
    let (channels, pixels) = (map.shape()[1], map.shape()[2] * map.shape()[3]);
    let samples = map.data().chunks_exact(channels * pixels);
    let values = samples.flat_map(|sample| {
        (0..pixels).flat_map(move |pixel| sample[pixel..].iter().step_by(pixels).copied())
    });
    values.collect()
}

/// Runs `model` and compares every checkpoint that the case stores.
fn forward(
    case: &Case,
    model: &mut Ggcvt,
    tape: &mut Tape,
    comparison: &mut Comparison,
) -> Result<GgcvtPrediction> {
    let nudge = case.number_or("/u_floor_nudge", 0.0) as f32;
    let mut pinned: Vec<(&str, String)> = Vec::new();
    for name in case.tensor_names() {
        let output = name.contains('/') || name.starts_with("corr") || name == "u_floor";
        if !output && let Some(ours) = layer(name) {
            pinned.push((name, ours));
        }
    }
    // Without rounds of the optimiser, its first projection is the one that is used.
    if matches!(
        model.spec().camera,
        GgcvtCamera::Pinhole { iterations: 0, .. }
    ) {
        pinned.retain(|(name, _)| !name.starts_with("iter0_proj"));
    }
    let mut seen: Vec<String> = Vec::new();
    let mut floors = None;
    let mut compare = |golden: &str, found: &[f32]| {
        let Some(stored) = case.tensor(golden) else {
            return comparison.fail(format!("{golden}: listed but not stored"));
        };
        let allowed = forward_tolerance(stored.about("f32_rel_l2"));
        match stored.relative_error(found, |x| x) {
            Ok(error) => comparison.note(golden, error, allowed),
            Err(error) => comparison.fail(format!("{golden}: {error}")),
        }
        let name = format!("|{golden}|");
        comparison.close(&name, l2(found), stored.about("l2"), allowed);
    };
    let mut watch = |name: &str, found: &Tensor| {
        if name == "columns" {
            floors = Some(found.data().iter().map(|u| u.floor()).collect::<Vec<f32>>());
        }
        for (golden, ours) in &pinned {
            if ours == name {
                seen.push((*golden).to_string());
                if golden.starts_with("cvattn.") {
                    compare(golden, &tokens(found));
                } else {
                    compare(golden, found.data());
                }
            }
        }
    };
    let given = case.text("/kind")? != "ggcvt_kitti_test";
    let input = input(case, model.spec(), given)?;
    let options = GgcvtOptions {
        column_nudge: nudge,
        watch: Some(&mut watch),
        ..GgcvtOptions::default()
    };
    let prediction = model.forward(tape, &input, options)?;
    for (level, distances) in prediction.distances.iter().enumerate() {
        let golden = format!("corr{level}");
        if case.tensor(&golden).is_some() {
            compare(&golden, distances.data());
        }
    }
    if let (Some(_), Some(floors)) = (case.tensor("u_floor"), &floors) {
        compare("u_floor", floors);
    }
    for (golden, _) in &pinned {
        if !seen.iter().any(|name| name == golden) {
            comparison.fail(format!("{golden}: no layer of ours gives it"));
        }
    }
    Ok(prediction)
}

/// Smallest distances, and the poses of the rotation optimiser.
fn compare_answers(
    case: &Case,
    model: &Ggcvt,
    prediction: &GgcvtPrediction,
    comparison: &mut Comparison,
) -> Result<()> {
    let cells = best_cells(&prediction.distances[2]).unwrap();
    let places = model.spec().places()[2];
    let spread = case.tensor("corr2").map_or(0.0, |t| t.about("f32_max_abs"));
    let modes = adaptation::modes_px(model.spec(), prediction, Centre::Published)?;
    for (sample, cell) in cells.iter().enumerate() {
        for key in ["decoded", "decoded_with_gt_heading"] {
            let number = |what: &str| case.number(&format!("/{key}/f64/{sample}/{what}"));
            let Ok(index) = number("index") else { continue };
            if number("gap")? > 10.0 * spread && cell[0] * places + cell[1] != index as usize {
                comparison.fail(format!("sample {sample}: best cell {cell:?}, not {index}"));
            }
            if let Ok(u) = number("ref_pred_u_px") {
                ensure!(modes[sample] == [number("ref_pred_v_px")?, u], "{modes:?}");
            } else {
                let heading = row(case, "/gt_heading", sample)?;
                let found = pinhole_place_m(model.spec(), modes[sample], heading);
                comparison.close("u", found[0], number("pred_u_m")?, 1e-6);
                comparison.close("v", found[1], number("pred_v_m")?, 1e-6);
            }
        }
    }
    for (step, pose) in prediction.poses.iter().enumerate() {
        for (index, value) in pose.data().iter().enumerate() {
            let number = |run: &str| {
                let (sample, part) = (index / 3, index % 3);
                case.number(&format!("/iterations/{run}/{sample}/{step}/{part}"))
            };
            let Ok(expected) = number("f64") else {
                continue;
            };
            // Small numbers beside large ones: the error is an absolute one.
            let spread = (number("f32")? - expected).abs();
            let error = (f64::from(*value) - expected).abs();
            let name = format!("pose {step}.{index}");
            comparison.note(&name, error, (3.0 * spread).max(1e-4));
        }
    }
    Ok(())
}

/// (longitudinal, lateral) metres as the published test program gives them.
fn pinhole_place_m(spec: &GgcvtSpec, [down, right]: [f64; 2], heading: f64) -> [f64; 2] {
    let GgcvtCamera::Pinhole {
        metres_per_pixel,
        heading_range_deg,
        ..
    } = spec.camera
    else {
        return [f64::NAN; 2];
    };
    let (sin, cos) = (heading * heading_range_deg).to_radians().sin_cos();
    let (u, v) = (right * metres_per_pixel, -down * metres_per_pixel);
    [u * cos + v * sin, v * cos - u * sin]
}

/// The true places as shares of the aerial side from its middle, [down, right].
fn true_offsets(case: &Case, spec: &GgcvtSpec, samples: usize) -> Result<Vec<[f64; 2]>> {
    let shift = |axis: &str, sample| row(case, &format!("/gt/gt_shift_{axis}"), sample);
    (0..samples)
        .map(|sample| {
            let (u, v) = (shift("u", sample)?, shift("v", sample)?);
            Ok(match spec.camera {
                GgcvtCamera::Panorama { .. } => [v / 4.0, u / 4.0],
                GgcvtCamera::Pinhole {
                    metres_per_pixel,
                    shift_range_m,
                    heading_range_deg,
                    ..
                } => {
                    let heading = row(case, "/gt_heading", sample)?;
                    let (sin, cos) = (heading * heading_range_deg).to_radians().sin_cos();
                    let (x, y) = (-shift_range_m * u, -shift_range_m * v);
                    let side_m = metres_per_pixel * spec.aerial_px as f64;
                    [(x * sin + y * cos) / side_m, (y * sin - x * cos) / side_m]
                }
            })
        })
        .collect()
}

/// Relative distance of the two precisions of a number in the JSON.
fn spread(case: &Case, path: &str) -> Result<(f64, f64)> {
    let expected = case.number(&format!("/losses/f64/{path}"))?;
    let other = case.number(&format!("/losses/f32/{path}"))?;
    Ok((expected, ((other - expected) / expected).abs()))
}

/// Losses as the case states them; returns the total.
fn compare_losses(
    case: &Case,
    model: &Ggcvt,
    tape: &mut Tape,
    prediction: &GgcvtPrediction,
    comparison: &mut Comparison,
) -> Result<Tensor> {
    let samples = prediction.distances[0].shape()[0];
    let offsets = true_offsets(case, model.spec(), samples)?;
    let terms = loss::triplets(tape, model.spec(), prediction, &offsets)?;
    let mut check = |name: &str, found: f32| -> Result<()> {
        let (expected, spread) = spread(case, name)?;
        let allowed = forward_tolerance(spread);
        comparison.close(name, f64::from(found), expected, allowed);
        Ok(())
    };
    let place = loss::sum(tape, &terms)?;
    let mut total = place.clone();
    if matches!(model.spec().camera, GgcvtCamera::Panorama { .. }) {
        for (level, term) in terms.iter().enumerate() {
            check(&format!("triplet{level}"), term.item()?)?;
        }
    } else {
        check("triplet", place.item()?)?;
    }
    if let Some([t, r]) = model.balance() {
        let mut truth = Vec::with_capacity(3 * samples);
        for sample in 0..samples {
            for path in ["/gt/gt_shift_u", "/gt/gt_shift_v", "/gt_heading"] {
                truth.push(row(case, path, sample)? as f32);
            }
        }
        let truth = Tensor::new(truth, &[samples, 3])?;
        let error = loss::pose_error(tape, &prediction.poses, &truth)?;
        check("opt_loss", error.item()? * (-r.item()?).exp())?;
        total = loss::balanced(tape, [&place, &error], [t, r])?;
    }
    check("total", total.item()?)?;
    Ok(total)
}

fn compare_gradients(
    case: &Case,
    model: &Ggcvt,
    gradients: &crossfix_kernels::Gradients,
    comparison: &mut Comparison,
) -> Result<()> {
    let norms = case.json["grad_l2"].as_object().context("grad_l2")?;
    let size = |about: &Value| about["l2"].as_f64().unwrap_or(0.0);
    let largest = norms.values().map(size).fold(0.0, f64::max);
    let (mut untouched, mut tiny) = (0, 0);
    for parameter in model.parameters().all() {
        let name = &parameter.name;
        let about = norms
            .get(name)
            .with_context(|| format!("{name}: no norm"))?;
        let found = gradients.get(&parameter.value);
        if about.is_null() {
            untouched += 1;
            if found.is_some() {
                comparison.fail(format!("{name}: a gradient where there is none"));
            }
            continue;
        }
        let Some(found) = found else {
            comparison.fail(format!("{name}: no gradient"));
            continue;
        };
        let expected = size(about);
        if expected < 1e-6 * largest {
            tiny += 1;
        } else {
            let allowed = gradient_tolerance(about["f32_rel"].as_f64().unwrap_or(0.0));
            let found = l2(found.data());
            comparison.close(&format!("|d {name}|"), found, expected, allowed);
        }
        if let Some(stored) = case.tensor(&format!("grad/{name}")) {
            let allowed = gradient_tolerance(stored.about("f32_rel_l2"));
            let error = stored.relative_error(found.data(), |x| x)?;
            comparison.note(&format!("d {name}"), error, allowed);
        }
    }
    ensure!(
        norms.len() == model.parameters().all().len(),
        "{} norms for {} parameters",
        norms.len(),
        model.parameters().all().len()
    );
    println!(
        "{}: {untouched} without gradient, {tiny} too small to compare",
        case.name
    );
    Ok(())
}

/// The adaptation step that starts from the distance maps of `source`.
fn compare_adaptation(source: &str, model: &Ggcvt, prediction: &GgcvtPrediction) -> Result<()> {
    for case in cases(&["adapt_ggcvt"])? {
        if case.text("/source_case")? != source {
            continue;
        }
        let mut comparison = Comparison::new(&case.name);
        let config = LabelLoss {
            temperature: case.number("/temperature")? as f32,
            sigma_px: case.number("/sigma_px")?,
            threshold: case.number("/positive_threshold")? as f32,
            levels: case.number("/K_prime")? as usize,
        };
        let spec = model.spec();
        let modes = adaptation::modes_px(spec, prediction, Centre::Trained)?;
        for (sample, [down, right]) in modes.iter().enumerate() {
            let number = |what: &str| case.number(&format!("/modes/{sample}/{what}"));
            ensure!(
                [*right, *down] == [number("u_px")?, number("v_px")?],
                "{modes:?}"
            );
            let cells = prediction.distances[2].shape()[1].pow(2);
            let finest = &prediction.distances[2].data()[sample * cells..][..cells];
            let expected = case.number(&format!("/entropy/{sample}"))?;
            comparison.close(
                "entropy",
                entropy(finest, config.temperature),
                expected,
                2e-5,
            );
        }
        let mut distances = Vec::new();
        for level in 0..config.levels {
            let targets: Vec<f32> = modes
                .iter()
                .flat_map(|mode| adaptation::footprint_target(spec, level, *mode, config.sigma_px))
                .collect();
            let stored = case.tensor(&format!("P{level}")).context("a target")?;
            let error = stored.relative_error(&targets, |x| x)?;
            comparison.note(&format!("P{level}"), error, 2e-5);
            distances.push(prediction.distances[level].detach().with_gradient());
        }
        let maps = GgcvtPrediction {
            distances,
            poses: Vec::new(),
        };
        let mut tape = Tape::training();
        let terms = adaptation::label_losses(&mut tape, spec, &maps, &modes, &config)?;
        for (level, (term, expected)) in terms.iter().zip(case.numbers("/infonce")?).enumerate() {
            let name = format!("InfoNCE {level}");
            comparison.close(&name, f64::from(term.item()?), expected, 2e-5);
        }
        let mut tape = Tape::training();
        let total = adaptation::label_loss(&mut tape, spec, &maps, &modes, &config)?;
        let found = f64::from(total.item()?);
        comparison.close("loss", found, case.number("/loss")?, 2e-5);
        let gradients = tape.backward(&total)?;
        for (level, distances) in maps.distances.iter().enumerate() {
            let stored = case
                .tensor(&format!("dcorr{level}"))
                .context("a gradient")?;
            let found = gradients.get(distances).context("a gradient")?;
            let error = stored.relative_error(found.data(), |x| x)?;
            comparison.note(&format!("d corr{level}"), error, gradient_tolerance(0.0));
        }
        comparison.finish()?;
    }
    Ok(())
}

/// Of softmax(−distance / temperature), nats.
fn entropy(distances: &[f32], temperature: f32) -> f64 {
    let score = |d: &f32| -f64::from(*d) / f64::from(temperature);
    let largest = distances
        .iter()
        .map(score)
        .fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = distances.iter().map(|d| (score(d) - largest).exp()).sum();
    let log = |d: &f32| score(d) - largest - total.ln();
    distances.iter().map(|d| -log(d).exp() * log(d)).sum()
}

fn run(case: &Case) -> Result<()> {
    let mut comparison = Comparison::new(&case.name);
    let mut model = network(case)?;
    let trains = case.json.get("grad_l2").is_some();
    let mut tape = if trains {
        Tape::training()
    } else {
        Tape::inference()
    };
    let prediction = forward(case, &mut model, &mut tape, &mut comparison)?;
    compare_answers(case, &model, &prediction, &mut comparison)?;
    compare_adaptation(&case.name, &model, &prediction)?;
    if case.json.get("losses").is_some() {
        let total = compare_losses(case, &model, &mut tape, &prediction, &mut comparison)?;
        if trains {
            let gradients = tape.backward(&total)?;
            compare_gradients(case, &model, &gradients, &mut comparison)?;
        }
    }
    if let Ok(expected) = case.number("/result/f64/pred_heading_deg/0") {
        let last = prediction.poses.last().context("a pose")?;
        let range_deg = case.number("/rotation_range")?;
        let found = f64::from(last.data()[2]) * range_deg;
        let other = case.number("/result/f32/pred_heading_deg/0")?;
        let allowed = (3.0 * ((other - expected) / expected).abs()).max(1e-4);
        comparison.close("heading", found, expected, allowed);
        let modes = adaptation::modes_px(model.spec(), &prediction, Centre::Published)?;
        let heading = row(case, "/gt_heading", 0)?;
        let [u, v] = pinhole_place_m(model.spec(), modes[0], heading);
        comparison.close("u", u, case.number("/result/f64/pred_u_m/0")?, 1e-6);
        comparison.close("v", v, case.number("/result/f64/pred_v_m/0")?, 1e-6);
    }
    comparison.finish()
}

/// The cases of a kind, those that train or those that do not.
fn run_all(kind: &str, trains: bool) -> Result<()> {
    let _alone = alone();
    for case in cases(&[kind])? {
        if case.json.get("grad_l2").is_some() == trains {
            run(&case)?;
        }
    }
    Ok(())
}

#[test]
fn panorama_networks_answer_as_published() -> Result<()> {
    run_all("ggcvt_vigor", false)
}

#[test]
fn panorama_networks_learn_as_published() -> Result<()> {
    run_all("ggcvt_vigor", true)
}

#[test]
fn pinhole_networks_answer_as_published() -> Result<()> {
    run_all("ggcvt_kitti", false)?;
    run_all("ggcvt_kitti_test", false)
}

#[test]
fn pinhole_networks_learn_as_published() -> Result<()> {
    run_all("ggcvt_kitti", true)
}
