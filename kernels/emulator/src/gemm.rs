//! The matrix products of cuBLASLt, as plain loops.

use crate::native::Arena;
use crossfix_kernels::cuda::{Address, Epilogue, Gemm, Operand, Precision};

/// # Safety
/// No other thread writes the operands meanwhile.
///
/// # Errors
/// What is wrong when an element lies outside all buffers.
pub unsafe fn run(arena: &Arena, gemm: &Gemm) -> Result<(), String> {
    let Gemm {
        rows,
        columns,
        inner,
        ..
    } = *gemm;
    check(arena, "a", &gemm.a, gemm.batch, rows, inner)?;
    check(arena, "b", &gemm.b, gemm.batch, inner, columns)?;
    check(arena, "output", &gemm.output, gemm.batch, rows, columns)?;
    if gemm.output.transposed {
        return Err("the output of a product cannot be transposed".into());
    }
    if let Some(bias) = gemm.bias {
        arena
            .holds(bias, columns * 4)
            .map_err(|why| format!("the bias reaches {why}"))?;
    }
    for batch in 0..gemm.batch {
        for row in 0..rows {
            for column in 0..columns {
                let mut sum = 0.0f32;
                for k in 0..inner {
                    // SAFETY: within live buffers, checked above.
                    let (a, b) = unsafe {
                        (
                            at(&gemm.a, batch, row, k).read_unaligned(),
                            at(&gemm.b, batch, k, column).read_unaligned(),
                        )
                    };
                    sum += rounded(a, gemm.precision) * rounded(b, gemm.precision);
                }
                let place = at(&gemm.output, batch, row, column);
                let mut value = gemm.alpha * sum;
                if gemm.beta != 0.0 {
                    // SAFETY: as above.
                    value += gemm.beta * unsafe { place.read_unaligned() };
                }
                if let Some(bias) = gemm.bias {
                    // SAFETY: as above.
                    value += unsafe { element(bias, column).read_unaligned() };
                }
                if gemm.epilogue == Epilogue::Relu && value < 0.0 {
                    value = 0.0;
                }
                // SAFETY: as above.
                unsafe {
                    place.write_unaligned(value);
                    arena.mark_written(place as Address, 4);
                }
            }
        }
    }
    Ok(())
}

/// The stored rows and columns of the matrix meant as `rows` by `columns`.
fn stored(operand: &Operand, rows: usize, columns: usize) -> (usize, usize) {
    if operand.transposed {
        (columns, rows)
    } else {
        (rows, columns)
    }
}

/// Whether all elements lie in one live buffer.
fn check(
    arena: &Arena,
    name: &str,
    operand: &Operand,
    batch: usize,
    rows: usize,
    columns: usize,
) -> Result<(), String> {
    let (stored_rows, stored_columns) = stored(operand, rows, columns);
    if batch * stored_rows * stored_columns == 0 {
        return Ok(());
    }
    if operand.row_stride < stored_columns {
        return Err(format!(
            "{name} has rows of {stored_columns} elements {} apart",
            operand.row_stride
        ));
    }
    let elements = (batch - 1) * operand.batch_stride
        + (stored_rows - 1) * operand.row_stride
        + stored_columns;
    arena
        .holds(operand.address, elements * 4)
        .map_err(|why| format!("{name} with {elements} elements begins at {why}"))
}

fn element(address: Address, index: usize) -> *mut f32 {
    (address as *mut f32).wrapping_add(index)
}

fn at(operand: &Operand, batch: usize, row: usize, column: usize) -> *mut f32 {
    let (row, column) = stored(operand, row, column);
    let index = batch * operand.batch_stride + row * operand.row_stride + column;
    element(operand.address, index)
}

/// To the nearest number with as many mantissa bits, ties to even.
fn rounded(value: f32, precision: Precision) -> f32 {
    let dropped = match precision {
        Precision::F32 => return value,
        Precision::Tf32 => 13,
        Precision::Bf16 => 16,
    };
    if !value.is_finite() {
        return value;
    }
    let bits = value.to_bits();
    let half = (1u32 << (dropped - 1)) - 1 + (bits >> dropped & 1);
    f32::from_bits((bits.wrapping_add(half)) >> dropped << dropped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_keeps_as_many_bits_as_the_format_has() {
        let value = f32::from_bits(0x3f80_8001); // 1 + 2^-8 + 2^-23, above half a step of bf16
        assert_eq!(rounded(value, Precision::F32).to_bits(), 0x3f80_8001);
        assert_eq!(rounded(value, Precision::Bf16).to_bits(), 0x3f81_0000);
        assert_eq!(rounded(value, Precision::Tf32).to_bits(), 0x3f80_8000);
        let tie = f32::from_bits(0x3f80_8000); // exactly half a step: to even
        assert_eq!(rounded(tie, Precision::Bf16).to_bits(), 0x3f80_0000);
        assert!(rounded(f32::NAN, Precision::Bf16).is_nan());
    }
}
