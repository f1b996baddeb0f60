//! The processes that train one network together: how many there are, and what they exchange.
//!
//! Every process reads all settings and takes an equally long share of every batch. Batch statistics
//! and the normalisers of losses are those of the whole batch, gradients are averaged before the
//! optimiser's step, so all processes hold the same parameters to the bit, and a loss is what one
//! process would find on the whole batch. The first process alone writes files and says how it goes.
//!
//! Who started the processes says how many there are: Open MPI, MPICH, SLURM's `srun` or `torchrun`, by
//! environment variables. Processes on CPUs talk over MPI (the cargo feature `mpi`).

use super::TrainError;
use crate::model::ModelError;
use crate::run::sha256_json;
use crossfix_kernels::{Communicator, Device};
use serde::Serialize;
use std::ops::Range;
use std::sync::Arc;

/// The processes of a training, as one of them sees them.
#[derive(Debug, Clone, Default)]
pub struct World {
    communicator: Option<Arc<dyn Communicator>>,
}

impl World {
    /// One process by itself.
    pub fn alone() -> &'static Self {
        static ALONE: World = World { communicator: None };
        &ALONE
    }

    /// Of processes that talk through `communicator`.
    pub fn new(communicator: Arc<dyn Communicator>) -> Self {
        Self {
            communicator: Some(communicator),
        }
    }

    /// The processes that were started together with this one.
    ///
    /// # Errors
    /// [`TrainError::Parallel`] when there are several and this program cannot talk to the others: it
    /// must not train the same network several times over.
    pub fn from_environment() -> Result<Self, TrainError> {
        match started(|name| std::env::var(name).ok())? {
            Some(started) if started.size > 1 => connect(&started),
            _ => Ok(Self::default()),
        }
    }

    /// For commands whose processes cannot share their work.
    ///
    /// # Errors
    /// [`TrainError::Parallel`] when several were started, each of which would do all of it.
    pub fn refuse_several() -> Result<(), TrainError> {
        match started(|name| std::env::var(name).ok())? {
            Some(started) if started.size > 1 => Err(TrainError::Parallel(format!(
                "{started}, and each would do the same work; start one process"
            ))),
            _ => Ok(()),
        }
    }

    /// Number of this process, from 0.
    pub fn rank(&self) -> usize {
        self.communicator.as_ref().map_or(0, |c| c.rank())
    }

    /// Number of processes.
    pub fn size(&self) -> usize {
        self.communicator.as_ref().map_or(1, |c| c.size())
    }

    /// Whether this process writes files and says how it goes.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// How the others are reached, if there are others.
    pub(super) fn communicator(&self) -> Option<&Arc<dyn Communicator>> {
        self.communicator.as_ref()
    }

    /// Places of this process's share in a batch.
    ///
    /// # Errors
    /// [`TrainError::Parallel`] when the batch has no equal shares.
    pub(super) fn share(&self, batch: usize) -> Result<Range<usize>, TrainError> {
        let (rank, size) = (self.rank(), self.size());
        if !batch.is_multiple_of(size) {
            return Err(TrainError::Parallel(format!(
                "a batch of {batch} has no equal shares for {size} processes; set batch to a multiple of {size}, or start another number"
            )));
        }
        let share = batch / size;
        Ok(share * rank..share * (rank + 1))
    }

    /// Whether the processes can train together: equal shares of a batch, on CPUs.
    ///
    /// # Errors
    /// [`TrainError::Parallel`] with what to change.
    pub fn check(&self, batch: usize, device: &Device) -> Result<(), TrainError> {
        self.share(batch)?;
        if self.size() > 1 && *device != Device::Cpu {
            let what = "several processes train one network on CPUs only; say --device cpu, or start one process";
            return Err(TrainError::Parallel(what.into()));
        }
        Ok(())
    }

    /// Means of `values` over the processes, added in the order of their ranks.
    pub(super) fn means(&self, values: Vec<f64>) -> Result<Vec<f64>, ModelError> {
        let Some(communicator) = &self.communicator else {
            return Ok(values);
        };
        let all = communicator.all_gather(&values)?;
        let of_value = |index: usize| all[index..].iter().step_by(values.len());
        let sums = (0..values.len()).map(|index| of_value(index).sum::<f64>());
        Ok(sums.map(|sum| sum / self.size() as f64).collect())
    }

    /// The texts of all processes, in the order of their ranks. Waits for all of them.
    pub(super) fn texts(&self, text: &str) -> Result<Vec<String>, ModelError> {
        let Some(communicator) = &self.communicator else {
            return Ok(vec![text.into()]);
        };
        let lengths = communicator.all_gather(&[text.len() as f64])?;
        let longest = lengths.iter().copied().fold(0.0, f64::max) as usize;
        let mut bytes: Vec<f64> = text.bytes().map(f64::from).collect();
        bytes.resize(longest, 0.0);
        let all = communicator.all_gather(&bytes)?;
        let texts = lengths.iter().enumerate().map(|(rank, length)| {
            let bytes = &all[rank * longest..][..*length as usize];
            let bytes: Vec<u8> = bytes.iter().map(|byte| *byte as u8).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        });
        Ok(texts.collect())
    }

    /// Refuses to go on unless `value` is the same in all processes, where there are several. Waits for
    /// all of them.
    pub(super) fn agree<T: Serialize>(
        &self,
        what: &str,
        value: impl FnOnce() -> Result<T, ModelError>,
    ) -> Result<(), TrainError> {
        if self.communicator.is_none() {
            return Ok(());
        }
        let texts = self.texts(&sha256_json(&value()?))?;
        match texts.iter().position(|text| *text != texts[0]) {
            None => Ok(()),
            Some(rank) => Err(TrainError::Parallel(format!(
                "processes 0 and {rank} disagree about {what}; start them with the same program and command, on the same files and the same kind of processor"
            ))),
        }
    }

    /// Waits for all processes. A process that ends with an error ends the others, so all that end with the same one wait
    /// here for the first to write it down.
    ///
    /// # Errors
    /// [`TrainError::Model`] when they cannot be reached.
    pub fn barrier(&self) -> Result<(), TrainError> {
        self.means(Vec::from([0.0]))?;
        Ok(())
    }
}

/// What the environment says of the processes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Started {
    by: &'static str,
    rank: usize,
    size: usize,
}

impl std::fmt::Display for Started {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { by, rank, size } = self;
        write!(f, "this is process {rank} of {size} that {by} started")
    }
}

/// Who starts processes, and the variables with a process's number and how many there are. In a batch
/// script `SLURM_NTASKS` may be above 1 where one process runs; `srun` sets the step's own number.
const STARTERS: [(&str, &str, &str); 4] = [
    ("Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("MPICH", "PMI_RANK", "PMI_SIZE"),
    ("srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
    ("torchrun", "RANK", "WORLD_SIZE"),
];

fn started(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Started>, TrainError> {
    for (by, rank, size) in STARTERS {
        let (Some(rank_text), Some(size_text)) = (variable(rank), variable(size)) else {
            continue;
        };
        let number = |text: &str| text.trim().parse::<usize>().ok();
        return match (number(&rank_text), number(&size_text)) {
            (Some(rank), Some(size)) if rank < size => Ok(Some(Started { by, rank, size })),
            _ => Err(TrainError::Parallel(format!(
                "{rank} is {rank_text:?} and {size} is {size_text:?}, which is no process of so many; unset them, or start with {by}"
            ))),
        };
    }
    Ok(None)
}

#[cfg(not(feature = "mpi"))]
fn connect(started: &Started) -> Result<World, TrainError> {
    Err(TrainError::Parallel(format!(
        "{started}, and this program was built without MPI: it would train the same network {} times; build it with `cargo build --release -p crossfix-offline --features mpi` (needs libopenmpi-dev and libclang-dev), or start one process",
        started.size
    )))
}

#[cfg(feature = "mpi")]
fn connect(started: &Started) -> Result<World, TrainError> {
    let world = super::mpi::world().map_err(TrainError::Parallel)?;
    let found = world.size();
    if found == started.size {
        return Ok(world);
    }
    Err(TrainError::Parallel(format!(
        "{started}, but MPI connects {found} here: it would train the same network several times; start with the mpirun of the MPI that this program was built with, or with `srun --mpi=pmix`"
    )))
}

/// Ends this process's part after a run. One that failed takes the others with it: they would wait
/// for it.
pub fn leave(failed: bool) {
    #[cfg(feature = "mpi")]
    super::mpi::leave(failed);
    #[cfg(not(feature = "mpi"))]
    let _ = failed;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossfix_kernels::testing::in_processes;

    fn from(variables: &[(&str, &str)]) -> Result<Option<Started>, TrainError> {
        started(|name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).into())
        })
    }

    #[test]
    fn who_started_the_processes_says_how_many_there_are() {
        assert_eq!(from(&[]).unwrap(), None);
        for (by, rank, size) in STARTERS {
            let found = from(&[(rank, "1"), (size, "4")]).unwrap().unwrap();
            assert_eq!((found.by, found.rank, found.size), (by, 1, 4));
            let message = from(&[(rank, "4"), (size, "4")]).unwrap_err().to_string();
            assert!(
                message.contains(rank) && message.contains(size),
                "{message}"
            );
            assert!(from(&[(rank, "one"), (size, "4")]).is_err());
        }
        // A batch script of SLURM, where no step was started.
        let script = [("SLURM_PROCID", "0"), ("SLURM_NTASKS", "8")];
        assert_eq!(from(&script).unwrap(), None);
    }

    #[cfg(not(feature = "mpi"))]
    #[test]
    fn a_program_without_mpi_says_how_to_build_it() {
        let started = from(&[("RANK", "0"), ("WORLD_SIZE", "2")])
            .unwrap()
            .unwrap();
        let message = connect(&started).unwrap_err().to_string();
        assert!(
            message.contains("process 0 of 2 that torchrun started"),
            "{message}"
        );
        assert!(message.contains("--features mpi"), "{message}");
    }

    #[test]
    fn processes_share_texts_means_and_batches() {
        let found = in_processes(3, |communicator| {
            let world = World::new(communicator);
            let rank = world.rank();
            let texts = world.texts(&"ä".repeat(rank)).unwrap();
            let means = world.means(vec![rank as f64, 1.0]).unwrap();
            let agreement = world.agree("the number", || Ok(rank / 2));
            assert!(world.agree("the number", || Ok(1)).is_ok());
            (texts, means, world.share(6).unwrap(), agreement)
        });
        for (rank, (texts, means, share, agreement)) in found.into_iter().enumerate() {
            assert_eq!(texts, ["", "ä", "ää"]);
            assert_eq!(means, [1.0, 1.0]);
            assert_eq!(share, 2 * rank..2 * rank + 2);
            let message = agreement.unwrap_err().to_string();
            assert!(
                message.contains("0 and 2 disagree about the number"),
                "{message}"
            );
        }
        let uneven = in_processes(2, |communicator| World::new(communicator).share(5));
        let message = uneven[0].as_ref().unwrap_err().to_string();
        assert!(message.contains("a multiple of 2"), "{message}");
        assert_eq!(World::alone().share(5).unwrap(), 0..5);
    }
}
