//! The one place that calls the matrix product: strides are checked here, so callers stay safe.

/// A matrix in a slice: element (r, c) lies at `r * row_stride + c * column_stride`.
#[derive(Clone, Copy)]
pub(crate) struct Strides {
    pub row: usize,
    pub column: usize,
}

impl Strides {
    /// Rows one after the other, `columns` elements each.
    pub fn row_major(columns: usize) -> Self {
        Self {
            row: columns,
            column: 1,
        }
    }

    /// The transpose of a row-major matrix whose stored rows have `rows` elements.
    pub fn transposed(rows: usize) -> Self {
        Self {
            row: 1,
            column: rows,
        }
    }

    fn extent(self, rows: usize, columns: usize) -> usize {
        if rows == 0 || columns == 0 {
            return 0;
        }
        (rows - 1) * self.row + (columns - 1) * self.column + 1
    }
}

/// `output = a · b` or, with `accumulate`, `output += a · b`, on the calling thread.
/// `size` is [rows of a, columns of b, columns of a]; `output` is row-major and dense.
///
/// # Panics
/// When a slice is too short for its strides: a bug in the calling op.
pub(crate) fn gemm(
    size: [usize; 3],
    output: &mut [f32],
    accumulate: bool,
    a: (&[f32], Strides),
    b: (&[f32], Strides),
) {
    gemm_into(size, (output, size[1]), accumulate, a, b);
}

/// The same where the rows of the output lie further apart.
///
/// # Panics
/// As [`gemm`], and when its rows overlap.
pub(crate) fn gemm_into(
    [m, n, k]: [usize; 3],
    (output, row): (&mut [f32], usize),
    accumulate: bool,
    (a, a_strides): (&[f32], Strides),
    (b, b_strides): (&[f32], Strides),
) {
    let o_strides = Strides::row_major(row);
    assert!(row >= n, "rows of the output overlap");
    assert!(a.len() >= a_strides.extent(m, k), "left matrix too short");
    assert!(b.len() >= b_strides.extent(k, n), "right matrix too short");
    assert!(
        output.len() >= o_strides.extent(m, n),
        "output matrix too short"
    );
    // The library's microkernel writes columns, and our output is row-major, so it is given the
    // transposed product: outputᵀ = bᵀ · aᵀ.
    let product = gemm_f32::gemm::f32::get_gemm_fn();
    // SAFETY: `product` reads a at r·row + c·column for r < m, c < k, b likewise for k × n, and
    // reads and writes output likewise for m × n. The assertions above bound each of these by its
    // slice; `output` is borrowed mutably, so it overlaps neither `a` nor `b`. Strides are at most
    // a slice length, so they fit isize.
    unsafe {
        product(
            n,
            m,
            k,
            output.as_mut_ptr(),
            row as isize,
            1,
            accumulate,
            b.as_ptr(),
            b_strides.row as isize,
            b_strides.column as isize,
            a.as_ptr(),
            a_strides.row as isize,
            a_strides.column as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm_common::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn product_worked_by_hand() {
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]; // [2, 3]
        let b = [1.0, 0.0, 1.0, 1.0, 0.0, 2.0]; // [3, 2]
        let mut c = [10.0; 4];
        let (ra, rb) = (Strides::row_major(3), Strides::row_major(2));
        gemm([2, 2, 3], &mut c, false, (&a, ra), (&b, rb));
        assert_eq!(c, [3.0, 8.0, 9.0, 17.0]);
        gemm([2, 2, 3], &mut c, true, (&a, ra), (&b, rb));
        assert_eq!(c, [6.0, 16.0, 18.0, 34.0]);
    }

    #[test]
    fn transposed_reads_columns() {
        let a = [1.0, 2.0, 3.0, 4.0]; // aᵀ = [[1, 3], [2, 4]]
        let identity = [1.0, 0.0, 0.0, 1.0];
        let mut c = [0.0; 4];
        let t = Strides::transposed(2);
        gemm([2, 2, 2], &mut c, false, (&a, t), (&identity, t));
        assert_eq!(c, [1.0, 3.0, 2.0, 4.0]);
    }
}
