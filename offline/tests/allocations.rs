//! A training step takes the memory of its arrays from the step before.

use crossfix_kernels::ops::BatchNormMode;
use crossfix_kernels::optim::Adam;
use crossfix_kernels::{Pixels, Tape};
use crossfix_offline::model::loss::{LossConfig, PoseTarget};
use crossfix_offline::model::{
    Ccvpe, CrossViewModel, Extent, ForwardOptions, Input, Share, preset,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Arrays, as opposed to shapes, closures and the tape: what the engine keeps (1024 elements).
const ARRAY: usize = 4096;

/// Bytes of arrays.
static ARRAYS: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, which adds up arrays.
struct Counting;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() >= ARRAY {
            ARRAYS.fetch_add(layout.size(), Ordering::Relaxed);
        }
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_step_takes_its_arrays_from_the_step_before() {
    let spec = preset("compact").expect("a preset");
    let mut model = Ccvpe::new(spec.clone(), 1).unwrap();
    let noise = |shape: [usize; 4]| {
        let count = shape.iter().product::<usize>();
        let bytes = (0..count).map(|i| (i * 7919 % 256) as u8).collect();
        Pixels::new(bytes, shape).unwrap()
    };
    let batch = 2;
    let input = Input {
        ground: noise([batch, 3, spec.ground_rows, spec.ground_columns]),
        aerial: noise([batch, 3, spec.aerial_px, spec.aerial_px]),
        augment: None,
        ground_left_bin: Vec::new(),
        projections: Vec::new(),
    };
    let middle = spec.heatmap_side() as f64 / 2.0;
    let target = PoseTarget {
        column: middle,
        row: middle,
        residual_rad: 0.1,
        weight: 1.0,
        map: None,
    };
    let targets = vec![target; batch];
    let mut adam = Adam::default();
    let mut step = || {
        let mut tape = Tape::training();
        let options = ForwardOptions {
            batch_norm: BatchNormMode::Train { momentum: 0.01 },
            drop_connect: None,
            share: Share::default(),
            extent: Extent::Everything,
        };
        let prediction = model.forward(&mut tape, &input, options).unwrap();
        let config = LossConfig::default();
        let loss = model
            .loss(&mut tape, &prediction, &targets, &config)
            .unwrap();
        let gradients = tape.backward(&loss.total).unwrap();
        adam.step(model.parameters_mut().all_mut(), &gradients, 1e-4)
            .unwrap();
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let counts: Vec<usize> = pool.unwrap().install(|| {
        let mut count = || {
            let before = ARRAYS.load(Ordering::Relaxed);
            step();
            ARRAYS.load(Ordering::Relaxed) - before
        };
        (0..4).map(|_| count()).collect()
    });
    println!("bytes of arrays allocated by each step: {counts:?}");
    assert!(
        counts[0] > 10_000_000,
        "the first step must allocate: {counts:?}"
    );
    // What is left: the drawing of the targets, winners of the maximum over orientations, the tape, and
    // the matrix products' packed copies.
    let rest = counts[0] / 50;
    assert!(counts[2] < rest && counts[3] < rest, "{counts:?}");
}
