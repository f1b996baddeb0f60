//! Memory and recordings, on a mock driver that only counts.

use super::driver::{Address, Download, Driver, Gemm, Graph, Kernel, LaunchShape, Memory};
use super::{Cuda, DeviceBuffer, Step};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::pixels::Pixels;
use crate::tensor::Tensor;
use std::ffi::c_void;
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct Books {
    next: Address,
    used: usize,
    freed: Vec<Address>,
    replays: usize,
}

/// Has this much memory, and does nothing with it.
struct Bookkeeper {
    total: usize,
    books: Arc<Mutex<Books>>,
}

fn device(total: usize) -> (Cuda, Arc<Mutex<Books>>) {
    let books = Arc::default();
    let driver = Bookkeeper {
        total,
        books: Arc::clone(&books),
    };
    (Cuda::with_driver(Box::new(driver)), books)
}

impl Driver for Bookkeeper {
    fn name(&self) -> String {
        "bookkeeper".into()
    }

    fn architecture(&self) -> u32 {
        75
    }

    fn allocate(&self, bytes: usize) -> Result<Option<Address>> {
        let mut books = self.books.lock().unwrap();
        if books.used + bytes > self.total {
            return Ok(None);
        }
        books.used += bytes;
        books.next += 1 << 20;
        Ok(Some(books.next))
    }

    unsafe fn free(&self, address: Address, bytes: usize) {
        let mut books = self.books.lock().unwrap();
        books.used -= bytes;
        books.freed.push(address);
    }

    fn memory(&self) -> Result<Memory> {
        Ok(Memory {
            free: self.total - self.books.lock().unwrap().used,
            total: self.total,
        })
    }

    unsafe fn upload(&self, _: Address, _: &[u8]) -> Result<()> {
        Ok(())
    }

    unsafe fn download(&self, _: Address, _: &mut [u8]) -> Result<()> {
        Ok(())
    }

    unsafe fn upload_concurrently(&self, _: Address, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn await_uploads(&self) -> Result<()> {
        Ok(())
    }

    fn release_to_uploads(&self, _: usize) -> Result<()> {
        Ok(())
    }

    fn await_release(&self, _: usize) -> Result<()> {
        Ok(())
    }

    unsafe fn begin_download(&self, _: Address, bytes: usize) -> Result<Box<dyn Download>> {
        Ok(Box::new(Zeros(bytes)))
    }

    unsafe fn copy(&self, _: Address, _: Address, _: usize) -> Result<()> {
        Ok(())
    }

    unsafe fn fill_zero(&self, _: Address, _: usize) -> Result<()> {
        Ok(())
    }

    unsafe fn launch(&self, _: &Kernel, _: LaunchShape, _: &mut [*mut c_void]) -> Result<()> {
        Ok(())
    }

    unsafe fn gemm(&self, _: &Gemm) -> Result<()> {
        Ok(())
    }

    fn synchronise(&self) -> Result<()> {
        Ok(())
    }

    fn begin_capture(&self) -> Result<()> {
        Ok(())
    }

    fn end_capture(&self) -> Result<Box<dyn Graph>> {
        Ok(Box::new(Replays(Arc::clone(&self.books))))
    }
}

struct Zeros(usize);

impl Download for Zeros {
    fn wait(self: Box<Self>) -> Result<Vec<u8>> {
        Ok(vec![0; self.0])
    }
}

struct Replays(Arc<Mutex<Books>>);

impl Graph for Replays {
    fn replay(&self) -> Result<()> {
        self.0.lock().unwrap().replays += 1;
        Ok(())
    }
}

fn buffer(cuda: &Cuda, length: usize) -> DeviceBuffer {
    cuda.any(length).unwrap()
}

#[test]
fn dropped_memory_serves_the_next_buffer_of_about_its_size() {
    let (cuda, _) = device(1 << 30);
    let first = buffer(&cuda, 100_000);
    let place = first.address();
    drop(first);
    assert_eq!(buffer(&cuda, 100_000 - 100).address(), place);
    let [a, b] = [buffer(&cuda, 100_000), buffer(&cuda, 100_000)];
    assert_eq!(a.address(), place);
    assert_ne!(b.address(), place);
    assert_eq!(cuda.memory().allocations, 2);
    drop(a);
    assert_ne!(buffer(&cuda, 10).address(), place);
}

#[test]
fn rounding_up_wastes_an_eighth_at_most() {
    let (cuda, _) = device(1 << 30);
    for length in [
        1,
        127,
        128,
        129,
        5000,
        12_345,
        1 << 20,
        (1 << 20) + 1,
        3_000_001,
    ] {
        let before = cuda.memory().in_use;
        let buffer = buffer(&cuda, length);
        let taken = cuda.memory().in_use - before;
        let bytes = length * 4;
        assert!(
            taken >= bytes && taken <= bytes + (bytes / 8).max(512),
            "{length}: {taken}"
        );
        drop(buffer);
    }
}

#[test]
fn memory_of_other_sizes_makes_room_before_anything_fails() {
    let (cuda, books) = device(10 << 20);
    drop(buffer(&cuda, 2 << 20)); // 8 MiB, now free in the pool
    let larger = buffer(&cuda, 5 << 19); // 10 MiB
    assert_eq!(books.lock().unwrap().freed.len(), 1);
    let error = cuda.any::<f32>(1 << 20).unwrap_err();
    let expected = Error::OutOfMemory {
        device: "bookkeeper".into(),
        asked: 4 << 20,
        in_use: 10 << 20,
        free: 0,
        total: 10 << 20,
    };
    assert_eq!(error, expected);
    assert!(error.to_string().contains("smaller batch"), "{error}");
    drop(larger);
    buffer(&cuda, 1 << 20);
}

#[test]
fn memory_of_a_recording_is_nobody_elses_until_it_is_dropped() {
    let (cuda, _) = device(1 << 30);
    let outside = buffer(&cuda, 1000);
    let untouched = buffer(&cuda, 1000).address(); // free again
    let (capture, place) = cuda
        .capture(|| {
            let mut inside = cuda.any(1000)?;
            inside.copy_from(&outside)?;
            Ok(inside.address())
        })
        .unwrap();
    assert_eq!(place, untouched);
    // Both what was made within and what was only used there.
    let outside_place = outside.address();
    drop(outside);
    let others: Vec<DeviceBuffer> = (0..4).map(|_| buffer(&cuda, 1000)).collect();
    for other in &others {
        assert!(![place, outside_place].contains(&other.address()));
    }
    assert_eq!(cuda.memory().kept_for_graphs, 2 * 4096);
    drop(capture);
    assert_eq!(cuda.memory().kept_for_graphs, 0);
    let again = [buffer(&cuda, 1000), buffer(&cuda, 1000)];
    for buffer in &again {
        assert!([place, outside_place].contains(&buffer.address()));
    }
}

#[test]
fn a_recording_refuses_what_its_replays_would_not_repeat() {
    let (cuda, _) = device(1 << 30);
    let table = cuda.constant(&[1u32, 2, 3]).unwrap().address();
    let (_, ()) = cuda
        .capture(|| {
            let message = cuda.upload(&[1.0f32]).unwrap_err().to_string();
            assert!(message.contains("input of the step"), "{message}");
            assert!(cuda.zeros::<f32>(3)?.to_vec().is_err());
            assert!(
                cuda.capture(|| Ok(())).is_err(),
                "a recording within another"
            );
            // A table that was uploaded before is found.
            assert_eq!(cuda.constant(&[1u32, 2, 3])?.address(), table);
            assert!(cuda.constant(&[1u32, 2, 4]).is_err());
            Ok(())
        })
        .unwrap();
    assert!(cuda.upload(&[1.0f32]).is_ok());
}

#[test]
fn a_failed_recording_leaves_the_device_usable() {
    let (cuda, _) = device(1 << 30);
    let failed = cuda.capture(|| -> Result<()> {
        buffer(&cuda, 1000);
        Err(Error::argument("test", "no"))
    });
    assert!(failed.is_err());
    assert!(!cuda.is_recording());
    assert_eq!(cuda.memory().kept_for_graphs, 0);
    assert!(cuda.capture(|| Ok(())).is_ok());
}

#[test]
fn a_step_takes_inputs_of_the_recorded_shapes_only() {
    let (cuda, books) = device(1 << 30);
    let device = Device::Cuda(cuda.clone());
    let input = device.full(&[2, 3], 0.0).unwrap();
    let mut step = Step::record(&cuda, std::slice::from_ref(&input), |x| Ok(x.to_vec())).unwrap();
    assert_eq!(step.run(&[Tensor::zeros(&[2, 3])]).unwrap().len(), 1);
    assert_eq!(step.run(std::slice::from_ref(&input)).unwrap().len(), 1);
    assert_eq!(books.lock().unwrap().replays, 2);
    let elsewhere = Device::Cuda(self::device(1 << 20).0).full(&[2, 3], 0.0);
    let refused = step.run(&[elsewhere.unwrap()]);
    assert!(matches!(refused, Err(Error::Device { .. })));
    assert!(step.run(&[Tensor::zeros(&[3, 2])]).is_err());
    assert!(step.run(&[]).is_err());
    assert_eq!(books.lock().unwrap().replays, 2);
}

#[test]
fn a_step_takes_images_of_the_recorded_shapes_only() {
    let (cuda, books) = device(1 << 30);
    let images = |n: usize| Pixels::new(vec![7; n * 3 * 4], [n, 3, 2, 2]).unwrap();
    // 7 numbers and 24 bytes: the arena holds two parts of 256 bytes, and so do both places.
    let numbers = Tensor::zeros(&[7]);
    let before = books.lock().unwrap().used;
    let work = |x: &[Tensor], images: &[Pixels]| {
        assert_eq!((x.len(), images.len()), (1, 1));
        assert_eq!(images[0].shape(), [2, 3, 2, 2]);
        assert_eq!(images[0].device(), x[0].device());
        Ok::<_, Error>(Vec::new())
    };
    let mut step =
        Step::record_with(&cuda, std::slice::from_ref(&numbers), &[images(2)], work).unwrap();
    assert_eq!(books.lock().unwrap().used - before, 3 * 512);
    let numbers = &[numbers];
    step.run_with(numbers, &[images(2)]).unwrap();
    let there = images(2).to(&Device::Cuda(cuda.clone())).unwrap();
    step.run_with(numbers, &[there]).unwrap();
    assert_eq!(books.lock().unwrap().replays, 2);
    assert!(step.run_with(numbers, &[images(1)]).is_err());
    assert!(step.run_with(numbers, &[]).is_err());
    assert!(step.run(numbers).is_err());
    let other = Device::Cuda(self::device(1 << 20).0);
    let elsewhere = images(2).to(&other).unwrap();
    let refused = step.run_with(numbers, &[elsewhere]);
    assert!(matches!(refused, Err(Error::Device { .. })));
    assert_eq!(books.lock().unwrap().replays, 2);
}

#[test]
fn inputs_on_different_devices_are_refused() {
    let (cuda, _) = device(1 << 30);
    let device = Device::Cuda(cuda);
    let there = device.full(&[2], 1.0).unwrap();
    let error = crate::ops::add(&mut crate::Tape::inference(), &Tensor::zeros(&[2]), &there);
    let images = Pixels::new(vec![0; 3], [1, 3, 1, 1]).unwrap();
    let images = images.to(&device).unwrap();
    let augment = crate::ops::Augmented {
        samples: &crate::ops::Augment::tensor(&[crate::ops::Augment::default()]),
        wraps: true,
    };
    let how = crate::ops::Normalisation {
        mean: [0.0; 3],
        sigma: [1.0; 3],
        bf16: false,
    };
    let images_error = crate::ops::normalise_images(&images, &how, Some(augment));
    for error in [error, images_error] {
        let message = error.unwrap_err().to_string();
        assert!(
            message.contains("bookkeeper") && message.contains("cpu"),
            "{message}"
        );
    }
}
