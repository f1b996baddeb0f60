//! A student small enough to work out by hand, for tests.
//!
//! `heatmap = softmax(red(aerial) · mean(red(ground)) / 1000)`, `orientation = (0.3, 0.4)` everywhere.

use crossfix_calibration::{Geodetic, PatchGeoreference, PatchKey, PatchSpec};
use prost::Message;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, attribute_proto::AttributeType, tensor_proto::DataType,
};

use super::onnx::{value, value_of};
use crate::card::{CARD_KEY, LEFT_BIN_INPUT, StudentCard, tests::tiny_card};

/// The parts of a student, to be spoiled by tests before [`encode`].
pub(crate) struct Tiny {
    pub(crate) card: StudentCard,
    pub(crate) model: ModelProto,
}

impl Tiny {
    pub(crate) fn graph(&mut self) -> &mut GraphProto {
        self.model.graph.as_mut().unwrap()
    }
}

/// The bytes of the file; the card is written as it stands, checked or not.
pub(crate) fn encode(tiny: &Tiny) -> Vec<u8> {
    let mut model = tiny.model.clone();
    if let Some(entry) = model
        .metadata_props
        .first_mut()
        .filter(|entry| entry.value.is_empty())
    {
        entry.value = serde_json::to_string(&tiny.card).unwrap();
    }
    model.encode_to_vec()
}

/// Distinct patch keys.
pub(crate) fn key(number: usize) -> PatchKey {
    let centre = Geodetic::new(52.0 + number as f64 * 0.01, 4.0, 0.0).unwrap();
    let spec = PatchSpec {
        size_px: 8,
        metres_per_pixel: 8.0,
    };
    PatchGeoreference::exactly_at(centre, spec).unwrap().key()
}

impl Tiny {
    /// A student that sees half of the circle and has four bins:
    /// `heatmap = softmax(red(aerial) · mean(red(ground)) · left_bin² / 100 000)`.
    pub(crate) fn front() -> Self {
        let mut tiny = Self::default();
        tiny.card.ground.fov_deg = 180.0;
        tiny.card.ground.orientation_bins = Some(4);
        let graph = tiny.graph();
        graph
            .input
            .push(value_of(LEFT_BIN_INPUT, DataType::Int64, Some(&[1])));
        graph.initializer.push(floats(
            "squares",
            &[4, 1, 1, 1],
            &[0.0, 1.0, 4.0, 9.0].map(|square| square / 100.0),
        ));
        // In the order they run: the square is looked up, then multiplied in before the logits.
        graph
            .node
            .insert(0, node("Gather", &["squares", LEFT_BIN_INPUT], "square"));
        let logits = 1 + graph
            .node
            .iter()
            .position(|node| node.output == ["products"])
            .unwrap();
        graph
            .node
            .insert(logits, node("Mul", &["products", "square"], "turned"));
        graph.node[logits + 1].input[0] = "turned".into();
        tiny
    }
}

fn floats(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: DataType::Float as i32,
        raw_data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        ..TensorProto::default()
    }
}

pub(crate) fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: op.into(),
        name: format!("make_{output}"),
        input: inputs.iter().map(|s| (*s).into()).collect(),
        output: vec![output.into()],
        ..NodeProto::default()
    }
}

impl Default for Tiny {
    fn default() -> Self {
        let integers = |name: &str, values: &[i64]| TensorProto {
            name: name.into(),
            dims: vec![values.len() as i64],
            data_type: DataType::Int64 as i32,
            int64_data: values.to_vec(),
            ..TensorProto::default()
        };
        let mut softmax = node("Softmax", &["logits"], "flat_heatmap");
        softmax.attribute.push(AttributeProto {
            name: "axis".into(),
            r#type: AttributeType::Int as i32,
            i: 1,
            ..AttributeProto::default()
        });
        let graph = GraphProto {
            name: "tiny".into(),
            input: vec![
                value("ground", &[1, 3, 4, 8]),
                value("aerial", &[1, 3, 8, 8]),
            ],
            output: vec![
                value("heatmap", &[1, 8, 8]),
                value("orientation", &[1, 2, 8, 8]),
            ],
            initializer: vec![
                floats("red", &[1, 3, 1, 1], &[1.0, 0.0, 0.0]),
                floats(
                    "mean_of_red",
                    &[1, 3, 4, 8],
                    &[[1.0 / 32e3; 32], [0.0; 32], [0.0; 32]].concat(),
                ),
                integers("row", &[1, 64]),
                integers("map", &[1, 8, 8]),
                floats("none", &[2, 1, 1, 1], &[0.0, 0.0]),
                floats("direction", &[2], &[0.3, 0.4]),
            ],
            node: vec![
                node("Conv", &["aerial", "red"], "aerial_features_0"),
                node("Conv", &["ground", "mean_of_red"], "ground_mean"),
                node("Mul", &["aerial_features_0", "ground_mean"], "products"),
                node("Reshape", &["products", "row"], "logits"),
                softmax,
                node("Reshape", &["flat_heatmap", "map"], "heatmap"),
                node(
                    "Conv",
                    &["aerial_features_0", "none", "direction"],
                    "orientation",
                ),
            ],
            ..GraphProto::default()
        };
        let model = ModelProto {
            ir_version: 8,
            opset_import: vec![OperatorSetIdProto {
                domain: String::new(),
                version: 17,
            }],
            graph: Some(graph),
            metadata_props: vec![StringStringEntryProto {
                key: CARD_KEY.into(),
                value: String::new(),
            }],
            ..ModelProto::default()
        };
        Self {
            card: tiny_card(),
            model,
        }
    }
}
