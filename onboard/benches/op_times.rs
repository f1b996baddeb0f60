//! Where the time of a student goes in tract, operator by operator: `op_times STUDENT.onnx [RUNS]`
//!
//! Runs the aerial half and the rest as the daemon does, on noise, with the thread's CPU time around
//! each operator, and prints the least of all runs. `TRACT_*` settings of tract apply.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use cpu_time::ThreadTime;
use crossfix_onboard::card::{CARD_KEY, StudentCard};
use tract_onnx::prelude::*;

fn main() -> Result<()> {
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench");
    let student = arguments
        .next()
        .context("usage: op_times STUDENT.onnx [RUNS]")?;
    let runs: usize = arguments.next().map_or(Ok(50), |runs| runs.parse())?;
    let proto = tract_onnx::onnx().proto_model_for_path(&student)?;
    let card = proto
        .metadata_props
        .iter()
        .find(|entry| entry.key == CARD_KEY);
    let card = StudentCard::from_json(&card.context("the student has no card")?.value)?;
    let features: Vec<&str> = card.aerial_features.iter().map(String::as_str).collect();
    let mut others = vec!["ground"];
    others.extend(card.ground.orientation_bins.map(|_| "ground_left_bin"));
    let outputs = ["heatmap", "orientation"];
    time(&student, "aerial", &["aerial"], &features, &[], runs)?;
    let whole = part(&student, &["aerial"], &features, &[])?;
    let shapes = whole
        .outputs
        .iter()
        .map(|outlet| whole.outlet_fact(*outlet).cloned())
        .collect::<TractResult<Vec<_>>>()?;
    let inputs: Vec<&str> = others.iter().chain(&features).copied().collect();
    time(
        &student,
        "ground and matching",
        &inputs,
        &outputs,
        &shapes,
        runs,
    )
}

/// The optimised part from `inputs` to `outputs`; `facts` describe the last inputs.
fn part(
    student: &str,
    inputs: &[&str],
    outputs: &[&str],
    facts: &[TypedFact],
) -> Result<TypedModel> {
    let mut model = tract_onnx::onnx()
        .with_ignore_value_info(true)
        .model_for_path(student)?
        .with_outputs_by_name(outputs)?;
    let outlets = inputs
        .iter()
        .map(|name| {
            let node = model
                .node_by_name(name)
                .map(|node| OutletId::new(node.id, 0));
            model.find_outlet_label(name).map_or(node, Ok)
        })
        .collect::<TractResult<Vec<_>>>()?;
    model.set_input_outlets(&outlets)?;
    for (fact, at) in facts.iter().rev().zip((0..inputs.len()).rev()) {
        model.set_input_fact(at, InferenceFact::from(fact))?;
    }
    model.into_optimized()
}

fn time(
    student: &str,
    title: &str,
    inputs: &[&str],
    outputs: &[&str],
    facts: &[TypedFact],
    runs: usize,
) -> Result<()> {
    let model = part(student, inputs, outputs, facts)?;
    let values: TVec<TValue> = model
        .inputs
        .iter()
        .map(|outlet| {
            let fact = model.outlet_fact(*outlet)?;
            let shape = fact
                .shape
                .as_concrete()
                .context("a shape that is not fixed")?;
            let mut tensor = Tensor::zero_dt(fact.datum_type, shape)?;
            if fact.datum_type == f32::datum_type() {
                let noise = (0..tensor.len()).map(|i| ((i * 7919) % 251) as f32);
                tensor = Tensor::from_shape(shape, &noise.collect::<Vec<_>>())?;
            }
            Ok(tensor.into())
        })
        .collect::<TractResult<_>>()?;
    let plan = model.into_runnable()?;
    let mut least = vec![Duration::MAX; plan.model().nodes.len()];
    let mut whole = Duration::MAX;
    for _ in 0..runs {
        let mut state = plan.spawn()?;
        state.run_plan_with_eval(values.clone(), |context, op_state, node, inputs| {
            let start = ThreadTime::now();
            let result = tract_onnx::tract_core::plan::eval(context, op_state, node, inputs);
            least[node.id] = least[node.id].min(start.elapsed());
            result
        })?;
        let start = ThreadTime::now();
        plan.run(values.clone())?;
        whole = whole.min(start.elapsed());
    }
    let mut by_operator: BTreeMap<String, (usize, Duration)> = BTreeMap::new();
    println!("== {title}: {:.3} ms", whole.as_secs_f64() * 1e3);
    for node in plan.model().nodes() {
        if least[node.id] == Duration::MAX {
            continue;
        }
        let sum = by_operator.entry(node.op.name().to_string()).or_default();
        *sum = (sum.0 + 1, sum.1 + least[node.id]);
        let shape = &node.outputs[0].fact;
        println!(
            "{:9.1} us  {:<24} {:<40} {shape:?}",
            least[node.id].as_secs_f64() * 1e6,
            node.op.name(),
            node.name
        );
    }
    for (name, (count, sum)) in by_operator {
        println!("{:9.1} us  {count:>3} x {name}", sum.as_secs_f64() * 1e6);
    }
    Ok(())
}
