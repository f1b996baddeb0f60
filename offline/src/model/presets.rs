//! The networks we name.

use super::spec::{
    BlockKind, BlockSpec, CcvpeSpec, EncoderSpec, LevelSpec, Padding, StepSpec, Window,
};

/// Names that [`preset`] knows; `<N>` stands for degrees.
pub const PRESETS: &[&str] = &[
    "compact",
    "compact-unknown-heading",
    "compact-prior<N>",
    "compact-front",
    "compact-small",
    "ccvpe-vigor",
    "ccvpe-vigor-prior<N>",
    "ccvpe-vigor-fov<N>",
    "ccvpe-kitti",
    "ccvpe-oxford",
];

/// The table of a named network.
///
/// `compact-unknown-heading` searches all headings, `compact-prior<N>` N degrees on each side of the given
/// one (rounded down to whole bins); both have the tensors of `compact`.
///
/// The published networks take options behind their names: `-prior<N>` searches N degrees on each
/// side of the given heading (VIGOR; rounded down to whole bins), `-fov<N>` sees the first N
/// degrees of the panorama (VIGOR; a multiple of 18), and `-reflect` mirrors the borders in the
/// aerial encoder and the decoders, as the teachers of the adaptation paper do. Example:
/// `ccvpe-vigor-fov180-prior72-reflect`.
pub fn preset(name: &str) -> Option<CcvpeSpec> {
    match name {
        "compact" => return Some(compact()),
        "compact-front" => {
            return Some(CcvpeSpec {
                preset: name.into(),
                ground_columns: 96,
                ground_wraps: false,
                ground_left_bin: true,
                ..compact()
            });
        }
        "compact-small" => return Some(compact_small()),
        "compact-unknown-heading" => {
            return Some(CcvpeSpec {
                preset: name.into(),
                orientation_prior: None,
                ..compact()
            });
        }
        _ => {}
    }
    if let Some(degrees) = name.strip_prefix("compact-prior") {
        let spec = compact();
        let degrees: usize = degrees.parse().ok().filter(|degrees| *degrees <= 180)?;
        return Some(CcvpeSpec {
            preset: name.into(),
            orientation_prior: Some(degrees * spec.orientation_bins / 360),
            ..spec
        });
    }
    let mut options = name.strip_prefix("ccvpe-")?.split('-');
    let mut spec = match options.next()? {
        "vigor" => vigor(),
        "kitti" => kitti(),
        "oxford" => oxford(),
        _ => return None,
    };
    let panorama = spec.ground_wraps;
    for option in options {
        if option == "reflect" {
            spec.padding = Padding::Reflect;
        } else if let (true, Some(degrees)) = (panorama, option.strip_prefix("prior")) {
            let degrees: usize = degrees.parse().ok().filter(|degrees| *degrees <= 180)?;
            spec.orientation_prior = Some(degrees * spec.orientation_bins / 360);
        } else if let (true, Some(degrees)) = (panorama, option.strip_prefix("fov")) {
            let degrees: usize = degrees.parse().ok()?;
            if degrees == 0 || degrees >= 360 || !degrees.is_multiple_of(18) {
                return None;
            }
            spec.ground_columns = spec.ground_columns * degrees / 360;
            spec.ground_wraps = false;
        } else {
            return None;
        }
    }
    spec.preset = name.into();
    Some(spec)
}

const fn level(grid: usize, ground: usize, aerial: usize, shift: usize) -> LevelSpec {
    LevelSpec {
        grid,
        ground_channels: ground,
        aerial_channels: aerial,
        shift,
    }
}

const fn step(up: usize, skip: Option<usize>, hidden: usize, out: usize) -> StepSpec {
    StepSpec {
        up,
        skip,
        hidden,
        out,
    }
}

/// Small enough to train on two CPU cores: 64 m of aerial image at 0.5 m, a panorama of
/// 48 × 256, 16 bins of 22.5°, a heatmap of 1 m cells. The heading is known to about ±10°; the
/// orientation field refines it.
fn compact() -> CcvpeSpec {
    let conv = |stride, channels| BlockSpec {
        kind: BlockKind::Conv,
        kernel: 3,
        stride,
        channels,
    };
    CcvpeSpec {
        preset: "compact".into(),
        ground_rows: 48,
        ground_columns: 256,
        aerial_px: 128,
        metres_per_pixel: 0.5,
        ground_wraps: true,
        padding: Padding::Zero,
        encoder: EncoderSpec {
            stem: None,
            blocks: vec![
                conv(2, 12),
                conv(2, 24),
                conv(1, 24),
                conv(2, 40),
                conv(1, 40),
                conv(2, 80),
                conv(1, 80),
            ],
            head: None,
            epsilon: 1e-3,
        },
        orientation_bins: 16,
        orientation_prior: Some(0),
        ground_left_bin: false,
        window: Window::First,
        bins_run_with_angle: false,
        descriptor_cell: 1,
        levels: vec![
            level(8, 8, 128, 8),
            level(16, 4, 64, 4),
            level(32, 2, 32, 2),
        ],
        location: vec![
            step(40, Some(4), 32, 64),
            step(24, Some(2), 16, 32),
            step(12, Some(0), 8, 1),
        ],
        orientation: vec![
            step(24, Some(4), 16, 32),
            step(12, Some(2), 8, 16),
            step(8, Some(0), 8, 2),
        ],
    }
}

/// The images, bins and maps of [`compact`] with about half of its channels everywhere: a student for slower
/// computers.
fn compact_small() -> CcvpeSpec {
    let conv = |stride, channels| BlockSpec {
        kind: BlockKind::Conv,
        kernel: 3,
        stride,
        channels,
    };
    CcvpeSpec {
        preset: "compact-small".into(),
        encoder: EncoderSpec {
            stem: None,
            blocks: vec![
                conv(2, 8),
                conv(2, 12),
                conv(1, 12),
                conv(2, 20),
                conv(1, 20),
                conv(2, 40),
                conv(1, 40),
            ],
            head: None,
            epsilon: 1e-3,
        },
        levels: vec![level(8, 4, 64, 4), level(16, 2, 32, 2), level(32, 1, 16, 1)],
        location: vec![
            step(20, Some(4), 16, 32),
            step(12, Some(2), 8, 16),
            step(8, Some(0), 8, 1),
        ],
        orientation: vec![
            step(12, Some(4), 8, 16),
            step(8, Some(2), 8, 8),
            step(8, Some(0), 8, 2),
        ],
        ..compact()
    }
}

/// EfficientNet-B0 (width and depth 1.0), as both published encoders.
fn efficientnet_b0() -> EncoderSpec {
    // (expand, kernel, stride, channels, repeats)
    let stages = [
        (1, 3, 1, 16, 1),
        (6, 3, 2, 24, 2),
        (6, 5, 2, 40, 2),
        (6, 3, 2, 80, 3),
        (6, 5, 1, 112, 3),
        (6, 5, 2, 192, 4),
        (6, 3, 1, 320, 1),
    ];
    let mut blocks = Vec::new();
    for (expand, kernel, stride, channels, repeats) in stages {
        for repeat in 0..repeats {
            blocks.push(BlockSpec {
                kind: BlockKind::MbConv { expand },
                kernel,
                stride: if repeat == 0 { stride } else { 1 },
                channels,
            });
        }
    }
    EncoderSpec {
        stem: Some(32),
        blocks,
        head: Some(1280),
        epsilon: 1e-3,
    }
}

/// The published VIGOR network, panorama of 360°, unknown orientation.
fn vigor() -> CcvpeSpec {
    CcvpeSpec {
        preset: "ccvpe-vigor".into(),
        ground_rows: 320,
        ground_columns: 640,
        aerial_px: 512,
        metres_per_pixel: 0.140_184, // mean of the four cities at 640 pixels, times 640/512
        ground_wraps: true,
        padding: Padding::Zero,
        encoder: efficientnet_b0(),
        orientation_bins: 20,
        orientation_prior: None,
        ground_left_bin: false,
        window: Window::First,
        bins_run_with_angle: false,
        descriptor_cell: 2,
        levels: vec![
            level(8, 64, 1280, 64),
            level(16, 32, 640, 32),
            level(32, 16, 320, 16),
            level(64, 8, 160, 8),
            level(128, 4, 80, 4),
            level(256, 2, 40, 2),
        ],
        location: vec![
            step(1024, Some(15), 640, 640),
            step(320, Some(10), 320, 320),
            step(160, Some(4), 160, 160),
            step(80, Some(2), 80, 80),
            step(40, Some(0), 40, 40),
            step(16, None, 16, 1),
        ],
        orientation: vec![
            step(1024, Some(15), 640, 640),
            step(256, Some(10), 256, 256),
            step(128, Some(4), 128, 128),
            step(64, Some(2), 64, 64),
            step(32, Some(0), 32, 32),
            step(16, None, 16, 2),
        ],
    }
}

/// The published KITTI network. Its shift table is irregular: four of its six levels make more than one turn.
fn kitti() -> CcvpeSpec {
    CcvpeSpec {
        preset: "ccvpe-kitti".into(),
        ground_rows: 256,
        ground_columns: 1024,
        metres_per_pixel: 0.195_828_508_652_998_33,
        ground_wraps: false,
        orientation_bins: 16,
        levels: vec![
            level(8, 16, 2048, 128),
            level(16, 8, 512, 64),
            level(32, 4, 256, 32),
            level(64, 2, 128, 16),
            level(128, 1, 128, 8),
            level(256, 1, 32, 8),
        ],
        location: vec![
            step(1024, Some(15), 512, 512),
            step(256, Some(10), 256, 256),
            step(128, Some(4), 128, 128),
            step(64, Some(2), 128, 128),
            step(32, Some(0), 32, 32),
            step(16, None, 16, 1),
        ],
        orientation: vec![
            step(1024, Some(15), 512, 512),
            step(256, Some(10), 256, 256),
            step(128, Some(4), 128, 128),
            step(64, Some(2), 64, 64),
            step(32, Some(0), 32, 32),
            step(16, None, 16, 2),
        ],
        ..vigor()
    }
}

/// The published Oxford `RobotCar` network: an image whose sides are no multiples of the stride,
/// a window in the middle of the rolled channels, bins that run with the (clockwise) angle.
fn oxford() -> CcvpeSpec {
    CcvpeSpec {
        preset: "ccvpe-oxford".into(),
        ground_rows: 154,
        ground_columns: 231,
        metres_per_pixel: 0.092_403_514_623_616_2 * 800.0 / 512.0,
        ground_wraps: false,
        window: Window::Centre,
        bins_run_with_angle: true,
        levels: vec![
            level(8, 32, 1280, 64),
            level(16, 16, 640, 32),
            level(32, 8, 320, 16),
            level(64, 4, 160, 8),
            level(128, 2, 80, 4),
            level(256, 1, 40, 2),
        ],
        ..vigor()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_can_be_built() {
        let names = PRESETS.iter().map(|name| name.replace("<N>", "90"));
        let more = [
            "ccvpe-vigor-prior0",
            "ccvpe-vigor-prior180",
            "ccvpe-vigor-fov180-prior72-reflect",
            "ccvpe-kitti-reflect",
            "compact-prior180",
        ];
        for name in names.chain(more.map(String::from)) {
            let spec = preset(&name).unwrap();
            assert_eq!(spec.problems(), Vec::<String>::new(), "{name}");
            assert_eq!(spec.preset, name);
        }
    }

    #[test]
    fn options_mean_what_they_say() {
        let spec = preset("ccvpe-vigor-fov180-prior71-reflect").unwrap();
        assert_eq!(spec.ground_columns, 320);
        assert_eq!(spec.orientation_prior, Some(3));
        assert_eq!(spec.padding, Padding::Reflect);
        assert!(!spec.ground_wraps);
        for name in [
            "ccvpe",
            "ccvpe-paris",
            "ccvpe-vigor-fov100",
            "ccvpe-vigor-fov360",
            "ccvpe-vigor-prior181",
            "compact-prior181",
            "compact-prior",
            "ccvpe-kitti-fov90",
            "ccvpe-vigor-",
        ] {
            assert!(preset(name).is_none(), "{name}");
        }
    }

    #[test]
    fn descriptor_lengths_are_the_published_ones() {
        let lengths = |name| -> Vec<usize> {
            let spec = preset(name).unwrap();
            let columns = spec.ground_feature_columns();
            let levels = spec.levels.iter();
            levels
                .map(|level| columns * level.ground_channels)
                .collect()
        };
        assert_eq!(lengths("ccvpe-vigor"), [1280, 640, 320, 160, 80, 40]);
        assert_eq!(lengths("ccvpe-vigor-fov180"), [640, 320, 160, 80, 40, 20]);
        assert_eq!(lengths("ccvpe-kitti"), [512, 256, 128, 64, 32, 32]);
        assert_eq!(lengths("ccvpe-oxford"), [224, 112, 56, 28, 14, 7]);
    }

    #[test]
    fn oxford_features_and_windows_are_the_published_ones() {
        let spec = preset("ccvpe-oxford").unwrap();
        let features = [spec.ground_feature_rows(), spec.ground_feature_columns()];
        assert_eq!(features, [4, 7]);
        // trunc(C/2 - n/2)
        assert_eq!(spec.window_offset(0), 528);
        assert_eq!(spec.window_offset(5), 16);
    }

    #[test]
    fn compact_heatmap_has_one_metre_cells() {
        let spec = preset("compact").unwrap();
        assert_eq!(spec.heatmap_side(), 64);
        assert!((spec.metres_per_cell() - 1.0).abs() < 1e-12);
        assert_eq!(spec.ground_feature_columns(), spec.orientation_bins);
    }
}
