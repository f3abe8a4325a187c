//! The CPU backend: optimised for production, not a reference implementation.
//!
//! | file | subject |
//! |---|---|
//! | [`simd`] | sixteen lanes on four instruction sets |
//! | [`matrix`], [`gemm`] | packed weights and their product with any number of rows |
//! | [`kv`], [`attention`] | the KV pool and attention over views of it |
//! | [`observe`] | selection of the cached tokens that rows attend to most |
//! | [`rope`], [`rows`] | rotation, norms |
//! | [`threads`] | dispatch of work that lasts microseconds |
//! | [`kernels`] | entry points per instruction set |
//! | [`probe`], [`probe_loops`] | the machine's best speed, as a reference for measurements |

mod attention;
mod buffer;
mod gemm;
mod kernels;
mod kv;
mod matrix;
mod observe;
mod ops;
mod probe;
mod probe_loops;
mod rope;
mod rows;
mod simd;
#[cfg(test)]
mod tests;
mod threads;

use crate::checks::{
    check_copies, check_draft_layout, check_observation, check_tokens, check_view, expect,
    expect_layer, for_each_slot,
};
use crate::sample::{PendingTokens, SampleRow, SampledToken, SampledTokens};
use crate::{
    AttentionParams, Backend, BackendError, Batch, Dtype, KvShape, Observation, Result, Rope,
    RopeParams, RowSource,
};
use attention::{Call, MAX_ROWS, Rows, Scratch, SoftmaxState, TILE};
use buffer::Shared;
use gemm::{Gemm, Sink};
pub use kernels::InstructionSet;
use kernels::Kernels;
use kv::GROUP;
pub use kv::KvPool;
use matrix::{Kind, PANEL};
pub use matrix::{Matrix, Tensor};
pub use probe::{peak_flops, read_bandwidth};
use rope::{Angles, MAX_HEAD_DIM, RopeStore};
use threads::ThreadPool;
pub use threads::{MAX_THREADS, usable_cores};

/// Settings of a [`CpuBackend`].
#[derive(Clone, Copy, Debug)]
pub struct CpuConfig {
    /// Number of threads with the calling thread, at most [`MAX_THREADS`]; None takes
    /// [`usable_cores`]. If there are more threads than cores, the number that works at once adapts
    /// to the cores that are free.
    pub n_threads: Option<usize>,
    /// Kernels to use; None takes the best kernels that the CPU supports.
    pub instruction_set: Option<InstructionSet>,
    /// Format of weights, matrix operands and the KV cache.
    pub dtype: Dtype,
}

impl Default for CpuConfig {
    fn default() -> Self {
        Self { n_threads: None, instruction_set: None, dtype: Dtype::Bf16 }
    }
}

/// The backend that computes on CPU threads.
pub struct CpuBackend {
    threads: ThreadPool,
    kernels: Kernels,
    instruction_set: InstructionSet,
    dtype: Dtype,
    angles: Angles,
    slots: Vec<Option<usize>>,
    attention: AttentionMemory,
    observers: Vec<observe::Scratch>,
    /// Rows of a product as multipliers, if the kernels expand them.
    expanded: Vec<u32>,
    /// Normed rows for the output head, one tensor for each width, because several models take turns.
    head_rows: Vec<Tensor>,
    samplers: Vec<crate::sample::Scratch>,
    pending: PendingTokens,
}

/// Memory that attention keeps between calls.
#[derive(Default)]
struct AttentionMemory {
    /// Scratch of every thread, for each head_dim and number of query heads per KV head, because
    /// several models take turns.
    scratch: Vec<((usize, usize), Vec<Scratch>)>,
    /// States of tiles that are computed as units of their own.
    states: Vec<f32>,
}

/// A vector, padded to whole panels.
#[derive(Debug)]
pub struct Vector {
    values: Vec<f32>,
    len: usize,
}

impl Vector {
    fn get(&self) -> &[f32] {
        &self.values[..self.len]
    }
}

impl CpuBackend {
    /// Starts threads and chooses kernels.
    pub fn new(config: CpuConfig) -> Result<Self> {
        let instruction_set = config.instruction_set.unwrap_or_else(InstructionSet::best);
        if !instruction_set.is_available() {
            instruction_set.name().parse::<InstructionSet>()?;
        }
        let n_threads = config.n_threads.unwrap_or_else(|| usable_cores().min(MAX_THREADS));
        Ok(Self {
            threads: ThreadPool::new(n_threads)?,
            kernels: Kernels::choose(instruction_set, config.dtype),
            instruction_set,
            dtype: config.dtype,
            angles: Angles::default(),
            slots: Vec::new(),
            attention: AttentionMemory::default(),
            observers: (0..n_threads).map(|_| observe::Scratch::default()).collect(),
            expanded: Vec::new(),
            head_rows: Vec::new(),
            samplers: (0..n_threads).map(|_| crate::sample::Scratch::default()).collect(),
            pending: PendingTokens::default(),
        })
    }

    /// The format of weights, matrix operands and the KV cache.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn multiply(&mut self, x: &Tensor, n_rows: usize, w: &Matrix, out_stride: usize, sink: Sink) {
        let (x, x_stride) = self.multipliers(x, n_rows, w.k_words);
        let g = Gemm {
            x,
            x_stride,
            n_rows,
            weights: w.words.as_ptr(),
            k_words: w.k_words,
            out_stride,
            sink,
        };
        let n_panels = w.n_panels();
        // A unit is small enough for threads to finish together, and large enough to stream.
        let per_unit = (n_panels / (self.threads.n_at_once() * 16)).clamp(1, 8);
        let unit_work = per_unit * PANEL * w.k_words * w.dtype.per_word() * n_rows;
        let kernel = self.kernels.multiply_panels;
        self.threads.for_each(n_panels.div_ceil(per_unit), unit_work, |unit, _| {
            let first = unit * per_unit;
            // SAFETY: shapes were checked by the caller, tensors are padded to whole panels, and
            // each panel is written by one unit.
            unsafe { kernel(&g, first..(first + per_unit).min(n_panels)) };
        });
    }
}

/// Fails unless `tensor` is of `kind`, has `cols` columns and room for `n_rows` rows.
fn expect_tensor(
    op: &'static str,
    tensor: &Tensor,
    kind: Kind,
    n_rows: usize,
    cols: usize,
) -> Result<()> {
    if tensor.kind == kind && tensor.cols == cols && n_rows <= tensor.max_rows {
        return Ok(());
    }
    Err(BackendError::Shape {
        op,
        expected: format!("{kind:?} rows of {cols}, at least {n_rows}"),
        got: format!("{:?} rows of {}, {} of them", tensor.kind, tensor.cols, tensor.max_rows),
    })
}
