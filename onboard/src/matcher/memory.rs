//! How much memory a student needs, worked out from shapes before anything is computed.
//!
//! A graph of a few nodes can ask for any amount: `Expand`, `Tile`, `Pad`, `Resize` and broadcasting make
//! big tensors out of small numbers, and an optimiser computes at once what depends on no input. So the
//! shapes are inferred node by node, and a node is only looked into further when its results fit.

use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::Factoid;

/// Bytes of an element whose type is not known.
const LARGEST_ELEMENT: u64 = 8;
/// Operators whose results may be larger than their inputs, by the engine's names.
const GROWING: [&str; 6] = [
    "MultiBroadcastTo",
    "Expand",
    "Tile",
    "Pad",
    "Resize",
    "ConstantOfShape",
];

/// Checks that weights and intermediate results of one run need no more than `limit_bytes`.
///
/// # Errors
/// A sentence with the first node that does not fit, or whose result's size cannot be told.
pub fn check(model: &mut InferenceModel, limit_bytes: u64) -> Result<(), String> {
    let order = model.eval_order().map_err(|e| format!("{e:#}"))?;
    let mut last_use = vec![0; model.nodes.len()];
    for (step, &node) in order.iter().enumerate() {
        for input in &model.node(node).inputs {
            last_use[input.node] = step;
        }
    }
    for output in &model.outputs {
        last_use[output.node] = usize::MAX;
    }
    let mut alive = 0;
    let mut sizes = vec![0; model.nodes.len()];
    for (step, &node) in order.iter().enumerate() {
        let name = model.node(node).name.clone();
        let fail = |problem: String| format!("`{name}` {problem}");
        let (inputs, outputs) = facts(model, node)?;
        let mut op = model.node(node).op.clone();
        let inferred = op
            .infer_facts(refs(&inputs), refs(&outputs), tvec![])
            .map_err(|e| fail(format!("does not fit its inputs ({e:#})")))?;
        let growing = GROWING.iter().any(|name| op.name().contains(name));
        for fact in &inferred.1 {
            sizes[node] += match bytes(fact) {
                Some(bytes) => bytes,
                None if growing => {
                    return Err(fail("makes a result whose size cannot be told".into()));
                }
                // Only what is no larger than its inputs is left, such as a slice of them.
                None => inputs.iter().filter_map(bytes).sum(),
            };
        }
        alive += sizes[node];
        if sizes[node] > limit_bytes || alive > limit_bytes {
            return Err(fail(format!(
                "needs {} MB of memory with what is kept for others, more than {} MB; see model.memory_mb",
                alive.max(sizes[node]) >> 20,
                limit_bytes >> 20
            )));
        }
        // Its size is known to fit, so small constants may be worked out for the shapes that follow.
        let inferred = op
            .infer(refs(&inputs), refs(&outputs), tvec![])
            .map_err(|e| fail(format!("does not fit its inputs ({e:#})")))?;
        for (slot, fact) in inferred.1.into_iter().enumerate() {
            let outlet = OutletId::new(node, slot);
            let known = outputs[slot]
                .unify(&fact)
                .map_err(|e| fail(format!("{e:#}")))?;
            model
                .set_outlet_fact(outlet, known)
                .map_err(|e| format!("{e:#}"))?;
        }
        let inputs: Vec<usize> = model
            .node(node)
            .inputs
            .iter()
            .map(|input| input.node)
            .collect();
        for input in inputs {
            if last_use[input] == step {
                alive -= std::mem::take(&mut sizes[input]);
            }
        }
    }
    Ok(())
}

type Facts = TVec<InferenceFact>;

fn facts(model: &InferenceModel, node: usize) -> Result<(Facts, Facts), String> {
    let node = model.node(node);
    let inputs = node
        .inputs
        .iter()
        .map(|outlet| model.outlet_fact(*outlet).cloned());
    let inputs = inputs
        .collect::<TractResult<_>>()
        .map_err(|e| format!("{e:#}"))?;
    let outputs = node.outputs.iter().map(|outlet| outlet.fact.clone());
    Ok((inputs, outputs.collect()))
}

fn refs(facts: &Facts) -> TVec<&InferenceFact> {
    facts.iter().collect()
}

/// Bytes of a tensor; nothing when its shape is not known.
fn bytes(fact: &InferenceFact) -> Option<u64> {
    let element = fact
        .datum_type
        .concretize()
        .map_or(LARGEST_ELEMENT, |kind| kind.size_of() as u64);
    fact.shape
        .concretize()?
        .iter()
        .try_fold(element, |bytes, side| {
            let side = side.to_i64().ok()?;
            // A side that cannot be is larger than any limit.
            Some(bytes.saturating_mul(u64::try_from(side).unwrap_or(u64::MAX)))
        })
}
