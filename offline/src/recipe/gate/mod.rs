//! Refuses what true positions would refuse, without any: data that is not what it claims, a teacher
//! that finds nothing in an area, a student that is no better than its teacher.
//!
//! Before training: [`input`] (headings against course, odometry against coarse positions, times, the
//! camera), [`each_drive`] (the same of single drives) and [`teacher`] (does it agree with what its drives agree on). After it: [`student`], on
//! drives that were kept from training. The limits were chosen on validation areas.

mod drives;
mod input;
mod student;
#[cfg(test)]
mod tests;

pub use drives::each_drive;
pub use input::{READINGS, heading_reading, input};
pub use student::{LEAST_FRAMES, held_out, student};

use super::Evidence;
use serde::{Deserialize, Serialize};
use std::fmt;

/// When an area, a teacher or a student is refused.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gate {
    /// Whether a refusal stops the adaptation; otherwise it is only told.
    pub enforce: bool,
    /// Share of drives that a student is judged on instead of learning them; 0 judges no student.
    pub held_out: f64,
    /// Largest median angle between heading and course, degrees.
    pub most_course_deg: f64,
    /// Least share of frames at which a teacher agrees with its drives.
    pub least_agreement: f64,
    /// Most that a student may be off on held-out drives, as a share of what its teacher is off.
    pub most_of_teacher: f64,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            enforce: true,
            held_out: 0.0,
            most_course_deg: 25.0,
            least_agreement: 0.4,
            most_of_teacher: 0.97,
        }
    }
}

impl Gate {
    /// Refuses settings without meaning.
    ///
    /// # Errors
    /// The setting and its range.
    pub fn check(&self) -> Result<(), String> {
        // A limit that is no number would never refuse.
        let ranges = [
            ("held_out", self.held_out, 0.5),
            ("most_course_deg", self.most_course_deg, 180.0),
            ("least_agreement", self.least_agreement, 1.0),
            ("most_of_teacher", self.most_of_teacher, 10.0),
        ];
        for (name, value, most) in ranges {
            if !(0.0..=most).contains(&value) {
                return Err(format!("gate.{name} is {value}; it must be 0 to {most}"));
            }
        }
        Ok(())
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Which.
    pub check: String,
    /// What was measured.
    pub value: f64,
    /// Where it would be refused.
    pub limit: f64,
    /// Whether it is.
    pub refuses: bool,
    /// In words, with the remedy where it is refused.
    pub what: String,
}

/// All that was looked at.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// In order.
    pub findings: Vec<Finding>,
}

impl Verdict {
    /// Whether anything refuses.
    pub fn refuses(&self) -> bool {
        self.findings.iter().any(|finding| finding.refuses)
    }

    /// Adds findings.
    pub fn extend(&mut self, findings: impl IntoIterator<Item = Finding>) {
        self.findings.extend(findings);
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.findings.iter().enumerate() {
            let mark = if finding.refuses { "refused" } else { "good" };
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}  {mark:<8} {}", finding.what)?;
        }
        Ok(())
    }
}

/// Whether a teacher finds enough in an area: its modes against the places that its drives agree on.
/// Nothing is judged where frames stand alone.
pub fn teacher(evidence: &Evidence, gate: &Gate) -> Option<Finding> {
    if evidence.stands_alone() {
        return None;
    }
    let (value, limit) = (evidence.agreement, gate.least_agreement);
    // A share that is no number refuses too.
    let refuses = !(value >= limit);
    let remedy = if refuses {
        "; it knows too little of this area, its pictures or its scale: check camera, mount and tiles, or train a teacher nearer to it"
    } else {
        ""
    };
    Some(Finding {
        check: "teacher".into(),
        value,
        limit,
        refuses,
        what: format!(
            "the teacher agrees with its drives at {:.0} % of the frames (at least {:.0} %){remedy}",
            value * 100.0,
            limit * 100.0
        ),
    })
}
