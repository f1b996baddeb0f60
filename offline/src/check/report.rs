//! What was found, and how it is printed.

use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// Findings of one kind that are printed; the rest is counted.
const SHOWN: usize = 5;
/// Findings of one kind that are kept; the rest is counted.
const KEPT: usize = 10_000;

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Which kind, in one word.
    pub check: &'static str,
    /// Whether it stops training and adapting; otherwise it is only said.
    pub problem: bool,
    /// The file, relative to the dataset where it is inside.
    pub file: String,
    /// Its line, from 1.
    pub line: Option<usize>,
    /// What is wrong, with the values.
    pub what: String,
    /// What to do.
    pub remedy: &'static str,
}

/// How well another reading of the data fits a network.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Asked {
    /// The reading, in words.
    pub reading: &'static str,
    /// What it gains in the mean logarithm of the probability of the coarse positions.
    pub gain: f64,
    /// The same in standard errors.
    pub standard_errors: f64,
}

/// Everything found in one dataset.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// The dataset's folder.
    pub dataset: String,
    /// Rows that can be read.
    pub pairs: usize,
    /// Pictures whose header was read.
    pub pictures: usize,
    /// Pictures that were decoded.
    pub decoded: usize,
    /// Tiles that were decoded.
    pub tiles: usize,
    /// Seconds that it took.
    pub seconds: f64,
    /// What a network made of other readings of the data.
    pub asked: Vec<Asked>,
    /// What was found, problems and notes.
    pub found: Vec<Found>,
    /// Findings beyond those kept, by kind.
    pub more: BTreeMap<&'static str, usize>,
    /// Findings that are kept, by kind.
    #[serde(skip)]
    kept: BTreeMap<&'static str, usize>,
}

impl Report {
    /// Nothing found yet.
    pub fn of(folder: &Path) -> Self {
        Self {
            dataset: folder.display().to_string(),
            ..Self::default()
        }
    }

    /// One more problem.
    pub fn problem(
        &mut self,
        check: &'static str,
        (file, line): (&str, Option<usize>),
        what: impl Into<String>,
        remedy: &'static str,
    ) {
        self.add(true, check, (file, line), what.into(), remedy);
    }

    /// One more thing that is only said.
    pub fn note(
        &mut self,
        check: &'static str,
        (file, line): (&str, Option<usize>),
        what: impl Into<String>,
        remedy: &'static str,
    ) {
        self.add(false, check, (file, line), what.into(), remedy);
    }

    fn add(
        &mut self,
        problem: bool,
        check: &'static str,
        (file, line): (&str, Option<usize>),
        what: String,
        remedy: &'static str,
    ) {
        let kept = self.kept.entry(check).or_default();
        if *kept >= KEPT {
            *self.more.entry(check).or_default() += 1;
            return;
        }
        *kept += 1;
        self.found.push(Found {
            check,
            problem,
            file: file.into(),
            line,
            what,
            remedy,
        });
    }

    /// Whether there is a problem.
    pub fn refuses(&self) -> bool {
        self.found.iter().any(|found| found.problem)
    }

    /// Kinds of problems.
    pub fn problems(&self) -> usize {
        self.kinds(true).len()
    }

    fn kinds(&self, problem: bool) -> Vec<(&'static str, &'static str)> {
        let mut kinds: Vec<_> = Vec::new();
        for found in self.found.iter().filter(|found| found.problem == problem) {
            let kind = (found.check, found.remedy);
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        kinds
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let count = |count: usize, noun: &str| match count {
            1 => format!("1 {noun}"),
            count => format!("{count} {noun}s"),
        };
        write!(
            f,
            "{}: {}, {} decoded, {} decoded, {:.1} s: {}, {}",
            self.dataset,
            count(self.pairs, "pair"),
            count(self.decoded, "picture"),
            count(self.tiles, "tile"),
            self.seconds,
            count(self.problems(), "problem"),
            count(self.kinds(false).len(), "note"),
        )?;
        for problem in [true, false] {
            for (check, remedy) in self.kinds(problem) {
                let all = self.found.iter();
                let same: Vec<&Found> = all
                    .filter(|found| {
                        (found.check, found.remedy, found.problem) == (check, remedy, problem)
                    })
                    .collect();
                let word = if problem { "problem" } else { "note" };
                write!(f, "\n{word}: {check}")?;
                for found in same.iter().take(SHOWN) {
                    write!(f, "\n  {}", clean(&found.place()))?;
                }
                let more = same.len() + self.more.get(check).copied().unwrap_or(0);
                if more > SHOWN {
                    write!(f, "\n  and {} more", more - SHOWN)?;
                }
                write!(f, "\n  -> {remedy}")?;
            }
        }
        Ok(())
    }
}

impl Found {
    /// Where and what, in one line.
    fn place(&self) -> String {
        match self.line {
            Some(line) => format!("{}, line {line}: {}", self.file, self.what),
            None => format!("{}: {}", self.file, self.what),
        }
    }
}

/// Names come from foreign text; control characters stay out of the terminal.
fn clean(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}

impl std::error::Error for Report {}
