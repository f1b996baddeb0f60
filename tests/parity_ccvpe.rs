//! The published CCVPE networks, layer by layer: outputs, losses, gradients against golden vectors.
//!
//! Every setting comes from a case's JSON file, so `CROSSFIX_GOLDENS=FOLDER` checks any other set
//! of vectors in the same format. Begin with [`network`].

use anyhow::{Context, Result, ensure};
use crossfix_kernels::Tape;
use crossfix_offline::model::{Ccvpe, CrossViewModel, Extent, ForwardOptions, loss};
use crossfix_tests::ccvpe::*;
use crossfix_tests::golden::{
    Case, Comparison, Generator, cases, ccvpe_rule, fnv1a, forward_tolerance, splitmix64, uniform,
};
use serde_json::Value;

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
