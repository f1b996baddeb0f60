//! The threads around the core, with peers that are staged here.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicUsize};

use super::shadow_thread::Loaded;
use super::*;
use crate::card::StudentCard;
use crate::core::tests::{core, fix, frame, odometry, picture_at, staged};
use crate::event::{Event, State};
use crate::health::Health;
use crate::matcher::{GroundStrip, MatchError, MatchResult};
use crate::port::{Connection, Interests, Outbound, PeerError, Reader, Writer};
use crate::shadow::{Shadow, ShadowHealth};

/// Delivers these events, one every few milliseconds, and then ends or fails.
#[derive(Clone)]
struct StagedSource {
    events: Vec<Event>,
    every: Duration,
    /// Once this many were delivered it fails, once.
    fails_after: Option<usize>,
    /// Until this many were delivered it has a remark.
    remark_until: usize,
    opened: Arc<AtomicUsize>,
    delivered: Arc<AtomicUsize>,
    writes: Option<Arc<StagedSink>>,
    /// The clock of the arrivals: events arrive at the moment they are true, however fast they come.
    clock: Arc<AtomicI64>,
}

/// Keeps what it gets.
#[derive(Default)]
struct StagedSink {
    interests: Interests,
    each_takes: Duration,
    fails_at: Option<usize>,
    kept: Mutex<Vec<Outbound>>,
    finished: AtomicUsize,
}

struct Handle(Arc<StagedSink>);

impl Peer for StagedSource {
    fn name(&self) -> &'static str {
        "staged"
    }

    fn wants(&self) -> Interests {
        self.writes
            .as_ref()
            .map_or_else(Interests::default, |sink| sink.interests)
    }

    fn open(&self, _playback: &Playback) -> Result<Connection, PeerError> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        let writer = self.writes.clone().map(|sink| Box::new(Handle(sink)) as _);
        Ok(Connection {
            writer,
            ..Connection::reader(self.clone())
        })
    }
}

impl Reader for StagedSource {
    fn next(&mut self) -> Result<Option<Event>, PeerError> {
        let index = self.delivered.load(Ordering::Relaxed);
        if self.fails_after == Some(index) && self.opened.load(Ordering::Relaxed) == 1 {
            return Err(PeerError::Protocol("staged failure".into()));
        }
        std::thread::sleep(self.every);
        let event = self.events.get(index).cloned().ok_or(PeerError::Ended)?;
        self.delivered.fetch_add(1, Ordering::Relaxed);
        self.clock.fetch_max(event.time_ns(), Ordering::Relaxed);
        Ok(Some(event))
    }

    fn remark(&self) -> Option<&str> {
        let is_made = self.delivered.load(Ordering::Relaxed) < self.remark_until;
        is_made.then_some("a topic is silent")
    }
}

impl Peer for Handle {
    fn name(&self) -> &'static str {
        "kept"
    }

    fn wants(&self) -> Interests {
        self.0.interests
    }

    fn open(&self, _playback: &Playback) -> Result<Connection, PeerError> {
        Ok(Connection::writer(Handle(self.0.clone())))
    }
}

impl Writer for Handle {
    fn write(&mut self, outbound: &Outbound) -> Result<(), PeerError> {
        std::thread::sleep(self.0.each_takes);
        let mut kept = self.0.kept.lock().unwrap();
        kept.push(outbound.clone());
        if self.0.fails_at == Some(kept.len()) {
            return Err(PeerError::Protocol("staged refusal".into()));
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), PeerError> {
        self.0.finished.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl StagedSink {
    fn wanting(interests: Interests) -> Arc<Self> {
        Arc::new(Self {
            interests,
            ..Self::default()
        })
    }

    fn count(&self, interest: Interests) -> usize {
        let kept = self.kept.lock().unwrap();
        kept.iter()
            .filter(|one| interest.overlap(Interests::of(one)))
            .count()
    }

    fn healths(&self) -> Vec<Arc<Health>> {
        let kept = self.kept.lock().unwrap();
        kept.iter()
            .filter_map(|one| match one {
                Outbound::Health(health) => Some(health.clone()),
                _ => None,
            })
            .collect()
    }
}

fn source(events: Vec<Event>, every: Duration) -> StagedSource {
    StagedSource {
        events,
        every,
        fails_after: None,
        remark_until: 0,
        opened: Arc::default(),
        delivered: Arc::default(),
        writes: None,
        clock: Arc::default(),
    }
}

/// A fix each second, odometry at 10 Hz, and frames at 5 Hz if asked for.
fn drive(tenths: i64, frames: bool) -> Vec<Event> {
    (0..tenths)
        .flat_map(|tick| {
            let frame = (frames && tick % 2 == 0).then(|| frame(tick, picture_at(tick)));
            let fix = (tick % 10 == 0).then(|| fix(tick));
            fix.into_iter().chain([odometry(tick)]).chain(frame)
        })
        .collect()
}

fn daemon(sources: Vec<StagedSource>, sinks: &[&Arc<StagedSink>]) -> (Daemon, tempfile::TempDir) {
    let (core, folder) = core();
    let clock = Arc::new(AtomicI64::new(1_700_000_000_000_000_000));
    let staged = |mut source: StagedSource| {
        source.clock = clock.clone();
        Box::new(source) as Box<dyn Peer>
    };
    let daemon = Daemon {
        core,
        clock: ArrivalClock::Staged(clock.clone()),
        config: DaemonConfig {
            retry_s: 0.01,
            ..DaemonConfig::default()
        },
        sources: sources.into_iter().map(staged).collect(),
        sinks: sinks
            .iter()
            .map(|sink| Box::new(Handle((*sink).clone())) as Box<dyn Peer>)
            .collect(),
        load_model: Arc::new(|| Err(SetupError::NoModel)),
        load_shadow: Arc::new(|| Loaded::None),
    };
    (daemon, folder)
}

const EVERY: Duration = Duration::from_millis(2);

#[test]
fn a_sink_gets_each_kind_it_wants_and_no_other() {
    let everything = StagedSink::wanting(Interests::ALL);
    let estimates = StagedSink::wanting(Interests::ESTIMATES);
    let events = drive(60, true);
    let delivered = events.len();
    let (mut daemon, _folder) = daemon(vec![source(events, EVERY)], &[&everything, &estimates]);
    // The source cannot run ahead of a slow core, so that frames are not dropped.
    daemon.config.event_queue = 1;
    let summary = daemon.run(&Controls::default()).unwrap();
    // The states of the source are events too.
    assert_eq!(summary.events, everything.count(Interests::EVENTS) as u64);
    assert!(summary.events >= delivered as u64 - summary.frames_dropped);
    assert!(everything.count(Interests::MATCHES) > 3);
    assert!(everything.count(Interests::HEALTH) > 0);
    assert_eq!(
        summary.estimates,
        everything.count(Interests::ESTIMATES) as u64
    );
    assert_eq!(
        estimates.kept.lock().unwrap().len() as u64,
        summary.estimates
    );
    assert_eq!(everything.finished.load(Ordering::Relaxed), 1);
    assert_eq!(summary.outbound_dropped, 0);
    let kept = everything.kept.lock().unwrap();
    let Some(Outbound::Match(found)) = kept.iter().find(|one| matches!(one, Outbound::Match(_)))
    else {
        panic!("a match is among them");
    };
    assert_eq!(found.patch.width, 64);
    assert_eq!(found.georeference.centre(), found.fix.centre);
}

#[test]
fn a_slow_sink_loses_the_oldest_and_never_holds_up_the_core() {
    let slow = Arc::new(StagedSink {
        interests: Interests::ESTIMATES,
        each_takes: Duration::from_millis(100),
        ..StagedSink::default()
    });
    let quick = StagedSink::wanting(Interests::ESTIMATES | Interests::HEALTH);
    let (mut daemon, _folder) = daemon(vec![source(drive(200, false), EVERY)], &[&slow, &quick]);
    daemon.config.sink_queue = 4;
    daemon.config.health_s = 0.1;
    let begun = Instant::now();
    let summary = daemon.run(&Controls::default()).unwrap();
    // Over 200 estimates at 100 ms each would take 20 s.
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
    let kept = slow.kept.lock().unwrap();
    assert!(summary.outbound_dropped > 100, "{summary:?}");
    let healths = quick.healths();
    let dropped = |health: &Health| health.sinks[0].dropped;
    assert!(dropped(healths.last().unwrap()) > 0);
    assert!(healths.is_sorted_by_key(|health| dropped(health)));
    // The newest came through.
    let time_ns = |one: Option<&Outbound>| match one {
        Some(Outbound::Estimate(estimate)) => estimate.time_ns,
        other => panic!("{other:?}"),
    };
    let quick = quick.kept.lock().unwrap();
    let last = quick
        .iter()
        .rfind(|one| matches!(one, Outbound::Estimate(_)));
    assert_eq!(time_ns(kept.last()), time_ns(last));
}

#[test]
fn health_tells_what_a_source_remarks_and_that_is_no_error() {
    let sink = StagedSink::wanting(Interests::ALL);
    let mut remarking = source(drive(60, false), EVERY);
    remarking.remark_until = 30;
    let (mut daemon, _folder) = daemon(vec![remarking], &[&sink]);
    daemon.config.health_s = 3600.0;
    daemon.run(&Controls::default()).unwrap();
    let healths = sink.healths();
    let reason = "source staged: a topic is silent".to_owned();
    let told = healths
        .iter()
        .position(|health| health.reasons.contains(&reason))
        .expect("the remark is told");
    let staged = &healths[told].sources[0];
    assert_eq!(staged.remark.as_deref(), Some("a topic is silent"));
    assert!(staged.up && staged.error.is_none());
    let over = healths[told..]
        .iter()
        .find(|health| health.sources[0].remark.is_none());
    assert!(!over.expect("it is over").reasons.contains(&reason));
}

#[test]
fn health_tells_a_failure_at_once_and_when_it_is_over() {
    let sink = StagedSink::wanting(Interests::ALL);
    let mut failing = source(drive(60, false), EVERY);
    failing.fails_after = Some(30);
    let (mut daemon, _folder) = daemon(vec![failing], &[&sink]);
    daemon.config.retry_s = 0.2;
    daemon.config.health_s = 3600.0;
    daemon.run(&Controls::default()).unwrap();
    let healths = sink.healths();
    let failed = healths
        .iter()
        .position(|health| health.sources[0].error.as_deref() == Some("staged failure"))
        .expect("the failure is told");
    assert!(!healths[failed].sources[0].up);
    assert!(
        healths[failed]
            .reasons
            .contains(&"source staged: staged failure".to_owned())
    );
    let again = &healths[failed..];
    let back = again.iter().find(|health| health.sources[0].up);
    assert_eq!(back.expect("it came back").sources[0].error, None);
    assert!(
        healths
            .iter()
            .any(|health| health.state == Some(State::Ok) || health.state == Some(State::Degraded))
    );
}

#[test]
fn one_connection_delivers_and_is_written_to_until_either_half_fails() {
    let sink = Arc::new(StagedSink {
        interests: Interests::ESTIMATES,
        fails_at: Some(20),
        ..StagedSink::default()
    });
    let mut both = source(drive(100, false), EVERY);
    both.writes = Some(sink.clone());
    let opened = both.opened.clone();
    let (daemon, _folder) = daemon(vec![both], &[]);
    let summary = daemon.run(&Controls::default()).unwrap();
    assert_eq!(opened.load(Ordering::Relaxed), 2, "opened again, once");
    assert!(sink.kept.lock().unwrap().len() > 40, "{summary:?}");
    assert_eq!(
        sink.finished.load(Ordering::Relaxed),
        1,
        "the writer outlives the recording and is finished"
    );
    assert!(summary.events >= 110, "no event is lost: {summary:?}");
}

#[test]
fn a_bad_new_student_leaves_the_old_one_running() {
    for good in [false, true] {
        let sink = StagedSink::wanting(Interests::ALL);
        let source = source(drive(150, true), EVERY);
        let delivered = source.delivered.clone();
        let (mut daemon, _folder) = daemon(vec![source], &[&sink]);
        daemon.config.event_queue = 1;
        let loads = Arc::new(AtomicUsize::new(0));
        daemon.load_model = {
            let loads = loads.clone();
            Arc::new(move || {
                loads.fetch_add(1, Ordering::Relaxed);
                // The new student fails at every frame, so that it is seen at work.
                if good {
                    Ok(staged(true))
                } else {
                    Err(SetupError::NoModel)
                }
            })
        };
        let controls = Controls::default();
        let reload = controls.reload_model.clone();
        let asking = std::thread::spawn(move || {
            while delivered.load(Ordering::Relaxed) < 80 {
                std::thread::sleep(EVERY);
            }
            reload.store(true, Ordering::Relaxed);
        });
        daemon.run(&controls).unwrap();
        asking.join().unwrap();
        assert_eq!(loads.load(Ordering::Relaxed), 1);
        let last = sink.healths().last().unwrap().clone();
        let refused = last
            .reasons
            .iter()
            .any(|reason| reason.starts_with("new student refused"));
        assert_eq!(refused, !good, "{:?}", last.reasons);
        assert_eq!(last.core.frames_unused > 0, good, "{:?}", last.core);
        assert!(last.core.frames > 0);
    }
}

/// A student that takes this long for a frame.
struct Slow(Box<dyn Matcher>, Duration);

impl Matcher for Slow {
    fn card(&self) -> &StudentCard {
        self.0.card()
    }

    fn match_frame(
        &mut self,
        strip: GroundStrip<'_>,
        key: crossfix_calibration::PatchKey,
        patch: &crossfix_calibration::RgbImage,
    ) -> Result<MatchResult, MatchError> {
        std::thread::sleep(self.1);
        self.0.match_frame(strip, key, patch)
    }
}

/// Drives with a shadow; what came to the sink, and how long it took.
fn with_shadow(
    load: impl Fn() -> Loaded + Send + Sync + 'static,
    reload_at: Option<usize>,
) -> (Arc<StagedSink>, Duration) {
    let sink = StagedSink::wanting(Interests::ALL | Interests::SHADOW);
    let source = source(drive(150, true), EVERY);
    let delivered = source.delivered.clone();
    let (mut daemon, _folder) = daemon(vec![source], &[&sink]);
    daemon.config.event_queue = 1;
    daemon.config.health_s = 0.05;
    daemon.load_shadow = Arc::new(load);
    let controls = Controls::default();
    let reload = controls.reload_model.clone();
    let asking = std::thread::spawn(move || {
        while reload_at.is_some_and(|at| delivered.load(Ordering::Relaxed) < at) {
            std::thread::sleep(EVERY);
        }
        reload.store(reload_at.is_some(), Ordering::Relaxed);
    });
    let begun = Instant::now();
    daemon.run(&controls).unwrap();
    asking.join().unwrap();
    (sink, begun.elapsed())
}

fn loaded(matcher: Box<dyn Matcher>) -> Loaded {
    let shadow = Shadow::new(matcher, None, [8.0, 0.15], 1);
    Loaded::Some("next.onnx".into(), Ok(Box::new(shadow)))
}

fn last_shadow(sink: &StagedSink) -> ShadowHealth {
    let shadows = sink
        .healths()
        .into_iter()
        .filter_map(|health| health.shadow.clone());
    shadows.last().expect("health tells of the shadow")
}

#[test]
fn a_shadow_is_told_of_in_health_and_to_those_who_want_each_frame() {
    let (sink, _) = with_shadow(|| loaded(staged(false)), None);
    let told = sink.count(Interests::SHADOW);
    assert!(told > 3, "{told}");
    let health = last_shadow(&sink);
    assert!(
        health.up && health.error.is_none() && health.compared > 3,
        "{health:?}"
    );
    assert!(sink.count(Interests::MATCHES) >= told);
}

#[test]
fn a_shadow_that_is_slow_fails_or_cannot_be_loaded_holds_nothing_up() {
    let (without, _) = with_shadow(|| Loaded::None, None);
    let usual = without.count(Interests::ESTIMATES);
    assert!(
        without
            .healths()
            .iter()
            .all(|health| health.shadow.is_none())
    );
    // It is busy with its first frame until long after the drive.
    let hour = Duration::from_hours(1);
    let (sink, took) = with_shadow(move || loaded(Box::new(Slow(staged(false), hour))), None);
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert_eq!(sink.count(Interests::SHADOW), 0);
    assert!(sink.count(Interests::ESTIMATES) * 10 > usual * 9);
    assert_eq!(
        sink.finished.load(Ordering::Relaxed),
        1,
        "the writers' files are finished"
    );

    let (sink, _) = with_shadow(|| loaded(staged(true)), None);
    let health = last_shadow(&sink);
    assert!(health.failed > 3 && health.compared == 0, "{health:?}");
    assert!(sink.count(Interests::ESTIMATES) * 10 > usual * 9);

    let broken = || Loaded::Some("next.onnx".into(), Err(SetupError::NoModel));
    let (sink, _) = with_shadow(broken, None);
    assert!(!last_shadow(&sink).up);
    let last = sink.healths().last().unwrap().clone();
    let reason = |reason: &String| reason.starts_with("shadow next.onnx: ");
    assert!(last.reasons.iter().any(reason), "{:?}", last.reasons);
    assert_eq!(
        last.state,
        Some(State::Ok),
        "the state of the positions is another thing"
    );
}

#[test]
fn a_new_shadow_is_taken_when_asked_for_and_a_bad_one_leaves_the_old() {
    for then in ["good", "bad", "unreadable", "none"] {
        let loads = Arc::new(AtomicUsize::new(0));
        let counted = loads.clone();
        let load = move || match (loads.fetch_add(1, Ordering::Relaxed), then) {
            (0, _) => loaded(staged(false)),
            (_, "good") => loaded(staged(true)),
            (_, "bad") => Loaded::Some("worse.onnx".into(), Err(SetupError::NoModel)),
            (_, "unreadable") => Loaded::Unreadable,
            _ => Loaded::None,
        };
        let (sink, _) = with_shadow(load, Some(150));
        assert_eq!(counted.load(Ordering::Relaxed), 2);
        let last = sink.healths().last().unwrap().shadow.clone();
        if then == "none" {
            assert_eq!(last, None);
            continue;
        }
        let health = last.unwrap();
        assert!(health.up);
        match then {
            "good" => assert!(health.failed > 0 && health.compared == 0, "{health:?}"),
            "bad" => {
                assert!(health.compared > 0, "the old one goes on: {health:?}");
                assert!(health.error.unwrap().starts_with("worse.onnx was refused"));
            }
            _ => assert!(health.compared > 5 && health.error.is_none(), "{health:?}"),
        }
    }
}
