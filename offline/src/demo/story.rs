//! The demo as a story: what happened, step by step, with the figures of each step.

use super::Outcome;
use crate::data::Dataset;
use crate::metrics::mean;
use crate::report::{StoryStep, kept_back};

/// The steps in order.
pub fn steps(outcome: &Outcome) -> Vec<StoryStep> {
    let areas = &outcome.areas;
    let error = |measured: &super::Measured| measured.evaluation.unmasked.mean_m;
    let (teacher, student) = (error(&outcome.teacher), error(&outcome.student));
    let (home, target) = (&outcome.teacher_on_source, &outcome.teacher.evaluation);
    let labels = &outcome.adapted.labels;
    let learned = labels.iter().filter(|label| label.is_kept()).count();
    let back = kept_back(&areas.adapt, labels).len();
    let drives = areas.adapt.drives().len();
    let refusals = outcome
        .adapted
        .verdict
        .findings
        .iter()
        .filter(|finding| finding.refuses);
    let refusals: Vec<&str> = refusals.map(|finding| finding.what.as_str()).collect();
    let gate = match (back, refusals.is_empty()) {
        (0, true) => "No drive was kept back, so nothing but the truth can judge it.".into(),
        (_, true) => {
            format!("It was judged without truth on {back} drives that were kept back, and passes.")
        }
        (_, false) => format!(
            "Judged without truth, it is refused: {}.",
            refusals.join("; ")
        ),
    };
    let bound = error(&outcome.upper_bound);
    let closed = 100.0 * (teacher - student) / (teacher - bound);
    let closed = if teacher > bound && closed.is_finite() {
        format!(
            " {closed:.0} % of the way from the teacher to the upper bound ({bound:.2} m, learned from true positions)."
        )
    } else {
        format!(" The upper bound, learned from true positions, is at {bound:.2} m.")
    };
    vec![
        StoryStep::new(
            "A teacher from elsewhere.",
            format!(
                "A network finds where in an aerial picture a ground view was taken. It learned that in a source area, with true \
                 positions; on other places of that area it is {:.2} m wrong on average. In the target area, whose streets and \
                 roofs look different, it is {teacher:.2} m wrong.",
                home.unmasked.mean_m
            ),
        ),
        StoryStep::new(
            "Drives without truth.",
            format!(
                "{drives} drives through the target area gave {} ground views with coarse GNSS positions ({:.1} m wrong on average at the \
                 test places), compass headings and odometry. No true position is given to what follows.",
                areas.adapt.len(),
                target.coarse.mean_m
            ),
        ),
        StoryStep::new(
            "Labels that drives agree on.",
            format!(
                "At every frame the teacher says where it may be; odometry and GNSS say which of these places fit into one drive. The \
                 labels so found are {:.2} m wrong on average, where the teacher's own answers for the same frames are {:.2} m wrong. \
                 {learned} of {} labels were learned.",
                outcome.label_error_m(),
                outcome.mode_error_m(),
                labels.len()
            ),
        ),
        StoryStep::new(
            "A student learns them.",
            format!("A copy of the teacher was trained on these labels. {gate}"),
        ),
        StoryStep::new(
            "Measured where nothing was trained.",
            format!(
                "At {} places in other districts of the target area the student is {student:.2} m wrong on average: {}.{closed} The published \
                 method (recipe paper), which looks at every frame alone, comes to {:.2} m.",
                areas.test.len(),
                if student < teacher {
                    format!(
                        "{:.0} % less than its teacher",
                        100.0 * (1.0 - student / teacher)
                    )
                } else {
                    format!(
                        "{:.0} % more than its teacher",
                        100.0 * (student / teacher - 1.0)
                    )
                },
                error(&outcome.paper)
            ),
        ),
        StoryStep::new(
            "On the road.",
            format!(
                "The student was exported to ONNX (its answers differ from the trained ones by {:.0e} relative) and {} drives were replayed \
                 through the vehicle's program. Fused with GNSS and odometry, positions are {:.2} m wrong on average; GNSS alone is \
                 {:.2} m wrong, reflections between houses included. The truth lay in the stated 95 % region {:.1} % of the time.",
                outcome.export_error,
                areas.logs.len(),
                mean(&outcome.drives.fused_m),
                mean(&outcome.drives.gnss_m),
                100.0 * outcome.drives.coverage_95()
            ),
        ),
    ]
}
