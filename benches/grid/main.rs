//! MagicDec's grid (arXiv 2408.11049) on one device: the costs of decoding, drafting and
//! verification by batch and context, and the speedup of speculation at published acceptance rates.
//!
//! `cargo bench -p galley-benches --bench grid -- --model DIR --device cuda:0 --contexts 4096,8192 --batches 4,16`
//!
//! Times include forward and sampling as the engine calls them, with their host work, and exclude
//! the engine's own bookkeeping. The cache is filled with copies of the keys and values of 1024
//! tokens, because costs do not depend on the values. The blocks of a sequence are scattered over
//! the pool, as after hours of serving. For each row of the grid, the tokens sampled by a decode
//! must equal the tokens sampled by a verification at the same positions: a wrong answer ends the
//! run.

mod arguments;

use arguments::{Arguments, Draft};
use galley_backend::sample::{SampleRow, SamplingParams};
use galley_backend::{
    Batch, InputToken, KvShape, KvView, LayerMask, Selected, SelectedIds, SeqSpan,
};
use galley_benches::{median, seconds};
use galley_model::weights::Checkpoint;
use galley_model::{LanguageModel, LoadOptions, LoadedModel, ModelIndex, load};

fn main() {
    let arguments = Arguments::from_command_line();
    let checkpoint = Checkpoint::open(&arguments.model).expect("a model");
    let most = |values: &[usize]| values.iter().copied().max().unwrap_or(1);
    let (batch, context, gamma) =
        (most(&arguments.batches), most(&arguments.contexts), most(&arguments.gammas));
    let per_sequence = (context + gamma).div_ceil(BLOCK) + 1;
    let options = LoadOptions::new(BLOCK, (batch * per_sequence).max(FILLED / BLOCK))
        .max_rows(FILLED.max(batch * (gamma + 1)))
        .max_logit_rows(batch * (gamma + 1));
    let model = load(&checkpoint, arguments.device, options, &mut |_, _| {}).expect("a model");
    println!("{}, {}", checkpoint.path().display(), model.device());
    let rooflines =
        if arguments.bandwidth.is_some() { " roofline/target roofline/draft" } else { "" };
    println!(
        "batch context draft γ T_target T_draft T_verify T_verify/T_target α speedup (ms){rooflines}"
    );
    let mut bed = Bed::new(model);
    for &context in &arguments.contexts {
        for &batch in &arguments.batches {
            if !bed.holds(batch, context + gamma) {
                println!("{batch} {context}: the pool holds {} tokens", bed.n_tokens());
                continue;
            }
            bed.measure(&arguments, batch, context);
        }
    }
}

/// Tokens in a block.
const BLOCK: usize = 16;
/// Tokens that a forward computes to fill the cache; the rest is copied.
const FILLED: usize = 1024;

/// A model with a full cache.
struct Bed {
    model: Box<dyn LanguageModel>,
    /// The blocks of the pool, in scattered order.
    blocks: Vec<u32>,
    sampling: SamplingParams,
}

/// A forward of a batch of sequences with the same shape.
#[derive(Clone, Copy)]
struct Pass<'a> {
    n_seqs: usize,
    /// Rows of each sequence; the first row is at `position`.
    n_rows: usize,
    position: usize,
    view: KvView<'a>,
}

impl Bed {
    fn new(model: Box<dyn LanguageModel>) -> Self {
        let n_blocks = model.target().kv_shape.n_blocks as u32;
        let mut bed =
            Bed { model, blocks: (0..n_blocks).collect(), sampling: SamplingParams::greedy() };
        let pass = Pass { n_seqs: 1, n_rows: FILLED, position: 0, view: KvView::default() };
        bed.forward(pass, &[]);
        let filled = (FILLED / BLOCK) as u32;
        let copies: Vec<_> = (filled..n_blocks).map(|block| (block % filled, block)).collect();
        bed.model.copy_blocks(&copies).expect("copies");
        let mut state = 1_u64;
        for i in (1..bed.blocks.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bed.blocks.swap(i, (state >> 33) as usize % (i + 1));
        }
        bed
    }

    fn n_tokens(&self) -> usize {
        self.blocks.len() * BLOCK
    }

    fn holds(&self, n_seqs: usize, n_tokens: usize) -> bool {
        n_seqs * n_tokens.div_ceil(BLOCK) <= self.blocks.len()
    }

    /// Bytes that a step reads: weights, and `n_cached` cached tokens.
    fn bytes(&self, n_cached: usize) -> f64 {
        let LoadedModel { step_weight_bytes, kv_shape, .. } = self.model.target();
        (step_weight_bytes + n_cached * kv_shape.bytes_per_token()) as f64
    }

    /// Runs a pass that computes the logits of `logit_rows` in each sequence.
    fn forward(&mut self, pass: Pass<'_>, logit_rows: &[usize]) {
        let Pass { n_seqs, n_rows, position, view } = pass;
        let vocabulary = self.model.target().config.vocab_size as u32;
        let per_sequence = (position + n_rows).div_ceil(BLOCK);
        let (mut tokens, mut positions, mut logits) = (vec![], vec![], vec![]);
        let mut seqs = Vec::with_capacity(n_seqs);
        for seq in 0..n_seqs {
            let first_row = tokens.len();
            let token =
                |i: usize| InputToken::known(((seq * 7919 + i * 31) as u32 * 17 + 3) % vocabulary);
            tokens.extend((position..position + n_rows).map(token));
            positions.extend(position as u32..(position + n_rows) as u32);
            logits.extend(logit_rows.iter().map(|row| (first_row + row) as u32));
            let block_table = &self.blocks[seq * per_sequence..][..per_sequence];
            seqs.push(SeqSpan { first_row, n_rows, block_table, writes_kv: true, view });
        }
        let batch =
            Batch { tokens: &tokens, positions: &positions, seqs: &seqs, logit_rows: &logits };
        self.model
            .forward(ModelIndex::TARGET, &batch, &LayerMask::All, &mut [])
            .expect("a forward");
    }

    /// Runs a pass and samples a token for each of its rows. Returns the tokens, and the seconds of
    /// both.
    fn step(&mut self, pass: Pass<'_>) -> (Vec<u32>, f64) {
        let mut tokens = Vec::new();
        let logit_rows: Vec<usize> = (0..pass.n_rows).collect();
        let time = seconds(|| {
            self.forward(pass, &logit_rows);
            let row = |logits_row| SampleRow {
                logits_row,
                sampling: &self.sampling,
                seed: 0,
                position: 0,
                seen: None,
                drafted: &[],
                banned: &[],
                early_ends: &[],
                reports: false,
                rejection: None,
            };
            let rows: Vec<_> = (0..pass.n_seqs * pass.n_rows).map(row).collect();
            let sampled = self.model.sample(ModelIndex::TARGET, &rows).expect("tokens");
            tokens.extend(sampled.iter().map(|sampled| sampled.token));
        });
        (tokens, time)
    }

    /// Measures one batch and context, and prints a line for each draft and γ.
    fn measure(&mut self, arguments: &Arguments, n_seqs: usize, context: usize) {
        let target = Pass { n_seqs, n_rows: 1, position: context, view: KvView::default() };
        let KvShape { n_layers, n_kv_heads, .. } = self.model.target().kv_shape;
        // The passes alternate, so that a slow moment of the machine affects all of them.
        let mut targets = Vec::new();
        let mut verifies = vec![Vec::new(); arguments.gammas.len()];
        let mut drafts = vec![Vec::new(); arguments.drafts.len()];
        let ids: Vec<Vec<u32>> = arguments
            .drafts
            .iter()
            .map(|draft| draft.ids(context, n_layers * n_kv_heads))
            .collect();
        for turn in 0..=arguments.repeats {
            let (decoded, time) = self.step(target);
            let mut times = vec![time];
            for &gamma in &arguments.gammas {
                let (verified, time) = self.step(Pass { n_rows: gamma + 1, ..target });
                let firsts = verified.iter().step_by(gamma + 1);
                assert!(firsts.eq(&decoded), "a verification samples other tokens than a decode");
                times.push(time);
            }
            for (draft, ids) in arguments.drafts.iter().zip(&ids) {
                let view = draft.view(ids, context, n_kv_heads);
                times.push(self.step(Pass { view, ..target }).1);
            }
            if turn > 0 {
                // The first turn is the warm-up.
                let series = verifies.iter_mut().chain(&mut drafts);
                for (series, time) in std::iter::once(&mut targets).chain(series).zip(times) {
                    series.push(time * 1e3);
                }
            }
        }
        let t_target = median(targets);
        for (draft, times) in arguments.drafts.iter().zip(drafts) {
            let t_draft = median(times);
            for (&gamma, times) in arguments.gammas.iter().zip(&verifies) {
                let t_verify = median(times.clone());
                let alpha = draft.published_acceptance(context);
                let tokens = (1.0 - alpha.powi(gamma as i32 + 1)) / (1.0 - alpha);
                let speedup = t_target * tokens / (gamma as f64 * t_draft + t_verify);
                let share = |n_tokens: usize, time: f64| {
                    let floor = |rate: f64| self.bytes(n_seqs * n_tokens) / rate * 1e3;
                    arguments
                        .bandwidth
                        .map_or(String::new(), |r| format!(" {:.3}", floor(r) / time))
                };
                println!(
                    "{n_seqs} {context} {draft} {gamma} {t_target:.3} {t_draft:.3} {t_verify:.3} {:.3} {alpha} \
                     {speedup:.3}{}{}",
                    t_verify / t_target,
                    share(context, t_target),
                    share(draft.budget(), t_draft),
                );
            }
        }
    }
}

impl Draft {
    /// The selected positions or blocks, for all layers and heads one after the other.
    fn ids(&self, context: usize, n_runs: usize) -> Vec<u32> {
        match self {
            Draft::StreamingLlm(_) => vec![0],
            Draft::SnapKv(budget) => {
                let (n, end) = (budget - SNAP_TAIL, context - SNAP_TAIL);
                // Spread evenly, and different in every layer and head.
                let run = |run: usize| (0..n).map(move |i| (i * end / n + run % (end / n)) as u32);
                (0..n_runs).flat_map(run).collect()
            }
        }
    }

    fn view<'a>(&self, ids: &'a [u32], context: usize, n_kv_heads: usize) -> KvView<'a> {
        match self {
            Draft::StreamingLlm(budget) => KvView {
                selected: Selected::Blocks(SelectedIds::everywhere(ids)),
                tail_start: (context - (budget - BLOCK)) as u32,
            },
            Draft::SnapKv(budget) => {
                // As in the engine, the ids are sent once and then stay on the device.
                let version = (context as u64) << 32 | *budget as u64;
                let selection = SelectedIds { ids, n: budget - SNAP_TAIL, n_kv_heads, version };
                KvView {
                    selected: Selected::Tokens(selection),
                    tail_start: (context - SNAP_TAIL) as u32,
                }
            }
        }
    }
}

/// Latest tokens that a SnapKV view always contains.
const SNAP_TAIL: usize = 32;
