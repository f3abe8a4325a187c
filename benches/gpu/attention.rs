//! Attention over a paged cache: decodes, verifications, and views by blocks and by tokens.

use crate::bed::{BLOCK, Bed, LAYERS, Pass};
use crate::gpu::Gpu;
use crate::measure::check;
use galley_backend::{KvView, Selected, SelectedIds};

/// Allowed error of an output, relative to the largest output: probabilities and outputs are
/// rounded to bf16.
const TOLERANCE: f64 = 0.02;
/// Most recent tokens that every view contains.
const TAIL: usize = 32;

/// One decode step of a batch over every context.
pub(crate) fn decodes(gpu: &mut Gpu) {
    println!(
        "\n| decode attention | context | µs | GB/s | of copy bandwidth |\n|---|---:|---:|---:|---:|"
    );
    for &context in gpu.sizes.contexts {
        let n_seqs = gpu.sizes.n_seqs;
        let mut bed = bed(gpu, context);
        let view = KvView::default();
        let pass = Pass { n_seqs, n_rows: 1, position: context - 1, view };
        let output = bed.output(&mut gpu.backend, pass, context);
        check_rows(&bed, pass, context, &output, |_| (0..context).collect());
        let time = bed.seconds(&mut gpu.backend, pass, context);
        let n_bytes = n_seqs * context * gpu.sizes.heads.bytes_per_token();
        println!(
            "| {n_seqs} sequences | {context} | {:.1} | {} |",
            time * 1e6,
            gpu.rate(n_bytes, time)
        );
    }
}

/// Verifications, and decodes over the same caches. The first row of a verification must equal the
/// decode at the same position, bit for bit.
pub(crate) fn verifications(gpu: &mut Gpu) {
    println!("\n| verification | context | rows | µs | of a decode |\n|---|---:|---:|---:|---:|");
    for &context in gpu.sizes.contexts {
        let n_seqs = gpu.sizes.n_seqs;
        let mut bed = bed(gpu, context);
        let view = KvView::default();
        let decode = Pass { n_seqs, n_rows: 1, position: context - 1, view };
        for &n_rows in gpu.sizes.verified {
            let position = context - n_rows;
            let verify = Pass { n_rows, position, ..decode };
            let output = bed.output(&mut gpu.backend, verify, context);
            let first = bed.output(&mut gpu.backend, Pass { position, ..decode }, context);
            for (seq, decoded) in first.iter().enumerate() {
                let rows = &output[seq * n_rows..][..n_rows];
                assert!(rows[0] == *decoded, "{n_rows} rows over {context}: a row has other bits");
                assert!(rows[1] != *decoded, "rows do not differ");
            }
            // The two measurements follow each other directly, because clocks drift.
            let one = bed.seconds(&mut gpu.backend, decode, context);
            let time = bed.seconds(&mut gpu.backend, verify, context);
            println!(
                "| {n_seqs} sequences | {context} | {n_rows} | {:.1} | {:.3}x |",
                time * 1e6,
                time / one
            );
        }
    }
}

/// Views of the same budget by blocks and by tokens, with a different selection for every layer and
/// head.
pub(crate) fn views(gpu: &mut Gpu) {
    println!(
        "\n| view | context | budget | µs | GB/s | of copy bandwidth | by blocks / this |\n\
         |---|---:|---:|---:|---:|---:|---:|"
    );
    let n_seqs = gpu.sizes.n_seqs;
    let context = gpu.sizes.contexts[gpu.sizes.contexts.len() - 1];
    let mut bed = bed(gpu, context);
    let n_kv_heads = gpu.sizes.heads.n_kv_heads;
    let n_runs = LAYERS * n_kv_heads;
    let group_size = gpu.sizes.heads.n_heads / n_kv_heads;
    let tail_start = context - TAIL;
    for &budget in gpu.sizes.budgets {
        let n = budget - TAIL;
        let spread = |n: usize, end: usize, run: usize| {
            (0..n).map(move |i| (i * end / n + run % (end / n)) as u32)
        };
        let (n_blocks, all_blocks) = (n / BLOCK, tail_start / BLOCK);
        let blocks: Vec<u32> =
            (0..n_runs).flat_map(|run| spread(n_blocks, all_blocks, run)).collect();
        let of_blocks = |block: &u32| *block * BLOCK as u32..(*block + 1) * BLOCK as u32;
        let adjacent: Vec<u32> = blocks.iter().flat_map(of_blocks).collect();
        let scattered: Vec<u32> = (0..n_runs).flat_map(|run| spread(n, tail_start, run)).collect();
        let view = |selected| KvView { selected, tail_start: tail_start as u32 };
        let by_blocks =
            Selected::Blocks(SelectedIds { ids: &blocks, n: n_blocks, n_kv_heads, version: 0 });
        let tokens = |ids| Selected::Tokens(SelectedIds { ids, n, n_kv_heads, version: 0 });
        let mut expected = None;
        let mut time_of_blocks = None;
        for (name, selected, ids) in [
            ("blocks", by_blocks, &adjacent),
            ("the same as tokens", tokens(&adjacent), &adjacent),
            ("scattered tokens", tokens(&scattered), &scattered),
        ] {
            let pass = Pass { n_seqs, n_rows: 1, position: context - 1, view: view(selected) };
            let output = bed.output(&mut gpu.backend, pass, context);
            check_rows(&bed, pass, context, &output, |head| {
                let run = &ids[head / group_size * n..][..n];
                run.iter().map(|id| *id as usize).chain(tail_start..context).collect()
            });
            let blocks = expected.get_or_insert_with(|| output.clone());
            if name == "the same as tokens" {
                assert!(*blocks == output, "tokens have other bits than the blocks they are");
            }
            let time = bed.seconds(&mut gpu.backend, pass, context);
            let one = *time_of_blocks.get_or_insert(time);
            let n_bytes = n_seqs * budget * gpu.sizes.heads.bytes_per_token();
            println!(
                "| {name} | {context} | {budget} | {:.1} | {} | {:.1} % |",
                time * 1e6,
                gpu.rate(n_bytes, time),
                one / time * 100.0
            );
        }
    }
}

fn bed(gpu: &mut Gpu, context: usize) -> Bed {
    let sizes = gpu.sizes;
    let n_tokens = sizes.n_seqs * context.next_multiple_of(BLOCK);
    let most = sizes.verified.iter().max().copied().unwrap_or(1);
    Bed::new(&mut gpu.backend, sizes.heads, sizes.n_filled, n_tokens, sizes.n_seqs * most)
}

/// Compares some heads of the first and last sequence with float64; `seen` returns the positions
/// that a head attends to.
fn check_rows(
    bed: &Bed,
    pass: Pass<'_>,
    context: usize,
    output: &[Vec<f32>],
    seen: impl Fn(usize) -> Vec<usize>,
) {
    let dim = bed.heads.head_dim;
    for seq in [0, pass.n_seqs - 1] {
        for head in [0, bed.heads.n_heads / 2, bed.heads.n_heads - 1] {
            let expected =
                bed.expected((seq, pass.position, head), context, seen(head).into_iter());
            let got = &output[seq * pass.n_rows][head * dim..][..dim];
            check(&format!("attention over {context}, head {head}"), &expected, got, TOLERANCE);
        }
    }
}
