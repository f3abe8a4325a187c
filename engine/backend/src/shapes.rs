//! Shapes of tensors and matrices, and the checks of an operation that are the same on every device.

use crate::checks::{check_tokens, expect, expect_layer};
use crate::{BackendError, Batch, KvShape, Placeholder, Result, RopeParams};

/// The kind of rows in a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowKind {
    /// f32 rows.
    F32,
    /// Rows that a matrix product or attention reads.
    Operand,
}

/// The shape of activations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TensorShape {
    pub(crate) kind: RowKind,
    pub(crate) max_rows: usize,
    pub(crate) cols: usize,
}

impl TensorShape {
    /// Fails unless the rows are of `kind`, have `cols` columns, and there is room for `n_rows` rows.
    pub(crate) fn expect(
        &self,
        op: &'static str,
        kind: RowKind,
        n_rows: usize,
        cols: usize,
    ) -> Result<()> {
        if self.kind == kind && self.cols == cols && n_rows <= self.max_rows {
            return Ok(());
        }
        Err(BackendError::Shape {
            op,
            expected: format!("{kind:?} rows of {cols}, at least {n_rows}"),
            got: format!("{:?} rows of {}, {} of them", self.kind, self.cols, self.max_rows),
        })
    }
}

/// The shape of a packed matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MatrixShape {
    /// Output features.
    pub(crate) rows: usize,
    /// Input features.
    pub(crate) cols: usize,
    /// Gate and up rows alternate; `rows` counts the gated outputs.
    pub(crate) gated: bool,
}

impl MatrixShape {
    /// Fails unless the matrix was loaded as expected: as gate and up, or as one matrix.
    fn expect_gated(&self, op: &'static str, gated: bool) -> Result<()> {
        if self.gated == gated {
            return Ok(());
        }
        let name = |gated| if gated { "gate and up" } else { "one matrix" };
        let (expected, got) = (name(gated).into(), name(self.gated).into());
        Err(BackendError::Shape { op, expected, got })
    }
}

/// The checks of [`DecoderOps::embed`](crate::DecoderOps::embed).
pub(crate) fn check_embed(
    table: &MatrixShape,
    batch: &Batch<'_>,
    out: &TensorShape,
    is_live: impl Fn(Placeholder) -> bool,
) -> Result<()> {
    const OP: &str = "embed";
    out.expect(OP, RowKind::F32, batch.tokens.len(), table.cols)?;
    table.expect_gated(OP, false)?;
    check_tokens(batch.tokens, table.rows, is_live)
}

/// The checks of [`DecoderOps::rms_norm`](crate::DecoderOps::rms_norm).
pub(crate) fn check_rms_norm(
    x: &TensorShape,
    n_rows: usize,
    n_weights: usize,
    out: &TensorShape,
) -> Result<()> {
    const OP: &str = "rms_norm";
    expect(OP, "weights", x.cols, n_weights)?;
    x.expect(OP, RowKind::F32, n_rows, x.cols)?;
    out.expect(OP, RowKind::Operand, n_rows, x.cols)
}

/// The checks of a matrix product. A gated matrix gives operand rows, another one f32 rows.
pub(crate) fn check_linear(
    op: &'static str,
    x: &TensorShape,
    n_rows: usize,
    (w, gated): (&MatrixShape, bool),
    n_biases: Option<usize>,
    out: &TensorShape,
) -> Result<()> {
    w.expect_gated(op, gated)?;
    x.expect(op, RowKind::Operand, n_rows, w.cols)?;
    out.expect(op, if gated { RowKind::Operand } else { RowKind::F32 }, n_rows, w.rows)?;
    n_biases.map_or(Ok(()), |n_biases| expect(op, "biases", w.rows, n_biases))
}

/// The checks of [`DecoderOps::rope_and_store_kv`](crate::DecoderOps::rope_and_store_kv) on layer
/// `layer` of a pool of shape `kv`; `len` is the length of a vector. Returns the number of query heads.
pub(crate) fn check_rope_and_store_kv<V>(
    qkv: &TensorShape,
    rope_params: &RopeParams<'_, V>,
    len: impl Fn(&V) -> usize,
    n_rows: usize,
    (layer, kv): (usize, &KvShape),
    q: &TensorShape,
) -> Result<usize> {
    const OP: &str = "rope_and_store_kv";
    let KvShape { n_kv_heads, head_dim, .. } = *kv;
    let n_heads = q.cols / head_dim;
    expect(OP, "inverse frequencies", head_dim / 2, rope_params.rope.inv_freq.len())?;
    qkv.expect(OP, RowKind::F32, n_rows, (n_heads + 2 * n_kv_heads) * head_dim)?;
    q.expect(OP, RowKind::Operand, n_rows, n_heads * head_dim)?;
    if let Some(norm) = &rope_params.qk_norm {
        expect(OP, "query norm weights", head_dim, len(norm.q))?;
        expect(OP, "key norm weights", head_dim, len(norm.k))?;
    }
    expect_layer(OP, layer, kv)?;
    Ok(n_heads)
}

/// The checks of rotated queries that read layer `layer` of a pool of shape `kv`. Returns the number
/// of query heads.
pub(crate) fn check_queries(
    op: &'static str,
    q: &TensorShape,
    n_rows: usize,
    (layer, kv): (usize, &KvShape),
) -> Result<usize> {
    let n_heads = q.cols / kv.head_dim;
    q.expect(op, RowKind::Operand, n_rows, n_heads * kv.head_dim)?;
    expect(op, "heads in whole groups", 0, n_heads % kv.n_kv_heads)?;
    expect_layer(op, layer, kv)?;
    Ok(n_heads)
}

/// The checks of [`DecoderOps::logits`](crate::DecoderOps::logits).
pub(crate) fn check_logits(
    x: &TensorShape,
    n_weights: usize,
    head: &MatrixShape,
    batch: &Batch<'_>,
    out: &TensorShape,
) -> Result<()> {
    const OP: &str = "logits";
    expect(OP, "norm weights", x.cols, n_weights)?;
    out.expect(OP, RowKind::F32, batch.logit_rows.len(), head.rows)?;
    x.expect(OP, RowKind::F32, batch.tokens.len(), head.cols)?;
    head.expect_gated(OP, false)?;
    let n_rows = batch.tokens.len();
    match batch.logit_rows.iter().find(|&&row| row as usize >= n_rows) {
        None => Ok(()),
        Some(row) => {
            let expected = format!("logit rows below {n_rows}");
            Err(BackendError::Shape { op: OP, expected, got: row.to_string() })
        }
    }
}
