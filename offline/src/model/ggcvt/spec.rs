//! The table that describes a GGCVT network.

use super::super::{GroundCamera, LevelMap, MapSpec, ModelSpec, NetworkKind};
use serde::{Deserialize, Serialize};

/// Names that [`preset`] knows.
pub const PRESETS: &[&str] = &[
    "ggcvt-vigor",
    "ggcvt-kitti3",
    "ggcvt-kitti2",
    "ggcvt-compact",
];

/// Everything that fixes a network but its numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GgcvtSpec {
    /// The name it was made by.
    pub preset: String,
    /// Rows of the ground image, a multiple of 8.
    pub ground_rows: usize,
    /// Columns of the ground image, a multiple of 8.
    pub ground_columns: usize,
    /// Side of the aerial image, a multiple of 8 window sides.
    pub aerial_px: usize,
    /// Channels of the features at half, a quarter and an eighth of the side.
    pub widths: [usize; 3],
    /// Whether the layers that the published weights hold and no output uses are there.
    pub unused_layers: bool,
    /// Hidden channels of the uncertainty net.
    pub uncertainty: [usize; 2],
    /// Channels of a token in window attention.
    pub embedding: usize,
    /// Heads of window attention.
    pub heads: usize,
    /// Side of a window in tokens.
    pub window: usize,
    /// Times that window and cross attention are repeated.
    pub repetitions: usize,
    /// Channels of queries, keys and values in cross attention.
    pub cross_width: usize,
    /// Heads of cross attention.
    pub cross_heads: usize,
    /// Side of the template that is matched, in cells, coarsest level first.
    pub templates: [usize; 3],
    /// How the ground camera sees.
    pub camera: GgcvtCamera,
}

/// How the ground camera sees, and what is not known about its heading.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum GgcvtCamera {
    /// A full circle, left edge at south; heading known.
    Panorama {
        /// Above the ground.
        height_m: f64,
        /// Of the aerial images trained on; each sample has its own.
        metres_per_pixel: f64,
        /// From straight up to the upper edge: 0 for an image of the whole sphere.
        top_deg: f64,
        /// From the upper to the lower edge: 180 for an image of the whole sphere.
        span_deg: f64,
    },
    /// A pinhole camera that looks level towards the aerial image's right edge.
    Pinhole {
        /// Above the ground.
        height_m: f64,
        /// Of the aerial image.
        metres_per_pixel: f64,
        /// What a normalised shift of 1 means.
        shift_range_m: f64,
        /// What a normalised heading of 1 means.
        heading_range_deg: f64,
        /// Rounds of the rotation optimiser; 0 where the heading is known.
        iterations: usize,
        /// Whether the two weights between rotation and place are learnt.
        learnt_balance: bool,
    },
}

/// The table of a named network.
pub fn preset(name: &str) -> Option<GgcvtSpec> {
    let kitti = |iterations, heading_range_deg| GgcvtSpec {
        preset: name.into(),
        ground_rows: 256,
        ground_columns: 1024,
        camera: GgcvtCamera::Pinhole {
            height_m: 1.65,
            metres_per_pixel: KITTI_METRES_PER_PIXEL,
            shift_range_m: 20.0,
            heading_range_deg,
            iterations,
            learnt_balance: iterations > 0,
        },
        ..vigor()
    };
    match name {
        "ggcvt-vigor" => Some(vigor()),
        "ggcvt-kitti3" => Some(kitti(2, 10.0)),
        "ggcvt-kitti2" => Some(kitti(0, 0.0)),
        "ggcvt-compact" => Some(compact()),
        _ => None,
    }
}

/// Of KITTI's 512 pixel aerial images at zoom 18.
const KITTI_METRES_PER_PIXEL: f64 = 0.195_828_508_652_998_33;

fn vigor() -> GgcvtSpec {
    GgcvtSpec {
        preset: "ggcvt-vigor".into(),
        ground_rows: 320,
        ground_columns: 640,
        aerial_px: 512,
        widths: [64, 128, 256],
        unused_layers: true,
        uncertainty: [64, 16],
        embedding: 48,
        heads: 3,
        window: 8,
        repetitions: 2,
        cross_width: 64,
        cross_heads: 4,
        templates: [25, 51, 102],
        camera: GgcvtCamera::Panorama {
            height_m: 2.0,
            metres_per_pixel: 0.140_184, // mean of the four cities at 640 pixels, times 640/512
            top_deg: 0.0,
            span_deg: 180.0,
        },
    }
}

/// Small enough to train on two CPU cores: 64 m of aerial image at 0.5 m, a panorama of 48 × 256,
/// cells of 4, 2 and 1 m, places up to 24 m from the middle.
fn compact() -> GgcvtSpec {
    GgcvtSpec {
        preset: "ggcvt-compact".into(),
        ground_rows: 48,
        ground_columns: 256,
        aerial_px: 128,
        widths: [8, 16, 32],
        unused_layers: false,
        uncertainty: [8, 4],
        embedding: 24,
        heads: 3,
        window: 8,
        repetitions: 2,
        cross_width: 32,
        cross_heads: 4,
        templates: [4, 8, 16],
        camera: GgcvtCamera::Panorama {
            height_m: 1.9,
            metres_per_pixel: 0.5,
            // Square pixels from 28° above the horizon, as the strips of the daemon.
            top_deg: 90.0 - 28.0,
            span_deg: 48.0 * 360.0 / 256.0,
        },
    }
}

impl GgcvtSpec {
    /// What those outside see of the network.
    pub fn describe(&self) -> ModelSpec {
        let metres_per_pixel = self.metres_per_pixel();
        let sides = self.sides();
        let map = |level: usize| {
            let cell_px = self.aerial_px as f64 / sides[level] as f64;
            MapSpec {
                side: self.places()[level],
                cell_px,
                metres_per_cell: metres_per_pixel * cell_px,
            }
        };
        let level = |level| LevelMap {
            map: map(level),
            searched: None,
        };
        ModelSpec {
            preset: self.preset.clone(),
            kind: NetworkKind::Ggcvt,
            ground_rows: self.ground_rows,
            ground_columns: self.ground_columns,
            aerial_px: self.aerial_px,
            metres_per_pixel,
            heatmap: map(2),
            levels: [0, 1, 2].map(level).into(),
            camera: match self.camera {
                GgcvtCamera::Panorama { .. } => GroundCamera::Panorama,
                GgcvtCamera::Pinhole {
                    iterations,
                    heading_range_deg,
                    ..
                } => GroundCamera::CalibratedPinhole {
                    finds_heading: iterations > 0,
                    heading_range_deg,
                },
            },
            field_of_view_deg: 360.0,
            // No orientation is searched: the heading is resolved to one column.
            orientation_bins: self.ground_columns,
            columns_per_bin: 1,
            orientation_prior: Some(0),
        }
    }

    /// Ground resolution of the aerial images trained on.
    pub fn metres_per_pixel(&self) -> f64 {
        match self.camera {
            GgcvtCamera::Panorama {
                metres_per_pixel, ..
            }
            | GgcvtCamera::Pinhole {
                metres_per_pixel, ..
            } => metres_per_pixel,
        }
    }

    /// Cells along a side of the feature maps, coarsest first.
    pub fn sides(&self) -> [usize; 3] {
        [8, 4, 2].map(|stride| self.aerial_px / stride)
    }

    /// Channels of the feature maps, coarsest first.
    pub fn channels(&self) -> [usize; 3] {
        let [half, quarter, eighth] = self.widths;
        [eighth, quarter, half]
    }

    /// Places along a side of the distance maps, coarsest first.
    pub fn places(&self) -> [usize; 3] {
        let sides = self.sides();
        [0, 1, 2].map(|level| sides[level] + 1 - self.templates[level])
    }

    /// First row and column of the template in its map, coarsest first.
    pub fn template_corners(&self) -> [usize; 3] {
        let sides = self.sides();
        [0, 1, 2].map(|level| half_to_even(sides[level] - self.templates[level]))
    }

    /// First row and column of the part of the uncertainty map that belongs to the places.
    pub fn uncertainty_corners(&self) -> [usize; 3] {
        let (sides, places) = (self.sides(), self.places());
        [0, 1, 2].map(|level| half_to_even(sides[level] - places[level]))
    }

    /// Everything wrong with the table, in words; empty when a network can be built from it.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |good: bool, problem: String| {
            if !good {
                problems.push(problem);
            }
        };
        let unit = 8 * self.window.clamp(1, 512);
        check(
            (1..=64).contains(&self.window)
                && (1..=4096).contains(&self.aerial_px)
                && self.aerial_px.is_multiple_of(unit),
            format!(
                "an aerial side of {} pixels (a multiple of 8 windows of {})",
                self.aerial_px, self.window
            ),
        );
        check(
            [self.ground_rows, self.ground_columns]
                .iter()
                .all(|side| (8..=8192).contains(side) && side.is_multiple_of(8)),
            "ground sides that are not multiples of 8 up to 8192".into(),
        );
        let widths = [self.widths[0], self.widths[1], self.widths[2]];
        let all = widths.iter().chain(&self.uncertainty);
        let all = all.chain([&self.embedding, &self.cross_width]);
        check(
            all.clone().all(|width| (1..=2048).contains(width)),
            "a layer without channels, or of more than 2048".into(),
        );
        let divides = |heads: usize, width: usize| heads > 0 && width.is_multiple_of(heads);
        check(
            divides(self.heads, self.embedding) && divides(self.cross_heads, self.cross_width),
            "heads that do not divide the channels".into(),
        );
        check(
            (1..=8).contains(&self.repetitions),
            format!("{} repetitions (1 to 8)", self.repetitions),
        );
        for (level, (template, side)) in self.templates.iter().zip(self.sides()).enumerate() {
            check(
                (1..side.max(1)).contains(template),
                format!("level {level}: a template of {template} cells in a map of {side}"),
            );
        }
        problems.extend(self.camera_problems());
        problems
    }

    fn camera_problems(&self) -> Vec<String> {
        let positive =
            |values: &[f64]| values.iter().all(|value| value.is_finite() && *value > 0.0);
        let mut problems = Vec::new();
        let numbers_good = match self.camera {
            GgcvtCamera::Panorama {
                height_m,
                metres_per_pixel,
                top_deg,
                span_deg,
            } => {
                positive(&[height_m, metres_per_pixel, span_deg])
                    && (0.0..=180.0).contains(&top_deg)
                    && top_deg + span_deg <= 180.0 + 1e-9
            }
            GgcvtCamera::Pinhole {
                height_m,
                metres_per_pixel,
                shift_range_m,
                heading_range_deg,
                iterations,
                ..
            } => {
                // The optimiser's tokens are 4 × 4 cells of each level; it sees whole windows.
                let tokens = self.sides().map(|side| side / 4);
                let fits = |side: &usize| *side > 0 && side.is_multiple_of(self.window.max(1));
                if iterations > 0 && !tokens.iter().all(fits) {
                    problems.push(format!(
                        "an optimiser with windows of {} on maps of {tokens:?} tokens; the aerial \
                         side must be a multiple of 32 windows",
                        self.window
                    ));
                }
                if iterations > 64 {
                    problems.push(format!("{iterations} rounds of the optimiser (up to 64)"));
                }
                positive(&[height_m, metres_per_pixel, shift_range_m])
                    && (0.0..=180.0).contains(&heading_range_deg)
                    && (iterations == 0 || heading_range_deg > 0.0)
            }
        };
        if !numbers_good {
            problems.push(format!("a camera that cannot be: {:?}", self.camera));
        }
        problems
    }
}

/// n / 2, halves to the even neighbour.
fn half_to_even(n: usize) -> usize {
    let below = n / 2;
    below + (n % 2) * (below % 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_maps_have_the_published_sizes() {
        for name in &PRESETS[..3] {
            let spec = preset(name).unwrap();
            assert_eq!(spec.sides(), [64, 128, 256]);
            assert_eq!(spec.places(), [40, 78, 155]);
            assert_eq!(spec.template_corners(), [20, 38, 77]);
            assert_eq!(spec.uncertainty_corners(), [12, 25, 50]);
        }
    }

    #[test]
    fn every_preset_can_be_built_and_nonsense_cannot() {
        for name in PRESETS {
            let spec = preset(name).unwrap();
            assert_eq!(spec.preset, *name);
            assert!(spec.problems().is_empty(), "{:?}", spec.problems());
        }
        let broken = GgcvtSpec {
            templates: [64, 51, 102],
            cross_heads: 5,
            ..vigor()
        };
        assert_eq!(broken.problems().len(), 2);
    }

    #[test]
    fn windows_must_fit_the_optimisers_maps() {
        // 480 is a multiple of 8 windows of 4, and 480 / 32 is not one of 4.
        let table = |name: &str| GgcvtSpec {
            aerial_px: 480,
            window: 4,
            ..preset(name).unwrap()
        };
        let problems = table("ggcvt-kitti3").problems();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("[15, 30, 60] tokens"), "{problems:?}");
        // Without rounds of the optimiser, and with a panorama, nothing looks at these maps.
        for name in ["ggcvt-kitti2", "ggcvt-vigor"] {
            assert_eq!(table(name).problems(), Vec::<String>::new());
        }
    }

    #[test]
    fn cameras_that_cannot_be_are_refused() {
        let mut deep = vigor();
        if let GgcvtCamera::Panorama { span_deg, .. } = &mut deep.camera {
            *span_deg = 181.0;
        }
        let mut wild = preset("ggcvt-kitti3").unwrap();
        if let GgcvtCamera::Pinhole {
            iterations,
            shift_range_m,
            ..
        } = &mut wild.camera
        {
            (*iterations, *shift_range_m) = (65, f64::NAN);
        }
        assert_eq!((deep.problems().len(), wild.problems().len()), (1, 2));
    }
}
