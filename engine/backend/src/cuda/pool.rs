//! Keys and values on the device, in the arenas that `galley_kernels.h` describes.

use super::device::Device;
use super::memory::Buffer;
use crate::checks::{check_draft_layout, check_kv_format};
use crate::{BackendError, KvFormat, KvShape, Result};
use galley_kernels_cu::bindings::{GK_MAX_HEAD_DIM, gk_kv};
use std::sync::Arc;

/// The block size is a multiple of this, in tokens.
const BLOCK_STEP: usize = 16;
/// The head dimension is a multiple of this, in values: 16 bytes, the width of one access.
const HEAD_STEP: usize = 8;

/// The KV pool of a model, or the blocks of a draft model that shares the pool.
pub struct KvPool {
    buffer: Arc<Buffer>,
    pub(super) shape: KvShape,
    /// The shape that the memory was allocated for: that of the first model.
    host: KvShape,
    /// Maximum query rows of an attention unit.
    pub(super) max_queries: usize,
}

/// Identity of a pool: its memory and its shapes.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct PoolId {
    base: u64,
    shape: KvShape,
    host: KvShape,
}

impl KvPool {
    pub(super) fn new(device: &Arc<dyn Device>, shape: KvShape) -> Result<Self> {
        check_shape(&shape)?;
        let max_queries = max_queries(device, shape.head_dim)?;
        let n_bytes = [shape.n_blocks, shape.block_size, shape.bytes_per_token()]
            .into_iter()
            .try_fold(1, usize::checked_mul)
            .ok_or(BackendError::OutOfMemory { purpose: "the KV pool", needed_bytes: u128::MAX })?;
        let buffer = Arc::new(Buffer::new(device, "the KV pool", n_bytes)?);
        Ok(Self { buffer, shape, host: shape, max_queries })
    }

    pub(super) fn alias_kv_pool(&self, shape: KvShape) -> Result<Self> {
        check_draft_layout(&self.shape, &shape)?;
        check_shape(&shape)?;
        let max_queries = max_queries(self.buffer.device(), shape.head_dim)?;
        Ok(Self { buffer: Arc::clone(&self.buffer), shape, host: self.host, max_queries })
    }

    pub(super) fn id(&self) -> PoolId {
        PoolId { base: self.buffer.address(), shape: self.shape, host: self.host }
    }

    /// The pool in the form that kernels read, for `layer`.
    pub(super) fn kv(&self, layer: usize) -> gk_kv {
        let Self { shape, host, .. } = self;
        let block = host.block_size * host.head_dim;
        let values_at = host.n_blocks * block;
        gk_kv {
            base: self.buffer.at(0),
            arena_stride: 2 * values_at as i64,
            values_at: values_at as i64,
            block_stride: block as i64,
            arena_blocks: host.n_blocks as i32,
            n_layers: shape.n_layers as i32,
            n_kv_heads: shape.n_kv_heads as i32,
            head_dim: shape.head_dim as i32,
            block_size: shape.block_size as i32,
            layer: layer as i32,
        }
    }
}

/// Maximum query rows of an attention unit on this device: 16, 32 or 64.
fn max_queries(device: &Arc<dyn Device>, head_dim: usize) -> Result<usize> {
    device.stream()?; // makes this device current: `ask` is about the current device
    let ask = device.kernels().attention_queries;
    // SAFETY: the function takes and returns a number.
    let answer = ask.map_or(0, |ask| unsafe { ask(head_dim as i32) });
    match usize::try_from(answer) {
        Ok(held @ 16..) => Ok(held),
        _ => Err(BackendError::Unsupported(format!(
            "attention with head_dim {head_dim} on {}: a block of its threads has too little shared memory, use the CPU",
            device.description()
        ))),
    }
}

fn check_shape(shape: &KvShape) -> Result<()> {
    check_kv_format(shape, KvFormat::Bf16)?;
    let KvShape { head_dim, block_size, n_blocks, .. } = *shape;
    let refuse = |reason: String| Err(BackendError::Unsupported(reason));
    if head_dim == 0 || head_dim > GK_MAX_HEAD_DIM as usize || !head_dim.is_multiple_of(HEAD_STEP) {
        return refuse(format!(
            "head_dim {head_dim} on a GPU: a multiple of {HEAD_STEP} up to {GK_MAX_HEAD_DIM} is needed, or the CPU"
        ));
    }
    if block_size == 0 || !block_size.is_multiple_of(BLOCK_STEP) {
        return refuse(format!("block size {block_size} is not a multiple of {BLOCK_STEP} tokens"));
    }
    let n_slots = n_blocks.checked_mul(block_size);
    if n_slots.and_then(|n| i32::try_from(n).ok()).is_none() {
        return refuse(format!(
            "a KV pool of {n_blocks} blocks of {block_size} tokens: slots are numbered up to {}, use fewer blocks",
            i32::MAX
        ));
    }
    Ok(())
}
