//! Recipes by name: the method, its upper bound, and what is left when one part is taken out.

use super::{Filter, HeadingLabels, Labeller, Recipe, TeacherMode, defaults};
use crate::model::ModelSpec;
use crate::model::loss::LossConfig;
use crate::train::FitConfig;

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
        recipe: |spec| with_mode(spec, |mode| mode.within_prior = true),
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
    Recipe {
        fit: FitConfig {
            loss: LossConfig {
                heatmap: 1.0,
                levels: None,
                ..paper.fit.loss
            },
            ..paper.fit
        },
        ..paper
    }
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
