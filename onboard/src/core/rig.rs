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
/// Moments that wait for the frames of slower cameras at most, in number (each keeps its pictures) and in time,
/// nanoseconds.
const MOST_OPEN: usize = 8;
const LONGEST_WAIT_NS: i64 = 1_000_000_000;
/// Cameras are no faster than this, nanoseconds between two frames.
const SHORTEST_NS: i64 = 15_000_000;
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
    /// Share of the panorama that all cameras together see.
    all_seen: f64,
    camera: Camera,
    /// Moments whose frames are still coming, in order: cameras deliver with different delays.
    open: VecDeque<Moment>,
    /// The last moment that is over: the time of its first frame, and which cameras it had.
    closed: Option<(i64, Vec<bool>)>,
    /// Time of the newest frame, of all and of each camera (of the first frame of all until it has one).
    newest_ns: i64,
    latest_ns: Option<Vec<i64>>,
    /// Which cameras have delivered, and the shortest time between two frames of each.
    delivered: Vec<bool>,
    shortest_ns: Vec<i64>,
    /// What was said once: of each camera that it is late, and that there is one of none of these names.
    late_told: Vec<bool>,
    stranger_told: bool,
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
        let stitcher = Stitcher::new(&cameras, &panorama)?;
        Ok(Self {
            names: config
                .camera
                .iter()
                .map(|camera| camera.source.clone())
                .collect(),
            within_ns: (config.within_s * 1e9) as i64,
            within_s: config.within_s,
            least_seen: config.least_seen,
            all_seen: stitcher.seen_fraction(&vec![true; cameras.len()]),
            stitcher,
            camera: panorama.camera(),
            open: VecDeque::new(),
            closed: None,
            newest_ns: i64::MIN,
            latest_ns: None,
            delivered: vec![false; config.camera.len()],
            shortest_ns: vec![i64::MAX; config.camera.len()],
            late_told: vec![false; config.camera.len()],
            stranger_told: false,
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

    /// Takes a frame into its moment; [`Self::next`] has those that are over.
    ///
    /// # Errors
    /// For a frame of another camera, a repeated one, or one of a moment that is over, in words.
    pub(super) fn take(&mut self, frame: CameraFrame) -> Result<(), String> {
        let Some(index) = self.names.iter().position(|name| *name == frame.camera) else {
            let problem = format!(
                "camera \"{}\" is none of the rig's ({})",
                frame.camera,
                self.names.join(", ")
            );
            if !std::mem::replace(&mut self.stranger_told, true) {
                tracing::warn!("{problem}");
            }
            return Err(problem);
        };
        let time_ns = frame.time_ns;
        let is_repeated = self.open.iter().any(|moment| {
            let frame = moment.frames[index].as_ref();
            frame.is_some_and(|frame| frame.time_ns == time_ns)
        });
        if is_repeated {
            return Err(format!(
                "a frame of camera \"{}\" is repeated",
                frame.camera
            ));
        }
        let count = self.names.len();
        let latest_ns = self.latest_ns.get_or_insert_with(|| vec![time_ns; count]);
        let before_ns = latest_ns[index];
        latest_ns[index] = time_ns.max(before_ns);
        self.newest_ns = self.newest_ns.max(time_ns);
        if self.delivered[index] && time_ns > before_ns {
            // Two frames at once do not make a fast camera: the shortest interval grows again.
            let grown_ns = self.shortest_ns[index].saturating_add(self.shortest_ns[index] / 8);
            self.shortest_ns[index] = grown_ns.min((time_ns - before_ns).max(SHORTEST_NS));
        }
        self.delivered[index] = true;
        // Of a fast camera the nearest frame only: its neighbours are of other moments.
        let apart_ns = self.within_ns.min(self.shortest_ns[index] / 2);
        let away_ns = |moment: &Moment| (time_ns - moment.first_ns).abs();
        let its_moment = self
            .open
            .iter_mut()
            .filter(|moment| moment.frames[index].is_none() && away_ns(moment) <= apart_ns)
            .min_by_key(|moment| away_ns(moment));
        if let Some(moment) = its_moment {
            moment.frames[index] = Some(frame);
            return Ok(());
        }
        let is_late = self.closed.as_ref().is_some_and(|(closed_ns, there)| {
            time_ns <= *closed_ns || !there[index] && time_ns - closed_ns <= apart_ns
        });
        if is_late {
            if !std::mem::replace(&mut self.late_told[index], true) {
                tracing::warn!(
                    camera = frame.camera,
                    "its frames come later than the others are kept for them"
                );
            }
            return Err(format!(
                "a frame of camera \"{}\" came after its moment was over",
                frame.camera
            ));
        }
        let mut frames = vec![None; count];
        frames[index] = Some(frame);
        let at = self
            .open
            .partition_point(|moment| moment.first_ns < time_ns);
        let first_ns = time_ns;
        self.open.insert(at, Moment { first_ns, frames });
        Ok(())
    }

    /// The oldest moment, when it is complete or what it lacks will not come; call it until there is none.
    /// A moment of too few cameras is an error, in words.
    pub(super) fn next(&mut self) -> Option<Result<Moment, String>> {
        let latest_ns = self.latest_ns.as_ref()?;
        let front = self.open.front()?;
        let is_over = (0..front.frames.len()).all(|at| {
            front.frames[at].is_some()
                || latest_ns[at] > front.first_ns + self.within_ns
                || self.newest_ns - latest_ns[at] > SILENT_NS
        });
        let waited_long = self.newest_ns - front.first_ns > LONGEST_WAIT_NS;
        if !(is_over || waited_long || self.open.len() > MOST_OPEN) {
            return None;
        }
        let moment = self.open.pop_front()?;
        let there: Vec<bool> = moment.frames.iter().map(Option::is_some).collect();
        let enough = self.seen_share(&there) >= self.least_seen;
        self.closed = Some((moment.first_ns, there));
        if enough || self.left_out >= MOST_LEFT_OUT {
            self.left_out = 0;
            return Some(Ok(moment));
        }
        self.left_out += 1;
        Some(Err("a moment of too few cameras is left out".to_owned()))
    }

    /// Share of what all cameras see that these see.
    fn seen_share(&self, there: &[bool]) -> f64 {
        if there.iter().all(|there| *there) {
            return 1.0;
        }
        self.stitcher.seen_fraction(there) / self.all_seen.max(f64::MIN_POSITIVE)
    }

    /// Share of the panorama that all cameras together see.
    pub fn seen_fraction(&self) -> f64 {
        self.all_seen
    }

    /// Forgets the frames that wait for others.
    pub(super) fn forget(&mut self) {
        self.open.clear();
        self.closed = None;
        self.newest_ns = i64::MIN;
        self.latest_ns = None;
        self.delivered.fill(false);
        self.shortest_ns.fill(i64::MAX);
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
    /// When the cameras that are left see too little, in words.
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
        let names: Vec<&str> = without
            .iter()
            .map(|index| self.names[*index].as_str())
            .collect();
        let names = names.join(", ");
        let seen = self.seen_share(&there);
        let is_changed = without != self.without;
        self.without = without;
        if seen < self.least_seen {
            return Err(format!(
                "no usable picture of {names} within {} s, and the other cameras see {:.0} % of what all \
                 see (rig.least_seen)",
                self.within_s,
                100.0 * seen
            ));
        }
        if is_changed && names.is_empty() {
            tracing::info!("the panorama is made with all cameras again");
        } else if is_changed {
            tracing::warn!(
                cameras = names,
                "the panorama is made without these cameras"
            );
        }
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

    /// A picture with a dark band above.
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

    /// Takes a frame; the moments that are over.
    fn taken(rig: &mut Rig, camera: &str, time_ms: i64) -> Vec<Moment> {
        let level = match camera {
            "left" => 50,
            "front" => 100,
            _ => 200,
        };
        rig.take(frame(camera, time_ms, level)).unwrap();
        let mut over = Vec::new();
        while let Some(moment) = rig.next() {
            over.push(moment.unwrap());
        }
        over
    }

    #[test]
    fn frames_of_one_moment_become_one_panorama_at_their_mean_time() {
        let mut rig = rig(0.6);
        assert!(taken(&mut rig, "left", 0).is_empty());
        assert!(taken(&mut rig, "front", 20).is_empty());
        let moment = taken(&mut rig, "right", 40).remove(0);
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
        assert!(taken(&mut rig, "left", 0).is_empty());
        assert!(taken(&mut rig, "front", 10).is_empty());
        assert!(taken(&mut rig, "left", 100).is_empty());
        let moment = taken(&mut rig, "right", 5).remove(0);
        assert!(rig.stitch(&moment, 8192).unwrap().is_whole);
        // It stops: some moments wait for it, then they go on without, and none stays behind.
        let mut without = Vec::new();
        let repeated = rig.take(frame("left", 100, 50)).unwrap_err();
        assert!(repeated.contains("repeated"), "{repeated}");
        assert!(taken(&mut rig, "front", 100).is_empty());
        for time_ms in (200..3000).step_by(100) {
            for camera in ["front", "left"] {
                without.extend(taken(&mut rig, camera, time_ms));
            }
        }
        assert_eq!(without[0].first_ns, 100_000_000);
        assert_eq!(without.len(), 29);
        // Another rig, for which the pictures are not the same again.
        let stitched = self::rig(0.6).stitch(&without[0], 8192).unwrap();
        assert!(!stitched.is_whole);
        let row = stitched.picture.height / 2;
        assert_eq!(stitched.picture.pixel(64 + 43, row), [0; 3]);
        for late_ms in [100, 2910] {
            let late = rig.take(frame("right", late_ms, 200)).unwrap_err();
            assert!(late.contains("right"), "{late}");
        }
        let stranger = rig.take(frame("rear", 110, 1)).unwrap_err();
        assert!(
            stranger.contains("rear") && stranger.contains("front, left"),
            "{stranger}"
        );
    }

    #[test]
    fn a_frame_that_was_dropped_leaves_the_others_with_their_own_moments() {
        let mut rig = rig(0.1);
        let mut moments = Vec::new();
        for number in 0..60 {
            for camera in ["front", "left", "right"] {
                if (number, camera) != (20, "left") {
                    moments.extend(taken(&mut rig, camera, 33 * number));
                }
            }
        }
        assert_eq!(moments.len(), 60);
        for (number, moment) in moments.iter().enumerate() {
            let frames = moment.frames.iter().flatten();
            assert_eq!(frames.clone().count(), if number == 20 { 2 } else { 3 });
            let time_ns = 33_000_000 * number as i64;
            assert!(frames.into_iter().all(|frame| frame.time_ns == time_ns));
        }
    }

    #[test]
    fn two_frames_at_once_do_not_part_a_camera_from_the_others_for_good() {
        let mut rig = rig(0.1);
        let mut whole = Vec::new();
        for number in 0..60 {
            for (camera, late_ms) in [("front", 0), ("left", 20), ("right", 0)] {
                let _ = rig.take(frame(camera, 100 * number + late_ms, 100));
                if (number, camera) == (10, "left") {
                    let _ = rig.take(frame(camera, 100 * number + late_ms + 2, 100));
                }
            }
            while let Some(Ok(moment)) = rig.next() {
                if moment.frames.iter().all(Option::is_some) {
                    whole.push(moment.first_ns / 100_000_000);
                }
            }
        }
        assert!(whole.contains(&5), "{whole:?}");
        // Some moments later they are together again.
        assert!((25..55).all(|number| whole.contains(&number)), "{whole:?}");
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
        let (mut tried, mut left_out) = (0, 0);
        for number in 0..30 {
            rig.take(frame("front", 2000 * number, 100)).unwrap();
            while let Some(moment) = rig.next() {
                match moment {
                    Ok(_) => tried += 1,
                    Err(_) => left_out += 1,
                }
            }
        }
        assert!(
            (2..=4).contains(&tried) && left_out > 20,
            "{tried} {left_out}"
        );
        rig.forget();
        assert!(taken(&mut rig, "left", 0).is_empty());
    }
}
