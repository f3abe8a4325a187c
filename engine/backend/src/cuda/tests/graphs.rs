//! Recorded forwards against launched ones, bit for bit, and controls with deliberate bugs.

use super::*;
use crate::cuda::graphs::{ForwardCounts, MAX_KEPT};
use crate::cuda::memory::Buffer;
use crate::{GraphKey, LayerMask, RopeParams, WeightsId};

const VOCAB: usize = 50;
const HIDDEN: usize = 64;
const BLOCK: usize = 16;
const MAX_LOGIT_ROWS: usize = 8;

/// A decoder of two layers that share their weights.
struct Model {
    id: WeightsId,
    n_heads: usize,
    rope: Rope,
    table: Matrix,
    norm: Vector,
    qkv: Matrix,
    output: Matrix,
    x: Tensor,
    normed: Tensor,
    projected: Tensor,
    q: Tensor,
    attended: Tensor,
    logits: Tensor,
    pool: KvPool,
}

impl Model {
    fn new(backend: &mut CudaBackend, values: &mut Values, n_heads: usize, pool: KvPool) -> Self {
        let KvShape { n_kv_heads, head_dim, .. } = pool.shape;
        let (width, out) = ((n_heads + 2 * n_kv_heads) * head_dim, n_heads * head_dim);
        let rows = 512;
        Self {
            id: WeightsId::new(),
            n_heads,
            rope: Rope {
                inv_freq: (0..head_dim / 2).map(|i| 0.5_f32.powi(i as i32)).collect(),
                attention_scale: 1.0,
            },
            table: load(backend, VOCAB, HIDDEN, &values.take(VOCAB * HIDDEN)),
            norm: backend.load_vector(&values.take(HIDDEN)).unwrap(),
            qkv: load(backend, width, HIDDEN, &values.take(width * HIDDEN)),
            output: load(backend, HIDDEN, out, &values.take(HIDDEN * out)),
            x: backend.f32_rows(rows, HIDDEN).unwrap(),
            normed: backend.operand_rows(rows, HIDDEN).unwrap(),
            projected: backend.f32_rows(rows, width).unwrap(),
            q: backend.operand_rows(rows, out).unwrap(),
            attended: backend.operand_rows(rows, out).unwrap(),
            logits: backend.f32_rows(MAX_LOGIT_ROWS, VOCAB).unwrap(),
            pool,
        }
    }

    /// The logits of a batch, as bits. With `How::BakedIn`, `eps` is a position, which launches
    /// take as an argument.
    fn forward(
        &mut self,
        backend: &mut CudaBackend,
        batch: &Batch<'_>,
        layers: LayerMask<'_>,
        how: How,
    ) -> Result<Vec<u32>> {
        let params = AttentionParams { scale: 0.25, window: None };
        backend.begin(batch, &self.pool, &self.rope, self.n_heads, params)?;
        let forward = GraphKey { model: self.id, layers };
        let position = batch.positions[batch.positions.len() - 1];
        let is_baked_in = matches!(how, How::BakedIn | How::BakedInAndLaunched);
        let eps = if is_baked_in { position as f32 } else { 1e-5 };
        let mut work = |backend: &mut CudaBackend| {
            let n_rows = batch.tokens.len();
            backend.embed(&self.table, batch, &mut self.x)?;
            for layer in (0..2).filter(|&layer| layers.attention(layer)) {
                let rope_params = RopeParams { rope: &self.rope, qk_norm: None };
                backend.rms_norm(&self.x, n_rows, &self.norm, eps, &mut self.normed)?;
                backend.linear(&self.normed, n_rows, &self.qkv, None, &mut self.projected)?;
                let (qkv, q) = (&self.projected, &mut self.q);
                backend.rope_and_store_kv(qkv, &rope_params, batch, layer, &mut self.pool, q)?;
                backend.attention(q, &self.pool, layer, batch, params, &mut self.attended)?;
                backend.linear_add(&self.attended, n_rows, &self.output, &mut self.x)?;
            }
            if how == How::ReadsBack {
                backend.read_f32(&self.x, n_rows)?;
            }
            backend.logits(&self.x, &self.norm, eps, &self.table, batch, &mut self.logits)
        };
        if matches!(how, How::Launched | How::BakedInAndLaunched) {
            work(backend)?;
        } else {
            backend.run_forward(&forward, batch, &mut work)?;
        }
        let logits = backend.read_f32(&self.logits, batch.logit_rows.len())?;
        Ok(logits.into_iter().map(f32::to_bits).collect())
    }
}

/// How a test runs its forwards, and its deliberate bugs.
#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    /// Launched without recordings.
    Launched,
    CudaGraphs,
    /// A bug: a value of the batch is a launch argument.
    BakedIn,
    /// The same value as a launch argument, but launched without recordings.
    BakedInAndLaunched,
    /// A bug: a recording outlives the buffer that it reads.
    KeptTooLong,
    /// Reads values back to the host, which no device can record.
    ReadsBack,
}

/// A sequence: the number of cached tokens, and its blocks.
#[derive(Clone)]
struct Sequence {
    n: usize,
    blocks: Vec<u32>,
}

/// Runs rows `n..n + n_rows` of each sequence through a model.
fn pass(
    backend: &mut CudaBackend,
    model: &mut Model,
    seqs: &[(&Sequence, usize)],
    layers: LayerMask<'_>,
    how: How,
) -> Vec<u32> {
    let (mut tokens, mut positions, mut spans, mut logit_rows) = (vec![], vec![], vec![], vec![]);
    for &(seq, n_rows) in seqs {
        spans.push(SeqSpan {
            first_row: tokens.len(),
            n_rows,
            block_table: &seq.blocks,
            writes_kv: true,
            view: KvView::default(),
        });
        positions.extend((seq.n..seq.n + n_rows).map(|p| p as u32));
        let token = |p: usize| InputToken::known((p * 7 + seqs.len()) as u32 % VOCAB as u32);
        tokens.extend((seq.n..seq.n + n_rows).map(token));
        let n_logits = n_rows.min(2);
        logit_rows.extend((tokens.len() - n_logits..tokens.len()).map(|row| row as u32));
    }
    let batch =
        Batch { tokens: &tokens, positions: &positions, seqs: &spans, logit_rows: &logit_rows };
    model.forward(backend, &batch, layers, how).unwrap()
}

/// Two models over one pool: contexts grow past the end of a partition, a layer mask drafts, and
/// sequences leave, return, and move to other blocks.
fn script(how: How) -> (Vec<Vec<u32>>, ForwardCounts) {
    let mut backend = backend().expect("a device");
    let mut values = Values(21);
    let shape = KvShape {
        n_layers: 4,
        n_kv_heads: 2,
        head_dim: 16,
        block_size: BLOCK,
        n_blocks: 60,
        format: KvFormat::Bf16,
    };
    let pool = backend.kv_pool(shape).unwrap();
    let draft_layout = backend.alias_kv_pool(&pool, shape.draft_layout(2, 1, 16).unwrap()).unwrap();
    let mut target = Model::new(&mut backend, &mut values, 4, pool);
    let mut second = Model::new(&mut backend, &mut values, 3, draft_layout);
    let (all, some) =
        (LayerMask::All, LayerMask::Only { attention: &[true, false], mlp: &[true, true] });
    let mut seqs = [
        Sequence { n: 492, blocks: (0..36).collect() },
        Sequence { n: 20, blocks: vec![40, 37, 45, 38] },
        Sequence { n: 3, blocks: vec![41, 39, 46, 43] },
    ];
    // One block of the pool holds four blocks of the draft model.
    let mut own = Sequence { n: 30, blocks: (50..58).collect() };
    let mut out = Vec::new();
    for seq in &seqs {
        let prompt = Sequence { n: 0, ..seq.clone() };
        out.push(pass(&mut backend, &mut target, &[(&prompt, seq.n)], all, how));
    }
    let prompt = Sequence { n: 0, ..own.clone() };
    out.push(pass(&mut backend, &mut second, &[(&prompt, own.n)], all, how));
    let mut replaced = Vec::new();
    for step in 0..36 {
        if step == 12 {
            // The sequence is preempted, and computed again in other blocks.
            seqs[1].blocks = vec![49, 48, 47, 44];
            let prompt = Sequence { n: 0, ..seqs[1].clone() };
            out.push(pass(&mut backend, &mut target, &[(&prompt, seqs[1].n)], all, how));
        }
        if step == 24 {
            replaced.push(replace_blob(&mut backend));
        }
        let running = if (16..30).contains(&step) { &seqs[..2] } else { &seqs[..] };
        let draft: Vec<_> = running.iter().map(|seq| (seq, 1)).collect();
        let verified: Vec<_> = running.iter().map(|seq| (seq, 2)).collect();
        out.push(pass(&mut backend, &mut target, &draft, some, how));
        out.push(pass(&mut backend, &mut second, &[(&own, 1)], all, how));
        out.push(pass(&mut backend, &mut target, &verified, all, how));
        let n_running = running.len();
        seqs[..n_running].iter_mut().for_each(|seq| seq.n += 1);
        own.n += 1;
    }
    (out, backend.forward_counts())
}

#[test]
fn replayed_forwards_have_the_bits_of_launched_ones() {
    if backend().is_none() {
        return;
    }
    let (expected, counts) = script(How::Launched);
    assert_eq!(counts, ForwardCounts::default());
    let (got, counts) = script(How::CudaGraphs);
    assert!(expected == got);
    println!("{counts:?}");
    // 108 forwards and 5 prompts. Most repeat the shape of an earlier forward.
    assert_eq!(counts.launched + counts.graphs + counts.replayed, 113);
    assert!(counts.replayed > 70 && counts.graphs > 4, "{counts:?}");
}

/// Replaces the blob by a larger one. Returns the old blob, so that its address is not used again.
fn replace_blob(backend: &mut CudaBackend) -> Buffer {
    let blob = backend.metadata.blob.take().unwrap();
    backend.metadata.blob.get(&backend.device, 2 * blob.len()).unwrap();
    blob
}

/// The controls: a recording that holds a value of its batch, and one that outlives its buffer.
#[test]
fn stale_recordings_are_noticed() {
    if backend().is_none() {
        return;
    }
    let run = |how: How| {
        let mut backend = backend().expect("a device");
        backend.graphs.ignores_buffers = how == How::KeptTooLong;
        let mut model = single(&mut backend);
        let mut replaced = None;
        let step = |n: usize| {
            if n == 8 {
                replaced = Some(replace_blob(&mut backend));
            }
            pass(&mut backend, &mut model, &[(&decode(n).0, 1)], LayerMask::All, how)
        };
        let out: Vec<_> = (0..16).map(step).collect();
        drop(replaced);
        (out, backend.forward_counts())
    };
    let (expected, counts) = run(How::CudaGraphs);
    assert_eq!(counts, ForwardCounts { launched: 3, graphs: 2, replayed: 11 });
    assert!(expected == run(How::Launched).0);
    let (got, counts) = run(How::KeptTooLong);
    assert_eq!(counts.replayed, 14);
    assert!(got[..8] == expected[..8] && got[8] == got[7] && got[8] != expected[8]);
    let (got, counts) = run(How::BakedIn);
    assert_eq!(counts.replayed, 11);
    let launched = run(How::BakedInAndLaunched).0;
    assert!(got[2] == launched[2] && got[3] != launched[3], "as it was when it was recorded");
}

/// A sequence with 20 + `n` cached tokens, and the position of its next row.
fn decode(n: usize) -> (Sequence, [u32; 1]) {
    (Sequence { n: 20 + n, blocks: (0..4).collect() }, [20 + n as u32])
}

fn single(backend: &mut CudaBackend) -> Model {
    let shape = KvShape { n_layers: 2, ..one_head_shape(4) };
    let pool = backend.kv_pool(shape).unwrap();
    Model::new(backend, &mut Values(22), 2, pool)
}

#[test]
fn what_cannot_be_recorded_is_launched_and_said() {
    if backend().is_none() {
        return;
    }
    let run = |how: How| {
        let mut backend = backend().expect("a device");
        let mut model = single(&mut backend);
        let all = LayerMask::All;
        let pass = |n: usize| pass(&mut backend, &mut model, &[(&decode(n).0, 1)], all, how);
        let out: Vec<_> = (0..5).map(pass).collect();
        (out, backend.forward_counts(), backend.description())
    };
    let (expected, counts, text) = run(How::CudaGraphs);
    // The first forward allocates the rows for the output head, which changes the key.
    assert_eq!(counts, ForwardCounts { launched: 2, graphs: 1, replayed: 2 });
    assert!(!text.contains("recorded"), "{text}");
    let (got, counts, text) = run(How::ReadsBack);
    assert!(expected == got);
    assert_eq!(counts, ForwardCounts { launched: 5, graphs: 0, replayed: 0 });
    assert!(text.contains("forwards not recorded: copying from the device"), "{text}");
}

#[test]
fn a_replay_checks_what_launches_check() {
    if backend().is_none() {
        return;
    }
    let mut backend = backend().expect("a device");
    let mut model = single(&mut backend);
    let mut run = |n: usize, token: u32| {
        let (seq, positions) = decode(n);
        let view = KvView::default();
        let seqs =
            [SeqSpan { first_row: 0, n_rows: 1, block_table: &seq.blocks, writes_kv: true, view }];
        let tokens = [InputToken::known(token)];
        let batch = Batch { tokens: &tokens, positions: &positions, seqs: &seqs, logit_rows: &[0] };
        model.forward(&mut backend, &batch, LayerMask::All, How::CudaGraphs)
    };
    for n in 0..4 {
        run(n, VOCAB as u32 - 1).unwrap();
    }
    let error = run(4, VOCAB as u32).unwrap_err().to_string();
    assert!(error.contains("token ids below 50"), "{error}");
    assert!(run(44, 0).is_err(), "a position without a block");
    run(4, 0).unwrap();
    assert_eq!(backend.forward_counts(), ForwardCounts { launched: 2, graphs: 1, replayed: 2 });
}

#[test]
fn the_least_recently_used_recording_makes_room() {
    if backend().is_none() {
        return;
    }
    let mut backend = backend().expect("a device");
    let mut model = single(&mut backend);
    let mut run = |id: WeightsId, n: usize| {
        model.id = id;
        pass(&mut backend, &mut model, &[(&decode(n).0, 1)], LayerMask::All, How::CudaGraphs);
        backend.forward_counts()
    };
    run(WeightsId::new(), 0); // allocates the working memory
    let first = WeightsId::new();
    let ids: Vec<WeightsId> = (1..MAX_KEPT).map(|_| WeightsId::new()).collect();
    for id in [first].iter().chain(&ids) {
        run(*id, 1);
        run(*id, 1);
    }
    let full = run(first, 2);
    assert_eq!((full.graphs, full.replayed), (MAX_KEPT as u64, 1));
    let another = WeightsId::new();
    run(another, 2);
    run(another, 2);
    assert_eq!(run(first, 3).replayed, 2, "used a short while ago");
    let counts = run(ids[0], 3);
    assert_eq!((counts.replayed, counts.launched), (2, full.launched + 2), "it made room");
}
