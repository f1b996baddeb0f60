//! A student that is another network than its teacher: of another size, trained from nothing or from weights of
//! its own.
//!
//! Labels are places in metres, so they carry over to any network that looks at the same ground through a camera
//! of the same kind: its images, cells and channels may differ. The auxiliary student of a filter stays a copy of
//! the teacher. Its distance from a label then says that other pictures contradict the label, and not that a
//! smaller network, or one that began with nothing, cannot follow.

use super::{AdaptError, Labeller, PseudoLabel};
use crate::data::Dataset;
use crate::data::pose::{cell_from_offset, wrap_rad};
use crate::model::{CrossViewModel, GroundCamera, ModelSpec};
use crossfix_calibration::{Enu, LocalFrame};
use std::mem::discriminant;

/// Fields of view that differ by more than this, degrees, are of different cameras.
const SAME_VIEW_DEG: f64 = 0.1;

/// The network that learns, and its view of the pairs.
#[derive(Clone, Copy)]
pub struct Pupil<'a> {
    /// As it is before its training.
    pub model: &'a dyn CrossViewModel,
    /// The teacher's samples in the same order, opened for this network.
    pub pairs: &'a dyn Dataset,
}

impl Pupil<'_> {
    /// Refuses a student that cannot learn this teacher's labels.
    ///
    /// # Errors
    /// [`AdaptError::Settings`] with both values.
    pub fn check(
        &self,
        teacher: &ModelSpec,
        pairs: &dyn Dataset,
        labeller: &Labeller,
    ) -> Result<(), AdaptError> {
        let student = self.model.describe();
        let names = format!(
            "the student {:?} and its teacher {:?}",
            student.preset, teacher.preset
        );
        same_camera(teacher, student)
            .map_err(|what| AdaptError::Settings(format!("{names} {what}")))?;
        if matches!(labeller, Labeller::TeacherHeatmap(_)) && student.heatmap != teacher.heatmap {
            return Err(AdaptError::Settings(format!(
                "{names} have heatmaps of {} and {} cells along a side, and whole heatmaps are what is learned; take a recipe that labels by places, such as consensus or paper",
                student.heatmap.side, teacher.heatmap.side
            )));
        }
        let same = pairs.len() == self.pairs.len()
            && (pairs.samples().zip(self.pairs.samples())).all(|(a, b)| a.id == b.id);
        if !same {
            return Err(AdaptError::Settings(format!(
                "{names} were given different samples ({} and {})",
                self.pairs.len(),
                pairs.len()
            )));
        }
        Ok(())
    }

    /// The teacher's labels for its `pairs` as this network learns them: about its own patch centres, in its own
    /// cells, against the heading that its own images are aligned with. Those outside its heatmap have weight 0.
    pub fn labels(&self, pairs: &dyn Dataset, labels: &[PseudoLabel]) -> Vec<PseudoLabel> {
        let spec = self.model.describe();
        let side = spec.heatmap_side() as f64;
        let labels = labels.iter().enumerate().map(|(index, label)| {
            let (theirs, own) = (pairs.sample(index), self.pairs.sample(index));
            let (from, to) = (LocalFrame::new(theirs.centre), LocalFrame::new(own.centre));
            let moved = |[east, north]: [f64; 2]| {
                let place = from.geodetic_from_enu(Enu::new(east, north, 0.0));
                to.enu_from_geodetic(place).horizontal()
            };
            let offset_m = moved(label.offset_m);
            let [column, row] = cell_from_offset(offset_m, spec);
            let inside = [column, row].iter().all(|cell| (0.0..side).contains(cell));
            PseudoLabel {
                column: column.clamp(0.5, side - 0.5),
                row: row.clamp(0.5, side - 0.5),
                offset_m,
                peak_m: moved(label.peak_m),
                residual_rad: wrap_rad(
                    label.residual_rad - theirs.heading_residual_rad + own.heading_residual_rad,
                ),
                weight: if inside { label.weight } else { 0.0 },
                ..label.clone()
            }
        });
        labels.collect()
    }
}

/// Whether a student's pictures can be made of the pictures that its teacher labelled.
fn same_camera(teacher: &ModelSpec, student: &ModelSpec) -> Result<(), String> {
    let pinhole = |camera| matches!(camera, GroundCamera::CalibratedPinhole { .. });
    let kinds = if pinhole(student.camera) || pinhole(teacher.camera) {
        // What their headings mean is part of the kind.
        student.camera == teacher.camera
    } else {
        discriminant(&student.camera) == discriminant(&teacher.camera)
    };
    if !kinds {
        return Err(format!(
            "see through different cameras ({:?} and {:?}); take a student for the teacher's camera",
            student.camera, teacher.camera
        ));
    }
    let views = [student.field_of_view_deg, teacher.field_of_view_deg];
    // Written so that NaN differs.
    if !((views[0] - views[1]).abs() <= SAME_VIEW_DEG) {
        return Err(format!(
            "see {:.1}° and {:.1}° of the circle; take a student for the teacher's camera",
            views[0], views[1]
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::named;

    #[test]
    fn cameras_of_other_kinds_are_refused_and_other_sizes_are_not() {
        let fits = |teacher: &str, student: &str| {
            let [teacher, student] = [teacher, student].map(|name| named(name).unwrap().describe());
            same_camera(&teacher, &student)
        };
        for (teacher, student) in [
            ("compact", "compact-small"),
            ("compact", "ggcvt-compact"),
            ("ccvpe-vigor", "compact"),
            ("ggcvt-kitti3", "ggcvt-kitti3"),
        ] {
            fits(teacher, student).unwrap();
        }
        for (teacher, student, expected) in [
            ("compact", "compact-front", "different cameras"),
            ("compact", "ccvpe-vigor-fov180", "different cameras"),
            ("ggcvt-kitti3", "ggcvt-kitti2", "different cameras"),
            ("ccvpe-vigor-fov90", "ccvpe-vigor-fov180", "90.0°"),
        ] {
            let refused = fits(teacher, student).unwrap_err();
            assert!(refused.contains(expected), "{refused}");
        }
    }
}
