//! Several cameras as one: their pictures of one moment, stitched into a panorama.

use std::collections::VecDeque;
use std::sync::Arc;

use crossfix_calibration::{Camera, Error, RgbImage, Stitcher};

use crate::config::RigConfig;
use crate::event::CameraFrame;
use crate::image_decode::{decode_rgb, header};

use super::frame_quality::FrameQuality;

/// The name of the stitched camera.
const NAME: &str = "rig";
/// Moments that wait for the frames of slower cameras.
const MOST_OPEN: usize = 4;
/// A camera without a frame for this long is not waited for, nanoseconds.
const SILENT_NS: i64 = 1_200_000_000;
/// So many moments of too few cameras in a row are left out, then one is tried, which says what is missing.
const MOST_LEFT_OUT: usize = 8;

/// Puts the frames of a rig's cameras together.
#[derive(Debug)]
pub struct Rig {
    /// Names of the cameras, in the order of the config.
    names: Vec<String>,
    within_ns: i64,
    within_s: f64,
    least_seen: f64,
    stitcher: Stitcher,
    camera: Camera,
    /// Moments whose frames are still coming, in order: cameras deliver with different delays.
    open: VecDeque<Moment>,
    /// Time of the last moment that is over.
    closed_ns: Option<i64>,
    /// Time of the newest frame, of all and of each camera (of the first frame until it has one).
    newest_ns: i64,
    latest_ns: Vec<Option<i64>>,
    /// Moments in a row that had too few cameras.
    left_out: usize,
    /// Width and height of each camera's pictures.
    sizes: Vec<[usize; 2]>,
    /// What is usual for each camera's pictures, and whether it was said that they cannot be used.
    quality: Vec<FrameQuality>,
    told: Vec<bool>,
    /// The cameras that the latest panorama was made without.
    without: Vec<usize>,
}

/// Frames of one moment, at most one of each camera.
#[derive(Debug)]
pub(super) struct Moment {
    /// Of the frame that came first.
    first_ns: i64,
    frames: Vec<Option<CameraFrame>>,
}

impl Moment {
    /// The mean of its frames' times.
    pub(super) fn time_ns(&self) -> i64 {
        let later = self.frames.iter().flatten();
        let later = later.map(|frame| frame.time_ns - self.first_ns);
        let (count, sum) = later.fold((0, 0), |(count, sum), later| (count + 1, sum + later));
        self.first_ns + sum / count.max(1)
    }
}

/// A panorama of one moment.
#[derive(Debug)]
pub(super) struct Stitched {
    pub(super) picture: RgbImage,
    /// The same as a frame of the stitched camera.
    pub(super) frame: CameraFrame,
    /// Whether every camera had its part in it.
    pub(super) is_whole: bool,
}

impl Rig {
    /// The rig that the config describes.
    ///
    /// # Errors
    /// For cameras that cannot be.
    pub fn new(config: &RigConfig) -> Result<Self, Error> {
        let cameras: Vec<_> = config
            .camera
            .iter()
            .map(|camera| (camera.lens.clone(), camera.lever_arm))
            .collect();
        let panorama = config.panorama();
        Ok(Self {
            names: config
                .camera
                .iter()
                .map(|camera| camera.source.clone())
                .collect(),
            within_ns: (config.within_s * 1e9) as i64,
            within_s: config.within_s,
            least_seen: config.least_seen,
            stitcher: Stitcher::new(&cameras, &panorama)?,
            camera: panorama.camera(),
            open: VecDeque::new(),
            closed_ns: None,
            newest_ns: i64::MIN,
            latest_ns: vec![None; config.camera.len()],
            left_out: 0,
            sizes: config
                .camera
                .iter()
                .map(|camera| camera.lens.image_size())
                .collect(),
            quality: vec![FrameQuality::default(); config.camera.len()],
            told: vec![false; config.camera.len()],
            without: Vec::new(),
        })
    }

    /// The camera that its panoramas look taken by.
    pub fn camera(&self) -> &Camera {
        &self.camera
    }

    /// Takes a frame; returns a moment when it is complete, or when what it lacks will not come.
    ///
    /// # Errors
    /// For a frame of another camera, or of a moment that is over, and when a moment of too few cameras is
    /// left out, in words.
    pub(super) fn take(&mut self, frame: CameraFrame) -> Result<Option<Moment>, String> {
        let Some(index) = self.names.iter().position(|name| *name == frame.camera) else {
            return Err(format!(
                "camera \"{}\" is none of the rig's ({})",
                frame.camera,
                self.names.join(", ")
            ));
        };
        let time_ns = frame.time_ns;
        self.newest_ns = self.newest_ns.max(time_ns);
        for latest_ns in &mut self.latest_ns {
            latest_ns.get_or_insert(time_ns);
        }
        let latest_ns = self.latest_ns[index].get_or_insert(time_ns);
        *latest_ns = time_ns.max(*latest_ns);
        let within_ns = self.within_ns;
        let its_moment = self.open.iter_mut().find(|moment| {
            moment.frames[index].is_none() && (time_ns - moment.first_ns).abs() <= within_ns
        });
        if let Some(moment) = its_moment {
            moment.frames[index] = Some(frame);
        } else if self.closed_ns.is_some_and(|closed_ns| time_ns <= closed_ns) {
            return Err(format!(
                "a frame of camera \"{}\" came after its moment was over",
                frame.camera
            ));
        } else {
            let mut frames = vec![None; self.names.len()];
            frames[index] = Some(frame);
            let at = self
                .open
                .partition_point(|moment| moment.first_ns < time_ns);
            let first_ns = time_ns;
            self.open.insert(at, Moment { first_ns, frames });
        }
        let is_over = |moment: &Moment| {
            let lacks = (0..moment.frames.len()).filter(|at| moment.frames[*at].is_none());
            lacks.into_iter().all(|at| {
                let latest_ns = self.latest_ns[at].unwrap_or(time_ns);
                latest_ns > moment.first_ns + within_ns || self.newest_ns - latest_ns > SILENT_NS
            })
        };
        if !(self.open.len() > MOST_OPEN || self.open.front().is_some_and(is_over)) {
            return Ok(None);
        }
        let Some(moment) = self.open.pop_front() else {
            return Ok(None);
        };
        self.closed_ns = Some(moment.first_ns);
        let there: Vec<bool> = moment.frames.iter().map(Option::is_some).collect();
        if self.sees_enough(&there) || self.left_out >= MOST_LEFT_OUT {
            self.left_out = 0;
            return Ok(Some(moment));
        }
        self.left_out += 1;
        Err("a moment of too few cameras is left out".to_owned())
    }

    /// Whether these cameras see enough of what all see.
    fn sees_enough(&self, there: &[bool]) -> bool {
        let all = self.stitcher.seen_fraction(&vec![true; there.len()]);
        self.stitcher.seen_fraction(there) >= self.least_seen * all
    }

    /// Share of the panorama that all cameras together see.
    pub fn seen_fraction(&self) -> f64 {
        self.stitcher.seen_fraction(&vec![true; self.names.len()])
    }

    /// Forgets the frames that wait for others.
    pub(super) fn forget(&mut self) {
        self.open.clear();
        self.closed_ns = None;
        self.newest_ns = i64::MIN;
        self.latest_ns.fill(None);
    }

    /// The picture of a camera's frame, if it is one of the road and of the camera's size.
    fn picture(
        &mut self,
        index: usize,
        frame: &CameraFrame,
        largest_side_px: usize,
    ) -> Option<RgbImage> {
        let size = self.sizes[index];
        let judged = header(&frame.image, largest_side_px)
            .map_err(|error| error.to_string())
            .and_then(|header| {
                let turned = [header.height, header.width];
                if [header.width, header.height] == size || turned == size {
                    decode_rgb(&frame.image, largest_side_px).map_err(|error| error.to_string())
                } else {
                    let [width, height] = [header.width, header.height];
                    Err(format!(
                        "has {width} x {height} pixels, and its lens {} x {}",
                        size[0], size[1]
                    ))
                }
            })
            .and_then(|picture| {
                if [picture.width, picture.height] != size {
                    return Err("is turned by its EXIF orientation".to_owned());
                }
                self.quality[index].judge(&picture).map(|()| picture)
            });
        match judged {
            Ok(picture) => {
                self.told[index] = false;
                Some(picture)
            }
            Err(problem) => {
                if !std::mem::replace(&mut self.told[index], true) {
                    tracing::warn!(camera = frame.camera, problem, "a picture cannot be used");
                }
                None
            }
        }
    }

    /// The panorama of a moment. A camera whose picture is missing or broken leaves its part black.
    ///
    /// # Errors
    /// When the cameras that are left see too little, or a picture has another size than its camera's, in
    /// words.
    pub(super) fn stitch(
        &mut self,
        moment: &Moment,
        largest_side_px: usize,
    ) -> Result<Stitched, String> {
        let mut pictures = Vec::with_capacity(moment.frames.len());
        for (index, frame) in moment.frames.iter().enumerate() {
            let picture = frame
                .as_ref()
                .and_then(|frame| self.picture(index, frame, largest_side_px));
            pictures.push(picture);
        }
        let there: Vec<bool> = pictures.iter().map(Option::is_some).collect();
        let without: Vec<usize> = (0..there.len()).filter(|index| !there[*index]).collect();
        if !without.is_empty() {
            let names: Vec<&str> = without
                .iter()
                .map(|index| self.names[*index].as_str())
                .collect();
            let names = names.join(", ");
            if without != self.without {
                tracing::warn!(
                    cameras = names,
                    "the panorama is made without these cameras"
                );
            }
            let all = self.stitcher.seen_fraction(&vec![true; there.len()]);
            let seen = self.stitcher.seen_fraction(&there) / all;
            if !self.sees_enough(&there) {
                self.without = without;
                return Err(format!(
                    "no usable picture of {names} within {} s, and the other cameras see {:.0} % of what all \
                     see (rig.least_seen)",
                    self.within_s,
                    100.0 * seen
                ));
            }
        } else if !self.without.is_empty() {
            tracing::info!("the panorama is made with all cameras again");
        }
        self.without = without;
        let picture = self
            .stitcher
            .stitch(&pictures)
            .map_err(|error| error.to_string())?;
        Ok(Stitched {
            frame: CameraFrame {
                time_ns: moment.time_ns(),
                image: portable_pixmap(&picture),
                camera: NAME.to_owned(),
            },
            is_whole: self.without.is_empty(),
            picture,
        })
    }
}

/// The picture as binary PNM, which costs no time.
fn portable_pixmap(picture: &RgbImage) -> Arc<[u8]> {
    let mut bytes = format!("P6\n{} {}\n255\n", picture.width, picture.height).into_bytes();
    bytes.extend_from_slice(&picture.data);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossfix_calibration::{LeverArm, Mount, Pinhole};

    use crate::config::RigCameraConfig;

    fn lens(yaw_left_deg: f64) -> Camera {
        Camera::Pinhole(Pinhole {
            mount: Mount {
                yaw_left_deg,
                ..Mount::default()
            },
            ..Pinhole::with_horizontal_view(64, 48, 2.2)
        })
    }

    fn rig(least_seen: f64) -> Rig {
        let cameras = [("front", 0.0), ("left", 120.0), ("right", -120.0)];
        let camera = cameras.map(|(source, yaw_left_deg)| RigCameraConfig {
            source: source.into(),
            lens: lens(yaw_left_deg),
            lever_arm: LeverArm::default(),
        });
        let config = RigConfig {
            camera: camera.into(),
            least_seen,
            width: 128,
            ..RigConfig::default()
        };
        Rig::new(&config).unwrap()
    }

    /// A picture of one colour.
    fn frame(camera: &str, time_ms: i64, level: u8) -> CameraFrame {
        let mut picture = RgbImage::black(64, 48);
        for (at, value) in picture.data.iter_mut().enumerate() {
            // Broad stripes: a picture of one colour shows nothing.
            *value = if (at / 3 / 64) < 6 { 0 } else { level };
        }
        CameraFrame {
            time_ns: time_ms * 1_000_000,
            image: portable_pixmap(&picture),
            camera: camera.into(),
        }
    }

    #[test]
    fn frames_of_one_moment_become_one_panorama_at_their_mean_time() {
        let mut rig = rig(0.6);
        assert!(rig.take(frame("left", 0, 50)).unwrap().is_none());
        assert!(rig.take(frame("front", 20, 100)).unwrap().is_none());
        let moment = rig.take(frame("right", 40, 200)).unwrap().unwrap();
        assert_eq!(moment.time_ns(), 20_000_000);
        let stitched = rig.stitch(&moment, 8192).unwrap();
        assert!(stitched.is_whole);
        let row = stitched.picture.height / 2;
        // Left of the nose is left of the centre.
        assert_eq!(stitched.picture.pixel(64, row), [100; 3]);
        assert_eq!(stitched.picture.pixel(64 - 43, row), [50; 3]);
        assert_eq!(stitched.picture.pixel(64 + 43, row), [200; 3]);
        // What is recorded and compared is the same picture.
        let again = decode_rgb(&stitched.frame.image, 8192).unwrap();
        assert_eq!(again, stitched.picture);
        let size = [again.width, again.height];
        assert_eq!(size, rig.camera().image_size());
    }

    #[test]
    fn a_camera_that_delivers_late_is_waited_for_and_one_that_is_silent_is_not() {
        let mut rig = rig(0.6);
        assert!(rig.take(frame("left", 0, 50)).unwrap().is_none());
        assert!(rig.take(frame("front", 10, 100)).unwrap().is_none());
        assert!(rig.take(frame("left", 100, 50)).unwrap().is_none());
        let moment = rig.take(frame("right", 5, 200)).unwrap().unwrap();
        assert!(rig.stitch(&moment, 8192).unwrap().is_whole);
        // It stops: some moments wait for it, then they go on without.
        let mut without = Vec::new();
        for time_ms in (100..2000).step_by(100) {
            for camera in ["front", "left"] {
                if let Ok(Some(moment)) = rig.take(frame(camera, time_ms, 100)) {
                    without.push(moment);
                }
            }
        }
        assert_eq!(without[0].first_ns, 100_000_000);
        let last_ns = without[without.len() - 1].first_ns;
        assert!(last_ns >= 1_800_000_000, "{last_ns}");
        // Another rig, for which the pictures are not the same again.
        let stitched = self::rig(0.6).stitch(&without[0], 8192).unwrap();
        assert!(!stitched.is_whole);
        let row = stitched.picture.height / 2;
        assert_eq!(stitched.picture.pixel(64 + 43, row), [0; 3]);
        let late = rig.take(frame("right", 100, 200)).unwrap_err();
        assert!(late.contains("right"), "{late}");
        let stranger = rig.take(frame("rear", 110, 1)).unwrap_err();
        assert!(
            stranger.contains("rear") && stranger.contains("front, left"),
            "{stranger}"
        );
    }

    #[test]
    fn too_few_cameras_are_an_error_that_names_the_others() {
        let mut rig = rig(0.9);
        let moment = |frames: [Option<CameraFrame>; 3]| Moment {
            first_ns: 0,
            frames: frames.into(),
        };
        let without_right = moment([
            Some(frame("front", 0, 100)),
            Some(frame("left", 0, 50)),
            None,
        ]);
        let problem = rig.stitch(&without_right, 8192).unwrap_err();
        assert!(
            problem.contains("right") && problem.contains("rig.least_seen"),
            "{problem}"
        );
        // A broken picture, a black one and one of another size are missing ones.
        let broken = CameraFrame {
            image: (&b"no picture"[..]).into(),
            ..frame("front", 0, 0)
        };
        let larger = CameraFrame {
            image: portable_pixmap(&RgbImage::black(128, 96)),
            ..frame("front", 0, 0)
        };
        let black = CameraFrame {
            image: portable_pixmap(&RgbImage::black(64, 48)),
            ..frame("front", 0, 0)
        };
        for front in [broken, larger, black] {
            let others = [Some(frame("left", 0, 50)), Some(frame("right", 0, 200))];
            let [left, right] = others;
            let problem = rig.stitch(&moment([Some(front), left, right]), 8192);
            let problem = problem.unwrap_err();
            assert!(problem.contains("front"), "{problem}");
        }
    }

    #[test]
    fn moments_of_too_few_cameras_are_left_out_until_something_must_be_said() {
        let mut rig = rig(0.9);
        let taken: Vec<_> = (0..30)
            .map(|frame_number| rig.take(frame("front", 2000 * frame_number, 100)))
            .collect();
        let moments = taken.iter().filter(|taken| matches!(taken, Ok(Some(_))));
        let count = moments.count();
        assert!((1..=4).contains(&count), "{count}");
        rig.forget();
        assert!(rig.take(frame("left", 0, 100)).unwrap().is_none());
    }
}
