//! What `PyTorch` writes is read; what is hostile or damaged is refused without a panic.

use super::pickle::{self, Value};
use super::*;
use crate::model::spec::{BlockKind, BlockSpec};
use crate::model::{Ccvpe, preset};
use proptest::prelude::*;
use std::io::Write;

const STATE: &[u8] = include_bytes!("samples/state.pt");
const LEGACY: &[u8] = include_bytes!("samples/state_legacy.pt");
const MODULE: &[u8] = include_bytes!("samples/module.pt");
/// With optimiser, scheduler, NumPy scalars, `torch.Size`, a device, a type, an `argparse.Namespace`.
const TRAINING: &[u8] = include_bytes!("samples/training.pt");
/// A network and its moving average.
const SWA: &[u8] = include_bytes!("samples/swa.pt");
const SAFETENSORS: &[u8] = include_bytes!("samples/state.safetensors");
const HOSTILE: &[u8] = include_bytes!("samples/hostile.pt");

/// All tensors of a checkpoint that is these bytes.
fn read_bytes(bytes: &[u8]) -> Result<BTreeMap<String, (Vec<usize>, Vec<f32>)>, Problem> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let mut checkpoint = Checkpoint::open(file.path())?;
    checkpoint.choose(|name| name == "plain" || name == "0.weight", None)?;
    let shapes = checkpoint.shapes();
    let numbers = checkpoint.read(|_| true)?;
    Ok(shapes
        .into_iter()
        .map(|(name, shape)| {
            let numbers = numbers[&name].clone();
            (name, (shape, numbers))
        })
        .collect())
}

fn problem(bytes: &[u8]) -> String {
    read_bytes(bytes).unwrap_err().to_string()
}

#[test]
fn both_formats_hold_what_pytorch_saved() {
    for bytes in [STATE, LEGACY] {
        let tensors = read_bytes(bytes).unwrap();
        let base: Vec<f32> = (0..24).map(|i| i as f32 / 8.0 - 1.0).collect();
        let expect = |name: &str, shape: &[usize], numbers: &[f32]| {
            assert_eq!(tensors[name], (shape.to_vec(), numbers.to_vec()), "{name}");
        };
        expect("plain", &[2, 3, 4], &base);
        expect("shared", &[6], &base[4..10]);
        let transposed: Vec<f32> = (0..24).map(|i| base[i % 4 * 6 + i / 4]).collect();
        expect("transposed", &[6, 4], &transposed);
        expect("double", &[2], &[0.1, -2.5]);
        expect("half", &[4], &[0.5, -1.25, 2.0f32.powi(-24), f32::INFINITY]);
        expect("bfloat", &[2], &[1.0, -3.0]);
        expect("count", &[], &[7.0]);
        expect("flags", &[2], &[1.0, 0.0]);
        expect("parameter", &[2], &[1.0, 1.0]);
        expect("empty", &[0, 3], &[]);
        assert_eq!(tensors.len(), 10);
    }
}

#[test]
fn a_data_parallel_state_dict_loses_its_prefix() {
    let tensors = read_bytes(MODULE).unwrap();
    assert_eq!(tensors["0.weight"].0, [2, 1, 1, 1]);
    assert_eq!(tensors["1.running_var"].1, [1.0, 1.0]);
    assert_eq!(tensors.len(), 7);
}

#[test]
fn a_command_in_a_checkpoint_is_refused_by_name() {
    let message = problem(HOSTILE);
    assert!(message.contains("posix.system"), "{message}");
    assert!(!Path::new("/tmp/this-was-run").exists());
}

/// The published tensors of the samples' small network.
fn wanted_small() -> BTreeMap<String, Vec<usize>> {
    let of = |name: &str, shape: &[usize]| (name.to_owned(), shape.to_vec());
    BTreeMap::from([
        of("0.weight", &[2, 1, 1, 1]),
        of("0.bias", &[2]),
        of("1.weight", &[2]),
        of("1.bias", &[2]),
        of("1.running_mean", &[2]),
        of("1.running_var", &[2]),
    ])
}

fn imported(bytes: &[u8], key: Option<&str>) -> Result<Imported, String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let unused = |name: &str| name.ends_with("num_batches_tracked");
    read(file.path(), &wanted_small(), unused, key).map_err(|error| error.to_string())
}

#[test]
fn a_training_checkpoint_gives_its_network_and_names_the_rest() {
    let found = imported(TRAINING, None).unwrap();
    assert_eq!(found.tensors.len(), 6);
    assert_eq!(found.unused, 1);
    let strange = found.strange.join(" ");
    for name in ["extra_head.weight", "optimizer.state.0.exp_avg"] {
        assert!(strange.contains(name), "{strange}");
    }
    let plain = imported(SAFETENSORS, None).unwrap();
    assert_eq!((plain.format, plain.unused), ("safetensors", 1));
    assert!(plain.strange.is_empty());
    assert_eq!(plain.tensors, found.tensors);
}

#[test]
fn of_two_copies_one_must_be_named() {
    let message = imported(SWA, None).unwrap_err();
    assert!(message.contains("model, model_ema.module"), "{message}");
    assert!(message.contains("--key"), "{message}");
    for key in ["model", "model_ema", "model_ema.module"] {
        let found = imported(SWA, Some(key)).unwrap();
        assert_eq!(found.tensors.len(), 6, "{key}");
    }
    let message = imported(SWA, Some("ema")).unwrap_err();
    assert!(message.contains("there are model, model_ema"), "{message}");
}

/// A zip checkpoint around a pickle.
fn zipped(program: &[u8]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in [("a/data.pkl", program), ("a/data/0", &[0; 16])] {
        zip.start_file(name, stored).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// `{"x": tensor}` with these raw size, offset, shape and stride instructions.
fn one_tensor(length: &[u8], offset: &[u8], shape: &[u8], stride: &[u8]) -> Vec<u8> {
    let parts: [&[u8]; 9] = [
        b"\x80\x02}U\x01xctorch._utils\n_rebuild_tensor_v2\n((",
        b"U\x07storagectorch\nFloatStorage\nU\x010U\x03cpu",
        length,
        b"tQ",
        offset,
        shape,
        stride,
        b"\x89NtR",
        b"s.",
    ];
    parts.concat()
}

#[test]
fn tensors_stay_inside_their_storages() {
    let good = one_tensor(b"K\x04", b"K\x00", b"K\x04\x85", b"K\x01\x85");
    assert_eq!(read_bytes(&zipped(&good)).unwrap()["x"].0, [4]);
    let huge = b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f".as_slice();
    let (four, zero) = (b"K\x04".as_slice(), b"K\x00".as_slice());
    let huge_axis = [huge, b"\x85"].concat();
    let huge_axes = [huge, huge, b"\x86"].concat();
    let cases: [[&[u8]; 4]; 8] = [
        [four, b"K\x01", b"K\x04\x85", b"K\x01\x85"], // one beyond
        [four, zero, b"K\x05\x85", b"K\x01\x85"],
        [four, zero, b"K\x04\x85", b"K\x02\x85"],
        [huge, zero, b"K\x04\x85", b"K\x01\x85"],
        [four, huge, b"K\x01\x85", b"K\x01\x85"],
        [four, zero, &huge_axis, b"K\x00\x85"], // stride 0: a small storage, endless views
        [four, zero, &huge_axes, b"K\x00K\x00\x86"],
        [four, b"J\xff\xff\xff\xff", b"K\x01\x85", b"K\x01\x85"], // negative
    ];
    for [length, offset, shape, stride] in cases {
        let program = one_tensor(length, offset, shape, stride);
        assert!(read_bytes(&zipped(&program)).is_err(), "{program:?}");
    }
    // The storage is shorter than it says.
    let longer = one_tensor(b"K\x08", b"K\x00", b"K\x08\x85", b"K\x01\x85");
    assert!(problem(&zipped(&longer)).contains("32 bytes"));
}

#[test]
fn names_and_instructions_beyond_the_few_are_refused() {
    for (program, what) in [
        (b"\x80\x02cbuiltins\neval\n.".as_slice(), "builtins.eval"),
        (b"\x80\x02ctorch\nload\n.", "torch.load"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "os.system"),
        (b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.", "call"),
        (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "0x81"),
        (b"\x80\x02ios\nsystem\n.", "0x69"),
        (b"\x80\x02\x82\x01.", "0x82"),
        (b"\x80\x02K\x01K\x02b.", "attributes"),
        (b"\x80\x01.", "protocol 1"),
        (b"\x80\x02\x8a\x40", "early"),
        (b"\x80\x02h\x05.", "remembered"),
        (b"\x80\x02U\x05urnK\x01Q.", ""),
        (b"\x80\x02K\x01Q.", "persistent"),
        (b"\x80\x02t.", "mark"),
        (b"\x80\x02\x87.", "empty"),
        (b"\x80\x02K\x07.", "not a dict"),
        (b"", "early"),
    ] {
        let message = problem(&zipped(program));
        assert!(message.contains(what), "{what}: {message}");
    }
}

#[test]
fn a_dict_inside_itself_and_dicts_that_multiply_end() {
    // d = {}; d["x"] = d
    let circle = b"\x80\x02}q\x00U\x01xh\x00s.";
    assert!(problem(&zipped(circle)).contains("deep"));
    // Each dict holds the one before twenty times: 20^6 paths out of 300 bytes.
    let mut program = b"\x80\x02}q\x00".to_vec();
    for level in 1..8u8 {
        program.extend([b'}', b'q', level, b'(']);
        for key in 0..20u8 {
            program.extend([b'K', key, b'h', level - 1]);
        }
        program.push(b'u');
    }
    program.push(b'.');
    assert!(problem(&zipped(&program)).contains("too many"));
}

#[test]
fn other_files_are_named_for_what_they_are_not() {
    assert!(problem(b"").contains("neither"));
    assert!(problem(b"GIF89a").contains("neither"));
    assert!(problem(b"\x80\x02K\x01.").contains("not of PyTorch's"));
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("readme.txt", stored).unwrap();
    assert!(problem(&zip.finish().unwrap().into_inner()).contains("data.pkl"));
}

#[test]
fn python_integers_are_read_with_their_sign() {
    for (bytes, expected) in [
        (b"\x8a\x00.".as_slice(), 0),
        (b"\x8a\x01\xff.", -1),
        (b"\x8a\x02\xff\x00.", 255),
        (b"J\xfe\xff\xff\xff.", -2),
    ] {
        let loaded = pickle::load(bytes).unwrap();
        assert_eq!(*loaded.heap.get(loaded.root), Value::Int(expected));
    }
}

/// A network with every kind of published tensor, small.
fn small() -> Ccvpe {
    let mut spec = preset("compact").unwrap();
    spec.encoder.stem = Some(4);
    spec.encoder.head = Some(24);
    let block = |expand, stride, channels| BlockSpec {
        kind: BlockKind::MbConv { expand },
        kernel: 3,
        stride,
        channels,
    };
    spec.encoder.blocks = vec![
        block(1, 1, 6),
        block(2, 2, 8),
        block(2, 2, 12),
        block(2, 2, 16),
    ];
    for steps in [&mut spec.location, &mut spec.orientation] {
        steps.iter_mut().for_each(|step| step.skip = None);
    }
    Ccvpe::new(spec, 5).unwrap()
}

#[test]
fn what_is_written_for_pytorch_is_imported_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pt");
    let model = small();
    write::write_state_dict(&path, &model).unwrap();
    let mut again = Ccvpe::new(model.spec().clone(), 6).unwrap();
    let imported = fill(&mut again, &path, None).unwrap();
    assert_eq!(weights::arrays_of(&again), weights::arrays_of(&model));
    assert_eq!(imported.format, "zip");
    // One counter for each batch norm, two classifiers of two tensors.
    assert_eq!(
        imported.unused,
        model.parameters().all_statistics().len() + 4
    );
}

#[test]
fn a_ggcvt_network_goes_to_pytorch_and_back_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pt");
    let spec = named("ggcvt-compact").unwrap();
    let model = spec.build(5).unwrap();
    write::write_state_dict(&path, model.as_ref()).unwrap();
    let mut again = spec.build(6).unwrap();
    let imported = fill(again.as_mut(), &path, None).unwrap();
    assert_eq!(
        weights::arrays_of(again.as_ref()),
        weights::arrays_of(model.as_ref())
    );
    // Where each pair of tokens finds its bias, for both repetitions.
    assert_eq!(imported.unused, 2);
}

#[test]
fn missing_extra_and_misshapen_tensors_are_listed_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pt");
    write::write_state_dict(&path, &small()).unwrap();
    let mut spec = small().spec().clone();
    spec.encoder
        .blocks
        .push(*spec.encoder.blocks.last().unwrap());
    spec.encoder.blocks[4].stride = 1;
    spec.levels[2].ground_channels = 1;
    let mut other = Ccvpe::new(spec, 0).unwrap();
    other.parameters_mut().all_mut()[0].name = "renamed".into();
    let message = format!("{:#}", fill(&mut other, &path, None).unwrap_err());
    for what in [
        "_blocks.4._expand_conv.weight",
        "renamed",
        "grd_efficientnet._conv_stem.weight",
        "grd_feature_to_descriptor3.0.weight ([2, 24, 1, 1], [1, 24, 1, 1] needed)",
        "and 9 more",
    ] {
        assert!(message.contains(what), "{what} not in {message}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn damaged_checkpoints_are_refused_without_panic(
        which in 0usize..7, cut in 0usize..6000, at in 0usize..6000, bits: u8, more in any::<[u8; 8]>(),
    ) {
        let mut bytes = [STATE, LEGACY, MODULE, HOSTILE, TRAINING, SWA, SAFETENSORS][which].to_vec();
        let place = at % bytes.len();
        bytes[place] ^= bits;
        let end = (place + 8).min(bytes.len());
        if bits & 1 == 0 {
            bytes[place..end].copy_from_slice(&more[..end - place]);
        }
        let _ = read_bytes(&bytes);
        bytes.truncate(bytes.len() - cut % bytes.len());
        let _ = read_bytes(&bytes);
    }

    #[test]
    fn any_pickle_ends_without_panic(
        program in proptest::collection::vec(
            prop_oneof![
                Just(b'('), Just(b')'), Just(b'}'), Just(b']'), Just(b't'), Just(b'u'), Just(b's'),
                Just(b'e'), Just(b'a'), Just(b'q'), Just(b'h'), Just(b'K'), Just(b'R'), Just(b'Q'),
                Just(0x85), Just(0x87), Just(0x94), Just(b'b'), Just(b'0'), any::<u8>(),
            ],
            0..200,
        ),
    ) {
        let _ = pickle::load(&program);
        let whole = [b"\x80\x02}".as_slice(), &program, b"."].concat();
        let _ = read_bytes(&zipped(&whole));
    }
}

#[test]
fn a_checkpoint_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = folder.path().join("published.safetensors");
    std::fs::write(&checkpoint, SAFETENSORS).unwrap();
    let args = ImportArgs {
        preset: "compact".into(),
        checkpoint: checkpoint.clone(),
        out: None,
        key: None,
        licence: None,
    };
    let message = run(&args).unwrap_err().to_string();
    assert!(message.contains("the checkpoint itself"), "{message}");
    assert_eq!(std::fs::read(&checkpoint).unwrap(), SAFETENSORS);
}
