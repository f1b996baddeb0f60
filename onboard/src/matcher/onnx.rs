//! Checks an exported student and cuts its graph at the aerial features.
//!
//! Cutting the ONNX graph itself, before any engine sees it, keeps the two halves ordinary models:
//! what the aerial half gives is exactly what the other half takes.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::{
    GraphProto, ModelProto, NodeProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
    tensor_proto::DataType,
    tensor_shape_proto::{Dimension, dimension},
    type_proto,
};
use tract_onnx::prelude::Framework;

use super::MatchError;
use crate::card::{
    CARD_KEY, HEATMAP_WINDOW, LEFT_BIN_INPUT, ORIENTATION_START, ORIENTATION_WINDOW, StudentCard,
    WINDOW_START,
};

/// What a windowed part answers, in order.
const WINDOW_OUTPUTS: [&str; 3] = [HEATMAP_WINDOW, ORIENTATION_WINDOW, ORIENTATION_START];
const MOST_NODES: usize = 20_000;
const MOST_ELEMENTS: i64 = 1 << 28;
/// A field of view from here on is a panorama, whose ends meet.
const WHOLE_TURN_DEG: f64 = 359.9;

/// The operators a student may use: those our exporter writes and their close relatives. No control
/// flow, no randomness, nothing that makes big tensors out of small numbers.
const OPERATORS: &[&str] = &[
    "Abs",
    "Add",
    "ArgMax",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "Clip",
    "Concat",
    "Constant",
    "Conv",
    "ConvTranspose",
    "Cos",
    "Div",
    "Equal",
    "Erf",
    "Exp",
    "Expand",
    "Flatten",
    "Floor",
    "Gather",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Greater",
    "GreaterOrEqual",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LpNormalization",
    "LogSoftmax",
    "Log",
    "MatMul",
    "Max",
    "MaxPool",
    "Min",
    "Mul",
    "Neg",
    "Pad",
    "Pow",
    "Reciprocal",
    "ReduceL2",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceSum",
    "ReduceSumSquare",
    "Relu",
    "Reshape",
    "Resize",
    "Shape",
    "Sigmoid",
    "Sin",
    "Slice",
    "Softmax",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Tanh",
    "Tile",
    "Transpose",
    "Unsqueeze",
];

/// A checked student, still whole.
#[derive(Debug)]
pub(super) struct Student {
    pub(super) card: StudentCard,
    model: ModelProto,
}

impl Student {
    /// Reads and checks the bytes of `student.onnx`; `name` is for messages.
    pub(super) fn parse(bytes: &[u8], name: &str) -> Result<Self, MatchError> {
        let fail = |problem: String| MatchError::Model {
            name: name.to_owned(),
            problem,
        };
        if bytes.is_empty() {
            return Err(fail("is empty".into()));
        }
        let mut reader = bytes;
        let model = tract_onnx::onnx()
            .proto_model_for_read(&mut reader)
            .map_err(|e| {
                fail(format!(
                    "is not an ONNX file, or is truncated ({})",
                    e.root_cause()
                ))
            })?;
        let Some(card) = model
            .metadata_props
            .iter()
            .find(|entry| entry.key == CARD_KEY)
        else {
            return Err(fail(format!("has no card (`{CARD_KEY}` in its metadata)")));
        };
        let card = StudentCard::from_json(&card.value).map_err(|source| MatchError::Card {
            name: name.to_owned(),
            source,
        })?;
        let student = Self { card, model };
        student.check().map_err(fail)?;
        Ok(student)
    }

    /// The part from `aerial` to the aerial features of the card.
    pub(super) fn aerial_part(&self) -> Result<ModelProto, String> {
        self.part(
            vec![value("aerial", &self.aerial_shape())],
            &self.card.aerial_features,
        )
    }

    /// The part from `ground`, its left bin where the card has bins, and the aerial features, whose
    /// shapes are given in the card's order, to the outputs that the card means.
    pub(super) fn ground_part(&self, feature_shapes: &[Vec<usize>]) -> Result<ModelProto, String> {
        let inputs = self.ground_inputs(feature_shapes);
        let outputs = self.card.outputs().iter().map(|name| (*name).to_owned());
        self.part(inputs, &outputs.collect::<Vec<_>>())
    }

    /// The same over a window, from [`WINDOW_START`] too; none of a student without one.
    pub(super) fn window_part(
        &self,
        feature_shapes: &[Vec<usize>],
    ) -> Option<Result<ModelProto, String>> {
        self.card.window?;
        let mut inputs = self.ground_inputs(feature_shapes);
        inputs.push(value_of(WINDOW_START, DataType::Int64, Some(&[2])));
        let outputs = WINDOW_OUTPUTS.map(str::to_owned);
        Some(self.part(inputs, &outputs))
    }

    fn ground_inputs(&self, feature_shapes: &[Vec<usize>]) -> Vec<ValueInfoProto> {
        let mut inputs = vec![value("ground", &self.ground_shape())];
        if self.card.ground.orientation_bins.is_some() {
            inputs.push(value_of(LEFT_BIN_INPUT, DataType::Int64, Some(&[1])));
        }
        for (name, shape) in self.card.aerial_features.iter().zip(feature_shapes) {
            inputs.push(value(name, shape));
        }
        inputs
    }

    fn ground_shape(&self) -> [usize; 4] {
        [1, 3, self.card.ground.rows, self.card.ground.columns]
    }

    fn aerial_shape(&self) -> [usize; 4] {
        [1, 3, self.card.aerial.size_px, self.card.aerial.size_px]
    }

    fn graph(&self) -> Result<&GraphProto, String> {
        self.model
            .graph
            .as_ref()
            .ok_or_else(|| "has no graph".to_owned())
    }

    fn check(&self) -> Result<(), String> {
        let graph = self.graph()?;
        if graph.node.len() > MOST_NODES {
            return Err(format!(
                "has {} nodes, more than {MOST_NODES}",
                graph.node.len()
            ));
        }
        if !self.model.functions.is_empty() || !graph.sparse_initializer.is_empty() {
            return Err("has local functions or sparse weights, which are not run".into());
        }
        let mut known = HashSet::new();
        for weight in &graph.initializer {
            check_tensor(weight)?;
            if !known.insert(weight.name.as_str()) {
                return Err(format!("has two weights called `{}`", weight.name));
            }
        }
        let inputs: Vec<&ValueInfoProto> = graph
            .input
            .iter()
            .filter(|input| !known.contains(input.name.as_str()))
            .collect();
        let mut expected = vec![
            ("ground", DataType::Float, self.ground_shape().to_vec()),
            ("aerial", DataType::Float, self.aerial_shape().to_vec()),
        ];
        if self.card.ground.orientation_bins.is_some() {
            expected.push((LEFT_BIN_INPUT, DataType::Int64, vec![1]));
        } else if self.card.ground.fov_deg < WHOLE_TURN_DEG && self.card.ground.camera.is_none() {
            return Err(format!(
                "sees {}° of the turn, and its card gives no ground.orientation_bins",
                self.card.ground.fov_deg
            ));
        }
        for (name, kind, shape) in &expected {
            let Some(input) = inputs.iter().find(|input| input.name == *name) else {
                return Err(format!("has no input `{name}`, which its card asks for"));
            };
            let sides: Vec<i64> = shape.iter().map(|side| *side as i64).collect();
            if announced(input, *kind) != Some(sides) {
                return Err(format!(
                    "has an input `{name}` that is not {} {shape:?} as its card says",
                    kind.as_str_name().to_ascii_lowercase()
                ));
            }
        }
        if let Some(other) = inputs
            .iter()
            .find(|input| expected.iter().all(|(name, ..)| *name != input.name))
        {
            return Err(format!(
                "has an input `{}`, which its card knows nothing about",
                other.name
            ));
        }
        known.extend(expected.iter().map(|(name, ..)| *name));
        // ONNX wants nodes in the order they run, which also rules out cycles.
        for node in &graph.node {
            check_node(node)?;
            self.check_left_bin(node, graph)?;
            for input in node.input.iter().filter(|input| !input.is_empty()) {
                if !known.contains(input.as_str()) {
                    return Err(format!("uses `{input}` before anything made it"));
                }
            }
            for output in node.output.iter().filter(|output| !output.is_empty()) {
                if !known.insert(output) {
                    return Err(format!("makes `{output}` twice"));
                }
            }
        }
        let card = &self.card;
        for name in card.aerial_features.iter().chain(&card.ground_descriptors) {
            if !known.contains(name.as_str()) {
                return Err(format!("has no value `{name}`, which its card lists"));
            }
        }
        if card.window.is_some() {
            let start = graph.initializer.iter().find(|it| it.name == WINDOW_START);
            if start.is_none_or(|it| it.data_type != DataType::Int64 as i32 || it.dims != [2]) {
                return Err(format!(
                    "has no two integers `{WINDOW_START}`, and its card announces a window"
                ));
            }
            if let Some(name) = WINDOW_OUTPUTS.iter().find(|name| !known.contains(**name)) {
                return Err(format!(
                    "has no value `{name}`, and its card announces a window"
                ));
            }
        }
        for name in card.outputs() {
            if !graph.output.iter().any(|output| output.name == *name) || !known.contains(name) {
                return Err(format!("has no output `{name}`"));
            }
        }
        Ok(())
    }

    /// That the left bin is only looked up, in tables of as many rows as the card has bins. A table of
    /// another length would turn the picture without a word.
    fn check_left_bin(&self, node: &NodeProto, graph: &GraphProto) -> Result<(), String> {
        let Some(bins) = self.card.ground.orientation_bins else {
            return Ok(());
        };
        if node.input.iter().all(|input| input != LEFT_BIN_INPUT) {
            return Ok(());
        }
        let table = graph
            .initializer
            .iter()
            .find(|weight| Some(&weight.name) == node.input.first());
        let axis = node.attribute.iter().find(|a| a.name == "axis");
        let rows = table.and_then(|table| table.dims.first());
        match (rows, node.op_type.as_str(), axis.map_or(0, |axis| axis.i)) {
            (Some(&rows), "Gather", 0) if rows == bins as i64 => Ok(()),
            (Some(&rows), "Gather", 0) => Err(format!(
                "has a table of {rows} orientation bins, and its card says {bins}"
            )),
            _ => Err(format!(
                "uses `{LEFT_BIN_INPUT}` for something else than looking up a bin"
            )),
        }
    }

    /// The smallest model that makes `outputs` out of `inputs`.
    fn part(&self, inputs: Vec<ValueInfoProto>, outputs: &[String]) -> Result<ModelProto, String> {
        let graph = self.graph()?;
        let makers: HashMap<&str, usize> = graph
            .node
            .iter()
            .enumerate()
            .flat_map(|(i, node)| node.output.iter().map(move |output| (output.as_str(), i)))
            .collect();
        let weights: HashMap<&str, &TensorProto> = graph
            .initializer
            .iter()
            .map(|weight| (weight.name.as_str(), weight))
            .collect();
        let given: HashSet<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
        let mut nodes = HashSet::new();
        let mut used = HashSet::new();
        let mut wanted: Vec<&str> = outputs.iter().map(String::as_str).collect();
        while let Some(name) = wanted.pop() {
            if name.is_empty() || given.contains(name) || !used.insert(name) {
                continue;
            }
            if let Some(&maker) = makers.get(name) {
                nodes.insert(maker);
                wanted.extend(graph.node[maker].input.iter().map(String::as_str));
            } else if !weights.contains_key(name) {
                return Err(format!(
                    "needs `{name}` to make {outputs:?}, and its card's aerial_features don't cut that"
                ));
            }
        }
        let part = GraphProto {
            name: graph.name.clone(),
            node: kept(&graph.node, |i, _| nodes.contains(&i)),
            initializer: kept(&graph.initializer, |_, weight| {
                used.contains(weight.name.as_str())
            }),
            input: inputs,
            output: outputs
                .iter()
                .map(|name| value_of(name, DataType::Float, None))
                .collect(),
            ..GraphProto::default()
        };
        Ok(ModelProto {
            ir_version: self.model.ir_version,
            opset_import: self.model.opset_import.clone(),
            graph: Some(part),
            ..ModelProto::default()
        })
    }
}

fn kept<T: Clone>(items: &[T], keep: impl Fn(usize, &T) -> bool) -> Vec<T> {
    items
        .iter()
        .enumerate()
        .filter(|(i, item)| keep(*i, item))
        .map(|(_, item)| item.clone())
        .collect()
}

fn check_node(node: &NodeProto) -> Result<(), String> {
    if !node.domain.is_empty() && node.domain != "ai.onnx" {
        return Err(format!(
            "uses operators of `{}`, which are not run",
            node.domain
        ));
    }
    if !OPERATORS.contains(&node.op_type.as_str()) {
        return Err(format!(
            "uses the operator `{}`, which students don't need",
            node.op_type
        ));
    }
    for attribute in &node.attribute {
        if attribute.g.is_some() || !attribute.graphs.is_empty() {
            return Err(format!(
                "has a graph inside the attribute `{}`",
                attribute.name
            ));
        }
        for tensor in attribute.t.iter().chain(&attribute.tensors) {
            check_tensor(tensor)?;
        }
    }
    Ok(())
}

/// That the data is here, and as much of it as the dimensions say.
fn check_tensor(tensor: &TensorProto) -> Result<(), String> {
    let name = &tensor.name;
    if !tensor.external_data.is_empty() || tensor.data_location.unwrap_or(0) != 0 {
        return Err(format!(
            "keeps `{name}` in another file; a student is one file"
        ));
    }
    let elements = tensor.dims.iter().try_fold(1i64, |product, &side| {
        (side >= 0)
            .then(|| product.checked_mul(side))
            .flatten()
            .filter(|n| *n <= MOST_ELEMENTS)
    });
    let Some(elements) = elements.map(|n| n as usize) else {
        return Err(format!(
            "has a weight `{name}` of impossible size {:?}",
            tensor.dims
        ));
    };
    let (bytes_each, typed) = match DataType::try_from(tensor.data_type) {
        Ok(DataType::Float) => (4, tensor.float_data.len()),
        Ok(DataType::Double) => (8, tensor.double_data.len()),
        Ok(DataType::Int64) => (8, tensor.int64_data.len()),
        Ok(DataType::Int32) => (4, tensor.int32_data.len()),
        Ok(DataType::Bool) => (1, tensor.int32_data.len()),
        _ => {
            return Err(format!(
                "has a weight `{name}` of type {}",
                tensor.data_type
            ));
        }
    };
    let found = if tensor.raw_data.is_empty() {
        typed
    } else {
        tensor.raw_data.len() / bytes_each
    };
    if found != elements || !tensor.raw_data.len().is_multiple_of(bytes_each) {
        return Err(format!(
            "has a weight `{name}` of {:?} with {found} values in it",
            tensor.dims
        ));
    }
    Ok(())
}

/// The shape of a tensor of this kind, if it is one with numbers for sides.
fn announced(input: &ValueInfoProto, kind: DataType) -> Option<Vec<i64>> {
    let Some(type_proto::Value::TensorType(tensor)) = &input.r#type.as_ref()?.value else {
        return None;
    };
    if tensor.elem_type != kind as i32 {
        return None;
    }
    let side = |dimension: &Dimension| match dimension.value {
        Some(dimension::Value::DimValue(side)) => Some(side),
        _ => None,
    };
    tensor.shape.as_ref()?.dim.iter().map(side).collect()
}

/// A float value of this shape.
pub(super) fn value(name: &str, shape: &[usize]) -> ValueInfoProto {
    value_of(name, DataType::Float, Some(shape))
}

/// A value of this kind, and of this shape or any.
pub(super) fn value_of(name: &str, kind: DataType, shape: Option<&[usize]>) -> ValueInfoProto {
    let side = |side: &usize| Dimension {
        value: Some(dimension::Value::DimValue(*side as i64)),
        ..Dimension::default()
    };
    let tensor = type_proto::Tensor {
        elem_type: kind as i32,
        shape: shape.map(|shape| TensorShapeProto {
            dim: shape.iter().map(side).collect(),
        }),
    };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}
