//! Datasets on the command line: which layout, which list, which part of it, how turned.

use super::data::{self, PairsOptions};
use super::lists::{DatasetKind, List, Part, check_count, read_order};
use crate::check::{self, Report};
use crate::data::kitti::{Kitti, KittiFolder, KittiImages, KittiSamples};
use crate::data::vigor::{Headings, Vigor, VigorFolder, VigorImages, VigorSamples, split};
use crate::data::{Dataset, Examples, InMemory, MEMORY_BYTES, Pictures, Problems, npy};
use crate::evaluate::{PublishedEvaluation, evaluate_published};
use crate::model::{CrossViewModel, GroundCamera, ModelSpec, NetworkKind};
use crate::run::Interrupt;
use crate::storage::{Files, Paths, Role};
use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Which dataset, and how it is read.
#[derive(Debug, Clone, Args)]
pub struct DatasetArgs {
    /// Layout of --data.
    #[arg(long, value_enum, default_value_t = DatasetKind::Pairs)]
    pub dataset: DatasetKind,
    /// List of a published dataset.
    #[arg(long, value_enum)]
    list: Option<List>,
    /// Part of the list.
    #[arg(long, value_enum)]
    part: Option<Part>,
    /// Order of the target area, as a .npy of int64: the list's indices, first 70 % adaptation,
    /// then 10 % validation, then 20 % test. Without it, numpy's shuffle with seed 0.
    #[arg(long)]
    order: Option<PathBuf>,
    /// VIGOR: name of the label folder.
    #[arg(long, default_value = "splits__corrected")]
    labels: String,
    /// VIGOR: what stands before .txt in the names of label files.
    #[arg(long, default_value = "__corrected")]
    label_suffix: String,
    /// VIGOR: turn panoramas by up to this many degrees either way; 180 is unknown orientation, 0
    /// is known orientation. Default: what the network searches. `evaluate` on pairs: search so many
    /// degrees on each side of their headings, rounded up to whole bins.
    #[arg(long)]
    heading_within: Option<f64>,
    /// VIGOR: fixed turns of the list's panoramas, degrees, as a .npy of float64.
    #[arg(long)]
    orientations: Option<PathBuf>,
    /// VIGOR: train on semi-positive tiles too.
    #[arg(long)]
    semi_positives: bool,
    /// VIGOR: a panorama that cannot be read is black, as in the published code, not an error.
    #[arg(long)]
    black_where_unreadable: bool,
    /// KITTI: folder of the list files. Default: `lists` in --data.
    #[arg(long)]
    lists: Option<PathBuf>,
    /// KITTI: turn patches by up to this many degrees either way. Default: what the network was
    /// published with, 180 for CCVPE.
    #[arg(long)]
    rotation_range: Option<f64>,
    /// Keep decoded pictures in this folder; later epochs and runs read them there.
    #[arg(long)]
    cache: Option<PathBuf>,
    /// Do not look at the data first.
    #[arg(long)]
    no_check: bool,
}

/// A published dataset whose text was read: its samples borrow it.
pub enum Published {
    /// VIGOR.
    Vigor(Vigor),
    /// KITTI.
    Kitti(Kitti),
}

/// What VIGOR and KITTI may be used for is said by who gave them.
const PUBLISHED_LICENCE: &str = "LicenseRef-see-the-dataset";

impl Files for DatasetArgs {
    fn paths(&mut self) -> Paths<'_> {
        let optional = [&mut self.order, &mut self.orientations, &mut self.lists];
        let inputs = optional.into_iter().flatten();
        inputs.map(|path| (Role::Input, path)).collect()
    }
}

impl DatasetArgs {
    /// Whether `--data` is a published dataset.
    pub fn is_published(&self) -> bool {
        self.dataset != DatasetKind::Pairs
    }

    /// Whether data are to be looked at before they are used.
    pub fn checks(&self) -> bool {
        !self.no_check
    }

    /// The same dataset, looked at already.
    pub fn checked(&self) -> Self {
        Self {
            no_check: true,
            ..self.clone()
        }
    }

    /// How a pairs dataset is opened.
    pub fn pairs_options(
        &self,
        margin_m: f64,
        limit: Option<usize>,
    ) -> anyhow::Result<PairsOptions> {
        self.refuse_published()?;
        Ok(PairsOptions {
            margin_m,
            limit,
            pictures: self.pictures()?,
            unchecked: self.no_check,
            truth: false,
            find_headings: false,
        })
    }

    /// Refuses options that a pairs dataset has no use for.
    fn refuse_published(&self) -> anyhow::Result<()> {
        if self.is_published() {
            return Ok(());
        }
        let given = [
            ("--list", self.list.is_some()),
            ("--part", self.part.is_some()),
            ("--order", self.order.is_some()),
            ("--orientations", self.orientations.is_some()),
            ("--semi-positives", self.semi_positives),
            ("--black-where-unreadable", self.black_where_unreadable),
            ("--lists", self.lists.is_some()),
            ("--rotation-range", self.rotation_range.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((option, _)) => bail!(
                "{option} is for published datasets, and --data is a pairs dataset; leave it away, or give --dataset vigor or kitti"
            ),
        }
    }

    /// Refuses `--heading-within` where pairs are learned.
    pub fn refuse_heading_within(&self) -> anyhow::Result<()> {
        if !self.is_published() && self.heading_within.is_some() {
            bail!(
                "--heading-within is for `evaluate` on pairs; what a network searches in training is its preset's (compact-prior<N>)"
            );
        }
        Ok(())
    }

    /// Degrees on each side of given headings.
    pub fn heading_within(&self) -> Option<f64> {
        self.heading_within
    }

    fn list(&self, otherwise: [List; 2]) -> List {
        self.list
            .unwrap_or(otherwise[usize::from(self.dataset == DatasetKind::Kitti)])
    }

    fn vigor_folder(&self, data: &Path) -> VigorFolder {
        VigorFolder {
            root: data.into(),
            labels: self.labels.clone(),
            suffix: self.label_suffix.clone(),
        }
    }

    fn kitti_folder(&self, data: &Path) -> KittiFolder {
        let mut folder = KittiFolder::new(data);
        if let Some(lists) = &self.lists {
            folder.lists.clone_from(lists);
        }
        folder
    }

    /// Reads a list and its labels and, unless told otherwise, the header of every picture.
    fn open(&self, data: &Path, list: List) -> anyhow::Result<Published> {
        match self.dataset {
            DatasetKind::Vigor => {
                let split = list.vigor()?;
                let vigor = Vigor::open(&self.vigor_folder(data), split)?;
                check_count(vigor.rows.len(), split.published_count());
                if !self.no_check {
                    vigor.check_pictures()?;
                }
                Ok(Published::Vigor(vigor))
            }
            DatasetKind::Kitti => {
                let split = list.kitti()?;
                let kitti = Kitti::open(&self.kitti_folder(data), split)?;
                check_count(kitti.rows.len(), split.published_count());
                if !self.no_check {
                    kitti.check_pictures()?;
                }
                Ok(Published::Kitti(kitti))
            }
            DatasetKind::Pairs => bail!("--dataset pairs has no published lists"),
        }
    }

    /// Looks at a published dataset: its lists and labels, every header, and as many pictures as asked for.
    pub fn check(&self, root: &Path, sample: Option<usize>) -> Report {
        let begun = std::time::Instant::now();
        let mut report = Report::of(root);
        let kitti = self.dataset == DatasetKind::Kitti;
        let lists = match self.list {
            Some(list) => vec![list],
            None if kitti => vec![List::Train, List::Test1, List::Test2],
            None => vec![List::CrossAreaTrain, List::CrossAreaTest],
        };
        let remedy = "docs/datasets.md says where what must lie";
        for list in lists {
            let name = format!("{list:?}");
            let opened = self.checked().open(root, list);
            let (pairs, headers, paths) = match &opened {
                Ok(Published::Vigor(vigor)) => {
                    (vigor.rows.len(), vigor.check_pictures(), vigor.pictures())
                }
                Ok(Published::Kitti(kitti)) => {
                    (kitti.rows.len(), kitti.check_pictures(), kitti.pictures())
                }
                Err(error) => {
                    let lines = match error.downcast_ref::<Problems>() {
                        Some(problems) => problems.list.clone(),
                        None => vec![format!("{error:#}")],
                    };
                    for what in lines {
                        report.problem("list", (&name, None), what, remedy);
                    }
                    continue;
                }
            };
            report.pairs += pairs;
            report.pictures += paths.len();
            for what in headers.err().into_iter().flat_map(|problems| problems.list) {
                report.problem("picture", (&name, None), what, remedy);
            }
            let step = sample.map_or(1, |sample| paths.len().div_ceil(sample.max(1)).max(1));
            report.decoded += paths.len().div_ceil(step);
            for what in check::decode_all(&paths, sample) {
                let known = report.found.iter().any(|found| found.what == what);
                if !known {
                    let remedy = "copy these pictures again from where the dataset came from";
                    report.problem("picture-cut", (&name, None), what, remedy);
                }
            }
        }
        report.seconds = begun.elapsed().as_secs_f64();
        report
    }

    fn rotation_range(&self, spec: &ModelSpec) -> f64 {
        self.rotation_range.unwrap_or(match spec.camera {
            GroundCamera::CalibratedPinhole {
                heading_range_deg, ..
            } => heading_range_deg,
            _ => 180.0,
        })
    }

    /// GGCVT's published code shuffles VIGOR's lists in a way of its own, and tests on them whole.
    fn indices(&self, part: Part, count: usize, kind: NetworkKind) -> anyhow::Result<Vec<usize>> {
        let target = || match &self.order {
            None => Ok(split::target_area(count)),
            Some(path) => read_order(path, count).map(split::parts),
        };
        if self.order.is_some() && matches!(part, Part::All | Part::Train | Part::Validation) {
            bail!("--order is of the parts target, target-validation and target-test");
        }
        let ggcvt = kind == NetworkKind::Ggcvt && self.dataset == DatasetKind::Vigor;
        let [train, validation] = if ggcvt {
            split::ggcvt_train_validation(count)
        } else {
            split::train_validation(count)
        };
        Ok(match part {
            Part::All if ggcvt => split::ggcvt_order(count),
            Part::All => (0..count).collect(),
            Part::Train => train,
            Part::Validation => validation,
            Part::Target => target()?[0].clone(),
            Part::TargetValidation => target()?[1].clone(),
            Part::TargetTest => target()?[2].clone(),
        })
    }

    fn pictures(&self) -> anyhow::Result<Pictures> {
        let Some(folder) = &self.cache else {
            return Ok(Pictures::default());
        };
        Pictures::cached_in(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))
    }

    fn headings(&self, spec: &ModelSpec) -> anyhow::Result<Headings> {
        if let Some(path) = &self.orientations {
            let degrees = npy::read(path).map_err(anyhow::Error::msg)?;
            return Ok(Headings::Fixed(degrees));
        }
        let searched = spec.orientation_prior.map_or(180.0, |bins| {
            bins as f64 * 360.0 / spec.orientation_bins as f64
        });
        let within = self.heading_within.unwrap_or(searched);
        if !(0.0..=180.0).contains(&within) {
            bail!("--heading-within {within}; it is 0 to 180 degrees");
        }
        Ok(Headings::Within(within))
    }

    fn examples<'a>(
        &self,
        opened: &'a Published,
        part: Part,
        train: bool,
        limit: Option<usize>,
        spec: &ModelSpec,
    ) -> anyhow::Result<Box<dyn Examples + 'a>> {
        let cut = |mut indices: Vec<usize>| {
            indices.truncate(limit.unwrap_or(usize::MAX));
            indices
        };
        Ok(match opened {
            Published::Vigor(vigor) => {
                let indices = cut(self.indices(part, vigor.rows.len(), spec.kind)?);
                let headings = self.headings(spec)?;
                let mut samples = VigorSamples::new(vigor, indices, headings, spec)?;
                samples.semi_positives = train && self.semi_positives;
                samples.black_where_unreadable = self.black_where_unreadable;
                samples.pictures = self.pictures()?;
                Box::new(samples)
            }
            Published::Kitti(kitti) => {
                let indices = cut(self.indices(part, kitti.rows.len(), spec.kind)?);
                let range = self.rotation_range(spec);
                let mut samples = KittiSamples::new(kitti, indices, range, spec)?;
                samples.pictures = self.pictures()?;
                Box::new(samples)
            }
        })
    }

    /// Measures a network with the published metrics.
    pub fn evaluate(
        &self,
        model: &mut dyn CrossViewModel,
        data: &Path,
        limit: Option<usize>,
        seed: u64,
        interrupt: &Interrupt,
    ) -> anyhow::Result<PublishedEvaluation> {
        let list = self.list([List::CrossAreaTest, List::Test2]);
        let part = self.part.unwrap_or(Part::All);
        self.evaluate_part(model, data, (list, part), limit, seed, interrupt)
    }

    /// Measures a trained network on what its training kept apart.
    pub fn validate(
        &self,
        model: &mut dyn CrossViewModel,
        data: &Path,
        limit: Option<usize>,
        seed: u64,
        interrupt: &Interrupt,
    ) -> anyhow::Result<PublishedEvaluation> {
        let (list, part) = match self.dataset {
            DatasetKind::Kitti => (List::Test1, Part::All),
            _ => (self.list([List::CrossAreaTrain; 2]), Part::Validation),
        };
        self.evaluate_part(model, data, (list, part), limit, seed, interrupt)
    }

    /// Measures a network on the part of the target area that adaptation never sees.
    pub fn test(
        &self,
        model: &mut dyn CrossViewModel,
        data: &Path,
        limit: Option<usize>,
        seed: u64,
        interrupt: &Interrupt,
    ) -> anyhow::Result<PublishedEvaluation> {
        let list = self.list([List::CrossAreaTest, List::Test2]);
        self.evaluate_part(
            model,
            data,
            (list, Part::TargetTest),
            limit,
            seed,
            interrupt,
        )
    }

    /// Measures a network on one part of a list.
    fn evaluate_part(
        &self,
        model: &mut dyn CrossViewModel,
        data: &Path,
        (list, part): (List, Part),
        limit: Option<usize>,
        seed: u64,
        interrupt: &Interrupt,
    ) -> anyhow::Result<PublishedEvaluation> {
        let opened = self.open(data, list)?;
        let examples = self.examples(&opened, part, false, limit, model.describe())?;
        let vehicle_frame = self.dataset == DatasetKind::Kitti;
        Ok(evaluate_published(
            model,
            examples.as_ref(),
            seed,
            vehicle_frame,
            interrupt,
        )?)
    }

    /// Gives the examples to train on: 80 % of VIGOR's training lists, all of KITTI's.
    pub fn train<R>(
        &self,
        data: &Path,
        limit: Option<usize>,
        spec: &ModelSpec,
        with: impl FnOnce(&dyn Examples) -> anyhow::Result<R>,
    ) -> anyhow::Result<R> {
        let list = self.list([List::CrossAreaTrain, List::Train]);
        let otherwise = match self.dataset {
            DatasetKind::Kitti => Part::All,
            _ => Part::Train,
        };
        let opened = self.open(data, list)?;
        let part = self.part.unwrap_or(otherwise);
        let examples = self.examples(&opened, part, true, limit, spec)?;
        with(examples.as_ref())
    }

    /// Samples to adapt on, without the cameras' places: all of a pairs dataset, 70 % of a published
    /// target area.
    pub fn target(
        &self,
        root: &Path,
        limit: Option<usize>,
        spec: &ModelSpec,
    ) -> anyhow::Result<Box<dyn Dataset>> {
        if !self.is_published() {
            self.refuse_heading_within()?;
            let options = PairsOptions {
                find_headings: true,
                ..self.pairs_options(0.0, limit)?
            };
            return Ok(Box::new(data::pairs(root, spec, &options)?));
        }
        let list = self.list([List::CrossAreaTest, List::Test2]);
        let part = self.part.unwrap_or(Part::Target);
        if !self.no_check {
            self.open(root, list)?;
        }
        let mut wrong = None;
        let choose = |count: usize| match self.indices(part, count, spec.kind) {
            Ok(mut indices) => {
                indices.truncate(limit.unwrap_or(usize::MAX));
                indices
            }
            Err(error) => {
                wrong = Some(error);
                Vec::new()
            }
        };
        let dataset: Box<dyn Dataset> = if self.dataset == DatasetKind::Vigor {
            let folder = self.vigor_folder(root);
            let split = list.vigor()?;
            let mut images = VigorImages::open(&folder, split, choose, spec)?;
            images.pictures = self.pictures()?;
            Box::new(InMemory::new(images, MEMORY_BYTES))
        } else {
            let folder = self.kitti_folder(root);
            let split = list.kitti()?;
            let range = self.rotation_range(spec);
            let mut images = KittiImages::open(&folder, split, choose, range, spec)?;
            images.pictures = self.pictures()?;
            Box::new(InMemory::new(images, MEMORY_BYTES))
        };
        match wrong {
            Some(error) => Err(error),
            None => Ok(dataset),
        }
    }

    /// What a run says about its dataset of either kind, the licence included.
    pub fn about(&self, root: &Path, used: usize) -> anyhow::Result<Value> {
        if !self.is_published() {
            return data::provenance(root, used);
        }
        let mut about = self.provenance(used);
        about["licence"] = PUBLISHED_LICENCE.into();
        Ok(about)
    }

    /// What a run says about its published dataset.
    pub fn provenance(&self, used: usize) -> Value {
        json!({
            "dataset": self.dataset,
            "list": self.list,
            "part": self.part,
            "order": self.order,
            "heading_within": self.heading_within,
            "orientations": self.orientations,
            "semi_positives": self.semi_positives,
            "rotation_range": self.rotation_range,
            "samples": used,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: DatasetArgs,
    }

    fn parsed(line: &str) -> DatasetArgs {
        Line::parse_from(line.split(' ')).args
    }

    #[test]
    fn parts_of_a_list_do_not_overlap() {
        let args = parsed("x --dataset vigor");
        for parts in [
            [Part::Train, Part::Validation].as_slice(),
            &[Part::Target, Part::TargetValidation, Part::TargetTest],
        ] {
            let of = |part: &Part| args.indices(*part, 101, NetworkKind::Ccvpe).unwrap();
            let mut all: Vec<usize> = parts.iter().flat_map(of).collect();
            all.sort_unstable();
            assert_eq!(all, (0..101).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_network_without_prior_searches_the_whole_circle() {
        let args = parsed("x --dataset vigor");
        let within = |name| {
            args.headings(&crate::model::named(name).unwrap().describe())
                .unwrap()
        };
        assert_eq!(within("ccvpe-vigor"), Headings::Within(180.0));
        assert_eq!(within("ccvpe-vigor-prior0"), Headings::Within(0.0));
    }

    /// Every picture of a published dataset is decoded, so that none is cut.
    #[test]
    fn a_cut_panorama_is_named_though_its_header_is_right() {
        let tree = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../tests/data/golden/vigor_tree"
        );
        let copy = crate::data::vigor::copy_of(Path::new(tree));
        let args = parsed("x --dataset vigor --list cross-area-test");
        let report = args.check(copy.path(), None);
        assert!(!report.refuses() && report.decoded > 0, "{report}");
        let folder = copy.path().join("Chicago/panorama");
        let entry = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap();
        let bytes = std::fs::read(entry.path()).unwrap();
        std::fs::write(entry.path(), &bytes[..bytes.len() * 2 / 3]).unwrap();
        let report = args.check(copy.path(), None);
        let name = entry.file_name().into_string().unwrap();
        let found = report
            .found
            .iter()
            .find(|found| found.check == "picture-cut");
        assert!(found.unwrap().what.contains(&name), "{report}");
    }

    #[test]
    fn lists_of_the_other_dataset_are_refused() {
        let args = parsed("x --dataset kitti --list cross-area-test");
        let error = args.open(Path::new("nowhere"), args.list([List::Train; 2]));
        assert!(error.err().unwrap().to_string().contains("test1"));
    }
}
