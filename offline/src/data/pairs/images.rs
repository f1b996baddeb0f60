//! The images of a pairs dataset, read for a network: decoded, aligned with north, patch cut.
//!
//! The remap and the patch are calibration's and the tile set is the daemon's, so training and
//! driving see the same pixels.

use super::headings::FoundHeadings;
use super::tile_pool::TilePool;
use super::{DatasetManifest, PairRow, Pairs, other_size};
use crate::data::cache::Pictures;
use crate::data::error::DatasetError;
use crate::data::picture;
use crate::data::pose::{left_bin, strip_spec, yaw_from_heading};
use crate::data::sample::{Dataset, Pair, Sample};
use crate::model::{GroundProjection, ModelSpec};
use crossfix_calibration::{Camera, Geodetic, PatchGeoreference, PatchSpec, RgbImage, StripRemap};
use crossfix_onboard::tiles::TileError;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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

/// A pairs dataset opened for a network.
pub struct PairsImages {
    folder: PathBuf,
    manifest: DatasetManifest,
    samples: Vec<Sample>,
    /// Pictures and coarse positions of the samples.
    files: Vec<(String, Geodetic)>,
    spec: ModelSpec,
    preparation: Preparation,
    tiles: TilePool,
    /// Reads the pictures.
    pub pictures: Pictures,
    /// What was found of the rows' headings before they were placed.
    pub found_headings: Option<FoundHeadings>,
}

impl PairsImages {
    /// Opens the tile set and places every sample; reads no pixel.
    ///
    /// # Errors
    /// [`DatasetError`] when the tile set cannot be used or a place has no patch.
    pub fn open(
        folder: Pairs,
        spec: &ModelSpec,
        preparation: Preparation,
    ) -> Result<Self, DatasetError> {
        let tiles = TilePool::open(folder.tiles()).map_err(|error| {
            let path = folder.folder.join("dataset.toml").display().to_string();
            DatasetError::Manifest {
                path,
                what: error.to_string(),
            }
        })?;
        let camera = Arc::new(folder.manifest.camera.clone());
        let mut samples = Vec::with_capacity(folder.rows.len());
        let mut files = Vec::with_capacity(folder.rows.len());
        for row in folder.rows {
            let placed = place(&row, &camera, spec, &preparation);
            let (coarse, sample) = placed.map_err(|what| DatasetError::Pair {
                id: row.id.clone(),
                what,
            })?;
            samples.push(sample);
            files.push((row.image, coarse));
        }
        Ok(Self {
            folder: folder.folder,
            manifest: folder.manifest,
            samples,
            files,
            spec: spec.clone(),
            preparation,
            tiles,
            pictures: Pictures::default(),
            found_headings: None,
        })
    }

    /// Its `dataset.toml`.
    pub fn manifest(&self) -> &DatasetManifest {
        &self.manifest
    }

    /// The tile set's path.
    pub fn tiles(&self) -> PathBuf {
        self.folder.join(&self.manifest.tiles)
    }

    fn ground(&self, index: usize) -> Result<RgbImage, String> {
        let (image, _) = &self.files[index];
        let path = self.folder.join(image);
        let yaw_rad = self.samples[index].yaw_rad;
        let camera = &self.manifest.camera;
        let strip = strip_spec(&self.spec, yaw_rad);
        let how = (camera, format!("{strip:?}"), yaw_rad.to_bits());
        self.pictures.derived(&path, &how, || {
            let picture = read_picture(&path, camera)?;
            StripRemap::new(camera, &strip, yaw_rad)
                .and_then(|remap| remap.apply(&picture))
                .map_err(|error| format!("{image}: {error}"))
        })
    }

    fn aerial(&self, index: usize) -> Result<RgbImage, TileError> {
        let coarse = self.files[index].1;
        let patch = |margin_px: usize| {
            let patch = PatchSpec {
                size_px: self.spec.aerial_px + 2 * margin_px,
                metres_per_pixel: self.spec.metres_per_pixel,
            };
            let grid_m = self.preparation.patch_grid_m;
            let cut = self
                .tiles
                .with(index, |tiles| tiles.patch(coarse, patch, grid_m));
            cut.map(|(_, image)| Arc::unwrap_or_clone(image))
        };
        let margin_px = self.margin_px();
        let cut = || match patch(margin_px) {
            Err(TileError::NotCovered { .. }) if margin_px > 0 => patch(0),
            other => other,
        };
        let tiles = self.tiles();
        if !tiles.is_file() {
            return cut(); // One date does not say whether a folder of tiles changed.
        }
        let centre = self.samples[index].centre;
        let centre = [centre.latitude_deg, centre.longitude_deg].map(f64::to_bits);
        let scale = self.spec.metres_per_pixel.to_bits();
        let how = (centre, scale, self.spec.aerial_px, margin_px);
        self.pictures.derived(&tiles, &how, cut)
    }
}

impl Dataset for PairsImages {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn sample(&self, index: usize) -> &Sample {
        &self.samples[index]
    }

    fn pair(&self, index: usize) -> Result<Arc<Pair>, DatasetError> {
        let sample = self.samples[index].clone();
        let wrong = |what: String| DatasetError::Pair {
            id: sample.id.clone(),
            what,
        };
        let ground = self.ground(index).map_err(wrong)?;
        let aerial = self
            .aerial(index)
            .map_err(|error| wrong(error.to_string()))?;
        Ok(Arc::new(Pair {
            sample,
            ground,
            aerial,
        }))
    }

    fn found_headings(&self) -> Option<FoundHeadings> {
        self.found_headings
    }

    fn margin_px(&self) -> usize {
        (self.preparation.margin_m / self.spec.metres_per_pixel).round() as usize
    }
}

/// The coarse position of a row, and the row as a sample.
pub(crate) fn place(
    row: &PairRow,
    camera: &Arc<Camera>,
    spec: &ModelSpec,
    preparation: &Preparation,
) -> Result<(Geodetic, Sample), String> {
    let coarse = Geodetic::new(row.latitude_deg, row.longitude_deg, 0.0);
    let coarse = coarse.map_err(|error| error.to_string())?;
    let patch = PatchSpec {
        size_px: spec.aerial_px,
        metres_per_pixel: spec.metres_per_pixel,
    };
    let georeference = PatchGeoreference::centred_on(coarse, patch, preparation.patch_grid_m);
    let georeference = georeference.map_err(|error| error.to_string())?;
    let centre = georeference.centre();
    let level = Geodetic {
        height_m: centre.height_m,
        ..coarse
    };
    let offset = georeference.frame().enu_from_geodetic(level);
    let yaw_rad = yaw_from_heading(row.heading_deg);
    let sample = Sample {
        id: row.id.clone(),
        drive: row.drive.clone(),
        time_ns: row.time_ns,
        centre,
        coarse_offset_m: [offset.east(), offset.north()],
        coarse_covariance_m2: row.covariance_m2,
        yaw_rad,
        yaw_sigma_rad: row.heading_sigma_deg.to_radians(),
        heading_residual_rad: 0.0,
        odometry: row.odometry,
        camera: Some(camera.clone()),
        left_bin: left_bin(spec, &strip_spec(spec, yaw_rad)),
        projection: GroundProjection::Panorama {
            metres_per_pixel: spec.metres_per_pixel,
            turn_rad: 0.0,
        },
    };
    Ok((coarse, sample))
}

fn read_picture(path: &Path, camera: &Camera) -> Result<RgbImage, String> {
    let picture = picture::read(path)?;
    let size = [picture.width, picture.height];
    let expected = camera.image_size();
    if size == expected {
        return Ok(picture);
    }
    Err(other_size(path, size, expected))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::city::detail::Detail;
    use crate::city::frames::{CameraKind, Headings};
    use crate::city::style::Gap;
    use crate::city::{AreaConfig, AreaName, Part, build_area};
    use crate::data::pairs::truth::{Truth, true_pose};
    use crate::model::named;
    use crate::recipe::{adapt, defaults};
    use crate::run::{Interrupt, RunContext};
    use crate::simulate::{Contents, PairsPlan, write_pairs};

    fn simulated(pairs: usize, camera: CameraKind) -> tempfile::TempDir {
        simulated_at(pairs, camera, Detail::default())
    }

    /// All pairs of a dataset, prepared for a network.
    fn prepared(folder: &Path, spec: &ModelSpec) -> Vec<Arc<Pair>> {
        let pairs = Pairs::open(folder).unwrap();
        let images = PairsImages::open(pairs, spec, Preparation::default()).unwrap();
        (0..images.len()).map(|i| images.pair(i).unwrap()).collect()
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
            headings: Headings::Measured,
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
            let truth = Truth::open(folder.path()).unwrap();
            let spec = named(name).unwrap().describe();
            let pairs = prepared(folder.path(), &spec);
            assert_eq!(pairs.len(), 6);
            for pair in &pairs {
                let pose = true_pose(&pair.sample, &truth).unwrap();
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
        let dataset = Pairs::open(folder.path()).unwrap();
        let truth = Truth::open(folder.path()).unwrap();
        for (name, half_m) in [
            ("ccvpe-vigor", 35.9),
            ("ggcvt-vigor", 36.0),
            ("compact", 32.0),
        ] {
            let spec = named(name).unwrap().describe();
            let pairs = prepared(folder.path(), &spec);
            for pair in &pairs {
                let ground = [pair.ground.height, pair.ground.width];
                assert_eq!(ground, [spec.ground_rows, spec.ground_columns], "{name}");
                assert_eq!(pair.aerial.width, spec.aerial_px, "{name}");
                let pose = true_pose(&pair.sample, &truth).unwrap();
                assert!(pose.offset_m.iter().all(|offset| offset.abs() < half_m));
            }
        }
        // North-aligned without a change of size: a panorama turned by whole columns stays itself.
        let path = dataset.folder.join(&dataset.rows[0].image);
        let picture = read_picture(&path, &dataset.manifest.camera).unwrap();
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
        let pairs = Pairs::open(folder.path()).unwrap();
        let teacher = named("compact").unwrap().build(1).unwrap();
        let spec = teacher.describe();
        let pairs = PairsImages::open(pairs, spec, Preparation::default()).unwrap();
        for mut recipe in [
            defaults::paper(teacher.describe()),
            defaults::consensus(teacher.describe()),
        ] {
            recipe.fit.batch = 2;
            recipe.fit.epochs = 1.0;
            recipe.gate.enforce = false;
            let interrupt = Interrupt::default();
            let run = RunContext {
                seed: 1,
                folder: None,
                resume: false,
                interrupt: &interrupt,
                world: crate::train::World::alone(),
            };
            let adapted = adapt(teacher.as_ref(), &pairs, &recipe, &run).unwrap();
            assert_eq!(adapted.labels.len(), 4);
        }
    }

    /// Consensus and gate see drives, and the same with truth as without it.
    #[test]
    fn truth_beside_a_dataset_changes_no_label_and_no_verdict() {
        let folder = tempfile::tempdir().unwrap();
        let area = build_area(AreaConfig {
            area: AreaName::Target,
            seed: 5,
            gap: Gap::default(),
        });
        let plan = PairsPlan {
            headings: Headings::Measured,
            part: Part::Adapt,
            districts: 1,
            contents: Contents::Drives {
                drives: 3,
                length_m: 120.0,
                spacing_m: 10.0,
                logs: 0,
            },
            camera: CameraKind::Panorama,
        };
        let hidden = indicatif::ProgressBar::hidden();
        write_pairs(&area, &plan, folder.path(), &hidden).unwrap();
        let teacher = named("compact").unwrap().build(1).unwrap();
        let mut recipe = defaults::consensus(teacher.describe());
        // An untrained teacher supports nothing.
        recipe.filter = crate::recipe::Filter::Support {
            least: 0.0,
            keep_alone: 0.8,
        };
        recipe.fit.steps = Some(1);
        recipe.gate.enforce = false;
        let adapted = || {
            let pairs = Pairs::open(folder.path()).unwrap();
            let pairs = PairsImages::open(pairs, teacher.describe(), Preparation::default());
            let interrupt = Interrupt::default();
            let run = RunContext {
                seed: 1,
                folder: None,
                resume: false,
                interrupt: &interrupt,
                world: crate::train::World::alone(),
            };
            adapt(teacher.as_ref(), &pairs.unwrap(), &recipe, &run).unwrap()
        };
        let with = adapted();
        let evidence = with.evidence.as_ref().unwrap();
        assert!(evidence.by_odometry > 20, "{evidence:?}");
        assert!(with.verdict.findings.iter().any(|f| f.check == "student"));
        std::fs::remove_file(folder.path().join("truth.jsonl")).unwrap();
        let without = adapted();
        assert_eq!(with.labels, without.labels);
        assert_eq!(with.verdict, without.verdict);
        assert_eq!(with.evidence, without.evidence);
    }

    #[test]
    fn a_broken_picture_is_named() {
        let folder = simulated(3, CameraKind::Panorama);
        let dataset = Pairs::open(folder.path()).unwrap();
        let row = &dataset.rows[1];
        std::fs::write(folder.path().join(&row.image), b"not a picture").unwrap();
        let spec = named("compact").unwrap().describe();
        let (id, problems) = (row.id.clone(), dataset.check_pictures().unwrap_err());
        assert_eq!(problems.list.len(), 1, "{problems}");
        assert!(problems.to_string().contains(&id), "{problems}");
        let images = PairsImages::open(dataset, &spec, Preparation::default()).unwrap();
        assert!(images.pair(0).is_ok());
        let error = images.pair(1).unwrap_err();
        assert!(error.to_string().contains(&id), "{error}");
    }

    /// A town's strips and patches, from files and from the cache, with a margin and without.
    #[test]
    fn kept_pictures_are_those_that_were_read() {
        let folder = simulated(2, CameraKind::Front);
        let cache = tempfile::tempdir().unwrap();
        let spec = named("compact-front").unwrap().describe();
        for margin_m in [0.0, 8.0] {
            let preparation = Preparation {
                margin_m,
                ..Preparation::default()
            };
            let open = || {
                let pairs = Pairs::open(folder.path()).unwrap();
                PairsImages::open(pairs, &spec, preparation).unwrap()
            };
            let (plain, mut cached) = (open(), open());
            cached.pictures = Pictures::cached_in(cache.path()).unwrap();
            for _ in 0..2 {
                for index in 0..2 {
                    let (a, b) = (plain.pair(index).unwrap(), cached.pair(index).unwrap());
                    assert!(a.ground == b.ground && a.aerial == b.aerial);
                }
            }
        }
    }
}
