//! The CPU backend: optimised for production, not a reference implementation.
//!
//! | file | subject |
//! |---|---|
//! | [`simd`] | sixteen lanes on four instruction sets |
//! | [`matrix`], [`gemm`] | packed weights and their product with any number of rows |
//! | [`blocks`] | quantised weights |
//! | [`arena`], [`buffer`] | memory |
//! | [`kv`], [`attention`] | the KV pool and attention over views of it |
//! | [`kept`] | probabilities that attention keeps for rows that observe |
//! | [`observe`] | selection of the cached tokens that rows attend to most |
//! | [`rope`], [`rows`] | rotation, norms |
//! | [`threads`] | dispatch of work that lasts microseconds |
//! | [`ops`] | the operations, as units of work for the threads |
//! | [`kernels`] | entry points per instruction set |
//! | [`probe`], [`probe_loops`] | the machine's best speed, as a reference for measurements |

mod arena;
mod attention;
mod blocks;
mod buffer;
mod gemm;
mod kept;
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

use crate::sample::PendingTokens;
use crate::{Formats, OperandFormat, Result, WeightFormat};
use arena::WeightArena;
use attention::AttentionScratch;
use blocks::RowBlock;
pub use kernels::InstructionSet;
use kernels::Kernels;
pub use kv::KvPool;
pub use matrix::{Matrix, Tensor};
use observe::ObserveScratch;
pub use ops::arithmetic;
pub use probe::{peak_flops, read_bandwidth};
use rope::Angles;
use threads::ThreadPool;
pub use threads::{MAX_THREADS, usable_cores};

/// Settings of a [`CpuBackend`].
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct CpuConfig {
    /// Number of threads with the calling thread, at most [`MAX_THREADS`]; None takes
    /// [`usable_cores`]. If there are more threads than cores, the number that works at once adapts
    /// to the cores that are free.
    pub n_threads: Option<usize>,
    /// Kernels to use; None takes the best kernels that the CPU supports.
    pub instruction_set: Option<InstructionSet>,
    /// Formats of weights, operands and the KV cache; operands and KV cache have the same.
    pub formats: Formats,
}

crate::setters! {
    impl CpuConfig;
    /// Sets the number of threads, with the calling thread; None takes [`usable_cores`].
    n_threads(n_threads: impl Into<Option<usize>>) => n_threads = n_threads.into();
    /// Sets the kernels; None takes the best kernels that the CPU supports.
    instruction_set(isa: impl Into<Option<InstructionSet>>) => instruction_set = isa.into();
    /// Sets the formats of weights, operands and the KV cache.
    formats(formats: Formats) => formats = formats;
}

/// The combinations of formats that kernels have.
const FORMATS: [Formats; 8] = {
    const fn with(weights: WeightFormat, rest: Formats) -> Formats {
        Formats { weights, ..rest }
    }
    [
        Formats::NATIVE,
        Formats::BF16,
        with(WeightFormat::Q8, Formats::BF16),
        with(WeightFormat::Q4, Formats::BF16),
        Formats::F32,
        with(WeightFormat::Native, Formats::F32),
        with(WeightFormat::Q8, Formats::F32),
        with(WeightFormat::Q4, Formats::F32),
    ]
};

/// The backend that computes on CPU threads.
pub struct CpuBackend {
    threads: ThreadPool,
    kernels: Kernels,
    instruction_set: InstructionSet,
    formats: Formats,
    angles: Angles,
    slots: Vec<Option<usize>>,
    attention: AttentionMemory,
    observers: Vec<ObserveScratch>,
    /// Rows of a product as multipliers, if the kernels expand them.
    expanded: Vec<u32>,
    /// The format of operand rows of the model that is being loaded: f32 if it has quantised weights,
    /// because rounding to bf16 would add to the rounding to signed bytes.
    product_format: OperandFormat,
    /// Operand rows rounded for panels of floats, in a model that has quantised weights too.
    rounded: Vec<u32>,
    /// Rows of a product as signed bytes, for quantised weights.
    row_blocks: Vec<RowBlock>,
    /// Memory of weights that are yet to be loaded.
    arena: WeightArena,
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
    scratch: Vec<((usize, usize), Vec<AttentionScratch>)>,
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
    ///
    /// # Errors
    ///
    /// If this CPU lacks the instruction set, if no kernel has the formats, or if the threads cannot
    /// be started.
    pub fn new(config: CpuConfig) -> Result<Self> {
        config.formats.expect_one_of(&FORMATS)?;
        let instruction_set = config.instruction_set.unwrap_or_else(InstructionSet::best);
        if !instruction_set.is_available() {
            instruction_set.name().parse::<InstructionSet>()?;
        }
        let n_threads = config.n_threads.unwrap_or_else(|| usable_cores().min(MAX_THREADS));
        Ok(Self {
            threads: ThreadPool::new(n_threads)?,
            kernels: Kernels::choose(instruction_set, config.formats.operands),
            instruction_set,
            formats: config.formats,
            angles: Angles::default(),
            slots: Vec::new(),
            attention: AttentionMemory::default(),
            observers: (0..n_threads).map(|_| ObserveScratch::default()).collect(),
            expanded: Vec::new(),
            product_format: config.formats.operands,
            rounded: Vec::new(),
            row_blocks: Vec::new(),
            arena: WeightArena::default(),
            head_rows: Vec::new(),
            samplers: (0..n_threads).map(|_| crate::sample::Scratch::default()).collect(),
            pending: PendingTokens::default(),
        })
    }
}
