//! Eight-bit images on one device: a quarter of what the same pixels take as a tensor.

use crate::cuda::DeviceBuffer;
use crate::device::Device;
use crate::error::{Error, Result};
use std::sync::Arc;

/// Eight-bit images in planes, `[N, 3, H, W]`, row-major, on one device; immutable and shared by
/// their clones.
#[derive(Debug, Clone)]
pub struct Pixels {
    shape: [usize; 4],
    storage: Storage,
}

#[derive(Debug, Clone)]
enum Storage {
    Host(Arc<Vec<u8>>),
    Cuda(Arc<DeviceBuffer<u8>>),
}

impl Pixels {
    /// Wraps `data`, row-major.
    ///
    /// # Shapes
    /// `shape` `[N, 3, H, W]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the number of bytes differs from the product of `shape`, or there are
    /// not three channels.
    pub fn new(data: Vec<u8>, shape: [usize; 4]) -> Result<Self> {
        if shape[1] != 3 {
            return Err(Error::shape("pixels", "shape", "[N, 3, H, W]", shape));
        }
        let bytes = shape.iter().try_fold(1usize, |a, b| a.checked_mul(*b));
        if bytes != Some(data.len()) {
            return Err(Error::shape("pixels", "number of bytes", shape, data.len()));
        }
        let storage = Storage::Host(Arc::new(data));
        Ok(Self { shape, storage })
    }

    /// Wraps a buffer on a device.
    ///
    /// # Panics
    /// When the number of bytes does not match `shape`: a bug in the caller.
    pub(crate) fn from_device(buffer: DeviceBuffer<u8>, shape: [usize; 4]) -> Self {
        let bytes = shape.iter().product::<usize>();
        assert_eq!(buffer.len(), bytes, "pixels {shape:?} with wrong data");
        let storage = Storage::Cuda(Arc::new(buffer));
        Self { shape, storage }
    }

    /// Length of each axis.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// Where they are.
    pub fn device(&self) -> Device {
        match &self.storage {
            Storage::Host(_) => Device::Cpu,
            Storage::Cuda(buffer) => Device::Cuda(buffer.cuda().clone()),
        }
    }

    /// The same pixels on another device.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; [`Error::Cuda`], also for anything enqueued before that failed.
    pub fn to(&self, device: &Device) -> Result<Self> {
        let storage = match device {
            _ if self.device() == *device => return Ok(self.clone()),
            Device::Cpu => Storage::Host(Arc::new(self.buffer().to_vec()?)),
            Device::Cuda(cuda) => match &self.storage {
                Storage::Host(data) => Storage::Cuda(Arc::new(cuda.upload(data)?)),
                Storage::Cuda(_) => return self.to(&Device::Cpu)?.to(device),
            },
        };
        let shape = self.shape;
        Ok(Self { shape, storage })
    }

    /// The bytes, row-major, of pixels that have to lie on the host. `op` is who reads them.
    ///
    /// # Errors
    /// [`Error::CpuOnly`] when they lie on a device.
    pub fn host(&self, op: &'static str) -> Result<&[u8]> {
        match &self.storage {
            Storage::Host(data) => Ok(data),
            Storage::Cuda(_) => Err(Error::CpuOnly {
                op,
                shape: format!("{:?}", self.shape),
                device: self.device().describe(),
            }),
        }
    }

    /// The bytes of pixels on a device.
    ///
    /// # Panics
    /// When they lie on the host: the caller has matched on the device before.
    pub(crate) fn buffer(&self) -> &DeviceBuffer<u8> {
        match &self.storage {
            Storage::Cuda(buffer) => buffer,
            Storage::Host(_) => panic!("pixels on the host are used as if they were on a device"),
        }
    }

    /// Checks the whole shape.
    ///
    /// # Errors
    /// [`Error::Shape`], naming `op`, `what` and both shapes.
    pub fn expect_shape(
        &self,
        op: &'static str,
        what: &'static str,
        expected: [usize; 4],
    ) -> Result<()> {
        if self.shape == expected {
            Ok(())
        } else {
            Err(Error::shape(op, what, expected, self.shape))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_images_are_refused() {
        assert!(Pixels::new(vec![0; 12], [1, 3, 2, 2]).is_ok());
        assert!(Pixels::new(vec![0; 11], [1, 3, 2, 2]).is_err());
        assert!(Pixels::new(vec![0; 16], [1, 4, 2, 2]).is_err());
        // The product of the sides overflows to 0.
        let half = 1 << (usize::BITS / 2);
        assert!(Pixels::new(Vec::new(), [1, 3, half, half]).is_err());
    }

    #[test]
    fn pixels_on_the_host_are_where_they_are() {
        let pixels = Pixels::new((0..12).collect(), [2, 3, 1, 2]).unwrap();
        let same = pixels.to(&Device::Cpu).unwrap();
        assert_eq!(same.host("test").unwrap(), pixels.host("test").unwrap());
        assert_eq!(same.device(), Device::Cpu);
        assert!(same.expect_shape("test", "pixels", [2, 3, 1, 2]).is_ok());
        assert!(same.expect_shape("test", "pixels", [2, 3, 2, 1]).is_err());
    }
}
