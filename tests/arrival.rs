//! A recorded receiver whose fixes arrive late, unevenly, twice or in bursts, as on a busy machine:
//! the daemon's core with its clock, without threads and without waiting.

use anyhow::{Context, Result, ensure};

use crossfix_onboard::core::Core;
use crossfix_onboard::event::{Arrival, Estimate, EstimateKind, Event, GnssFix};
use crossfix_onboard::fusion::FusionConfig;
use crossfix_onboard::peer::nmea::{NmeaConfig, NmeaSentences};
use crossfix_onboard::pipeline::LiveCore;
use crossfix_tests::{data, horizontal_m, mean, place_at, read_gga};
use std::time::Duration;

/// The stretch that the gpsd test plays too.
const FIRST_EPOCH: usize = 700;
const EPOCHS: usize = 45;
/// 1-sigma that gpsd makes of this receiver's dilution of precision, metres.
const STATED_SIGMA_M: f64 = 7.0;
const DAY_NS: i64 = 86_400_000_000_000;

/// How fixes and ticks come.
#[derive(Debug, Clone, Copy)]
struct Punctuality {
    /// Most that a fix is late, beyond the 30 ms that all are, seconds.
    fix_late_s: f64,
    /// Most that a tick is late, seconds.
    tick_late_s: f64,
    /// Every so many fixes one waits, with all that follow it, this long.
    stall: Option<(usize, f64)>,
    /// Each fix comes this often.
    copies: usize,
}

const PUNCTUAL: Punctuality = Punctuality {
    fix_late_s: 0.0,
    tick_late_s: 0.0,
    stall: None,
    copies: 1,
};

struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn recorded_fixes() -> Result<Vec<GnssFix>> {
    let text = std::fs::read_to_string(data("mtv_f9k/receiver.nmea"))?;
    let mut sentences = NmeaSentences::new(&NmeaConfig::default());
    let mut fixes = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let now = Duration::from_millis(500 * index as u64);
        sentences.line(line.as_bytes(), now);
        fixes.extend(sentences.take(now));
    }
    for fix in &mut fixes {
        let variance = STATED_SIGMA_M * STATED_SIGMA_M;
        fix.covariance_m2 = [[variance, 0.0], [0.0, variance]];
    }
    let stretch = fixes.get(FIRST_EPOCH..FIRST_EPOCH + EPOCHS);
    Ok(stretch.context("too few fixes")?.to_vec())
}

/// Plays the fixes with this unpunctuality and gives what a client would have been sent.
fn play(fixes: &[GnssFix], arrival: Punctuality, seed: u64) -> Vec<Estimate> {
    let random = &mut Random(seed);
    let nanoseconds = |seconds: f64| (seconds * 1e9) as i64;
    let core = Core::new(FusionConfig::default(), None, None, None);
    let mut live = LiveCore::new(core, 100_000_000, 0);
    let (mut now_ns, mut held_until_s) = (0, 0.0f64);
    let mut estimates = Vec::new();
    for (index, fix) in fixes.iter().enumerate() {
        let due_s = (fix.time_ns - fixes[0].time_ns) as f64 * 1e-9 + 0.03;
        if let Some((every, stall_s)) = arrival.stall
            && index % every == every - 1
        {
            held_until_s = due_s + stall_s;
        }
        let late_s = arrival.fix_late_s * random.uniform();
        let at_ns = nanoseconds((due_s + late_s).max(held_until_s));
        loop {
            let tick_late_ns = nanoseconds(arrival.tick_late_s * random.uniform());
            let wakes_ns = live.next_tick_ns().max(now_ns) + tick_late_ns;
            if wakes_ns >= at_ns {
                break;
            }
            now_ns = wakes_ns;
            estimates.extend(live.wait_over(now_ns));
        }
        now_ns = now_ns.max(at_ns);
        for _ in 0..arrival.copies {
            let event = Event::Gnss(fix.clone());
            estimates.extend(live.handle(Arrival::new("receiver", now_ns, event)));
        }
    }
    estimates.retain(|estimate| estimate.kind == EstimateKind::Fused);
    estimates
}

/// Mean errors at the receiver's epochs, ours and its, and how many there were.
fn errors_m(fixes: &[GnssFix], estimates: &[Estimate]) -> Result<(f64, f64, usize)> {
    let truth = read_gga(&std::fs::read_to_string(data("mtv_f9k/truth.gga"))?);
    let (mut own, mut alone) = (Vec::new(), Vec::new());
    for estimate in estimates {
        let newest = fixes.partition_point(|fix| fix.time_ns <= estimate.time_ns + 1_000_000);
        let Some(fix) = newest.checked_sub(1).map(|index| &fixes[index]) else {
            continue;
        };
        let time_s = (estimate.time_ns % DAY_NS) as f64 * 1e-9;
        // A tick may fall on a fix that a stall still holds back; only what came of the fix counts.
        if estimate.time_ns == fix.time_ns
            && let Some(place) = place_at(&truth, time_s)
        {
            own.push(horizontal_m(place, estimate.position));
            alone.push(horizontal_m(place, fix.position));
        }
    }
    Ok((mean(&own), mean(&alone), own.len()))
}

#[test]
fn however_the_fixes_arrive_the_output_at_their_times_is_as_good_as_they_are() -> Result<()> {
    let fixes = recorded_fixes()?;
    let arrivals = [
        ("punctual", PUNCTUAL),
        (
            "some milliseconds late",
            Punctuality {
                fix_late_s: 0.003,
                tick_late_s: 0.0002,
                ..PUNCTUAL
            },
        ),
        (
            "a busy machine",
            Punctuality {
                fix_late_s: 0.06,
                tick_late_s: 0.01,
                ..PUNCTUAL
            },
        ),
        (
            "bursts after a second and a half",
            Punctuality {
                fix_late_s: 0.003,
                tick_late_s: 0.001,
                stall: Some((5, 1.5)),
                ..PUNCTUAL
            },
        ),
        (
            "everything twice",
            Punctuality {
                fix_late_s: 0.003,
                tick_late_s: 0.0002,
                copies: 2,
                ..PUNCTUAL
            },
        ),
    ];
    for (name, arrival) in arrivals {
        for seed in 0..5 {
            let estimates = play(&fixes, arrival, seed);
            let (own_m, alone_m, count) = errors_m(&fixes, &estimates)?;
            println!("{name}, seed {seed}: {own_m:.3} m, receiver {alone_m:.3} m at {count} fixes");
            ensure!(
                count >= 25 && own_m <= alone_m + 0.02,
                "{name}, seed {seed}: {own_m:.3} m, receiver {alone_m:.3} m at {count} fixes"
            );
            ensure!(
                estimates.is_sorted_by_key(|estimate| estimate.time_ns),
                "{name}, seed {seed}: time went back"
            );
        }
    }
    Ok(())
}
