//! Matrix products by cuBLASLt.
//!
//! cuBLASLt is column-major, we are row-major: our output is the transpose of its output, so it
//! computes outputᵀ = bᵀ · aᵀ with the factors exchanged and no copy.

use super::{Context, failed};
use crate::cuda::driver::{Address, Epilogue, Gemm, Operand, Precision};
use crate::error::{Error, Result};
use cudarc::cublaslt::{result, sys};
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Arc;

/// The workspace that NVIDIA recommends, on Hopper and before.
const WORKSPACE_BYTES: [usize; 2] = [32 << 20, 4 << 20];

pub struct Products {
    context: Arc<Context>,
    library: Option<Library>,
    plans: HashMap<Key, Plan>,
}

struct Library {
    handle: sys::cublasLtHandle_t,
    workspaces: [Address; Gemm::WORKSPACES],
    workspace_bytes: usize,
}

// SAFETY: the handles belong to the context, which may be entered from any thread; only this
// struct, behind a lock, uses them.
unsafe impl Send for Products {}

/// The key of a cached plan: all that the choice of an algorithm depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    batch: usize,
    rows: usize,
    columns: usize,
    inner: usize,
    a: Layout,
    b: Layout,
    output: Layout,
    has_bias: bool,
    has_relu: bool,
    precision: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Layout {
    row_stride: usize,
    transposed: bool,
    batch_stride: usize,
    /// The address is a multiple of this, up to 256.
    alignment: u32,
}

impl Layout {
    fn of(operand: &Operand) -> Self {
        Self {
            row_stride: operand.row_stride,
            transposed: operand.transposed,
            batch_stride: operand.batch_stride,
            alignment: 1 << operand.address.trailing_zeros().min(8),
        }
    }
}

impl Key {
    fn of(gemm: &Gemm) -> Self {
        Self {
            batch: gemm.batch,
            rows: gemm.rows,
            columns: gemm.columns,
            inner: gemm.inner,
            a: Layout::of(&gemm.a),
            b: Layout::of(&gemm.b),
            output: Layout::of(&gemm.output),
            has_bias: gemm.bias.is_some(),
            has_relu: gemm.epilogue == Epilogue::Relu,
            precision: gemm.precision as u8,
        }
    }
}

/// Descriptors and the algorithm for one key.
struct Plan {
    description: Description,
    a: Matrix,
    b: Matrix,
    output: Matrix,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

impl Products {
    pub fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            library: None,
            plans: HashMap::new(),
        }
    }

    /// Enqueues a product. The context is current.
    ///
    /// # Safety
    /// As [`crate::cuda::Driver::gemm`].
    pub unsafe fn enqueue(&mut self, gemm: &Gemm) -> Result<()> {
        if self.library.is_none() {
            self.library = Some(Library::load(&self.context)?);
        }
        let library = self.library.as_ref().expect("loaded above");
        let key = Key::of(gemm);
        if let std::collections::hash_map::Entry::Vacant(e) = self.plans.entry(key) {
            e.insert(Plan::new(library, &key, gemm)?);
        }
        let plan = self.plans.get(&key).expect("inserted above");
        if let Some(bias) = gemm.bias {
            plan.description.set_bias(bias)?;
        }
        let output = gemm.output.address as *mut c_void;
        // SAFETY: descriptors and handle are alive; the matrices they describe lie at these
        // addresses, as the caller promises, and are aligned as the plan was told; what else uses this
        // workspace comes before or after, as the caller promises.
        let enqueued = unsafe {
            result::matmul(
                library.handle,
                plan.description.0,
                (&raw const gemm.alpha).cast(),
                (&raw const gemm.beta).cast(),
                gemm.b.address as *const c_void,
                plan.b.0,
                gemm.a.address as *const c_void,
                plan.a.0,
                output,
                plan.output.0,
                output,
                plan.output.0,
                &raw const plan.algorithm,
                library.workspaces[gemm.workspace] as *mut c_void,
                library.workspace_bytes,
                self.context.stream.cast(),
            )
        };
        enqueued.map_err(|error| refused(gemm, error))
    }
}

fn refused(gemm: &Gemm, error: result::CublasError) -> Error {
    let Gemm {
        batch,
        rows,
        columns,
        inner,
        ..
    } = gemm;
    Error::cuda(
        format!("matrix product {batch} × [{rows}, {inner}] · [{inner}, {columns}]"),
        format!("cuBLASLt: {error}"),
    )
}

fn refused_call(call: &'static str) -> impl FnOnce(result::CublasError) -> Error {
    move |error| Error::cuda(call, error)
}

impl Library {
    fn load(context: &Context) -> Result<Self> {
        // The bindings panic where the library is absent, so ask first.
        // SAFETY: looks for a shared library; its initialisation is the vendor's.
        if !unsafe { sys::is_culib_present() } {
            return Err(Error::cuda(
                "loading cuBLASLt",
                "it is not found; install CUDA 13.0's cuBLAS (libcublasLt.so.13, in the CUDA \
                 toolkit or the wheel nvidia-cublas), put its folder on LD_LIBRARY_PATH, or use \
                 --device cpu",
            ));
        }
        let workspace_bytes = WORKSPACE_BYTES[usize::from(context.architecture < 90)];
        let mut library = Self {
            handle: std::ptr::null_mut(),
            workspaces: [0; Gemm::WORKSPACES],
            workspace_bytes,
        };
        for workspace in &mut library.workspaces {
            *workspace = context.allocate(workspace_bytes)?.ok_or_else(|| {
                Error::cuda(
                    "cuBLASLt",
                    format!(
                        "no {workspace_bytes} bytes of memory left for its work; use a smaller batch"
                    ),
                )
            })?;
        }
        library.handle = result::create_handle().map_err(refused_call("cublasLtCreate"))?;
        Ok(library)
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: each made once; the owner sees to it that nothing runs that uses them. Zeros
        // were never made.
        unsafe {
            if !self.handle.is_null() {
                let _ = result::destroy_handle(self.handle);
            }
            for workspace in self.workspaces.into_iter().filter(|address| *address != 0) {
                let freed = cudarc::driver::result::memory_free(workspace);
                let _ = freed.map_err(failed("cuMemFree"));
            }
        }
    }
}

impl Drop for Products {
    fn drop(&mut self) {
        self.plans.clear();
        // Where this fails the context is lost, and its memory with it.
        let is_idle = self.context.synchronise().is_ok();
        if let Some(library) = self.library.take()
            && !is_idle
        {
            std::mem::forget(library);
        }
    }
}

impl Plan {
    fn new(library: &Library, key: &Key, gemm: &Gemm) -> Result<Self> {
        let batch = key.batch;
        let description = Description::new(key)?;
        // Stored rows become columns: a matrix [rows, columns] of ours is one of
        // [columns, rows] in columns.
        let a = Matrix::new(key.a, batch, [key.rows, key.inner])?;
        let b = Matrix::new(key.b, batch, [key.inner, key.columns])?;
        let output = Matrix::new(key.output, batch, [key.rows, key.columns])?;
        let preference = Preference::new(library.workspace_bytes, key)?;
        // SAFETY: all descriptors are alive.
        let found = unsafe {
            result::get_matmul_algo_heuristic(
                library.handle,
                description.0,
                b.0,
                a.0,
                output.0,
                output.0,
                preference.0,
            )
        };
        let algorithm = found.map_err(|error| refused(gemm, error))?.algo;
        Ok(Self {
            description,
            a,
            b,
            output,
            algorithm,
        })
    }
}

/// What the product does.
struct Description(sys::cublasLtMatmulDesc_t);

impl Description {
    fn new(key: &Key) -> Result<Self> {
        use sys::cublasComputeType_t as Compute;
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        let compute = if key.precision == Precision::Tf32 as u8 {
            Compute::CUBLAS_COMPUTE_32F_FAST_TF32
        } else if key.precision == Precision::Bf16 as u8 {
            Compute::CUBLAS_COMPUTE_32F_FAST_16BF
        } else {
            Compute::CUBLAS_COMPUTE_32F
        };
        let made = result::create_matmul_desc(compute, sys::cudaDataType_t::CUDA_R_32F);
        let description = Self(made.map_err(refused_call("cublasLtMatmulDescCreate"))?);
        // The first factor is our b.
        description.set(
            Attribute::CUBLASLT_MATMUL_DESC_TRANSA,
            &i32::from(key.b.transposed),
        )?;
        description.set(
            Attribute::CUBLASLT_MATMUL_DESC_TRANSB,
            &i32::from(key.a.transposed),
        )?;
        let epilogue = match (key.has_bias, key.has_relu) {
            (false, false) => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_DEFAULT,
            (false, true) => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_RELU,
            (true, false) => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS,
            (true, true) => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_RELU_BIAS,
        };
        description.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
        Ok(description)
    }

    /// Its bias runs along its rows, which are our columns.
    fn set_bias(&self, bias: Address) -> Result<()> {
        let attribute = sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER;
        self.set(attribute, &bias)
    }

    fn set<T>(&self, attribute: sys::cublasLtMatmulDescAttributes_t, value: &T) -> Result<()> {
        let pointer = std::ptr::from_ref(value).cast();
        // SAFETY: the descriptor is alive; value and size are of the attribute's type.
        unsafe { result::set_matmul_desc_attribute(self.0, attribute, pointer, size_of::<T>()) }
            .map_err(refused_call("cublasLtMatmulDescSetAttribute"))
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        // SAFETY: made once, destroyed once.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

/// How one of the matrices lies in memory.
struct Matrix(sys::cublasLtMatrixLayout_t);

impl Matrix {
    /// For our matrix of `[rows, columns]`, which is stored the other way round where transposed.
    fn new(layout: Layout, batch: usize, [rows, columns]: [usize; 2]) -> Result<Self> {
        use sys::cublasLtMatrixLayoutAttribute_t as Attribute;
        let [stored_rows, stored_columns] = if layout.transposed {
            [columns, rows]
        } else {
            [rows, columns]
        };
        let made = result::create_matrix_layout(
            sys::cudaDataType_t::CUDA_R_32F,
            stored_columns as u64,
            stored_rows as u64,
            layout.row_stride as i64,
        );
        let matrix = Self(made.map_err(refused_call("cublasLtMatrixLayoutCreate"))?);
        if batch > 1 {
            let count = i32::try_from(batch).unwrap_or(i32::MAX);
            matrix.set(Attribute::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count)?;
            let stride = layout.batch_stride as i64;
            matrix.set(
                Attribute::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                &stride,
            )?;
        }
        Ok(matrix)
    }

    fn set<T>(&self, attribute: sys::cublasLtMatrixLayoutAttribute_t, value: &T) -> Result<()> {
        let pointer = std::ptr::from_ref(value).cast();
        // SAFETY: the layout is alive; value and size are of the attribute's type.
        unsafe { result::set_matrix_layout_attribute(self.0, attribute, pointer, size_of::<T>()) }
            .map_err(refused_call("cublasLtMatrixLayoutSetAttribute"))
    }
}

impl Drop for Matrix {
    fn drop(&mut self) {
        // SAFETY: made once, destroyed once.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

/// Constraints on the choice of an algorithm.
struct Preference(sys::cublasLtMatmulPreference_t);

impl Preference {
    fn new(workspace_bytes: usize, key: &Key) -> Result<Self> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        let made = result::create_matmul_pref();
        let preference = Self(made.map_err(refused_call("cublasLtMatmulPreferenceCreate"))?);
        preference.set(
            Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
            &workspace_bytes,
        )?;
        // By default it assumes that all addresses are multiples of 256.
        let alignments = [
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, key.b),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key.a),
            (
                Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                key.output,
            ),
            (
                Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
                key.output,
            ),
        ];
        for (attribute, layout) in alignments {
            preference.set(attribute, &layout.alignment)?;
        }
        Ok(preference)
    }

    fn set<T>(
        &self,
        attribute: sys::cublasLtMatmulPreferenceAttributes_t,
        value: &T,
    ) -> Result<()> {
        let pointer = std::ptr::from_ref(value).cast();
        // SAFETY: the preference is alive; value and size are of the attribute's type.
        unsafe { result::set_matmul_pref_attribute(self.0, attribute, pointer, size_of::<T>()) }
            .map_err(refused_call("cublasLtMatmulPreferenceSetAttribute"))
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: made once, destroyed once.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}
