//! An adaptation step of the published CCVPE networks, and ten optimiser steps, against golden vectors.

use anyhow::{Context, Result};
use crossfix_kernels::Tape;
use crossfix_kernels::optim::Adam;
use crossfix_offline::model::loss::{
    self, Loss, LossConfig, PoseTarget, gaussian, level_target, max_pool,
};
use crossfix_offline::model::{Ccvpe, CrossViewModel, Extent, ForwardOptions, Prediction};
use crossfix_tests::ccvpe::*;
use crossfix_tests::golden::{Case, Comparison, cases, forward_tolerance, gradient_tolerance, l2};
use serde_json::Value;

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
