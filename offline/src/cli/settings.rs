//! Settings of a run: defaults, then a TOML file over them, then single values over both.

use anyhow::Context;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use toml::{Table, Value};

/// `defaults` with the values of the TOML file at `file` and of `changes` (such as
/// `fit.epochs=3`) put over them.
///
/// # Errors
/// When the file cannot be read, or a name or value is not one of the settings'.
pub fn resolve<T: Serialize + DeserializeOwned>(
    defaults: &T,
    file: Option<&Path>,
    changes: &[String],
) -> anyhow::Result<T> {
    let mut settings = Table::try_from(defaults).context("defaults are not a table")?;
    if let Some(path) = file {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let wrong = || format!("{} is not a settings file", path.display());
        overlay(&mut settings, toml::from_str(&text).with_context(wrong)?);
        check::<T>(&settings).with_context(wrong)?;
    }
    for change in changes {
        let wrong = || format!("--set {change}: write NAME=VALUE, such as fit.epochs=3");
        // A bare word is a string: its quotes would need quotes of their own in a shell.
        let parsed = toml::from_str(change).or_else(|error| match change.split_once('=') {
            Some((name, value)) => toml::from_str(&format!("{name}={:?}", value.trim())),
            None => Err(error),
        });
        overlay(&mut settings, parsed.with_context(wrong)?);
        check::<T>(&settings).with_context(|| format!("--set {change}"))?;
    }
    check(&settings)
}

fn check<T: DeserializeOwned>(settings: &Table) -> anyhow::Result<T> {
    Ok(Value::Table(settings.clone()).try_into()?)
}

/// Puts the values of `over` into `settings`, table by table. A table of another `kind` replaces
/// the one before, since its other fields belong to that kind.
fn overlay(settings: &mut Table, over: Table) {
    for (name, value) in over {
        match (settings.get_mut(&name), value) {
            (Some(Value::Table(under)), Value::Table(over)) => {
                let kind = over.get("kind");
                if kind.is_some() && kind != under.get("kind") {
                    under.clear();
                }
                overlay(under, over);
            }
            (_, value) => {
                settings.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::named;
    use crate::recipe::{Filter, Recipe, defaults};

    fn paper() -> Recipe {
        defaults::paper(&named("compact").unwrap().describe())
    }

    fn changed(changes: &[&str]) -> anyhow::Result<Recipe> {
        let changes: Vec<String> = changes.iter().map(|change| (*change).into()).collect();
        resolve(&paper(), None, &changes)
    }

    #[test]
    fn defaults_survive_the_way_through_toml() {
        assert_eq!(changed(&[]).unwrap(), paper());
    }

    #[test]
    fn single_values_win_and_others_stay() {
        let recipe = changed(&["fit.epochs=3.0", "filter.keep=0.5"]).unwrap();
        assert_eq!(recipe.fit.epochs, 3.0);
        assert_eq!(
            recipe.filter,
            Filter::AuxiliaryStudent {
                keep: 0.5,
                keep_first: None
            }
        );
        assert_eq!(recipe.labeller, paper().labeller);
    }

    #[test]
    fn another_kind_replaces_the_fields_of_the_one_before() {
        let recipe = changed(&["filter.kind=keep_all"]).unwrap();
        assert_eq!(recipe.filter, Filter::KeepAll);
    }

    #[test]
    fn a_name_that_is_no_setting_is_refused() {
        let error = changed(&["fit.epoch=3"]).unwrap_err();
        assert!(format!("{error:#}").contains("epoch"), "{error:#}");
        assert!(changed(&["nonsense"]).is_err());
    }

    #[test]
    fn a_file_wins_over_defaults_and_single_values_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recipe.toml");
        std::fs::write(&path, "rounds = 2\n[fit]\nepochs = 9.0\n").unwrap();
        let recipe = resolve(&paper(), Some(&path), &["fit.epochs=4.0".into()]).unwrap();
        assert_eq!((recipe.rounds, recipe.fit.epochs), (2, 4.0));
    }
}
