//! The CPU's memory pool: memory of dropped tensors, kept for the next tensor of that length.
//!
//! A training step makes and drops the same few hundred arrays every time. Handing them back to
//! the system in between costs a fifth of the step in page faults.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::{LazyLock, Mutex, PoisonError};

/// Shorter arrays are left to the allocator.
const SHORTEST: usize = 1024;

/// Arrays of one length.
#[derive(Default)]
struct Shelf {
    free: Vec<Vec<f32>>,
    /// Arrays handed out and not yet returned. An array returned beyond that count was allocated
    /// elsewhere and is freed, so the pool never holds more than was in use at once.
    lent: usize,
}

static SHELVES: LazyLock<Mutex<HashMap<usize, Shelf>>> = LazyLock::new(Mutex::default);

/// The elements of a tensor, recycled when dropped.
#[derive(Debug)]
pub(crate) struct Buffer(Vec<f32>);

impl Buffer {
    pub fn new(data: Vec<f32>) -> Self {
        Self(data)
    }

    pub fn into_vec(mut self) -> Vec<f32> {
        std::mem::take(&mut self.0)
    }
}

impl Deref for Buffer {
    type Target = Vec<f32>;

    fn deref(&self) -> &Vec<f32> {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<f32> {
        &mut self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        recycle(std::mem::take(&mut self.0));
    }
}

/// Keeps `data` for a later [`any`] of its length.
pub(crate) fn recycle(data: Vec<f32>) {
    if data.len() < SHORTEST {
        return;
    }
    let mut shelves = SHELVES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(shelf) = shelves.get_mut(&data.len())
        && shelf.lent > 0
    {
        shelf.lent -= 1;
        shelf.free.push(data);
    }
}

/// Elements with unspecified values, for an operation that overwrites them all.
pub(crate) fn any(length: usize) -> Vec<f32> {
    let free = if length < SHORTEST {
        None
    } else {
        let mut shelves = SHELVES.lock().unwrap_or_else(PoisonError::into_inner);
        let shelf = shelves.entry(length).or_default();
        shelf.lent += 1;
        shelf.free.pop()
    };
    free.unwrap_or_else(|| vec![0.0; length])
}

/// Elements that are all 0.
pub(crate) fn zeros(length: usize) -> Vec<f32> {
    let mut data = any(length);
    data.fill(0.0);
    data
}

/// No elements yet, room for `capacity`.
pub(crate) fn empty(capacity: usize) -> Vec<f32> {
    let mut data = any(capacity);
    data.clear();
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back() {
        let length = 12_345; // used by no other test
        let place = {
            let mut data = any(length);
            data.fill(1.0);
            let buffer = Buffer::new(data);
            buffer.as_ptr()
        };
        let again = zeros(length);
        assert_eq!(again.as_ptr(), place);
        assert!(again.iter().all(|value| *value == 0.0));
        let another = any(length);
        assert_ne!(another.as_ptr(), place);
    }

    #[test]
    fn memory_from_elsewhere_is_not_hoarded() {
        let length = 12_346;
        for _ in 0..3 {
            drop(Buffer::new(vec![1.0; length]));
        }
        assert_eq!(any(length)[0], 0.0);
    }
}
