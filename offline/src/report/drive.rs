//! One drive: tracks over the aerial overview, errors over time, states, and a replay.

use super::covariance::{eigen, radius_95_m};
use super::curves::{quantile, sorted};
use super::html::{Page, lead};
use super::input::{Drive, Role, Track, TrackSample, TrackState};
use super::svg::{LegendEntry, Plot, at, escape, legend, number, path, percent, role_class};
use super::viewport::Viewport;

/// Width of the time plot and the state bar: the whole page, where others take half.
const WIDTH: f64 = 1100.0;
/// Samples of one track that the page carries; a longer one is thinned evenly.
const MOST_SAMPLES: usize = 2500;
/// √(−2 ln 0.05): semi-axes of the 95 % ellipse per sigma.
const ELLIPSE_95: f64 = 2.447_746_830_680_816;
/// Two samples of a track further apart than this are a gap, not a line.
const LONGEST_GAP_S: f64 = 3.0;

/// The map, the error plot, the state bar and the scrubber.
pub fn section(page: &mut Page, drive: Option<&Drive>) {
    let Some(drive) = drive else { return };
    let tracks: Vec<DrawnTrack> = drive
        .tracks
        .iter()
        .filter_map(|track| DrawnTrack::new(track, drive))
        .collect();
    let places = tracks
        .iter()
        .flat_map(|t| &t.samples)
        .map(|s| [s.east_m, s.north_m]);
    let Some(view) = Viewport::around(places) else {
        return;
    };
    let times = sorted(
        &tracks
            .iter()
            .flat_map(|t| &t.samples)
            .map(|s| s.time_s)
            .collect::<Vec<_>>(),
    );
    let (Some(&start), Some(&end)) = (times.first(), times.last()) else {
        return;
    };
    let entries: Vec<LegendEntry> = tracks.iter().map(DrawnTrack::legend_entry).collect();
    let mut body = lead(&drive.caption) + &legend(&entries);
    body += &map(page, drive, &tracks, &view);
    body += &scrubber(start, end);
    body += &errors_over_time(page, &tracks, (start, end));
    body += &data(&tracks, &view, (start, end));
    page.section(
        "drive",
        "The drive",
        format!("<div class=\"drive\" id=\"drive-replay\">{body}</div>"),
    );
}

/// A track, thinned for the page, with its errors.
struct DrawnTrack<'a> {
    track: &'a Track,
    samples: Vec<TrackSample>,
    /// One per sample; not finite without truth at that time.
    errors_m: Vec<f64>,
    /// Over all samples of the track, before thinning.
    all_errors_m: Vec<f64>,
}

impl<'a> DrawnTrack<'a> {
    fn new(track: &'a Track, drive: &Drive) -> Option<Self> {
        let sound: Vec<TrackSample> = track
            .samples
            .iter()
            .copied()
            .filter(|s| {
                [s.time_s, s.east_m, s.north_m]
                    .iter()
                    .all(|v| v.is_finite())
            })
            .collect();
        let stride = sound.len().div_ceil(MOST_SAMPLES).max(1);
        let samples: Vec<TrackSample> = sound.iter().copied().step_by(stride).collect();
        let truth = drive.tracks.iter().find(|t| t.role == Role::Truth);
        let error = |sample: &TrackSample| match truth {
            Some(truth) if track.role != Role::Truth => truth_at(truth, sample.time_s)
                .map_or(f64::NAN, |[e, n]| {
                    (sample.east_m - e).hypot(sample.north_m - n)
                }),
            _ => f64::NAN,
        };
        let track = Self {
            track,
            errors_m: samples.iter().map(error).collect(),
            all_errors_m: sorted(&sound.iter().map(error).collect::<Vec<_>>()),
            samples,
        };
        (!track.samples.is_empty()).then_some(track)
    }

    fn legend_entry(&self) -> LegendEntry {
        let errors = &self.all_errors_m;
        let detail = match quantile(errors, 0.95) {
            Some(p95) => format!(
                "mean error {} m, p95 {} m",
                number(errors.iter().sum::<f64>() / errors.len() as f64),
                number(p95)
            ),
            None => String::new(),
        };
        LegendEntry {
            class: role_class(self.track.role).to_owned(),
            name: self.track.name.clone(),
            detail,
        }
    }
}

/// The true position at a time, between the samples around it; `None` outside the track.
fn truth_at(truth: &Track, time_s: f64) -> Option<[f64; 2]> {
    let samples = &truth.samples;
    let after = samples.partition_point(|s| s.time_s < time_s);
    let next = samples.get(after)?;
    if next.time_s <= time_s {
        return Some([next.east_m, next.north_m]);
    }
    let before = samples.get(after.checked_sub(1)?)?;
    let share = (time_s - before.time_s) / (next.time_s - before.time_s);
    let mix = |a: f64, b: f64| a + share * (b - a);
    Some([
        mix(before.east_m, next.east_m),
        mix(before.north_m, next.north_m),
    ])
}

fn map(page: &mut Page, drive: &Drive, tracks: &[DrawnTrack], view: &Viewport) -> String {
    let mut svg = format!(
        "<svg class=\"map tracks\" viewBox=\"{}\" role=\"img\" aria-label=\"Tracks over the aerial image\">{}",
        view.view_box(),
        view.background(page, drive.map.as_ref())
    );
    // Truth below, the daemon's answer on top.
    let height = |role: Role| match role {
        Role::Truth => 0,
        Role::Gnss => 1,
        Role::Fused => 3,
        _ => 2,
    };
    let mut order: Vec<&DrawnTrack> = tracks.iter().collect();
    order.sort_by_key(|track| height(track.track.role));
    for track in order {
        let mut points = Vec::with_capacity(track.samples.len());
        let mut previous = f64::NEG_INFINITY;
        for sample in &track.samples {
            if previous.is_finite() && sample.time_s - previous > LONGEST_GAP_S {
                points.push((f64::NAN, f64::NAN));
            }
            previous = sample.time_s;
            points.push(view.place([sample.east_m, sample.north_m]));
        }
        let line = path(points);
        svg += &format!(
            "<g class=\"{}\"><path class=\"casing\" d=\"{line}\"/><path class=\"line\" d=\"{line}\"/></g>",
            role_class(track.track.role)
        );
    }
    svg += "<g class=\"now\" hidden>";
    for (index, track) in tracks.iter().enumerate() {
        let class = role_class(track.track.role);
        svg += &format!(
            "<g class=\"{class}\" data-track=\"{index}\"><ellipse class=\"ellipse\" rx=\"0\" ry=\"0\"/><circle class=\"here\" r=\"8\"/></g>"
        );
    }
    svg + "</g>" + &view.scale_bar() + "</svg>"
}

fn scrubber(start: f64, end: f64) -> String {
    format!(
        "<div class=\"scrubber\" hidden><button type=\"button\" class=\"play\" aria-label=\"Play or pause\">▶</button>\
         <input type=\"range\" min=\"{start:.1}\" max=\"{end:.1}\" step=\"0.1\" value=\"{start:.1}\" aria-label=\"Time in the drive, seconds\">\
         <output class=\"clock\"></output></div><div class=\"readout\" hidden></div>"
    )
}

fn errors_over_time(page: &mut Page, tracks: &[DrawnTrack], times: (f64, f64)) -> String {
    let with_errors: Vec<&DrawnTrack> = tracks
        .iter()
        .filter(|t| !t.all_errors_m.is_empty())
        .collect();
    if with_errors.is_empty() {
        return String::new();
    }
    let radii = |track: &DrawnTrack| -> Vec<(f64, f64)> {
        let radius = |s: &TrackSample| Some((s.time_s, radius_95_m(s.covariance_m2?)?));
        track.samples.iter().filter_map(radius).collect()
    };
    let fused = with_errors.iter().find(|t| t.track.role == Role::Fused);
    let band = fused.map(|track| radii(track)).unwrap_or_default();
    let mut all: Vec<f64> = with_errors
        .iter()
        .flat_map(|t| t.all_errors_m.iter().copied())
        .collect();
    all.extend(band.iter().map(|(_, radius)| *radius));
    let top = quantile(&sorted(&all), 0.995).unwrap_or(1.0).max(1.0) * 1.08;
    let mut plot = Plot::new(
        times,
        (0.0, top),
        ("time in the drive, s", "position error, m"),
    )
    .size(WIDTH, 280.0);
    plot.area("r-fused", &band);
    for track in &with_errors {
        let mut points = Vec::with_capacity(track.samples.len());
        let mut previous = f64::NEG_INFINITY;
        for (sample, error) in track.samples.iter().zip(&track.errors_m) {
            if previous.is_finite() && sample.time_s - previous > LONGEST_GAP_S {
                points.push((f64::NAN, f64::NAN));
            }
            previous = sample.time_s;
            points.push((sample.time_s, *error));
        }
        plot.line(role_class(track.track.role), points);
    }
    let (left, right) = (plot.place_x(times.0), plot.place_x(times.1));
    plot.raw(&format!(
        "<path class=\"cursor\" data-left=\"{}\" data-right=\"{}\" d=\"M0 {}V{}\" hidden=\"\"/>",
        at(left),
        at(right),
        at(plot.place_y(top)),
        at(plot.place_y(0.0))
    ));
    let clip = page.unique_id("clip");
    let bar_track = fused.or(with_errors
        .iter()
        .find(|t| t.samples.iter().any(|s| s.state.is_some())));
    let bar = bar_track.map_or_else(String::new, |track| state_bar(track, &plot, times));
    let svg = plot.finish(&clip, "Position error over time");
    let note = if band.is_empty() {
        ""
    } else {
        "Shaded: radius of the circle that should hold the fused error 95 % of the time. Lines that leave the top are cut off."
    };
    format!(
        "<figure><figcaption>Error over time</figcaption>{svg}{bar}<p class=\"lead\">{note}</p></figure>"
    )
}

const STATES: [(TrackState, &str, &str); 4] = [
    (TrackState::Ok, "ok", "s-ok"),
    (TrackState::Degraded, "degraded", "s-degraded"),
    (TrackState::Coasting, "coasting", "s-coasting"),
    (TrackState::Lost, "lost", "s-lost"),
];

/// The daemon's state along the same time axis. Worse states stand taller, so that the bar can be
/// read without its colours.
fn state_bar(track: &DrawnTrack, plot: &Plot, times: (f64, f64)) -> String {
    let mut runs: Vec<(TrackState, f64, f64)> = Vec::new();
    let mut seconds = [0.0; 4];
    for (index, sample) in track.samples.iter().enumerate() {
        let Some(state) = sample.state else { continue };
        let next = track.samples.get(index + 1).map_or(times.1, |s| s.time_s);
        let until = next.min(sample.time_s + LONGEST_GAP_S).max(sample.time_s);
        if let Some(place) = STATES.iter().position(|(known, ..)| *known == state) {
            seconds[place] += until - sample.time_s;
        }
        match runs.last_mut() {
            Some(run) if run.0 == state && sample.time_s <= run.2 + 1e-3 => run.2 = until,
            _ => runs.push((state, sample.time_s, until)),
        }
    }
    if runs.is_empty() {
        return String::new();
    }
    let mut svg = format!(
        "<svg class=\"plot states\" viewBox=\"0 0 {WIDTH} 34\" role=\"img\" aria-label=\"State over time\"><text class=\"tick\" x=\"59\" y=\"28\" text-anchor=\"end\">state</text>"
    );
    for (state, from, until) in runs {
        let level = STATES
            .iter()
            .position(|(known, ..)| *known == state)
            .unwrap_or(0);
        let (left, right) = (plot.place_x(from), plot.place_x(until));
        let height = 10.0 + 7.0 * level as f64;
        let (_, name, class) = STATES[level];
        svg += &format!(
            "<g class=\"{class}\"><rect class=\"bar\" x=\"{left:.2}\" y=\"{}\" width=\"{:.2}\" height=\"{height}\"><title>{name}, {} s to {} s</title></rect></g>",
            32.0 - height,
            (right - left).max(0.3),
            number(from),
            number(until)
        );
    }
    let total: f64 = seconds.iter().sum();
    let entries: Vec<LegendEntry> = STATES
        .iter()
        .zip(seconds)
        .filter(|(_, time)| *time > 0.0)
        .map(|((_, name, class), time)| LegendEntry {
            class: (*class).to_owned(),
            name: (*name).to_owned(),
            detail: format!("{} of the time", percent(time / total)),
        })
        .collect();
    svg + "</svg>" + &legend(&entries)
}

/// The tracks as numbers for the replay: only digits, fixed words, and names as JSON strings whose
/// `<` are escaped, so nothing in them can end the script element.
fn data(tracks: &[DrawnTrack], view: &Viewport, times: (f64, f64)) -> String {
    let list = |values: &mut dyn Iterator<Item = String>| values.collect::<Vec<_>>().join(",");
    let number_or_null = |value: f64, digits: usize| {
        if value.is_finite() {
            format!("{value:.digits$}")
        } else {
            "null".to_owned()
        }
    };
    let mut json = format!(
        "{{\"start\":{:.1},\"end\":{:.1},\"tracks\":[",
        times.0, times.1
    );
    for (index, track) in tracks.iter().enumerate() {
        let samples = &track.samples;
        let places: Vec<_> = samples
            .iter()
            .map(|s| view.place([s.east_m, s.north_m]))
            .collect();
        let name = serde_json::to_string(&track.track.name).unwrap_or_else(|_| "\"\"".to_owned());
        let name = name.replace('<', "\\u003c");
        json += &format!(
            "{}{{\"name\":{name},\"t\":[{}],\"x\":[{}],\"y\":[{}],\"error\":[{}]",
            if index == 0 { "" } else { "," },
            list(&mut samples.iter().map(|s| format!("{:.2}", s.time_s))),
            list(&mut places.iter().map(|p| at(p.0))),
            list(&mut places.iter().map(|p| at(p.1))),
            list(&mut track.errors_m.iter().map(|e| number_or_null(*e, 2)))
        );
        if samples.iter().any(|s| s.covariance_m2.is_some()) {
            let scale = ELLIPSE_95 * view.scale();
            let ellipse = |s: &TrackSample| {
                let axes = s
                    .covariance_m2
                    .and_then(eigen)
                    .map(|(large, small, angle)| {
                        let radius = s.covariance_m2.and_then(radius_95_m).unwrap_or(f64::NAN);
                        // SVG turns clockwise because its y grows downwards.
                        format!(
                            "[{},{},{:.0},{}]",
                            at(scale * large.sqrt()),
                            at(scale * small.sqrt()),
                            -angle.to_degrees(),
                            number_or_null(radius, 2)
                        )
                    });
                axes.unwrap_or_else(|| "null".to_owned())
            };
            json += &format!(",\"ellipse\":[{}]", list(&mut samples.iter().map(ellipse)));
        }
        if samples.iter().any(|s| s.state.is_some()) {
            let state = |s: &TrackSample| {
                let known = STATES
                    .iter()
                    .position(|(known, ..)| s.state == Some(*known));
                known.map_or_else(|| "null".to_owned(), |level| level.to_string())
            };
            json += &format!(",\"state\":[{}]", list(&mut samples.iter().map(state)));
        }
        json += "}";
    }
    let states = STATES
        .map(|(_, name, _)| format!("\"{}\"", escape(name)))
        .join(",");
    format!(
        "<script type=\"application/json\" id=\"drive-data\">{json}],\"states\":[{states}]}}</script>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(time_s: f64, east_m: f64) -> TrackSample {
        TrackSample {
            time_s,
            east_m,
            ..TrackSample::default()
        }
    }

    #[test]
    fn truth_is_read_between_its_samples_and_nowhere_else() {
        let truth = Track {
            samples: vec![sample(0.0, 0.0), sample(2.0, 4.0)],
            ..Track::default()
        };
        assert_eq!(truth_at(&truth, 0.5), Some([1.0, 0.0]));
        assert_eq!(truth_at(&truth, 2.0), Some([4.0, 0.0]));
        assert_eq!(truth_at(&truth, 0.0), Some([0.0, 0.0]));
        assert_eq!(truth_at(&truth, -0.1), None);
        assert_eq!(truth_at(&truth, 2.1), None);
    }

    #[test]
    fn a_long_track_is_thinned_but_measured_whole() {
        let long = |role, shift: f64| Track {
            role,
            samples: (0..10_000)
                .map(|i| sample(f64::from(i), f64::from(i) + shift))
                .collect(),
            ..Track::default()
        };
        let drive = Drive {
            tracks: vec![long(Role::Truth, 0.0), long(Role::Fused, 2.0)],
            ..Drive::default()
        };
        let track = DrawnTrack::new(&drive.tracks[1], &drive).unwrap();
        assert!(track.samples.len() <= MOST_SAMPLES);
        assert_eq!(track.all_errors_m.len(), 10_000);
        assert!((track.all_errors_m[17] - 2.0).abs() < 1e-9);
    }
}
