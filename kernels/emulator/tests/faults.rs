//! Planted faults are caught, each with a message that names the thread and the line; and kernels
//! without faults are not complained about.

use crossfix_kernel_emulator::{Driver, Emulator, Guard, Options, Schedule};
use crossfix_kernels::cuda::{Address, Kernel, LaunchShape, Source};
use std::ffi::c_void;

static RACES: Source = source("faults/races.cu", include_str!("faults/races.cu"));
static MEMORY: Source = source("faults/memory.cu", include_str!("faults/memory.cu"));
static BARRIERS: Source = source("faults/barriers.cu", include_str!("faults/barriers.cu"));
static SOUND: Source = source("faults/sound.cu", include_str!("faults/sound.cu"));

const fn source(name: &'static str, text: &'static str) -> Source {
    Source {
        name,
        text,
        hot: &[],
    }
}

const SCHEDULES: [Schedule; 5] = [
    Schedule::Forward,
    Schedule::Reverse,
    Schedule::Random(1),
    Schedule::Random(2),
    Schedule::Random(3),
];

fn plain(schedule: Schedule) -> Emulator {
    Emulator::new(Options {
        schedule,
        limit_s: 1,
        ..Options::default()
    })
}

fn checked() -> Emulator {
    Emulator::new(Options {
        checked: true,
        ..Options::default()
    })
}

/// A buffer of f32 holding `values`.
fn upload(emulator: &Emulator, values: &[f32]) -> Address {
    let address = fresh(emulator, values.len());
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_ne_bytes()).collect();
    // SAFETY: allocated just now for as many.
    unsafe { emulator.upload(address, &bytes).unwrap() };
    address
}

/// A buffer of `elements` f32 without values.
fn fresh(emulator: &Emulator, elements: usize) -> Address {
    emulator.allocate(elements * 4).unwrap().unwrap()
}

fn download(emulator: &Emulator, from: Address, elements: usize) -> Vec<f32> {
    let mut bytes = vec![0; elements * 4];
    // SAFETY: the tests ask for what they allocated.
    unsafe { emulator.download(from, &mut bytes).unwrap() };
    let words = bytes.chunks_exact(4);
    words
        .map(|word| f32::from_ne_bytes(word.try_into().unwrap()))
        .collect()
}

/// Launches `blocks` of `threads` with 8-byte arguments; what the emulator says against it.
fn launch(
    emulator: &Emulator,
    source: &'static Source,
    entry: &'static str,
    [blocks, threads, shared_bytes]: [u32; 3],
    arguments: &[u64],
) -> Result<(), String> {
    let mut arguments = arguments.to_vec();
    let mut pointers: Vec<*mut c_void> = arguments
        .iter_mut()
        .map(|argument| std::ptr::from_mut(argument).cast())
        .collect();
    let kernel = Kernel { source, entry };
    let shape = LaunchShape {
        grid: [blocks, 1, 1],
        block: [threads, 1, 1],
        shared_bytes,
    };
    // SAFETY: the arguments are pointers and integers, which a u64 holds in its first bytes. That
    // the kernels misbehave is the point; the emulator survives it.
    unsafe { emulator.launch(&kernel, shape, &mut pointers) }.map_err(|error| error.to_string())
}

/// The line of `source` that carries the mark `FAULT number`.
fn line(source: &Source, number: u32) -> String {
    let mark = format!("// FAULT {number}");
    let found = source.text.lines().position(|l| {
        let after = l.split_once(&mark);
        after.is_some_and(|(_, rest)| !rest.starts_with(|c: char| c.is_ascii_digit()))
    });
    let file = source.name.rsplit('/').next().unwrap();
    format!("{file}:{}", found.expect("the mark is there") + 1)
}

#[track_caller]
fn assert_says(message: Result<(), String>, words: &[&str]) {
    let message = message.expect_err("the fault was not caught");
    println!("{message}");
    for word in words {
        assert!(message.contains(word), "{message:?} does not say {word:?}");
    }
}

fn ramp(count: usize) -> Vec<f32> {
    (0..count).map(|i| i as f32 + 1.0).collect()
}

#[test]
fn a_missing_barrier_gives_wrong_sums_in_some_order_and_is_a_race_in_every() {
    let x = ramp(256);
    let expected: f32 = x.iter().sum();
    let wrong = SCHEDULES.iter().filter(|schedule| {
        let emulator = plain(**schedule);
        let (x, sum) = (upload(&emulator, &x), fresh(&emulator, 1));
        launch(&emulator, &RACES, "missing_barrier", [1, 256, 0], &[x, sum]).unwrap();
        download(&emulator, sum, 1)[0].to_bits() != expected.to_bits()
    });
    let wrong: Vec<_> = wrong.collect();
    println!("wrong sums under {wrong:?}");
    assert!(wrong.iter().any(|s| matches!(s, Schedule::Random(_))));

    let emulator = checked();
    let (x, sum) = (upload(&emulator, &x), fresh(&emulator, 1));
    let said = launch(&emulator, &RACES, "missing_barrier", [1, 256, 0], &[x, sum]);
    assert_says(said, &["race on shared memory", &line(&RACES, 0)]);
}

#[test]
fn races_are_reported_with_both_lines_and_threads() {
    let cases = [
        ("reverse_without_barrier", 64, 1, 2),
        ("missing_syncwarp", 32, 3, 4),
    ];
    for (entry, threads, first, second) in cases {
        let emulator = checked();
        let (x, y) = (upload(&emulator, &ramp(64)), fresh(&emulator, 64));
        // Both halves of the line are the same launch, so either access may be the later one.
        let said = launch(&emulator, &RACES, entry, [1, threads, 0], &[x, y]);
        let lines = [line(&RACES, first), line(&RACES, second)];
        assert_says(said, &["race on shared memory", &lines[0], &lines[1]]);
    }
    let emulator = checked();
    let sum = upload(&emulator, &[0.0]);
    let said = launch(&emulator, &RACES, "blocks_share_a_sum", [2, 32, 0], &[sum]);
    let at = line(&RACES, 5);
    assert_says(
        said,
        &[
            "race on byte 0 of a buffer of 4 bytes",
            "block (1,0,0)",
            "block (0,0,0)",
            &at,
        ],
    );
    let said = launch(&emulator, &RACES, "half_atomic", [1, 32, 0], &[sum]);
    assert_says(said, &["race", &line(&RACES, 6), &line(&RACES, 7)]);
}

#[test]
fn stores_and_loads_outside_a_buffer_are_caught_in_every_order() {
    for schedule in SCHEDULES {
        // 1024 elements end at the guard page; 1021 leave some bytes before it.
        for count in [1024u64, 1021] {
            let emulator = plain(schedule);
            let y = fresh(&emulator, count as usize);
            let said = launch(
                &emulator,
                &MEMORY,
                "off_by_one_store",
                [9, 128, 0],
                &[y, count],
            );
            let bytes = format!(
                "writes 0 bytes past the end of a buffer of {} bytes",
                count * 4
            );
            assert_says(said, &["off_by_one_store (faults/memory.cu)", &bytes]);
        }
        let emulator = Emulator::new(Options {
            schedule,
            guard: Guard::Before,
            ..Options::default()
        });
        let (x, y) = (upload(&emulator, &ramp(64)), fresh(&emulator, 64));
        let said = launch(
            &emulator,
            &MEMORY,
            "reads_before_start",
            [1, 64, 0],
            &[x, y],
        );
        let at = line(&MEMORY, 2);
        assert_says(
            said,
            &[
                "thread (0,0,0) reads 4 bytes before a buffer of 256 bytes",
                &at,
            ],
        );
    }
    let emulator = checked();
    let y = fresh(&emulator, 1021);
    let said = launch(
        &emulator,
        &MEMORY,
        "off_by_one_store",
        [9, 128, 0],
        &[y, 1021],
    );
    assert_says(
        said,
        &[
            "block (7,0,0) thread (125,0,0) writes 0 bytes past",
            &line(&MEMORY, 1),
        ],
    );
}

#[test]
fn shared_memory_is_checked_for_values_and_ends() {
    for (entry, mark) in [
        ("reads_unwritten_shared", 3),
        ("reads_unwritten_shared_of_template", 4),
    ] {
        for schedule in SCHEDULES {
            let emulator = plain(schedule);
            let (x, y) = (upload(&emulator, &ramp(64)), fresh(&emulator, 64));
            launch(&emulator, &MEMORY, entry, [2, 64, 0], &[x, y]).unwrap();
            assert!(
                download(&emulator, y, 64)[63].is_nan(),
                "{entry} {schedule:?}"
            );
        }
        let emulator = checked();
        let (x, y) = (upload(&emulator, &ramp(64)), fresh(&emulator, 64));
        let said = launch(&emulator, &MEMORY, entry, [1, 64, 0], &[x, y]);
        let at = line(&MEMORY, mark);
        assert_says(
            said,
            &[
                "thread (63,0,0) reads shared memory, which nobody has written",
                &at,
            ],
        );
    }
    for emulator in [plain(Schedule::Forward), checked()] {
        let y = fresh(&emulator, 64);
        let said = launch(
            &emulator,
            &MEMORY,
            "overruns_dynamic_shared",
            [1, 64, 256],
            &[y],
        );
        assert_says(
            said,
            &[
                "thread (63,0,0) writes",
                "dynamic shared memory",
                &line(&MEMORY, 5),
            ],
        );
    }
    let emulator = checked();
    let y = fresh(&emulator, 64);
    let said = launch(
        &emulator,
        &MEMORY,
        "overruns_static_shared",
        [1, 64, 0],
        &[y],
    );
    assert_says(
        said,
        &["thread (32,0,0) takes element 32 of", &line(&MEMORY, 6)],
    );
}

#[test]
fn what_a_kernel_forgets_to_write_is_nan_and_reading_it_is_reported() {
    let emulator = checked();
    let y = fresh(&emulator, 64);
    launch(&emulator, &MEMORY, "forgets_an_element", [1, 64, 0], &[y]).unwrap();
    let got = download(&emulator, y, 64);
    assert!(got[5].is_nan() && got[4].to_bits() == 1.0f32.to_bits());
    let z = fresh(&emulator, 64);
    let said = launch(&emulator, &SOUND, "sound_warp", [1, 64, 0], &[y, z]);
    assert_says(
        said,
        &["thread (5,0,0) reads byte 20 of a buffer of 256 bytes, which nobody has written"],
    );
}

#[test]
fn freed_memory_null_and_misaligned_addresses_are_faults() {
    let emulator = plain(Schedule::Forward);
    let (x, y) = (upload(&emulator, &ramp(64)), fresh(&emulator, 64));
    // SAFETY: nothing is queued.
    unsafe { emulator.free(x, 256) };
    let said = launch(&emulator, &SOUND, "sound_warp", [1, 64, 0], &[x, y]);
    assert_says(
        said,
        &["reads byte 0 of a buffer of 256 bytes that has been freed"],
    );
    let said = launch(&emulator, &SOUND, "sound_warp", [1, 64, 0], &[0, y]);
    assert_says(said, &["reads through a null pointer"]);

    let emulator = checked();
    let (x, y) = (upload(&emulator, &ramp(64)), fresh(&emulator, 64));
    let said = launch(&emulator, &MEMORY, "misaligned_vector", [1, 1, 0], &[x, y]);
    assert_says(said, &["misaligned", "float4", &line(&MEMORY, 7)]);
    for emulator in [plain(Schedule::Forward), checked()] {
        let y = fresh(&emulator, 64);
        let said = launch(&emulator, &MEMORY, "divides_by_zero", [1, 64, 0], &[y, 0]);
        assert_says(said, &["divides by zero", &line(&MEMORY, 8)]);
    }
}

#[test]
fn a_copy_lands_only_when_it_is_waited_for() {
    for schedule in SCHEDULES {
        let emulator = plain(schedule);
        let (x, y) = (upload(&emulator, &ramp(64)), fresh(&emulator, 64));
        let said = launch(&emulator, &MEMORY, "missing_copy_wait", [1, 64, 0], &[x, y]);
        assert_says(said, &["copy in flight", &line(&MEMORY, 9)]);
        launch(
            &emulator,
            &MEMORY,
            "waits_for_too_few_copies",
            [1, 64, 0],
            &[x, y],
        )
        .unwrap();
        assert!(download(&emulator, y, 64).iter().any(|y| y.is_nan()));
    }
    let emulator = checked();
    let (x, y) = (upload(&emulator, &ramp(64)), fresh(&emulator, 64));
    let said = launch(
        &emulator,
        &MEMORY,
        "waits_for_too_few_copies",
        [1, 64, 0],
        &[x, y],
    );
    assert_says(said, &["race", &line(&MEMORY, 10), &line(&MEMORY, 11)]);
}

#[test]
fn threads_that_wait_for_each_other_are_reported_with_their_lines() {
    for schedule in SCHEDULES {
        let emulator = plain(schedule);
        let y = fresh(&emulator, 64);
        let said = |entry, threads| launch(&emulator, &BARRIERS, entry, [1, threads, 0], &[y]);
        let marks = |number| line(&BARRIERS, number);
        assert_says(said("divergent_barrier", 64), &["__syncthreads", &marks(1)]);
        assert_says(
            said("two_barriers_for_one", 64),
            &["another thread", &marks(2), &marks(3)],
        );
        let both = [&*marks(4), &*marks(5), "wait for each other for ever"];
        assert_says(said("barrier_against_shuffle", 32), &both);
        assert_says(said("shuffle_outside_its_mask", 32), &["mask", &marks(6)]);
        said("shuffle_from_absent_lanes", 32).unwrap();
        assert!(download(&emulator, y, 1)[0].is_nan());
    }
}

#[test]
fn an_endless_loop_is_ended() {
    let emulator = plain(Schedule::Forward);
    let y = upload(&emulator, &[0.0]);
    let said = launch(&emulator, &BARRIERS, "waits_in_a_loop", [1, 32, 0], &[y]);
    assert_says(
        said,
        &["waits_in_a_loop", "thread (0,0,0) still runs after 1 s"],
    );
    // And the next launch works.
    let (y, z) = (upload(&emulator, &ramp(64)), fresh(&emulator, 64));
    launch(&emulator, &SOUND, "sound_warp", [1, 64, 0], &[y, z]).unwrap();
}

#[test]
fn launches_beyond_the_bounds_of_a_kernel_are_refused() {
    let emulator = plain(Schedule::Forward);
    let y = fresh(&emulator, 128);
    launch(&emulator, &BARRIERS, "bounded", [1, 64, 0], &[y]).unwrap();
    let said = launch(&emulator, &BARRIERS, "bounded", [1, 65, 0], &[y]);
    assert_says(said, &["65 threads", "__launch_bounds__ allow 64"]);
    let said = launch(&emulator, &BARRIERS, "bounded", [1, 64, 240 << 10], &[y]);
    assert_says(said, &["245760 bytes of dynamic shared memory"]);
    let said = launch(&emulator, &BARRIERS, "bounded", [1, 64, 0], &[y, y]);
    assert_says(said, &["takes 1 arguments and was given 2"]);
}

#[test]
fn sound_kernels_are_right_and_not_complained_about() {
    let emulators = SCHEDULES.map(plain).into_iter().chain([checked()]);
    for emulator in emulators {
        let x = ramp(1000);
        let (from, to) = (upload(&emulator, &x), fresh(&emulator, 3));
        launch(
            &emulator,
            &SOUND,
            "sound_sum",
            [3, 128, 0],
            &[from, to, 1000],
        )
        .unwrap();
        assert_eq!(download(&emulator, to, 3), [500_500.0; 3]);

        let (from, to) = (upload(&emulator, &x[..64]), fresh(&emulator, 64));
        launch(&emulator, &SOUND, "sound_warp", [1, 64, 0], &[from, to]).unwrap();
        assert_eq!(download(&emulator, to, 64), warp_by_hand(&x[..64]));

        let counts = upload(&emulator, &[0.0; 2]);
        launch(&emulator, &SOUND, "sound_atomics", [4, 64, 0], &[counts]).unwrap();
        let counts = download(&emulator, counts, 2);
        assert_eq!([counts[0].to_bits(), counts[1].to_bits()], [28, 63]);

        // Multiples of 1/8 below 4 are exact in tf32 and bf16, and so are their sums.
        let left: Vec<f32> = (0..256).map(|i| (i * 7 % 32) as f32 / 8.0 - 2.0).collect();
        let right: Vec<f32> = (0..128).map(|i| (i * 5 % 32) as f32 / 8.0 - 2.0).collect();
        let expected: Vec<f32> = (0..128)
            .map(|i| {
                (0..16)
                    .map(|k| left[i / 8 * 16 + k] * right[k * 8 + i % 8])
                    .sum()
            })
            .collect();
        let (a, b) = (upload(&emulator, &left), upload(&emulator, &right));
        for entry in ["sound_tf32", "sound_bf16"] {
            let y = fresh(&emulator, 128);
            launch(&emulator, &SOUND, entry, [1, 32, 0], &[a, b, y]).unwrap();
            assert_eq!(download(&emulator, y, 128), expected, "{entry}");
        }
    }
}

fn warp_by_hand(x: &[f32]) -> Vec<f32> {
    let swapped = |t: usize| x[t ^ 1];
    let v = |t: usize| swapped(t) + swapped(t ^ 15);
    let within = |t: usize, by: isize| {
        let lane = t as isize % 16 + by;
        let inside = (0..16).contains(&lane);
        v(if inside {
            (t as isize + by) as usize
        } else {
            t
        })
    };
    (0..64)
        .map(|t| v(t) + (within(t, 1) + within(t, -1)) + 5.0)
        .collect()
}
