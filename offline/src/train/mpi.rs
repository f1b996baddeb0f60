//! Processes that talk over MPI.

use super::World;
use crossfix_kernels::{Communicator, Result};
use mpi::Threading;
use mpi::collective::SystemOperation;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator as _, CommunicatorCollectives};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether this process has to leave the others in an orderly way.
static CONNECTED: AtomicBool = AtomicBool::new(false);

/// All processes that were started together. A failing exchange ends the process, as MPI does unless
/// told otherwise.
#[derive(Debug)]
struct MpiProcesses {
    rank: usize,
    size: usize,
}

impl Communicator for MpiProcesses {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn all_reduce_sum(&self, values: &mut [f32]) -> Result<()> {
        let share = values.to_vec();
        SimpleCommunicator::world().all_reduce_into(&share[..], values, SystemOperation::sum());
        Ok(())
    }

    fn all_gather(&self, values: &[f64]) -> Result<Vec<f64>> {
        let mut all = vec![0.0; values.len() * self.size];
        SimpleCommunicator::world().all_gather_into(values, &mut all[..]);
        Ok(all)
    }
}

/// Meets the other processes. The thread that calls this exchanges everything.
pub(super) fn world() -> std::result::Result<World, String> {
    let (universe, threading) = mpi::initialize_with_threading(Threading::Funneled)
        .ok_or("MPI was initialised before; start one training in a process")?;
    // `leave` takes its place: dropping it waits for the others, also after an error.
    std::mem::forget(universe);
    CONNECTED.store(true, Ordering::SeqCst);
    if threading < Threading::Funneled {
        return Err(
            "this MPI does not allow programs with threads; use a build of it that does".into(),
        );
    }
    let all = SimpleCommunicator::world();
    Ok(World::new(Arc::new(MpiProcesses {
        rank: all.rank() as usize,
        size: all.size() as usize,
    })))
}

/// As [`super::parallel::leave`].
pub(super) fn leave(failed: bool) {
    if !CONNECTED.swap(false, Ordering::SeqCst) {
        return;
    }
    if failed {
        SimpleCommunicator::world().abort(1);
    }
    // SAFETY: MPI_Finalize(): MPI is initialised and was not finalised, both as `CONNECTED` says;
    // the main thread calls this, which initialised it, and exchanges nothing afterwards.
    unsafe {
        mpi::ffi::MPI_Finalize();
    }
}
