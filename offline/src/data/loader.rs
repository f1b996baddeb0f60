//! From rows on disk to images a network eats: decode, align with north, cut the aerial patch.
//!
//! The remap and the patch are calibration's and the tile set is the daemon's, so training and
//! driving see the same pixels.

use super::Pair;
use super::pairs::{DatasetError, PairRow, PairsDataset};
use super::picture;
use super::pose::{left_bin, strip_spec, yaw_from_heading};
use crate::model::{GroundView, ModelSpec};
use crate::progress;
use crossfix_calibration::{Geodetic, PatchSpec, RgbImage, StripRemap};
use crossfix_onboard::tiles::{TileError, TileStore};
use rayon::prelude::*;

/// How pairs are prepared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preparation {
    /// Patch centres are rounded to this grid, as the daemon does.
    pub patch_grid_m: f64,
    /// Aerial metres beyond the network's on each side, for cutting elsewhere; pairs whose tiles
    /// don't reach that far get none.
    pub margin_m: f64,
}

impl Default for Preparation {
    fn default() -> Self {
        Self {
            patch_grid_m: 8.0,
            margin_m: 0.0,
        }
    }
}

/// Reads and prepares every row, on all cores, in the rows' order.
///
/// # Errors
/// [`DatasetError`] naming the first pair whose picture or tiles cannot be used.
pub fn prepare(
    dataset: &PairsDataset,
    spec: &ModelSpec,
    preparation: &Preparation,
) -> Result<Vec<Pair>, DatasetError> {
    let rows = &dataset.rows;
    let bar = progress::bar("prepare", rows.len() as u64);
    // Each worker has a tile set of its own; neighbours in a drive share its tiles.
    let share = rows.len().div_ceil(rayon::current_num_threads()).max(1);
    let parts: Vec<Vec<Pair>> = rows
        .par_chunks(share)
        .map(|rows| {
            let mut tiles = TileStore::open(dataset.tiles()).map_err(|error| {
                let path = dataset.folder.join("dataset.toml").display().to_string();
                DatasetError::Manifest {
                    path,
                    what: error.to_string(),
                }
            })?;
            let prepared = rows.iter().map(|row| {
                bar.inc(1);
                one(dataset, row, spec, preparation, &mut tiles)
            });
            prepared.collect()
        })
        .collect::<Result<_, _>>()?;
    bar.finish_and_clear();
    Ok(parts.into_iter().flatten().collect())
}

fn one(
    dataset: &PairsDataset,
    row: &PairRow,
    spec: &ModelSpec,
    preparation: &Preparation,
    tiles: &mut TileStore,
) -> Result<Pair, DatasetError> {
    let wrong = |what: String| DatasetError::Pair {
        id: row.id.clone(),
        what,
    };
    let picture = read_picture(dataset, row).map_err(wrong)?;
    let yaw_rad = yaw_from_heading(row.heading_deg);
    let strip = strip_spec(spec, yaw_rad);
    let remap = StripRemap::new(&dataset.manifest.camera, &strip, yaw_rad);
    let ground = remap
        .and_then(|remap| remap.apply(&picture))
        .map_err(|error| wrong(format!("{}: {error}", row.image)))?;
    let coarse = Geodetic::new(row.latitude_deg, row.longitude_deg, 0.0)
        .map_err(|error| wrong(error.to_string()))?;
    let margin_px = (preparation.margin_m / spec.metres_per_pixel).round() as usize;
    let mut patch = |margin_px: usize| {
        let patch = PatchSpec {
            size_px: spec.aerial_px + 2 * margin_px,
            metres_per_pixel: spec.metres_per_pixel,
        };
        tiles.patch(coarse, patch, preparation.patch_grid_m)
    };
    let found = match patch(margin_px) {
        Err(TileError::NotCovered { .. }) if margin_px > 0 => patch(0),
        other => other,
    };
    let (georeference, aerial) = found.map_err(|error| wrong(error.to_string()))?;
    let offset = georeference
        .frame()
        .enu_from_geodetic(level_with(coarse, georeference.centre()));
    Ok(Pair {
        id: row.id.clone(),
        drive: row.drive.clone(),
        time_ns: row.time_ns,
        ground,
        left_bin: left_bin(spec, &strip),
        aerial: RgbImage::clone(&aerial),
        centre: georeference.centre(),
        coarse_offset_m: [offset.east(), offset.north()],
        coarse_covariance_m2: row.covariance_m2,
        yaw_rad,
        view: GroundView::Panorama {
            metres_per_pixel: spec.metres_per_pixel,
            turn_rad: 0.0,
        },
    })
}

fn read_picture(dataset: &PairsDataset, row: &PairRow) -> Result<RgbImage, String> {
    let path = dataset.folder.join(&row.image);
    let picture = picture::read(&path)?;
    let (width, height) = (picture.width, picture.height);
    let expected = dataset.manifest.camera.image_size();
    if [width, height] != expected {
        return Err(format!(
            "{}: {width}×{height} pixels, and the camera in dataset.toml makes {}×{}; give each camera its own dataset",
            path.display(),
            expected[0],
            expected[1]
        ));
    }
    Ok(picture)
}

fn level_with(place: Geodetic, centre: Geodetic) -> Geodetic {
    Geodetic {
        height_m: centre.height_m,
        ..place
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::city::detail::Detail;
    use crate::city::frames::CameraKind;
    use crate::city::style::Gap;
    use crate::city::{AreaConfig, AreaName, Part, build_area};
    use crate::data::{Truth, true_pose};
    use crate::model::named;
    use crate::recipe::{adapt, defaults};
    use crate::run::{Interrupt, RunContext};
    use crate::simulate::{Contents, PairsPlan, write_pairs};

    fn simulated(pairs: usize, camera: CameraKind) -> tempfile::TempDir {
        simulated_at(pairs, camera, Detail::default())
    }

    fn simulated_at(pairs: usize, camera: CameraKind, detail: Detail) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let area = build_area(AreaConfig {
            area: AreaName::Target,
            seed: 5,
            gap: Gap::default(),
        })
        .drawn_at(detail);
        let plan = PairsPlan {
            part: Part::Test,
            districts: 1,
            contents: Contents::Random { pairs },
            camera,
        };
        let hidden = indicatif::ProgressBar::hidden();
        write_pairs(&area, &plan, folder.path(), &hidden).unwrap();
        folder
    }

    #[test]
    fn true_positions_lie_in_the_patch_and_headings_near_the_given_ones() {
        for (camera, name) in [
            (CameraKind::Panorama, "compact"),
            (CameraKind::Front, "compact-front"),
        ] {
            let folder = simulated(6, camera);
            let dataset = PairsDataset::open(folder.path()).unwrap();
            let truth = Truth::open(folder.path()).unwrap();
            let spec = named(name).unwrap().describe();
            let pairs = prepare(&dataset, &spec, &Preparation::default()).unwrap();
            assert_eq!(pairs.len(), 6);
            for pair in &pairs {
                let pose = true_pose(pair, &truth).unwrap();
                assert!(pose.offset_m.iter().all(|offset| offset.abs() < 32.0));
                assert!(pose.residual_rad.abs() < 12f64.to_radians());
                assert_eq!(pair.ground.width, spec.ground_columns);
            }
        }
    }

    #[test]
    fn a_fine_town_fits_the_published_network_and_the_compact_one() {
        let detail = Detail {
            panorama: "320x640".parse().unwrap(),
            zoom: 20,
        };
        let folder = simulated_at(3, CameraKind::Panorama, detail);
        let dataset = PairsDataset::open(folder.path()).unwrap();
        let truth = Truth::open(folder.path()).unwrap();
        for (name, half_m) in [
            ("ccvpe-vigor", 35.9),
            ("ggcvt-vigor", 36.0),
            ("compact", 32.0),
        ] {
            let spec = named(name).unwrap().describe();
            let pairs = prepare(&dataset, &spec, &Preparation::default()).unwrap();
            for pair in &pairs {
                let ground = [pair.ground.height, pair.ground.width];
                assert_eq!(ground, [spec.ground_rows, spec.ground_columns], "{name}");
                assert_eq!(pair.aerial.width, spec.aerial_px, "{name}");
                let pose = true_pose(pair, &truth).unwrap();
                assert!(pose.offset_m.iter().all(|offset| offset.abs() < half_m));
            }
        }
        // North-aligned without a change of size: a panorama turned by whole columns stays itself.
        let row = &dataset.rows[0];
        let picture = read_picture(&dataset, row).unwrap();
        let spec = named("ccvpe-vigor").unwrap().describe();
        let yaw_rad = yaw_from_heading(180.0);
        let remap = StripRemap::new(
            &dataset.manifest.camera,
            &strip_spec(&spec, yaw_rad),
            yaw_rad,
        );
        let turned = remap.unwrap().apply(&picture).unwrap();
        let pixel = |image: &RgbImage, row: usize, column: usize| {
            let at = 3 * (row * 640 + column % 640);
            [image.data[at], image.data[at + 1], image.data[at + 2]]
        };
        for row in 0..320 {
            for column in 0..640 {
                assert_eq!(
                    pixel(&turned, row, column + 320),
                    pixel(&picture, row, column)
                );
            }
        }
    }

    #[test]
    fn adaptation_runs_on_a_dataset_whose_truth_was_deleted() {
        let folder = simulated(4, CameraKind::Panorama);
        std::fs::remove_file(folder.path().join("truth.jsonl")).unwrap();
        let dataset = PairsDataset::open(folder.path()).unwrap();
        let teacher = named("compact").unwrap().build(1).unwrap();
        let preparation = Preparation::default();
        let pairs = prepare(&dataset, teacher.describe(), &preparation).unwrap();
        let mut recipe = defaults::paper(teacher.describe());
        recipe.fit.batch = 2;
        recipe.fit.epochs = 1.0;
        let interrupt = Interrupt::default();
        let run = RunContext {
            seed: 1,
            folder: None,
            resume: false,
            interrupt: &interrupt,
        };
        let adapted = adapt(teacher.as_ref(), &pairs, &recipe, &run).unwrap();
        assert_eq!(adapted.labels.len(), 4);
    }

    #[test]
    fn a_broken_picture_is_named() {
        let folder = simulated(3, CameraKind::Panorama);
        let dataset = PairsDataset::open(folder.path()).unwrap();
        let row = &dataset.rows[1];
        std::fs::write(folder.path().join(&row.image), b"not a picture").unwrap();
        let spec = named("compact").unwrap().describe();
        let error = prepare(&dataset, &spec, &Preparation::default()).unwrap_err();
        assert!(error.to_string().contains(&row.id), "{error}");
    }
}
