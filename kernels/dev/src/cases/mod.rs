//! The cases of every operation, a file each, from the one list of operations.

use crate::OpCase;
use crossfix_kernels::Tensor;

/// What the files here use.
mod prelude {
    pub use super::super::OpCase;
    pub(crate) use super::tensor;
    pub use crossfix_kernels::cuda::Convolution;
    pub use crossfix_kernels::ops::*;
    pub use crossfix_kernels::testing::noise;
    pub use crossfix_kernels::{Pixels, Result, Tape, Tensor};
}

macro_rules! declare {
    (
        operations { $($operation:ident { $($export:ident),* } [$($source:tt)*])* }
        shared { $($shared:tt)* }
    ) => {
        $(mod $operation;)*

        /// The modules of all operations.
        #[cfg(test)]
        const OPERATIONS: &[&str] = &[$(stringify!($operation)),*];

        /// All cases, operation by operation.
        pub fn cases() -> Vec<OpCase> {
            [$($operation::cases()),*].into_iter().flatten().collect()
        }
    };
}
crossfix_kernels::for_each_operation!(declare);

/// A tensor with these elements, as many as its shape has.
pub(crate) fn tensor(data: Vec<f32>, shape: &[usize]) -> Tensor {
    Tensor::new(data, shape).expect("as many elements as the shape has")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossfix_kernels::Device;

    /// So that no operation is added without a comparison of its CUDA kernels with the CPU.
    #[test]
    fn every_operation_has_a_case() {
        let cases = cases();
        let activations = ["relu", "silu", "sigmoid", "gelu"];
        let others = OPERATIONS.iter().filter(|name| **name != "activation");
        for operation in others.chain(&activations) {
            let mut names = cases.iter().map(|case| case.name.as_str());
            assert!(names.any(|name| name.starts_with(operation)), "{operation}");
        }
    }

    #[test]
    fn every_case_runs_and_has_gradients() {
        for case in cases() {
            let (output, gradients) = case.run(&Device::Cpu).expect(&case.name);
            assert!(!output.is_empty(), "{}", case.name);
            assert!(output.data().iter().all(|y| y.is_finite()), "{}", case.name);
            for (index, gradient) in gradients.iter().enumerate() {
                let constant = case.without_gradient.contains(&index);
                assert_eq!(gradient.is_none(), constant, "{}: input {index}", case.name);
            }
            let difference = case.compare(&Device::Cpu).unwrap();
            assert_eq!(
                [difference.forward, difference.backward],
                [0.0; 2],
                "{}",
                case.name
            );
        }
    }
}
