//! Everything worth a graph, in the text format of OpenMetrics.

use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::event::{Estimate, State};
use crate::health::Health;
use crate::peer::ellipse::Ellipse;
use crate::shadow::ShadowHealth;

/// Of OpenMetrics 1.0.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is known at the moment of a scrape.
pub struct Now<'a> {
    /// The latest report.
    pub health: Option<&'a Health>,
    /// The latest fused estimate.
    pub estimate: Option<&'a Estimate>,
    /// Time since that.
    pub age: Option<Duration>,
}

type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge<f64, std::sync::atomic::AtomicU64>>;

/// The text of a scrape.
pub fn metrics(now: &Now<'_>) -> String {
    let mut registry = Registry::with_prefix("crossfix");
    registry.register(
        "build",
        "Version of crossfixd",
        Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]),
    );
    if let Some(estimate) = now.estimate {
        add_estimate(&mut registry, estimate);
    }
    if let Some(age) = now.age {
        let help = "Time since the latest estimate";
        gauge(&mut registry, "estimate_age", help, Some(Unit::Seconds))(vec![], age.as_secs_f64());
    }
    if let Some(health) = now.health {
        add_core(&mut registry, health);
        add_sources(&mut registry, health);
        add_sinks(&mut registry, health);
        if let Some(model) = &health.model {
            let help = "The student that runs, by the SHA-256 of its file";
            let labels = vec![("sha256", model.sha256.clone())];
            gauge(&mut registry, "model", help, None)(labels, 1.0);
        }
        if let Some(shadow) = &health.shadow {
            add_shadow(&mut registry, shadow);
        }
    }
    let mut text = String::new();
    // Writing into a string does not fail.
    let _ = encode(&mut text, &registry);
    text
}

fn add_estimate(registry: &mut Registry, estimate: &Estimate) {
    let set = gauge(
        registry,
        "state",
        "1 for the state of the latest estimate",
        None,
    );
    for state in [State::Ok, State::Degraded, State::Coasting, State::Lost] {
        let is_it = f64::from(u8::from(state == estimate.state));
        set(vec![("state", state.as_str().into())], is_it);
    }
    counter(
        registry,
        "resets",
        "Discontinuities of the output",
        u64::from(estimate.reset_count),
    );
    if estimate.state == State::Lost {
        return;
    }
    let ellipse = Ellipse::new(estimate.covariance_m2);
    let help = "Standard deviation of the position along the axes of its ellipse";
    let set = gauge(
        registry,
        "position_sigma",
        help,
        Some(Unit::Other("meters".into())),
    );
    set(vec![("axis", "major".into())], ellipse.major_m);
    set(vec![("axis", "minor".into())], ellipse.minor_m);
    let help = "Radius that leaves at most the configured risk outside";
    let set = gauge(
        registry,
        "protection_radius",
        help,
        Some(Unit::Other("meters".into())),
    );
    set(vec![], estimate.protection_radius_m);
    let set = gauge(registry, "modes", "Separate modes of the position", None);
    set(vec![], estimate.mode_count as f64);
}

fn add_core(registry: &mut Registry, health: &Health) {
    counter(registry, "events", "Events taken in", health.events);
    counter(registry, "estimates", "Estimates given", health.estimates);
    let core = &health.core;
    for (name, help, uses) in [
        (
            "fixes",
            "Fixes of receivers",
            vec![("used", core.fixes), ("unused", core.fixes_unused)],
        ),
        (
            "odometry",
            "Odometry samples",
            vec![("used", core.odometry), ("unused", core.odometry_unused)],
        ),
        (
            "frames",
            "Camera frames: matched, passed over because the vehicle had hardly moved, skipped because the \
             position was known well enough, not usable, or \
             dropped because the core was busy",
            vec![
                ("used", core.frames),
                ("near", core.frames_near),
                ("skipped", core.frames_skipped),
                ("unused", core.frames_unused),
                ("dropped", health.frames_dropped),
            ],
        ),
    ] {
        let rows = uses
            .into_iter()
            .map(|(use_, count)| (vec![("use", use_.to_owned())], count));
        counters(registry, name, help, rows.collect());
    }
    let help = "Camera frames matched with a part of the aerial patch";
    counter(registry, "frames_windowed", help, core.frames_windowed);
    let help = "Camera frames matched without all cameras of the rig";
    counter(registry, "frames_partial", help, core.frames_partial);
    let help = "Events that were not used because of their stamps";
    counter(registry, "stamps_doubted", help, core.times_doubted);
    counter(
        registry,
        "restarts",
        "Times that everything started over",
        core.restarts,
    );
    let set = gauge(
        registry,
        "problems",
        "Things that are not as they should be",
        None,
    );
    set(vec![], health.reasons.len() as f64);
}

fn add_sources(registry: &mut Registry, health: &Health) {
    let name = |name: &str| vec![("source", name.to_owned())];
    let set = gauge(registry, "source_up", "1 while a source delivers", None);
    for source in &health.sources {
        set(name(&source.name), f64::from(u8::from(source.up)));
    }
    let rows = health
        .sources
        .iter()
        .map(|source| (name(&source.name), source.events));
    counters(
        registry,
        "source_events",
        "Events of a source",
        rows.collect(),
    );
    let help = "Stamps of a source minus GNSS time, for the events that came fastest";
    let set = gauge(registry, "source_clock_offset", help, Some(Unit::Seconds));
    let mut set_aside = Vec::new();
    for clock in health.sources.iter().flat_map(|source| &source.clocks) {
        let kind = format!("{:?}", clock.kind).to_lowercase();
        let labels = vec![("source", clock.source.clone()), ("kind", kind)];
        set(labels.clone(), clock.offset_s);
        set_aside.push((labels, clock.set_aside));
    }
    let help = "Events of a source that were set aside because of their stamps";
    counters(registry, "source_set_aside", help, set_aside);
}

fn add_sinks(registry: &mut Registry, health: &Health) {
    // Two sinks of a kind have one name; they are told apart by their place in the config.
    let name =
        |index: usize, name: &str| vec![("sink", name.to_owned()), ("index", index.to_string())];
    let sinks = || health.sinks.iter().enumerate();
    let set = gauge(registry, "sink_up", "1 while a sink is open", None);
    for (index, sink) in sinks() {
        set(name(index, &sink.name), f64::from(u8::from(sink.up)));
    }
    let rows = sinks().map(|(index, sink)| (name(index, &sink.name), sink.written));
    counters(registry, "sink_written", "What a sink took", rows.collect());
    let rows = sinks().map(|(index, sink)| (name(index, &sink.name), sink.dropped));
    let help = "What a sink lost because it was slow or not open";
    counters(registry, "sink_dropped", help, rows.collect());
    let set = gauge(registry, "sink_clients", "Clients of a server", None);
    for (index, sink) in sinks() {
        if let Some(clients) = sink.clients {
            set(name(index, &sink.name), clients.connected as f64);
        }
    }
}

fn add_shadow(registry: &mut Registry, shadow: &ShadowHealth) {
    let help = "1 while the student in shadow mode runs";
    gauge(registry, "shadow_up", help, None)(vec![], f64::from(u8::from(shadow.up)));
    let uses = [
        ("compared", shadow.compared),
        ("failed", shadow.failed),
        ("skipped", shadow.skipped),
    ];
    let rows = uses.map(|(use_, count)| (vec![("use", use_.to_owned())], count));
    let help = "Frames of the student in shadow mode";
    counters(registry, "shadow_frames", help, rows.to_vec());
    let metres = || Some(Unit::Other("meters".into()));
    let help =
        "Median distance between the modes of the student in shadow mode and of the one in use";
    let set = gauge(registry, "shadow_modes_apart", help, metres());
    shadow
        .modes_apart_m
        .into_iter()
        .for_each(|value| set(vec![], value));
    let students = [("running", shadow.running), ("shadow", shadow.shadow)];
    let label = |student: &str| vec![("student", student.to_owned())];
    let help = "Median distance from a student's mode to the fused position";
    let set = gauge(registry, "shadow_mode_off", help, metres());
    for (student, figures) in students {
        if let Some(value) = figures.mode_off_m {
            set(label(student), value);
        }
    }
    let help =
        "Mean log-likelihood of the fused position under a student's heatmaps, per square metre";
    let set = gauge(registry, "shadow_log_likelihood", help, None);
    for (student, figures) in students {
        if let Some(value) = figures.log_likelihood {
            set(label(student), value);
        }
    }
    let help = "1-sigma error of the difference of both log-likelihoods";
    let set = gauge(registry, "shadow_gain_sigma", help, None);
    shadow
        .gain_sigma
        .into_iter()
        .for_each(|value| set(vec![], value));
}

/// Registers a gauge; what is returned sets it for a set of labels.
fn gauge(
    registry: &mut Registry,
    name: &str,
    help: &str,
    unit: Option<Unit>,
) -> impl Fn(Labels, f64) + use<> {
    let family = Gauges::default();
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, family.clone()),
        None => registry.register(name, help, family.clone()),
    }
    move |labels, value| {
        family.get_or_create(&labels).set(value);
    }
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    registry.register(name, help, ConstCounter::new(value));
}

fn counters(registry: &mut Registry, name: &str, help: &str, rows: Vec<(Labels, u64)>) {
    let family = Family::<Labels, prometheus_client::metrics::counter::Counter>::default();
    registry.register(name, help, family.clone());
    for (labels, value) in rows {
        family.get_or_create(&labels).inc_by(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{SinkHealth, SourceHealth};
    use crate::peer::testing;

    #[test]
    fn figures_stand_under_their_names() {
        let health = Health {
            sources: vec![SourceHealth {
                name: "roof \"1\"".into(),
                up: true,
                events: 7,
                ..SourceHealth::default()
            }],
            sinks: vec![SinkHealth::default(), SinkHealth::default()],
            estimates: 5,
            shadow: Some(ShadowHealth {
                up: true,
                compared: 9,
                modes_apart_m: Some(1.5),
                ..ShadowHealth::default()
            }),
            ..Health::default()
        };
        let estimate = testing::estimate(State::Degraded);
        let text = metrics(&Now {
            health: Some(&health),
            estimate: Some(&estimate),
            age: Some(Duration::from_millis(250)),
        });
        for line in [
            "crossfix_state{state=\"degraded\"} 1.0",
            "crossfix_state{state=\"ok\"} 0.0",
            "crossfix_estimate_age_seconds 0.25",
            "crossfix_estimates_total 5",
            "crossfix_resets_total 0",
            "crossfix_position_sigma_meters{axis=\"major\"} 2.0",
            "crossfix_source_events_total{source=\"roof \\\"1\\\"\"} 7",
            "crossfix_shadow_up 1.0",
            "crossfix_shadow_frames_total{use=\"compared\"} 9",
            "crossfix_shadow_modes_apart_meters 1.5",
            "crossfix_sink_up{sink=\"\",index=\"1\"} 0.0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
