//! What is wrong with a dataset, all at once, each with its fix.

use std::fmt;

/// How many problems are printed; the rest is counted.
const SHOWN: usize = 40;

/// Everything found wrong with one dataset.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
pub struct Problems {
    /// Where the dataset lies.
    pub dataset: String,
    /// One sentence each: where, what, and what to do.
    pub list: Vec<String>,
}

impl Problems {
    /// Nothing wrong yet.
    pub fn of(dataset: impl fmt::Display) -> Self {
        Self {
            dataset: dataset.to_string(),
            list: Vec::new(),
        }
    }

    /// One more.
    pub fn push(&mut self, problem: impl Into<String>) {
        self.list.push(problem.into());
    }

    /// `value` when nothing was found.
    ///
    /// # Errors
    /// All that was found.
    pub fn or<T>(self, value: T) -> Result<T, Self> {
        if self.list.is_empty() {
            Ok(value)
        } else {
            Err(self)
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let count = self.list.len();
        let noun = if count == 1 { "problem" } else { "problems" };
        write!(f, "{}: {count} {noun}", self.dataset)?;
        for problem in self.list.iter().take(SHOWN) {
            // File names come from foreign text; control characters stay out of the terminal.
            let clean: String = problem
                .chars()
                .map(|c| if c.is_control() { '\u{fffd}' } else { c })
                .collect();
            write!(f, "\n  {clean}")?;
        }
        if count > SHOWN {
            write!(f, "\n  and {} more", count - SHOWN)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_problems_are_listed_and_a_flood_is_counted() {
        let mut problems = Problems::of("somewhere");
        assert!(problems.clone().or(()).is_ok());
        for index in 0..50 {
            problems.push(format!("problem {index}\u{1b}[31m"));
        }
        let text = problems.or(()).unwrap_err().to_string();
        assert!(text.starts_with("somewhere: 50 problems\n  problem 0\u{fffd}[31m\n"));
        assert!(text.ends_with("and 10 more"));
    }
}
