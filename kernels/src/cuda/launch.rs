//! The checked launch that operations use.

use super::Cuda;
use super::buffer::{DeviceBuffer, Element};
use super::driver::{Kernel, LaunchShape};
use crate::error::{Error, Result};
use std::ffi::c_void;

/// Default block size, in threads.
pub(crate) const THREADS: u32 = 256;

/// Most blocks of a one-dimensional launch; the kernel's loop covers the rest.
const MOST_BLOCKS: u32 = 4096;

/// Most arguments of a kernel.
const MOST_ARGUMENTS: usize = 16;

/// What a kernel takes by value: one struct of 32-bit numbers, the same names in the same order on
/// both sides. Made by [`parameters!`].
///
/// # Safety
/// `repr(C)` without padding, and the kernel's struct has the same fields in the same order.
pub unsafe trait Parameters: Copy {
    /// Whether it holds addresses of buffers that are not arguments of the kernel.
    const HOLDS_ADDRESSES: bool;
}

/// A field of [`Parameters`].
///
/// # Safety
/// Four bytes, or an array of such.
pub unsafe trait Word: Copy {
    /// Whether it is the address of a buffer.
    const IS_ADDRESS: bool = false;
}
// SAFETY: four bytes.
unsafe impl Word for u32 {}
// SAFETY: four bytes.
unsafe impl Word for i32 {}
// SAFETY: four bytes.
unsafe impl Word for f32 {}
// SAFETY: an array of four-byte words has no padding.
unsafe impl<T: Word, const N: usize> Word for [T; N] {
    const IS_ADDRESS: bool = T::IS_ADDRESS;
}

/// The address of a buffer, low half first.
#[derive(Debug, Clone, Copy, Default)]
#[repr(transparent)]
pub(crate) struct AddressWords(pub(super) [u32; 2]);
// SAFETY: an array of two four-byte words.
unsafe impl Word for AddressWords {
    const IS_ADDRESS: bool = true;
}

/// Declares the struct that a kernel takes by value. Fields are `u32`, `i32`, `f32` or arrays of
/// them, so there is no padding; the `.cu` file declares the same fields in the same order.
macro_rules! parameters {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[$field_meta:meta])* $field:ident: $kind:ty),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy)]
        #[repr(C)]
        $vis struct $name { $($(#[$field_meta])* $vis $field: $kind),+ }
        const _: () = {
            const fn words<T: $crate::cuda::Word>() {}
            $(words::<$kind>();)+
        };
        // SAFETY: repr(C), and all fields are words (checked above), so there is no padding.
        unsafe impl $crate::cuda::Parameters for $name {
            const HOLDS_ADDRESSES: bool = $(<$kind as $crate::cuda::Word>::IS_ADDRESS)||+;
        }
    };
}
pub(crate) use parameters;

/// A launch being put together: `Launch::new(&KERNEL).over(n).input(&x).output(&mut y)
/// .parameters(&p).enqueue(cuda)`. The kernel's parameters are in the order of the calls.
pub struct Launch<'a> {
    kernel: &'static Kernel,
    shape: LaunchShape,
    arguments: [Argument<'a>; MOST_ARGUMENTS],
    count: usize,
    /// Bytes of all buffers among the arguments.
    bytes: u64,
    operations: u64,
    /// Whether it uses buffers that are not among the arguments.
    uses_others: bool,
}

/// What a kernel does with a buffer; one that is written may be read too.
#[derive(Clone, Copy)]
enum Use {
    Read,
    Write,
}

#[derive(Clone, Copy)]
enum Argument<'a> {
    /// A pointer to a buffer of some device.
    Buffer(u64, Option<&'a Cuda>, Use),
    Value(*const c_void, std::marker::PhantomData<&'a ()>),
}

impl<'a> Launch<'a> {
    /// One block of 256 threads, no arguments.
    pub fn new(kernel: &'static Kernel) -> Self {
        Self {
            kernel,
            shape: LaunchShape {
                grid: [1; 3],
                block: [THREADS, 1, 1],
                shared_bytes: 0,
            },
            arguments: [Argument::Buffer(0, None, Use::Read); MOST_ARGUMENTS],
            count: 0,
            bytes: 0,
            operations: 0,
            uses_others: false,
        }
    }

    /// States how many multiplications and additions it takes, for profiles.
    pub fn operations(mut self, operations: usize) -> Self {
        self.operations = operations as u64;
        self
    }

    /// Adds bytes of buffers whose addresses are in the parameters, for profiles.
    pub fn bytes(mut self, bytes: usize) -> Self {
        self.bytes += bytes as u64;
        self
    }

    /// Blocks along x, y, z.
    pub fn grid(mut self, grid: [usize; 3]) -> Self {
        self.shape.grid = grid.map(|blocks| u32::try_from(blocks).unwrap_or(u32::MAX));
        self
    }

    /// Threads of a block along x, y, z.
    pub fn block(mut self, block: [u32; 3]) -> Self {
        self.shape.block = block;
        self
    }

    /// Dynamic shared memory of each block.
    pub fn shared(mut self, bytes: usize) -> Self {
        self.shape.shared_bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self
    }

    /// Blocks of 256 threads for `elements`, at most 4096 blocks: the kernel strides over what is
    /// left.
    pub fn over(self, elements: usize) -> Self {
        let blocks = elements.div_ceil(THREADS as usize);
        self.grid([blocks.clamp(1, MOST_BLOCKS as usize), 1, 1])
            .block([THREADS, 1, 1])
    }

    fn push(mut self, argument: Argument<'a>) -> Self {
        assert!(self.count < MOST_ARGUMENTS, "too many kernel arguments");
        self.arguments[self.count] = argument;
        self.count += 1;
        self
    }

    /// A `const T*` that the kernel reads.
    pub fn input<T: Element>(self, buffer: &'a DeviceBuffer<T>) -> Self {
        self.bytes(std::mem::size_of::<T>() * buffer.len())
            .push(Argument::Buffer(
                buffer.address(),
                Some(buffer.cuda()),
                Use::Read,
            ))
    }

    /// A `const T*`, null where there is none.
    pub fn input_or_null<T: Element>(self, buffer: Option<&'a DeviceBuffer<T>>) -> Self {
        match buffer {
            Some(buffer) => self.input(buffer),
            None => self.push(Argument::Buffer(0, None, Use::Read)),
        }
    }

    /// A `T*` that the kernel writes.
    pub fn output<T: Element>(self, buffer: &'a mut DeviceBuffer<T>) -> Self {
        self.bytes(std::mem::size_of::<T>() * buffer.len())
            .push(Argument::Buffer(
                buffer.address(),
                Some(buffer.cuda()),
                Use::Write,
            ))
    }

    /// A `T*`, null where there is none.
    pub fn output_or_null<T: Element>(self, buffer: Option<&'a mut DeviceBuffer<T>>) -> Self {
        match buffer {
            Some(buffer) => self.output(buffer),
            None => self.push(Argument::Buffer(0, None, Use::Write)),
        }
    }

    /// A struct that travels by value; copied when enqueued.
    pub fn parameters<P: Parameters>(mut self, parameters: &'a P) -> Self {
        self.uses_others |= P::HOLDS_ADDRESSES;
        let pointer = std::ptr::from_ref(parameters).cast();
        self.push(Argument::Value(pointer, std::marker::PhantomData))
    }

    fn describe(&self) -> (String, u64, u64) {
        let LaunchShape { grid, block, .. } = self.shape;
        let name = format!("{} {grid:?}x{block:?}", self.kernel.entry);
        (name, self.bytes, self.operations)
    }

    /// Enqueues the kernel.
    ///
    /// # Safety
    /// The arguments are what the kernel declares, in order and type, and with this shape and
    /// these parameters the kernel stays within its buffers and leaves its inputs alone.
    ///
    /// # Errors
    /// [`Error::Argument`] when the shape is empty or beyond what CUDA allows, [`Error::Compile`]
    /// on first use, [`Error::Cuda`] from the device.
    ///
    /// # Panics
    /// When a buffer lies on another device: [`crate::Device::common`] comes first.
    pub unsafe fn enqueue(self, cuda: &Cuda) -> Result<()> {
        self.check()?;
        let mut values = [0u64; MOST_ARGUMENTS];
        let mut pointers = [std::ptr::null_mut::<c_void>(); MOST_ARGUMENTS];
        let (mut reads, mut writes) = (Vec::new(), Vec::new());
        let slots = values.iter_mut().zip(&mut pointers);
        for (argument, (value, pointer)) in self.arguments[..self.count].iter().zip(slots) {
            match *argument {
                Argument::Buffer(address, owner, usage) => {
                    if let Some(owner) = owner {
                        assert_eq!(owner, cuda, "{}: buffer elsewhere", self.kernel.entry);
                        cuda.used(address);
                        match usage {
                            Use::Read => reads.push(address),
                            Use::Write => writes.push(address),
                        }
                    }
                    *value = address;
                    *pointer = std::ptr::from_mut(value).cast();
                }
                Argument::Value(place, _) => *pointer = place.cast_mut(),
            }
        }
        let pointers = &mut pointers[..self.count];
        if self.uses_others {
            cuda.next_uses_anything()?;
        } else {
            cuda.next_uses(&reads, &writes)?;
        }
        cuda.timed(
            || self.describe(),
            // SAFETY: each pointer is to a value that outlives the call: an address in `values` or
            // a borrowed parameter struct. That they are what the kernel wants is the caller's
            // promise.
            || unsafe { cuda.0.driver.launch(self.kernel, self.shape, pointers) },
        )
    }

    fn check(&self) -> Result<()> {
        let LaunchShape { grid, block, .. } = self.shape;
        let threads: u64 = block.iter().map(|b| u64::from(*b)).product();
        let most = [i32::MAX as u32, 65_535, 65_535];
        let fits = grid
            .iter()
            .zip(most)
            .all(|(g, most)| (1..=most).contains(g));
        if fits && (1..=1024).contains(&threads) && block[2] <= 64 {
            return Ok(());
        }
        Err(Error::argument(
            self.kernel.entry,
            format!("no launch of {grid:?} blocks of {block:?} threads; use a smaller batch"),
        ))
    }
}

/// How kernels divide by `divisor` without a division: the divisor, the multiplier and the shift
/// of `Divider` in `common.cuh`, right for numerators below 2³¹.
///
/// # Source
/// Division by Invariant Integers using Multiplication (Granlund, Montgomery 1994), figure 4.1.
pub(crate) fn divider(divisor: usize) -> [u32; 3] {
    assert!((1..1 << 31).contains(&divisor), "division by {divisor}");
    let divisor = divisor as u64;
    let shift = divisor.next_power_of_two().trailing_zeros();
    let multiplier = ((1u64 << shift) - divisor) * (1 << 32) / divisor + 1;
    [divisor as u32, multiplier as u32, shift]
}

/// Elements of a pack, the neighbours that a thread loads or stores at once, where planes are
/// `pixels` long.
pub(crate) fn pack(pixels: usize) -> usize {
    if pixels.is_multiple_of(4) { 4 } else { 1 }
}

/// Block size for the sum of a plane of this many packs (`plane_sum` in `common.cuh`): at least four
/// packs for each thread where the plane is large.
pub(crate) fn plane_block(packs: usize) -> [u32; 3] {
    let threads = packs.div_ceil(4).next_multiple_of(32).clamp(32, 1024);
    [threads as u32, 1, 1]
}

/// Block size where threads along x are neighbouring pixels and threads along y share the `channels` of
/// a pixel, for `sum_along_y` in `common.cuh`. Where all `maps` have few pixels, a block takes only as
/// many pixels as fill a sector of memory.
pub(crate) fn pixel_block(maps: usize, channels: usize, pixels: usize) -> [u32; 3] {
    let across = if maps * pixels < 32 * 1024 { 8 } else { 32 };
    let deep = channels.div_ceil(4).next_power_of_two().min(256 / across);
    [across as u32, deep as u32, 1]
}

/// A double as kernels take it, low half first: `double_of` in `common.cuh`.
pub(crate) fn double(value: f64) -> [u32; 2] {
    let bits = value.to_bits();
    [bits as u32, (bits >> 32) as u32]
}

/// A number of elements as kernels count them.
///
/// # Errors
/// [`Error::Argument`] beyond 2³¹ - 1, where a kernel's 32-bit indices end.
pub(crate) fn count(op: &'static str, elements: usize) -> Result<u32> {
    if i32::try_from(elements).is_ok() {
        return Ok(elements as u32);
    }
    Err(Error::argument(
        op,
        format!(
            "{elements} elements are more than a kernel counts (2^31 - 1); use a smaller batch"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::divider;

    #[test]
    fn dividers_divide() {
        let most = (1u32 << 31) - 1;
        let divisors = (1..2000).chain([4095, 4096, 51_200, 65_537, 1 << 30, most]);
        for divisor in divisors {
            let [_, multiplier, shift] = divider(divisor as usize);
            let last = most / divisor;
            let multiples = (0..5.min(last + 1)).chain(last - last % 7..=last);
            let near = multiples.flat_map(|m| [(m * divisor).saturating_sub(1), m * divisor]);
            for n in near.chain([1, 12_345_678, most - 1, most]) {
                let high = ((u64::from(n) * u64::from(multiplier)) >> 32) as u32;
                assert_eq!((high + n) >> shift, n / divisor, "{n} / {divisor}");
            }
        }
    }
}
