//! Which panoramas are for what: the published splits, drawn with numpy's generator.

use super::City;
use crate::data::numpy::shuffled;

/// A published list of panoramas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VigorSplit {
    /// All four cities, training part.
    SameAreaTrain,
    /// All four cities, test part.
    SameAreaTest,
    /// New York and Seattle, whole: the source area.
    CrossAreaTrain,
    /// San Francisco and Chicago, whole: the target area.
    CrossAreaTest,
}

impl VigorSplit {
    /// Its cities, in the published order.
    pub fn cities(self) -> &'static [City] {
        match self {
            Self::SameAreaTrain | Self::SameAreaTest => &[
                City::NewYork,
                City::Seattle,
                City::SanFrancisco,
                City::Chicago,
            ],
            Self::CrossAreaTrain => &[City::NewYork, City::Seattle],
            Self::CrossAreaTest => &[City::SanFrancisco, City::Chicago],
        }
    }

    /// Name of its label files, before suffix and extension.
    pub fn file(self) -> &'static str {
        match self {
            Self::SameAreaTrain => "same_area_balanced_train",
            Self::SameAreaTest => "same_area_balanced_test",
            Self::CrossAreaTrain | Self::CrossAreaTest => "pano_label_balanced",
        }
    }

    /// Panoramas in the published lists.
    pub fn published_count(self) -> usize {
        match self {
            Self::SameAreaTrain => 52_609,
            Self::SameAreaTest => 52_605,
            Self::CrossAreaTrain => 51_520,
            Self::CrossAreaTest => 53_694,
        }
    }
}

/// Training (80 %) and validation (20 %) of CCVPE: one shuffle with seed 0.
pub fn train_validation(count: usize) -> [Vec<usize>; 2] {
    let mut order = shuffled(0, count);
    let validation = order.split_off((0.8 * count as f64) as usize);
    [order, validation]
}

/// Adaptation (70 %), validation (10 %) and test (20 %) of a target area.
///
/// The adaptation paper used one fixed shuffle of the 53,694 target panoramas; its seed is not
/// published, so without the authors' own order this is numpy's shuffle with seed 0, like every
/// other split of the published code.
pub fn target_area(count: usize) -> [Vec<usize>; 3] {
    parts(shuffled(0, count))
}

/// The 70 / 10 / 20 parts of a given order.
pub fn parts(mut order: Vec<usize>) -> [Vec<usize>; 3] {
    let count = order.len() as f64;
    let test = order.split_off((0.8 * count) as usize);
    let validation = order.split_off((0.7 * count) as usize);
    [order, validation, test]
}

/// The order in which GGCVT uses a list: twenty shuffles, one after the other, seeds 0 to 19.
/// Its training part is the first 80 %.
pub fn ggcvt_order(count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for seed in 0..20 {
        order = shuffled(seed, count)
            .into_iter()
            .map(|i| order[i])
            .collect();
    }
    order
}

/// Training (80 %) and validation (20 %) of GGCVT, in its order.
pub fn ggcvt_train_validation(count: usize) -> [Vec<usize>; 2] {
    let mut order = ggcvt_order(count);
    let validation = order.split_off((0.8 * count as f64) as usize);
    [order, validation]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_area_has_the_published_parts() {
        let [adaptation, validation, test] = target_area(53_694);
        assert_eq!(adaptation.len(), 37_585);
        assert_eq!(validation.len(), 5_370);
        assert_eq!(test.len(), 10_739);
        let mut all = [adaptation, validation, test].concat();
        all.sort_unstable();
        assert!(all.iter().enumerate().all(|(index, value)| index == *value));
    }
}
