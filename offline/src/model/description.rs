//! The public description of a network: its input images, its output maps, the orientations it searches.
//!
//! Each kind of network has a table of its own ([`CcvpeSpec`], [`GgcvtSpec`]) and derives a
//! [`ModelSpec`] from it; training, adaptation, datasets and evaluation read only that.

use super::{
    Ccvpe, CcvpeSpec, CrossViewModel, Ggcvt, GgcvtSpec, GroundProjection, ModelError, ggcvt,
    presets,
};
use serde::{Deserialize, Serialize};

/// A kind of network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkKind {
    /// Rolled matching of descriptors, and decoders.
    #[default]
    Ccvpe,
    /// Projection on the ground plane, and correlation.
    Ggcvt,
}

/// The whole table of a network: what its weights file needs so that it can be built again.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum NetworkSpec {
    /// A CCVPE network.
    Ccvpe(CcvpeSpec),
    /// A GGCVT network.
    Ggcvt(GgcvtSpec),
}

/// Names that [`named`] knows; `<N>` stands for degrees.
pub fn names() -> Vec<&'static str> {
    [presets::PRESETS, ggcvt::PRESETS].concat()
}

/// The table of a named network of either kind.
pub fn named(name: &str) -> Option<NetworkSpec> {
    let ccvpe = presets::preset(name).map(NetworkSpec::Ccvpe);
    ccvpe.or_else(|| ggcvt::preset(name).map(NetworkSpec::Ggcvt))
}

impl NetworkSpec {
    /// Its kind.
    pub fn kind(&self) -> NetworkKind {
        match self {
            Self::Ccvpe(_) => NetworkKind::Ccvpe,
            Self::Ggcvt(_) => NetworkKind::Ggcvt,
        }
    }

    /// Builds the network with starting values drawn from `seed`.
    ///
    /// # Errors
    /// [`ModelError::Spec`] with everything that is wrong with the table.
    pub fn build(&self, seed: u64) -> Result<Box<dyn CrossViewModel>, ModelError> {
        Ok(match self {
            Self::Ccvpe(spec) => Box::new(Ccvpe::new(spec.clone(), seed)?),
            Self::Ggcvt(spec) => Box::new(Ggcvt::new(spec.clone(), seed)?),
        })
    }

    /// What those outside see of it.
    pub fn describe(&self) -> ModelSpec {
        match self {
            Self::Ccvpe(spec) => spec.describe(),
            Self::Ggcvt(spec) => spec.describe(),
        }
    }

    /// Reads the table of a network of this kind.
    ///
    /// # Errors
    /// The reader's, when it is another kind's or none.
    pub fn read(kind: NetworkKind, table: serde_json::Value) -> Result<Self, serde_json::Error> {
        Ok(match kind {
            NetworkKind::Ccvpe => Self::Ccvpe(serde_json::from_value(table)?),
            NetworkKind::Ggcvt => Self::Ggcvt(serde_json::from_value(table)?),
        })
    }
}

/// A square map around the centre of the aerial image, row 0 north.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MapSpec {
    /// Cells along a side.
    pub side: usize,
    /// Side of a cell in pixels of the aerial image.
    pub cell_px: f64,
    /// Side of a cell at the trained resolution.
    pub metres_per_cell: f64,
}

/// The map of one level.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LevelMap {
    /// What its channels cover.
    pub map: MapSpec,
    /// Channels in which a place is looked for; `None` is all.
    pub searched: Option<Vec<usize>>,
}

/// What training, adaptation, datasets and evaluation know of a network.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelSpec {
    /// Name of the preset.
    pub preset: String,
    /// The kind of network.
    pub kind: NetworkKind,
    /// Rows of the ground image.
    pub ground_rows: usize,
    /// Columns of the ground image.
    pub ground_columns: usize,
    /// Side of the square aerial image, pixels.
    pub aerial_px: usize,
    /// Ground resolution the aerial image is trained at.
    pub metres_per_pixel: f64,
    /// The heatmap.
    pub heatmap: MapSpec,
    /// The levels' maps, coarsest first.
    pub levels: Vec<LevelMap>,
    /// How the ground image lies on the circle.
    pub camera: GroundCamera,
    /// Degrees of the circle that the ground image covers.
    pub field_of_view_deg: f64,
    /// Bins that divide the full circle.
    pub orientation_bins: usize,
    /// Columns of the ground image that one bin covers.
    pub columns_per_bin: usize,
    /// Bins searched on each side of the given heading; `None` searches all.
    pub orientation_prior: Option<usize>,
}

/// How a ground image lies on the circle, and what a sample must say about it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub enum GroundCamera {
    /// A whole circle whose left edge looks south.
    Panorama,
    /// The columns that are left of a whole circle whose right end was cut off.
    CutPanorama,
    /// Part of a circle whose left edge lies on a bin that each sample names.
    OnBin {
        /// Bins that it covers.
        bins: usize,
    },
    /// A pinhole picture.
    Pinhole,
    /// A pinhole picture whose camera matrix each sample gives.
    CalibratedPinhole {
        /// Whether the network finds the heading itself; in training it is given.
        finds_heading: bool,
        /// What a normalised heading of 1 means.
        heading_range_deg: f64,
    },
}

impl ModelSpec {
    /// Cells along a side of the heatmap.
    pub fn heatmap_side(&self) -> usize {
        self.heatmap.side
    }

    /// Side of a heatmap cell at the trained resolution.
    pub fn metres_per_cell(&self) -> f64 {
        self.heatmap.metres_per_cell
    }

    /// Width of an orientation bin in radians.
    pub fn bin_rad(&self) -> f64 {
        std::f64::consts::TAU / self.orientation_bins as f64
    }

    /// Angle that a column of the ground image covers, and a row of a panorama.
    pub fn radians_per_column(&self) -> f64 {
        std::f64::consts::TAU / (self.orientation_bins * self.columns_per_bin) as f64
    }

    /// Elevation of a panorama's upper edge, degrees: the zenith where it shows the whole sphere,
    /// or else 28°.
    pub fn top_elevation_deg(&self) -> f64 {
        let height_deg =
            self.field_of_view_deg * self.ground_rows as f64 / self.ground_columns as f64;
        if height_deg < 180.0 { 28.0 } else { 90.0 }
    }

    /// Whether each sample names the bin of its ground image's left edge.
    pub fn ground_left_bin(&self) -> bool {
        matches!(self.camera, GroundCamera::OnBin { .. })
    }

    /// Whether the network finds the heading itself.
    pub fn finds_heading(&self) -> bool {
        matches!(
            self.camera,
            GroundCamera::CalibratedPinhole {
                finds_heading: true,
                ..
            }
        )
    }

    /// The projection as the network gets it in evaluation: without the heading that it finds.
    pub fn evaluation_projection(&self, projection: GroundProjection) -> GroundProjection {
        if self.finds_heading() {
            projection.without_heading()
        } else {
            projection
        }
    }

    /// The projection for training with the label `residual_rad`
    /// ([`PoseTarget::residual_rad`](crate::model::loss::PoseTarget::residual_rad)): a network that finds
    /// the heading projects the ground image by its label.
    pub fn label_projection(
        &self,
        projection: GroundProjection,
        residual_rad: f64,
    ) -> GroundProjection {
        match (self.camera, projection) {
            (
                GroundCamera::CalibratedPinhole {
                    finds_heading: true,
                    heading_range_deg,
                },
                GroundProjection::Pinhole { camera, .. },
            ) => {
                let heading = ggcvt::turn_rad(residual_rad) / heading_range_deg.to_radians();
                GroundProjection::Pinhole {
                    camera,
                    heading: Some(heading as f32),
                }
            }
            _ => projection,
        }
    }

    /// Heatmap coordinate, cell centres at +0.5, of a place `px` pixels right of or below the
    /// centre of the aerial image.
    pub fn cell_from_px(&self, px: f64) -> f64 {
        self.heatmap.side as f64 / 2.0 + px / self.heatmap.cell_px
    }

    /// Pixels right of or below the centre of the aerial image.
    pub fn px_from_cell(&self, cell: f64) -> f64 {
        (cell - self.heatmap.side as f64 / 2.0) * self.heatmap.cell_px
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_are_described_in_the_same_words() {
        let compact = named("compact").unwrap().describe();
        assert_eq!(compact.heatmap.side, 64);
        assert_eq!(compact.heatmap.metres_per_cell, 1.0);
        assert_eq!(compact.levels[0].searched, Some(vec![0]));
        assert_eq!(compact.camera, GroundCamera::Panorama);

        let vigor = named("ggcvt-vigor").unwrap().describe();
        let sides: Vec<usize> = vigor.levels.iter().map(|level| level.map.side).collect();
        assert_eq!(sides, [40, 78, 155]);
        // The middle of the finest map is the middle of its cell 77, as training places it.
        assert_eq!(vigor.cell_from_px(0.0), 77.5);
        assert_eq!(vigor.px_from_cell(vigor.cell_from_px(-31.0)), -31.0);
        let kitti = named("ggcvt-kitti3").unwrap().describe();
        let camera = GroundCamera::CalibratedPinhole {
            finds_heading: true,
            heading_range_deg: 10.0,
        };
        assert_eq!(kitti.camera, camera);
    }

    #[test]
    fn every_name_without_options_is_known() {
        for name in names().into_iter().filter(|name| !name.contains('<')) {
            let spec = named(name).unwrap();
            assert_eq!(spec.describe().preset, name);
            let table = serde_json::to_value(&spec).unwrap();
            assert_eq!(NetworkSpec::read(spec.kind(), table).unwrap(), spec);
        }
        assert!(named("nothing").is_none());
    }

    #[test]
    fn a_taught_view_is_headed_as_its_label_says() {
        let spec = |name: &str| named(name).unwrap().describe();
        for given in [-0.9f32, 0.0, 0.4] {
            let camera = [500.0, 400.0, 512.0, 128.0];
            let heading = Some(0.7);
            let projection = GroundProjection::Pinhole { camera, heading };
            // Clockwise from the aerial image's top; 1 means 10°.
            let residual_rad = (90.0 - 10.0 * f64::from(given)).to_radians();
            let taught = spec("ggcvt-kitti3").label_projection(projection, residual_rad);
            let GroundProjection::Pinhole {
                heading: Some(taught),
                ..
            } = taught
            else {
                panic!("{taught:?}");
            };
            assert!((taught - given).abs() < 1e-5, "{taught} is not {given}");
            assert_eq!(
                spec("ggcvt-kitti2").label_projection(projection, residual_rad),
                projection
            );
        }
    }
}
