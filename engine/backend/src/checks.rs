//! Checks of shapes, rows, blocks and views that protect every device from a faulty caller.

use crate::{
    BackendError, Batch, InputToken, KvShape, KvView, Observation, Placeholder, PoolScores, Result,
    Selected, SelectedIds, SeqSpan,
};

/// Fails unless two shapes agree.
pub(crate) fn expect(op: &'static str, quantity: &str, expected: usize, got: usize) -> Result<()> {
    if expected == got {
        return Ok(());
    }
    Err(BackendError::Shape {
        op,
        expected: format!("{quantity} {expected}"),
        got: got.to_string(),
    })
}

/// Fails unless the pool has the layer.
pub(crate) fn expect_layer(op: &'static str, layer: usize, shape: &KvShape) -> Result<()> {
    if layer < shape.n_layers {
        return Ok(());
    }
    let expected = format!("a layer below {}", shape.n_layers);
    Err(BackendError::Shape { op, expected, got: layer.to_string() })
}

/// Fails unless every token is in the embedding table or is a valid placeholder.
pub(crate) fn check_tokens(
    tokens: &[InputToken],
    n_tokens: usize,
    is_live: impl Fn(Placeholder) -> bool,
) -> Result<()> {
    let is_valid = |token: InputToken| match token.placeholder() {
        Some(placeholder) => is_live(placeholder),
        None => token.id().is_some_and(|id| (id as usize) < n_tokens),
    };
    let Some(token) = tokens.iter().find(|&&token| !is_valid(token)) else { return Ok(()) };
    let expected = match token.placeholder() {
        Some(_) => "placeholders of tokens that are not taken yet".to_owned(),
        None => format!("token ids below {n_tokens}"),
    };
    Err(BackendError::Shape { op: "embed", expected, got: format!("{token:?}") })
}

/// Fails unless `draft_layout` is a shape that [`KvShape::draft_layout`] returns for `host`.
pub(crate) fn check_draft_layout(host: &KvShape, draft_layout: &KvShape) -> Result<()> {
    if host.draft_layout(draft_layout.n_layers, draft_layout.n_kv_heads, draft_layout.head_dim)
        == Some(*draft_layout)
    {
        return Ok(());
    }
    Err(BackendError::Shape {
        op: "alias_kv_pool",
        expected: format!("a shape that fits {host:?}"),
        got: format!("{draft_layout:?}"),
    })
}

/// Fails unless all blocks are in the pool.
pub(crate) fn check_copies(copies: &[(u32, u32)], shape: &KvShape) -> Result<()> {
    let n_blocks = shape.n_blocks;
    let outside = |(from, to): &&(u32, u32)| (*from).max(*to) as usize >= n_blocks;
    let Some(copy) = copies.iter().find(outside) else { return Ok(()) };
    Err(BackendError::Shape {
        op: "copy_blocks",
        expected: format!("block ids below {n_blocks}"),
        got: format!("{copy:?}"),
    })
}

/// Calls `each` with the slot of every row, in order; None for rows of a span without `writes_kv`.
/// Checks the slots against block tables and pool.
pub(crate) fn for_each_slot(
    batch: &Batch<'_>,
    shape: &KvShape,
    mut each: impl FnMut(Option<usize>),
) -> Result<()> {
    let mut n_rows = 0;
    for seq in batch.seqs {
        expect("batch", "first row", n_rows, seq.first_row)?;
        n_rows += seq.n_rows;
        for row in seq.first_row..seq.first_row + seq.n_rows {
            let position = *batch.positions.get(row).ok_or_else(|| missing_row(row))? as usize;
            let block = seq.block_table.get(position / shape.block_size);
            match block {
                Some(&b) if (b as usize) < shape.n_blocks => {
                    let slot = b as usize * shape.block_size + position % shape.block_size;
                    each(seq.writes_kv.then_some(slot));
                }
                _ => {
                    return Err(BackendError::Shape {
                        op: "batch",
                        expected: format!("a block of the pool for position {position}"),
                        got: format!("{block:?}"),
                    });
                }
            }
        }
    }
    expect("batch", "rows", batch.tokens.len(), n_rows)?;
    expect("batch", "positions", batch.tokens.len(), batch.positions.len())
}

fn missing_row(row: usize) -> BackendError {
    BackendError::Shape {
        op: "batch",
        expected: format!("a position for row {row}"),
        got: "none".into(),
    }
}

/// Checks the preconditions of kernels: rows at consecutive positions, blocks inside the pool, and
/// selections inside the sequence.
pub(crate) fn check_view(
    op: &'static str,
    seq: &SeqSpan<'_>,
    batch: &Batch<'_>,
    shape: &KvShape,
    layer: usize,
) -> Result<()> {
    check_rows(op, seq, batch, shape)?;
    check_selected(op, seq, shape, layer)
}

/// The part of [`check_view`] for rows, blocks and the tail.
pub(crate) fn check_rows(
    op: &'static str,
    seq: &SeqSpan<'_>,
    batch: &Batch<'_>,
    shape: &KvShape,
) -> Result<()> {
    let refuse = |expected: &str, got: String| {
        Err(BackendError::Shape { op, expected: expected.into(), got })
    };
    let Some(positions) = batch.positions.get(seq.first_row..seq.first_row + seq.n_rows) else {
        return Err(missing_row(seq.first_row + seq.n_rows));
    };
    let (Some(&first), Some(&last)) = (positions.first(), positions.last()) else {
        return Ok(());
    };
    if positions.windows(2).any(|w| w[1] != w[0].wrapping_add(1)) {
        return refuse("rows at consecutive positions", format!("{first} to {last}"));
    }
    let n_logical = last as usize / shape.block_size + 1;
    match seq.block_table.get(..n_logical) {
        Some(ids) if ids.iter().all(|&id| (id as usize) < shape.n_blocks) => {}
        _ => {
            return refuse(
                "a block of the pool for every position",
                format!("{:?}", seq.block_table),
            );
        }
    }
    if seq.view.tail_start > first {
        return refuse("a tail that includes every row", format!("{}", seq.view.tail_start));
    }
    Ok(())
}

/// The part of [`check_view`] for the ids selected for a layer.
pub(crate) fn check_selected(
    op: &'static str,
    seq: &SeqSpan<'_>,
    shape: &KvShape,
    layer: usize,
) -> Result<()> {
    let Some((kind, chosen, limit)) = selected(op, seq, shape)? else { return Ok(()) };
    for head in 0..chosen.n_kv_heads.max(1) {
        let ids = chosen.of(layer, head);
        let is_below = ids.last().is_none_or(|&id| (id as usize) < limit);
        if !is_below || !ids.is_sorted_by(|a, b| a < b) {
            return refuse_ids(op, kind, &format!("{ids:?}"));
        }
    }
    Ok(())
}

/// The check of [`check_selected`] for all layers, for ids that are known to ascend; `last` is the
/// largest id.
#[cfg(any(feature = "cuda", feature = "emulate"))]
pub(crate) fn check_known(
    op: &'static str,
    seq: &SeqSpan<'_>,
    shape: &KvShape,
    last: Option<u32>,
) -> Result<()> {
    match (selected(op, seq, shape)?, last) {
        (Some((kind, _, limit)), Some(last)) if last as usize >= limit => {
            refuse_ids(op, kind, &last.to_string())
        }
        _ => Ok(()),
    }
}

fn refuse_ids(op: &'static str, kind: &str, got: &str) -> Result<()> {
    let expected = format!("ascending {kind} before the tail");
    Err(BackendError::Shape { op, expected, got: got.into() })
}

/// The kind of the selected ids for messages, the selection, and the bound below which its ids must
/// lie. Fails if the number of ids is wrong.
fn selected<'a>(
    op: &'static str,
    seq: &SeqSpan<'a>,
    shape: &KvShape,
) -> Result<Option<(&'static str, SelectedIds<'a>, usize)>> {
    let tail_start = seq.view.tail_start as usize;
    let (kind, chosen, limit) = match seq.view.selected {
        Selected::None => return Ok(None),
        Selected::Blocks(blocks) => ("whole blocks", blocks, tail_start / shape.block_size),
        Selected::Tokens(tokens) => ("positions", tokens, tail_start),
    };
    match chosen.n_kv_heads {
        0 => expect(op, "selected ids", chosen.n, chosen.ids.len())?,
        n => {
            expect(op, "KV heads selected for", shape.n_kv_heads, n)?;
            expect(op, "selected ids", shape.n_layers * n * chosen.n, chosen.ids.len())?;
        }
    }
    Ok(Some((kind, chosen, limit)))
}

/// Checks an observation against the batch that contains its rows.
pub(crate) fn check_observation(
    observation: &Observation<'_>,
    batch: &Batch<'_>,
    shape: &KvShape,
    layer: usize,
) -> Result<()> {
    const OP: &str = "observe";
    let refuse = |expected: String, got: String| Err(BackendError::Shape { op: OP, expected, got });
    let Observation { seq, rows, candidates, granularity, n_selected, pool, out } = observation;
    let Some(span) = batch.seqs.get(*seq) else {
        return refuse(format!("a sequence below {}", batch.seqs.len()), seq.to_string());
    };
    if rows.is_empty() || rows.end > span.n_rows {
        return refuse(format!("rows, some of 0..{}", span.n_rows), format!("{rows:?}"));
    }
    let view = KvView::default();
    check_view(OP, &SeqSpan { view, ..*span }, batch, shape, layer)?;
    let first_row = span.first_row + rows.start;
    let first_position = batch.positions[first_row];
    if candidates.start > candidates.end || candidates.end > first_position + 1 {
        return refuse(
            format!("candidates within 0..={first_position}"),
            format!("{candidates:?}"),
        );
    }
    match *granularity as usize {
        1 => {}
        g if g == shape.block_size => {
            if !(candidates.start as usize).is_multiple_of(g)
                || !(candidates.end as usize).is_multiple_of(g)
            {
                return refuse(format!("candidates in blocks of {g}"), format!("{candidates:?}"));
            }
            if *pool != PoolScores::None {
                return refuse("no pooling of blocks".into(), format!("{pool:?}"));
            }
        }
        g => return refuse(format!("granularity 1 or {}", shape.block_size), g.to_string()),
    }
    if let PoolScores::Average(width) | PoolScores::Max(width) = pool
        && width.is_multiple_of(2)
    {
        return refuse("a pooling window of odd width".into(), width.to_string());
    }
    let n_candidates = candidates.len() / *granularity as usize;
    if n_candidates < *n_selected {
        return refuse(format!("at least {n_selected} candidates"), n_candidates.to_string());
    }
    expect(OP, "ids in out", shape.n_layers * shape.n_kv_heads * n_selected, out.len())
}
