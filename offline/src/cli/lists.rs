//! The published lists of VIGOR and KITTI on the command line, and their parts.

use crate::data::kitti::KittiSplit;
use crate::data::npy;
use crate::data::vigor::VigorSplit;
use anyhow::{Context, bail};
use clap::ValueEnum;
use serde::Serialize;
use std::path::Path;

/// The layout of `--data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DatasetKind {
    /// Our own: dataset.toml, pairs.jsonl.
    Pairs,
    /// VIGOR with corrected labels.
    Vigor,
    /// KITTI with aerial maps.
    Kitti,
}

/// A published list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum List {
    /// VIGOR same-area, training.
    SameAreaTrain,
    /// VIGOR same-area, test.
    SameAreaTest,
    /// VIGOR cross-area, New York and Seattle.
    CrossAreaTrain,
    /// VIGOR cross-area, San Francisco and Chicago.
    CrossAreaTest,
    /// KITTI, training.
    Train,
    /// KITTI, test in the training's area.
    Test1,
    /// KITTI, test elsewhere.
    Test2,
}

/// A part of a list. The 80 / 20 parts are those of the published training, the 70 / 10 / 20
/// parts those of the adaptation paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// All of it.
    All,
    /// The first 80 % of the shuffled list.
    Train,
    /// The last 20 % of the shuffled list.
    Validation,
    /// The first 70 % of the shuffled target area.
    Target,
    /// The next 10 %.
    TargetValidation,
    /// The last 20 %.
    TargetTest,
}

impl List {
    /// The list of VIGOR.
    pub fn vigor(self) -> anyhow::Result<VigorSplit> {
        Ok(match self {
            Self::SameAreaTrain => VigorSplit::SameAreaTrain,
            Self::SameAreaTest => VigorSplit::SameAreaTest,
            Self::CrossAreaTrain => VigorSplit::CrossAreaTrain,
            Self::CrossAreaTest => VigorSplit::CrossAreaTest,
            _ => bail!(
                "VIGOR has the lists same-area-train, same-area-test, cross-area-train and cross-area-test"
            ),
        })
    }

    /// The list of KITTI.
    pub fn kitti(self) -> anyhow::Result<KittiSplit> {
        Ok(match self {
            Self::Train => KittiSplit::Train,
            Self::Test1 => KittiSplit::Test1,
            Self::Test2 => KittiSplit::Test2,
            _ => bail!("KITTI has the lists train, test1 and test2"),
        })
    }
}

/// A list of another length is used, but not silently: figures then compare with no table.
pub fn check_count(found: usize, published: usize) {
    if found != published {
        crate::note!("the list has {found} entries; the published one has {published}");
    }
}

/// Reads the order of a target area.
pub fn read_order(path: &Path, count: usize) -> anyhow::Result<Vec<usize>> {
    let numbers = npy::read(path).map_err(anyhow::Error::msg)?;
    check_order(&numbers, count).with_context(|| format!("{}", path.display()))
}

fn check_order(numbers: &[f64], count: usize) -> anyhow::Result<Vec<usize>> {
    let mut seen = vec![false; count];
    if numbers.len() != count {
        bail!(
            "{} indices for {count} panoramas; the order belongs to another list",
            numbers.len()
        );
    }
    for value in numbers {
        let index = *value as usize;
        if index as f64 != *value || index >= count || std::mem::replace(&mut seen[index], true) {
            bail!("{value} is out of range or stands twice; an order has every index once");
        }
    }
    Ok(numbers.iter().map(|value| *value as usize).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_have_every_index_once() {
        assert_eq!(check_order(&[2.0, 0.0, 1.0], 3).unwrap(), [2, 0, 1]);
        for wrong in [
            [0.0, 1.0, 1.0],
            [0.0, 1.0, 3.0],
            [0.0, 1.0, -1.0],
            [0.0, 1.0, 1.5],
        ] {
            assert!(check_order(&wrong, 3).is_err());
        }
        assert!(check_order(&[0.0], 3).is_err());
    }
}
