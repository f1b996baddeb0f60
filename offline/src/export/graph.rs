//! Builds an ONNX graph node by node. Shapes are followed on the way, so all of them are static.

use crossfix_kernels::ops::{Conv2d, Pad};
use tract_onnx::pb::{
    AttributeProto, GraphProto, NodeProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto,
    attribute_proto::AttributeType,
    tensor_proto::DataType,
    tensor_shape_proto::{Dimension, dimension},
    type_proto,
};

/// A value of the graph: its name and shape.
#[derive(Debug, Clone)]
pub(super) struct Value {
    pub name: String,
    pub shape: Vec<usize>,
}

/// A convolution's numbers, ready to be written: `weight` `[O, C / groups, kh, kw]`.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    pub name: String,
    pub shape: [usize; 4],
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
}

/// The graph so far.
#[derive(Debug, Default)]
pub(super) struct Graph {
    proto: GraphProto,
    count: usize,
}

impl Graph {
    pub fn new(name: &str) -> Self {
        let proto = GraphProto {
            name: name.into(),
            ..GraphProto::default()
        };
        Self { proto, count: 0 }
    }

    /// The finished graph; `outputs` in order, `cuts` announced with their shapes.
    pub fn finish(mut self, outputs: &[Value], cuts: &[Value]) -> GraphProto {
        self.proto.output = outputs
            .iter()
            .map(|v| announce(v, DataType::Float))
            .collect();
        self.proto.value_info = cuts.iter().map(|v| announce(v, DataType::Float)).collect();
        self.proto
    }

    pub fn input(&mut self, name: &str, shape: &[usize], kind: DataType) -> Value {
        let value = Value {
            name: name.into(),
            shape: shape.to_vec(),
        };
        self.proto.input.push(announce(&value, kind));
        value
    }

    /// Floats that are known now.
    pub fn floats(&mut self, name: &str, shape: &[usize], data: &[f32]) -> Value {
        let raw_data = data.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, shape, DataType::Float, raw_data)
    }

    /// Integers that are known now.
    pub fn integers(&mut self, name: &str, shape: &[usize], data: &[i64]) -> Value {
        let raw_data = data.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, shape, DataType::Int64, raw_data)
    }

    /// Doubles that are known now.
    pub fn doubles(&mut self, name: &str, shape: &[usize], data: &[f64]) -> Value {
        let raw_data = data.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, shape, DataType::Double, raw_data)
    }

    /// What is asked for twice, as weights that are applied twice are, is written once: one name
    /// is one content.
    fn constant(
        &mut self,
        name: &str,
        shape: &[usize],
        kind: DataType,
        raw_data: Vec<u8>,
    ) -> Value {
        let value = Value {
            name: name.into(),
            shape: shape.to_vec(),
        };
        let known = &self.proto.initializer;
        if let Some(known) = known.iter().find(|known| known.name == name) {
            assert!(known.raw_data == raw_data, "{name} is two things");
            return value;
        }
        self.proto.initializer.push(TensorProto {
            name: name.into(),
            dims: integers(shape),
            data_type: kind as i32,
            raw_data,
            ..TensorProto::default()
        });
        value
    }

    fn node(
        &mut self,
        op: &str,
        inputs: &[&Value],
        attributes: Vec<AttributeProto>,
        shape: &[usize],
    ) -> Value {
        let name = self.fresh(op);
        self.proto.node.push(NodeProto {
            op_type: op.into(),
            name: format!("node_{name}"),
            input: inputs.iter().map(|value| value.name.clone()).collect(),
            output: vec![name.clone()],
            attribute: attributes,
            ..NodeProto::default()
        });
        Value {
            name,
            shape: shape.to_vec(),
        }
    }

    fn fresh(&mut self, what: &str) -> String {
        self.count += 1;
        format!("{what}_{}", self.count)
    }

    /// Gives a value the name that the outside knows it by.
    pub fn rename(&mut self, value: &Value, name: &str) -> Value {
        for node in &mut self.proto.node {
            for used in node.input.iter_mut().chain(&mut node.output) {
                if *used == value.name {
                    *used = name.into();
                }
            }
        }
        Value {
            name: name.into(),
            shape: value.shape.clone(),
        }
    }

    /// An elementwise operator of one value.
    pub fn map(&mut self, op: &str, x: &Value) -> Value {
        self.node(op, &[x], vec![], &x.shape)
    }

    /// An elementwise operator of two values; either is stretched along axes of length 1.
    pub fn combine(&mut self, op: &str, a: &Value, b: &Value) -> Value {
        let rank = a.shape.len().max(b.shape.len());
        let side = |v: &Value, axis: usize| {
            let missing = rank - v.shape.len();
            if axis < missing {
                1
            } else {
                v.shape[axis - missing]
            }
        };
        let shape: Vec<usize> = (0..rank)
            .map(|axis| side(a, axis).max(side(b, axis)))
            .collect();
        self.node(op, &[a, b], vec![], &shape)
    }

    /// The same values as numbers of another kind; what is true is 1.
    pub fn cast(&mut self, x: &Value, kind: DataType) -> Value {
        let to = integer("to", i64::from(kind as i32));
        self.node("Cast", &[x], vec![to], &x.shape)
    }

    /// x · sigmoid(x).
    pub fn silu(&mut self, x: &Value) -> Value {
        let gate = self.map("Sigmoid", x);
        self.combine("Mul", x, &gate)
    }

    pub fn concat(&mut self, axis: usize, parts: &[&Value]) -> Value {
        if let [only] = parts {
            return (*only).clone();
        }
        let mut shape = parts[0].shape.clone();
        shape[axis] = parts.iter().map(|part| part.shape[axis]).sum();
        self.node("Concat", parts, vec![integer("axis", axis as i64)], &shape)
    }

    pub fn slice(&mut self, x: &Value, axis: usize, from: usize, to: usize) -> Value {
        let mut shape = x.shape.clone();
        shape[axis] = to - from;
        let name = self.fresh("slice");
        let limits = [("from", from), ("to", to), ("axis", axis)];
        let limits =
            limits.map(|(what, at)| self.integers(&format!("{name}_{what}"), &[1], &[at as i64]));
        let [from, to, axis] = &limits;
        self.node("Slice", &[x, from, to, axis], vec![], &shape)
    }

    pub fn reshape(&mut self, x: &Value, shape: &[usize]) -> Value {
        let name = self.fresh("shape");
        let target = self.integers(&name, &[shape.len()], &integers(shape));
        self.node("Reshape", &[x, &target], vec![], shape)
    }

    pub fn transpose(&mut self, x: &Value, order: &[usize]) -> Value {
        let shape: Vec<usize> = order.iter().map(|axis| x.shape[*axis]).collect();
        self.node("Transpose", &[x], vec![list("perm", order)], &shape)
    }

    /// `output[.., i.., ..] = x[.., indices[i..], ..]` along `axis`.
    pub fn gather(&mut self, x: &Value, indices: &Value, axis: usize) -> Value {
        let mut shape = x.shape[..axis].to_vec();
        shape.extend(&indices.shape);
        shape.extend(&x.shape[axis + 1..]);
        self.node(
            "Gather",
            &[x, indices],
            vec![integer("axis", axis as i64)],
            &shape,
        )
    }

    /// Product of two matrices, or of each two of a batch.
    pub fn matrix_product(&mut self, a: &Value, b: &Value) -> Value {
        let mut shape = a.shape.clone();
        let columns = b.shape[b.shape.len() - 1];
        *shape.last_mut().expect("a matrix has axes") = columns;
        self.node("MatMul", &[a, b], vec![], &shape)
    }

    /// `ReduceL2`, `ReduceMax` and others along one axis, which stays with length 1.
    pub fn reduce(&mut self, op: &str, x: &Value, axis: usize) -> Value {
        let mut shape = x.shape.clone();
        shape[axis] = 1;
        self.node(
            op,
            &[x],
            vec![list("axes", &[axis]), integer("keepdims", 1)],
            &shape,
        )
    }

    /// Where the largest value along one axis is, which goes; the first of several.
    pub fn argmax(&mut self, x: &Value, axis: usize) -> Value {
        let mut shape = x.shape.clone();
        shape.remove(axis);
        let attributes = vec![integer("axis", axis as i64), integer("keepdims", 0)];
        self.node("ArgMax", &[x], attributes, &shape)
    }

    pub fn softmax(&mut self, x: &Value, axis: usize) -> Value {
        self.node(
            "Softmax",
            &[x],
            vec![integer("axis", axis as i64)],
            &x.shape,
        )
    }

    pub fn mean_pool(&mut self, x: &Value) -> Value {
        self.node(
            "GlobalAveragePool",
            &[x],
            vec![],
            &[x.shape[0], x.shape[1], 1, 1],
        )
    }

    /// The largest of each 2 × 2 pixels, at half the side.
    pub fn max_pool(&mut self, x: &Value) -> Value {
        let shape = [x.shape[0], x.shape[1], x.shape[2] / 2, x.shape[3] / 2];
        let attributes = vec![list("kernel_shape", &[2, 2]), list("strides", &[2, 2])];
        self.node("MaxPool", &[x], attributes, &shape)
    }

    /// Each pixel twice along both sides. Copies alone: no runtime can round.
    pub fn repeat2x(&mut self, x: &Value) -> Value {
        let [n, channels, rows, columns] = [0, 1, 2, 3].map(|axis| x.shape[axis]);
        let x = self.reshape(x, &[n * channels * rows, columns, 1]);
        let x = self.concat(2, &[&x, &x]);
        let x = self.reshape(&x, &[n * channels * rows, 1, 2 * columns]);
        let x = self.concat(1, &[&x, &x]);
        self.reshape(&x, &[n, channels, 2 * rows, 2 * columns])
    }

    /// The product sums of `x` `[1, C, H, W]` and `template` `[1, C, h, w]` wherever it fits.
    ///
    /// One filter of the template's size is one row of a matrix product, and runtimes compute whole
    /// tiles of rows. So each row of the template is a filter of its own, one pixel high; its answer
    /// belongs as many rows higher as it lies in the template. Rows one longer than the maps are high
    /// move them there.
    pub fn correlate(&mut self, x: &Value, template: &Value) -> Value {
        let [channels, height, width] = [1, 2, 3].map(|axis| x.shape[axis]);
        let [rows, columns] = [template.shape[2], template.shape[3]];
        let (down, across) = (height + 1 - rows, width + 1 - columns);
        let filters = self.reshape(template, &[channels, rows, columns]);
        let filters = self.transpose(&filters, &[1, 0, 2]);
        let filters = self.reshape(&filters, &[rows, channels, 1, columns]);
        let attributes = vec![list("kernel_shape", &[1, columns])];
        let shape = [1, rows, height, across];
        let answers = self.node("Conv", &[x, &filters], attributes, &shape);
        let answers = self.reshape(&answers, &[rows * height, across]);
        let name = format!("rows_to_spare_{rows}_{across}");
        let spare = self.floats(&name, &[rows, across], &vec![0.0; rows * across]);
        let answers = self.concat(0, &[&answers, &spare]);
        let answers = self.reshape(&answers, &[rows, height + 1, across]);
        let answers = self.slice(&answers, 1, 0, down);
        let answers = self.reshape(&answers, &[rows, down * across]);
        let all = self.floats(&format!("all_{rows}_rows"), &[1, rows], &vec![1.0; rows]);
        let sums = self.matrix_product(&all, &answers);
        self.reshape(&sums, &[1, 1, down, across])
    }

    /// A convolution with the padding of the training engine.
    pub fn conv(&mut self, x: &Value, kernel: &Kernel, options: &Conv2d) -> Value {
        let [top, bottom, left, right] = options.padding;
        // Columns first: the corners of a wrapped strip between zero rows are zero.
        let (wide, left, right) = self.extend(x, 3, [left, right], options.columns);
        let (tall, top, bottom) = self.extend(&wide, 2, [top, bottom], options.rows);
        let [outputs, _, kernel_rows, kernel_columns] = kernel.shape;
        let side =
            |length: usize, pad: usize, kernel: usize| (length + pad - kernel) / options.stride + 1;
        let shape = [
            x.shape[0],
            outputs,
            side(tall.shape[2], top + bottom, kernel_rows),
            side(tall.shape[3], left + right, kernel_columns),
        ];
        let weight = self.floats(
            &format!("{}.weight", kernel.name),
            &kernel.shape,
            &kernel.weight,
        );
        let bias = self.floats(&format!("{}.bias", kernel.name), &[outputs], &kernel.bias);
        let attributes = vec![
            list("kernel_shape", &[kernel_rows, kernel_columns]),
            list("strides", &[options.stride, options.stride]),
            list("pads", &[top, left, bottom, right]),
            integer("group", options.groups as i64),
        ];
        self.node("Conv", &[&tall, &weight, &bias], attributes, &shape)
    }

    /// Transposed convolution to twice the side; `kernel.shape` is `[C, O, 2, 2]`.
    pub fn upsample(&mut self, x: &Value, kernel: &Kernel) -> Value {
        let outputs = kernel.shape[1];
        let shape = [x.shape[0], outputs, 2 * x.shape[2], 2 * x.shape[3]];
        let weight = self.floats(
            &format!("{}.weight", kernel.name),
            &kernel.shape,
            &kernel.weight,
        );
        let bias = self.floats(&format!("{}.bias", kernel.name), &[outputs], &kernel.bias);
        let attributes = vec![list("kernel_shape", &[2, 2]), list("strides", &[2, 2])];
        self.node("ConvTranspose", &[x, &weight, &bias], attributes, &shape)
    }

    /// Wraps or mirrors an axis out of slices, since not every runtime has these paddings. Returns
    /// also how many zeros are left to be padded before and after.
    fn extend(
        &mut self,
        x: &Value,
        axis: usize,
        [before, after]: [usize; 2],
        pad: Pad,
    ) -> (Value, usize, usize) {
        let length = x.shape[axis];
        let pieces = match pad {
            Pad::Zero => return (x.clone(), before, after),
            Pad::Circular => [(length - before, length), (0, after)].map(|(from, to)| {
                if from < to { vec![(from, to)] } else { vec![] }
            }),
            Pad::Reflect => [
                (1..=before).rev().map(|at| (at, at + 1)).collect(),
                (1..=after)
                    .map(|at| (length - 1 - at, length - at))
                    .collect(),
            ],
        };
        let [head, tail] = pieces.map(|pieces| -> Vec<Value> {
            let slices = pieces
                .into_iter()
                .map(|(from, to)| self.slice(x, axis, from, to));
            slices.collect()
        });
        let parts: Vec<&Value> = head.iter().chain([x]).chain(&tail).collect();
        (self.concat(axis, &parts), 0, 0)
    }
}

fn announce(value: &Value, kind: DataType) -> ValueInfoProto {
    let dim = value
        .shape
        .iter()
        .map(|side| Dimension {
            value: Some(dimension::Value::DimValue(*side as i64)),
            ..Dimension::default()
        })
        .collect();
    let tensor = type_proto::Tensor {
        elem_type: kind as i32,
        shape: Some(TensorShapeProto { dim }),
    };
    ValueInfoProto {
        name: value.name.clone(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}

fn integer(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: AttributeType::Int as i32,
        i: value,
        ..AttributeProto::default()
    }
}

fn list(name: &str, values: &[usize]) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: AttributeType::Ints as i32,
        ints: integers(values),
        ..AttributeProto::default()
    }
}

fn integers(values: &[usize]) -> Vec<i64> {
    values.iter().map(|value| *value as i64).collect()
}
