//! The device of the measurements, with its copy bandwidth, and the sizes to measure.

use crate::bed::{self, Heads};
use crate::measure::seconds_each;
use galley_backend::cuda::{CudaBackend, CudaConfig, CudaDevice};
use galley_backend::{Backend, DeviceMemory, Result};

/// The sizes of a measurement.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) heads: Heads,
    pub(crate) n_seqs: usize,
    pub(crate) contexts: &'static [usize],
    /// Rows of a verification.
    pub(crate) verified: &'static [usize],
    /// KV budgets of views.
    pub(crate) budgets: &'static [usize],
    /// Tokens with distinct keys and values; the rest of the cache holds copies.
    pub(crate) n_filled: usize,
    /// Tokens in the block that is copied to measure the bandwidth.
    pub(crate) n_copied: usize,
    pub(crate) models: &'static [Model],
    /// Rows of matrix products.
    pub(crate) n_rows: &'static [usize],
    /// Minimum total size of the copies of a product's weights: more than the L2 cache holds.
    pub(crate) weight_bytes: usize,
}

/// The matrix sizes of a model.
pub(crate) struct Model {
    pub(crate) name: &'static str,
    pub(crate) hidden: usize,
    pub(crate) n_heads: usize,
    pub(crate) n_kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) inner: usize,
    pub(crate) vocabulary: usize,
}

impl Sizes {
    #[cfg(feature = "cuda")]
    pub(crate) const REAL: Self = Self {
        heads: Heads { n_heads: 32, n_kv_heads: 8, head_dim: 128 },
        n_seqs: 32,
        contexts: &[4096, 8192, 16384, 32768],
        verified: &[2, 4, 8],
        budgets: &[512, 2048],
        n_filled: 1024,
        n_copied: 1 << 18, // 1 GiB of keys and values
        models: &[
            Model {
                name: "llama-3.2-1b",
                hidden: 2048,
                n_heads: 32,
                n_kv_heads: 8,
                head_dim: 64,
                inner: 8192,
                vocabulary: 128_256,
            },
            Model {
                name: "llama-3.1-8b",
                hidden: 4096,
                n_heads: 32,
                n_kv_heads: 8,
                head_dim: 128,
                inner: 14336,
                vocabulary: 128_256,
            },
            Model {
                name: "qwen2.5-7b",
                hidden: 3584,
                n_heads: 28,
                n_kv_heads: 4,
                head_dim: 128,
                inner: 18944,
                vocabulary: 152_064,
            },
        ],
        n_rows: &[1, 8, 32, 64, 256, 2048],
        weight_bytes: 256 << 20,
    };

    #[cfg(feature = "emulate")]
    pub(crate) const TINY: Self = Self {
        heads: Heads { n_heads: 4, n_kv_heads: 2, head_dim: 32 },
        n_seqs: 2,
        contexts: &[96, 560],
        verified: &[2, 8],
        budgets: &[96],
        n_filled: 64,
        n_copied: 64,
        models: &[Model {
            name: "tiny",
            hidden: 64,
            n_heads: 4,
            n_kv_heads: 2,
            head_dim: 16,
            inner: 128,
            vocabulary: 200,
        }],
        n_rows: &[1, 8, 20],
        weight_bytes: 1,
    };
}

/// An open device and its copy bandwidth.
pub(crate) struct Gpu {
    pub(crate) backend: CudaBackend,
    pub(crate) sizes: Sizes,
    /// Bytes that a large copy moves a second: reads and writes both count.
    pub(crate) bandwidth: f64,
}

impl Gpu {
    /// Opens the device, measures its copy bandwidth, and prints its description and the bandwidth.
    pub(crate) fn open(device: CudaDevice, sizes: Sizes) -> Result<Self> {
        let backend = CudaBackend::new(CudaConfig::new(device))?;
        println!("{}", backend.description());
        let mut gpu = Self { backend, sizes, bandwidth: 0.0 };
        // One huge block is copied to another. The attention check also checks copies of blocks.
        let mut pool = bed::pool(&mut gpu.backend, sizes.heads, 1, sizes.n_copied, 2);
        bed::fill(&mut gpu.backend, sizes.heads, &mut pool, &[0], sizes.n_copied);
        let time = seconds_each(&mut gpu.backend, |backend, _| {
            backend.copy_blocks(&mut pool, &[(0, 1)]).expect("a copy");
        });
        let n_bytes = 2 * sizes.n_copied * sizes.heads.bytes_per_token();
        gpu.bandwidth = n_bytes as f64 / time;
        println!("copy bandwidth: {:.1} GB/s (read and written)", gpu.bandwidth / 1e9);
        Ok(gpu)
    }

    /// A rate in GB/s and as a share of the copy bandwidth, as two table cells.
    pub(crate) fn rate(&self, n_bytes: usize, time: f64) -> String {
        let rate = n_bytes as f64 / time;
        format!("{:.1} | {:.1} %", rate / 1e9, rate / self.bandwidth * 100.0)
    }
}
