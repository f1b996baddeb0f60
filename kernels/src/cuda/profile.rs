//! The time of each launch on the device, with the bytes it moves and the operations it does.

use super::Cuda;
use super::driver::Mark;
use crate::error::{Error, Result};
use std::sync::PoisonError;

/// One launch or product, with its place in the device's queue.
struct Entry {
    part: &'static str,
    name: String,
    bytes: u64,
    operations: u64,
    /// Before and after.
    marks: [Box<dyn Mark>; 2],
}

/// Entries so far, and the part of the work under way.
#[derive(Default)]
pub(super) struct Profile {
    part: &'static str,
    entries: Vec<Entry>,
}

/// How long a launch took, and what it had to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Timed {
    /// The name set by the last [`Cuda::begin_part`].
    pub part: &'static str,
    /// The kernel and how it was launched, or the product and its size.
    pub name: String,
    /// Bytes of all its buffers, each counted once: a lower bound of the traffic where it uses them
    /// whole.
    pub bytes: u64,
    /// Multiplications and additions, where the launch states them; 0 elsewhere.
    pub operations: u64,
    /// Milliseconds between the marks around it. Below a few microseconds this is the cost of the marks.
    pub milliseconds: f64,
}

impl Cuda {
    /// Runs `work` with a mark before and after every launch and product, and gives their times.
    /// The marks cost time of their own, so the sum is more than an undisturbed run takes.
    ///
    /// # Errors
    /// What `work` returns; [`Error::Cuda`] when a profile is under way or something failed.
    pub fn profile<T, E: From<Error>>(
        &self,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<(T, Vec<Timed>), E> {
        {
            let mut profile = self.profile_lock();
            if profile.is_some() {
                return Err(Error::cuda("profile", "another one is under way").into());
            }
            *profile = Some(Profile::default());
        }
        let made = work();
        let profile = self.profile_lock().take().unwrap_or_default();
        let made = made?;
        let timed = profile.entries.into_iter().map(|entry| {
            let [before, after] = entry.marks;
            Ok(Timed {
                milliseconds: before.milliseconds_to(&*after)?,
                part: entry.part,
                name: entry.name,
                bytes: entry.bytes,
                operations: entry.operations,
            })
        });
        let timed = timed.collect::<Result<Vec<_>>>()?;
        Ok((made, timed))
    }

    /// Names the part of the work that is enqueued from now on, for a profile.
    pub fn begin_part(&self, part: &'static str) {
        if let Some(profile) = &mut *self.profile_lock() {
            profile.part = part;
        }
    }

    /// Runs `enqueue`, which enqueues one launch, between two marks where a profile is taken.
    pub(super) fn timed(
        &self,
        describe: impl FnOnce() -> (String, u64, u64),
        enqueue: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        if self.profile_lock().is_none() {
            return enqueue();
        }
        let driver = &self.0.driver;
        let before = driver.mark()?;
        enqueue()?;
        let after = driver.mark()?;
        let (name, bytes, operations) = describe();
        if let Some(profile) = &mut *self.profile_lock() {
            let part = profile.part;
            profile.entries.push(Entry {
                part,
                name,
                bytes,
                operations,
                marks: [before, after],
            });
        }
        Ok(())
    }

    fn profile_lock(&self) -> std::sync::MutexGuard<'_, Option<Profile>> {
        self.0
            .profile
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
