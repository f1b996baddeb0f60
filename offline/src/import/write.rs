//! The way back: a state dict that `torch.load` reads, weights only.

use super::names::published_shape;
use crate::model::CrossViewModel;
use crossfix_kernels::Device;
use std::io::{Cursor, Write};
use std::path::Path;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// The classifier that each published encoder has and never evaluates.
const CLASSIFIER: [(&str, &[usize]); 2] = [("weight", &[1000, 1280]), ("bias", &[1000])];

/// One tensor of the file.
struct Entry {
    name: String,
    shape: Vec<usize>,
    /// `FloatStorage` or `LongStorage`.
    storage: &'static str,
    bytes: Vec<u8>,
    length: usize,
}

/// Writes the state dict of `model` under the published names and shapes, whole or not at all.
///
/// The published networks hold numbers that ours do not keep: CCVPE's classifiers and the counters of
/// its batch norms, which it never uses, are written as zeros; GGCVT's tables of where each pair of
/// tokens finds its bias are computed. So `PyTorch`'s strict loading takes the file.
///
/// # Errors
/// The operating system's, or the zip writer's; a device's, where the model lies on one.
pub fn write_state_dict(path: &Path, model: &dyn CrossViewModel) -> std::io::Result<()> {
    let entries = if model.parameters().device() == Device::Cpu {
        entries(model)
    } else {
        let mut host = model.boxed_clone();
        let moved = host.parameters_mut().move_to(&Device::Cpu);
        moved.map_err(std::io::Error::other)?;
        entries(host.as_ref())
    };
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    // PyTorch maps storages that lie on multiples of 64 bytes.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .with_alignment(64);
    let mut add = |name: String, bytes: &[u8]| {
        zip.start_file(name, options)?;
        zip.write_all(bytes)
    };
    add("archive/data.pkl".into(), &program(&entries))?;
    add("archive/byteorder".into(), b"little")?;
    for (key, entry) in entries.iter().enumerate() {
        add(format!("archive/data/{key}"), &entry.bytes)?;
    }
    add("archive/version".into(), b"3\n")?;
    let bytes = zip.finish()?.into_inner();
    crate::model::weights::write_whole(path, &bytes)
}

fn entries(model: &dyn CrossViewModel) -> Vec<Entry> {
    let parameters = model.parameters();
    let floats = |name: String, shape: Vec<usize>, values: &[f32]| Entry {
        name,
        shape,
        storage: "FloatStorage",
        bytes: values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect(),
        length: values.len(),
    };
    let mut entries = Vec::new();
    for parameter in parameters.all() {
        let shape = published_shape(&parameter.name, parameter.value.shape());
        entries.push(floats(
            parameter.name.clone(),
            shape,
            parameter.value.data(),
        ));
    }
    for parameter in parameters.all() {
        if let Some(attention) = parameter.name.strip_suffix("relative_position_bias_table") {
            entries.push(bias_index(attention, parameter.value.shape()[0]));
        }
    }
    let names = parameters.statistics_names().iter();
    for (name, statistics) in names.zip(parameters.all_statistics()) {
        for (what, values) in [
            ("running_mean", &statistics.mean),
            ("running_var", &statistics.variance),
        ] {
            entries.push(floats(
                format!("{name}.{what}"),
                vec![values.len()],
                values.data(),
            ));
        }
        entries.push(Entry {
            name: format!("{name}.num_batches_tracked"),
            shape: Vec::new(),
            storage: "LongStorage",
            bytes: vec![0; 8],
            length: 1,
        });
    }
    for encoder in ["grd_efficientnet", "sat_efficientnet"] {
        let published = format!("{encoder}._conv_head.weight");
        if !parameters.all().iter().any(|p| p.name == published) {
            continue;
        }
        for (what, shape) in CLASSIFIER {
            let zeros = vec![0.0; shape.iter().product()];
            entries.push(floats(
                format!("{encoder}._fc.{what}"),
                shape.to_vec(),
                &zeros,
            ));
        }
    }
    entries
}

/// The row of a table of `rows` = (2 side − 1)² biases that each pair of tokens of a window takes.
fn bias_index(attention: &str, rows: usize) -> Entry {
    let side = rows.isqrt().div_ceil(2);
    let tokens = side * side;
    let mut bytes = Vec::with_capacity(8 * tokens * tokens);
    for p in 0..tokens {
        for q in 0..tokens {
            let along = |p: usize, q: usize| p + side - 1 - q;
            let row = along(p / side, q / side) * (2 * side - 1) + along(p % side, q % side);
            bytes.extend((row as i64).to_le_bytes());
        }
    }
    Entry {
        name: format!("{attention}relative_position_index"),
        shape: vec![tokens, tokens],
        storage: "LongStorage",
        bytes,
        length: tokens * tokens,
    }
}

/// The pickle program that names the tensors (protocol 2).
fn program(entries: &[Entry]) -> Vec<u8> {
    let mut program = b"\x80\x02ccollections\nOrderedDict\n)R(".to_vec();
    for (key, entry) in entries.iter().enumerate() {
        text(&mut program, &entry.name);
        program.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut program, "storage");
        program.extend(b"ctorch\n");
        program.extend(entry.storage.as_bytes());
        program.push(b'\n');
        text(&mut program, &key.to_string());
        text(&mut program, "cpu");
        integer(&mut program, entry.length);
        program.extend(b"tQ");
        integer(&mut program, 0);
        let mut strides = vec![1; entry.shape.len()];
        for axis in (1..entry.shape.len()).rev() {
            strides[axis - 1] = strides[axis] * entry.shape[axis];
        }
        for list in [&entry.shape, &strides] {
            program.push(b'(');
            list.iter().for_each(|value| integer(&mut program, *value));
            program.push(b't');
        }
        // No gradient, no hooks.
        program.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    program.extend(b"u.");
    program
}

fn text(program: &mut Vec<u8>, text: &str) {
    program.push(b'X');
    program.extend((text.len() as u32).to_le_bytes());
    program.extend(text.as_bytes());
}

fn integer(program: &mut Vec<u8>, value: usize) {
    // Nine bytes, so that the sign bit is clear whatever the value.
    program.extend([0x8a, 9]);
    program.extend((value as u64).to_le_bytes());
    program.push(0);
}
