//! Recipes by name: the method, its upper bound, and what is left when one part is taken out.

use super::{
    CoarsePrior, Filter, HeadingLabels, Labeller, Recipe, TeacherMode, TruePositions, defaults,
};
use crate::model::ModelSpec;
use crate::model::loss::LossConfig;
use crate::train::{BatchNormKind, FitConfig};

/// One recipe that has a name.
pub struct Named {
    /// What `--recipe` calls it.
    pub name: &'static str,
    /// What it is, in one line.
    pub what: &'static str,
    /// The recipe for a network.
    pub recipe: fn(&ModelSpec) -> Recipe,
}

/// All of them. An ablation is a row here, not a flag.
pub const RECIPES: &[Named] = &[
    Named {
        name: "consensus",
        what: "labels that the frames of a drive agree on, weighed by their support; all levels",
        recipe: defaults::consensus,
    },
    Named {
        name: "paper",
        what: "labels by mode, coarse levels, outliers filtered with an auxiliary student",
        recipe: defaults::paper,
    },
    Named {
        name: "oracle",
        what: "fine-tuning on true positions: the upper bound (needs --truth)",
        recipe: defaults::oracle,
    },
    Named {
        name: "paper-no-filter",
        what: "`paper` with every label: no auxiliary student",
        recipe: |spec| Recipe {
            filter: Filter::KeepAll,
            ..defaults::paper(spec)
        },
    },
    Named {
        name: "paper-all-levels",
        what: "`paper` supervised at every level and the heatmap, not at the coarse levels only",
        recipe: all_levels,
    },
    Named {
        name: "paper-in-prior",
        what: "`paper` with the mode taken inside the coarse position's 99 % ellipse",
        recipe: |spec| with_mode(spec, |mode| mode.prior = CoarsePrior::Ellipse),
    },
    Named {
        name: "paper-times-prior",
        what: "`paper` with the mode taken after multiplying with the coarse position's Gaussian",
        recipe: |spec| with_mode(spec, |mode| mode.prior = CoarsePrior::Multiplied),
    },
    Named {
        name: "paper-heatmap-no-filter",
        what: "baseline: every label is the teacher's whole heatmap; neither mode nor filter",
        recipe: |spec| Recipe {
            filter: Filter::KeepAll,
            ..whole_heatmaps(spec)
        },
    },
    Named {
        name: "paper-heatmap",
        what: "`paper` with the teacher's whole heatmap as label instead of its mode",
        recipe: whole_heatmaps,
    },
    Named {
        name: "paper-entropy-filter",
        what: "`paper` keeping the labels of lowest heatmap entropy: no auxiliary student",
        recipe: |spec| {
            let paper = defaults::paper(spec);
            let keep = match paper.filter {
                Filter::AuxiliaryStudent { keep, .. } => keep,
                _ => 1.0,
            };
            let filter = Filter::LowestEntropy { keep };
            Recipe { filter, ..paper }
        },
    },
    Named {
        name: "paper-soft-weights",
        what: "`paper` with labels weighed by their distance to the auxiliary student's mode, not dropped",
        recipe: |spec| Recipe {
            // As near as a teacher's mode is to the place that its drive agrees on when `consensus` counts it as right.
            filter: Filter::WeighByAuxiliaryStudent { sigma_m: 3.0 },
            ..defaults::paper(spec)
        },
    },
    Named {
        name: "paper-entropy-minimisation",
        what: "`paper` with the entropy of the student's own heatmap added to its loss",
        recipe: |spec| {
            let mut recipe = defaults::paper(spec);
            recipe.fit.loss.entropy = 0.1;
            recipe
        },
    },
    Named {
        name: "paper-fused-labels",
        what: "baseline: labels are modes of teacher times auxiliary student; every label",
        recipe: |spec| Recipe {
            filter: Filter::FuseWithAuxiliary,
            ..defaults::paper(spec)
        },
    },
    Named {
        name: "paper-two-rounds",
        what: "`paper` twice, the second time with the student as teacher",
        recipe: |spec| Recipe {
            rounds: 2,
            ..defaults::paper(spec)
        },
    },
    Named {
        name: "paper-other-batch-norm",
        what: "`paper` with batch norm trained where it is frozen by default, frozen where trained",
        recipe: |spec| {
            let mut recipe = defaults::paper(spec);
            recipe.fit.batch_norm = match recipe.fit.batch_norm {
                BatchNormKind::Frozen => BatchNormKind::Train,
                BatchNormKind::Train => BatchNormKind::Frozen,
            };
            recipe
        },
    },
    Named {
        name: "noisy-truth",
        what: "`oracle` with positions up to 2.5 m off along each axis (needs --truth)",
        recipe: |spec| Recipe {
            labeller: Labeller::GroundTruth(TruePositions { noise_m: 2.5 }),
            ..defaults::oracle(spec)
        },
    },
    Named {
        name: "paper-teacher-heading",
        what: "`paper` with the heading that the teacher finds instead of the given one",
        recipe: |spec| with_mode(spec, |mode| mode.heading = HeadingLabels::Teacher),
    },
];

/// The recipe called `name` for a network.
pub fn named(name: &str, spec: &ModelSpec) -> Option<Recipe> {
    let row = RECIPES.iter().find(|row| row.name == name)?;
    Some((row.recipe)(spec))
}

fn all_levels(spec: &ModelSpec) -> Recipe {
    let paper = defaults::paper(spec);
    // As heavy beside the levels as in supervised training, where both have a weight.
    let of_levels = defaults::supervised(spec).loss;
    let heatmap = if of_levels.info_nce > 0.0 && of_levels.heatmap > 0.0 {
        of_levels.heatmap / of_levels.info_nce
    } else {
        1.0
    };
    Recipe {
        fit: FitConfig {
            loss: LossConfig {
                heatmap,
                levels: None,
                ..paper.fit.loss
            },
            ..paper.fit
        },
        ..paper
    }
}

fn whole_heatmaps(spec: &ModelSpec) -> Recipe {
    let mut recipe = defaults::paper(spec);
    if let Labeller::TeacherMode(mode) = recipe.labeller {
        recipe.labeller = Labeller::TeacherHeatmap(mode);
    }
    recipe
}

fn with_mode(spec: &ModelSpec, change: impl FnOnce(&mut TeacherMode)) -> Recipe {
    let mut recipe = defaults::paper(spec);
    if let Labeller::TeacherMode(mode) = &mut recipe.labeller {
        change(mode);
    }
    recipe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::named as network;

    #[test]
    fn names_are_unique_and_every_recipe_differs_from_the_others() {
        let spec = network("compact").unwrap().describe();
        let recipes: Vec<Recipe> = RECIPES.iter().map(|row| (row.recipe)(&spec)).collect();
        for (index, row) in RECIPES.iter().enumerate() {
            assert!(RECIPES[..index].iter().all(|other| other.name != row.name));
            assert!(!recipes[..index].contains(&recipes[index]), "{}", row.name);
            assert_eq!(named(row.name, &spec).as_ref(), Some(&recipes[index]));
        }
        assert!(named("nothing", &spec).is_none());
    }
}
