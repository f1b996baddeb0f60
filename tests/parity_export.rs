//! The published networks as ONNX: tract, whole and through the daemon's matcher, answers what the
//! training engine answers.

use anyhow::{Context, Result};
use crossfix_kernels::Tape;
use crossfix_offline::export::{noise_input, verify_export};
use crossfix_offline::model::{CrossViewModel, Extent, ForwardOptions, NetworkSpec, named};
use crossfix_tests::golden::Generator;
use crossfix_tests::published::{Exported, ccvpe_by_formula, export, narrow, narrow_network};

/// Largest difference of an output, relative to its largest value; of an angle, in radians.
const TOLERANCE: f64 = 1e-4;

const NAMES: [&str; 10] = [
    "ccvpe-vigor",
    "ccvpe-vigor-prior72",
    "ccvpe-vigor-prior0",
    "ccvpe-vigor-reflect",
    "ccvpe-vigor-fov180",
    "ccvpe-vigor-fov90-prior36-reflect",
    "ccvpe-kitti",
    "ggcvt-vigor",
    "ggcvt-kitti2",
    "ggcvt-kitti3",
];

/// Holds the heatmap, the orientation's vectors, its direction at the heatmap's mode and what the daemon
/// reads to the bound. Not every direction: where a vector is all but zero, it turns with the last bit.
fn assert_same(name: &str, exported: &Exported) {
    println!("{name}: {exported:?}");
    let found = &exported.found;
    let driven = exported.driven.iter();
    let differences = [
        found.max_relative_error_heatmap,
        found.max_error_orientation_at_mode,
    ]
    .into_iter()
    .chain(found.max_relative_error_orientation_vectors)
    .chain(driven.flat_map(|driven| [driven.difference, driven.yaw_difference_rad]));
    for difference in differences {
        assert!(difference <= TOLERANCE, "{name}: {exported:?}");
    }
    // The daemon refuses pinhole pictures that it would have to be given a camera matrix for.
    assert_eq!(exported.driven.is_none(), name.starts_with("ggcvt-kitti"));
}

#[test]
fn narrow_published_networks_drive_with_what_training_knows() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for name in NAMES {
        let spec = narrow_network(name)?;
        let generator = Generator::new("export");
        // Two fifths of the patch.
        let window_m = match &spec {
            NetworkSpec::Ccvpe(spec) => Some(0.4 * spec.aerial_px as f64 * spec.metres_per_pixel),
            NetworkSpec::Ggcvt(_) => None,
        };
        let found = export(&spec, &generator, name, folder.path(), 3, window_m)?;
        assert_same(name, &found);
        assert_eq!(found.windowed.is_some(), window_m.is_some());
        if let Some(windowed) = found.windowed {
            assert!(windowed.difference <= TOLERANCE, "{name}: {windowed:?}");
            assert_eq!(windowed.same_mode, windowed.frames, "{name}: {windowed:?}");
        }
    }
    Ok(())
}

/// A limited field of view is published with its left edge in the south, and driven wherever the
/// vehicle heads.
#[test]
fn a_left_bin_of_zero_is_the_published_network() -> Result<()> {
    let generator = Generator::new("left bin");
    for name in ["ccvpe-vigor-fov90", "ccvpe-kitti"] {
        let published = ccvpe_by_formula(narrow(name)?, &generator, |_, _| {})?;
        let driven = published.clone().with_left_bin();
        let mut input = noise_input(driven.describe(), 1, 2)?;
        let mut answers = Vec::new();
        for (mut model, bins) in [
            (published, vec![]),
            (driven.clone(), vec![0]),
            (driven, vec![3]),
        ] {
            input.ground_left_bin = bins;
            let options = ForwardOptions::evaluation(Extent::Everything);
            let found = model.forward(&mut Tape::inference(), &input, options)?;
            let logits = found.logits.context("logits")?.data().to_vec();
            let orientation = found.orientation.context("orientation")?.data().to_vec();
            answers.push((logits, orientation));
        }
        assert_eq!(answers[0], answers[1], "{name}");
        // All bins are searched, so only the orientation tells on which one the image begins.
        assert_ne!(answers[0].1, answers[2].1, "{name}");
    }
    Ok(())
}

/// Oxford's bins run the other way round, which the daemon's strips do not know: its file is valid
/// and exact, and the matcher says why it does not drive with it.
#[test]
fn oxford_is_exported_and_not_driven() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let generator = Generator::new("oxford");
    let model = ccvpe_by_formula(narrow("ccvpe-oxford")?, &generator, |_, _| {})?;
    let oxford = NetworkSpec::Ccvpe(model.spec().clone());
    let error = export(&oxford, &generator, "oxford", folder.path(), 1, None).unwrap_err();
    assert!(
        format!("{error:#}").contains("orientation_bins"),
        "{error:#}"
    );
    let file = folder.path().join("oxford.onnx");
    let found = verify_export(&model, &file, &noise_input(model.describe(), 1, 5)?)?;
    let vectors = found.max_relative_error_orientation_vectors;
    let worst = [
        found.max_relative_error_heatmap,
        found.max_error_orientation_at_mode,
        vectors.context("an orientation")?,
    ];
    assert!(
        worst.iter().all(|difference| *difference <= TOLERANCE),
        "{found:?}"
    );
    Ok(())
}

/// `--ignored` and several GB; prints the figures of `docs/published_networks.md`.
#[test]
#[ignore = "ten networks of published size, several GB; tests/run --full runs them"]
fn published_networks_drive_with_what_training_knows() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for name in NAMES {
        let spec = named(name).context("a preset")?;
        let found = export(
            &spec,
            &Generator::new("export"),
            name,
            folder.path(),
            2,
            None,
        )?;
        assert_same(name, &found);
    }
    Ok(())
}
