//! Memory of dropped tensors, kept for the next of the same length.
//!
//! A training step makes and drops the same few hundred arrays every time. Handing them back to
//! the system in between costs a fifth of the step in page faults.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{LazyLock, Mutex, PoisonError};

/// Shorter arrays are left to the allocator.
const SHORTEST: usize = 1024;
/// Elements kept at most: 512 MiB.
const MOST: usize = 128 << 20;

#[derive(Default)]
struct Pool {
    by_length: HashMap<usize, Vec<Vec<f32>>>,
    elements: usize,
}

static POOL: LazyLock<Mutex<Pool>> = LazyLock::new(Mutex::default);

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
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    if pool.elements + data.len() <= MOST {
        pool.elements += data.len();
        pool.by_length.entry(data.len()).or_default().push(data);
    }
}

/// Elements of any value, for an operation that overwrites them all.
pub(crate) fn any(length: usize) -> Vec<f32> {
    if length >= SHORTEST {
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(data) = pool.by_length.get_mut(&length).and_then(Vec::pop) {
            pool.elements -= length;
            return data;
        }
    }
    vec![0.0; length]
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
            let buffer = Buffer::new(vec![1.0; length]);
            buffer.as_ptr()
        };
        let again = zeros(length);
        assert_eq!(again.as_ptr(), place);
        assert!(again.iter().all(|value| *value == 0.0));
        let another = any(length);
        assert_ne!(another.as_ptr(), place);
    }

    #[test]
    fn data_taken_out_is_not_recycled() {
        let length = 12_346;
        let kept = Buffer::new(vec![1.0; length]).into_vec();
        let another = any(length);
        assert_ne!(another.as_ptr(), kept.as_ptr());
        assert_eq!(kept[0], 1.0);
    }
}
