//! The one decoder definition of the Llama family.
//!
//! ```text
//! x = embed(tokens)
//! each layer:  x += o_proj(attention(rope(qkv_proj(norm(x)))))
//!              x += down_proj(silu(gate_proj(norm(x))) · up_proj(norm(x)))
//! logits = lm_head(norm(x))
//! ```
//!
//! Families differ in constants and in two optional steps (biases, norms on query and key heads).
//! Target, self-speculation, layer-skip and draft models are this forward with another view, mask,
//! row count or set of weights.

use crate::config::ModelConfig;
use crate::language_model::LoadOptions;
use crate::weights::{Checkpoint, MatrixRows};
use crate::{ModelError, Result};
use galley_backend::{
    AttentionParams, Batch, DecoderOps, DeviceMemory, GraphKey, LayerMask, Observation, QkNorm,
    Rope, RopeParams, WeightsId,
};

/// Weights and activations of one model. [`ModelHost`](crate::model_host::ModelHost) owns its KV pool.
pub(crate) struct Decoder<B: DeviceMemory> {
    id: WeightsId,
    pub(crate) config: ModelConfig,
    rope: Rope,
    embedding: B::Matrix,
    layers: Vec<Layer<B>>,
    norm: B::Vector,
    /// `None` if the embedding is the output head.
    head: Option<B::Matrix>,
    n_logit_rows: usize,
    activations: Activations<B>,
}

struct Layer<B: DeviceMemory> {
    attention_norm: B::Vector,
    /// Queries, keys and values: `(n_heads + 2 n_kv_heads) · head_dim × hidden`.
    qkv: B::Matrix,
    qkv_bias: Option<B::Vector>,
    qk_norm: Option<(B::Vector, B::Vector)>,
    output: B::Matrix,
    mlp_norm: B::Vector,
    gate_up: B::Matrix,
    down: B::Matrix,
}

/// Tensors of one forward, allocated once.
struct Activations<B: DeviceMemory> {
    /// The residual stream, f32, `rows × hidden`.
    x: B::Tensor,
    /// The normalised residual stream: operand of the projections, `rows × hidden`.
    normed: B::Tensor,
    /// f32, `rows × (n_heads + 2 n_kv_heads) · head_dim`.
    qkv: B::Tensor,
    /// Rotated queries: operand, `rows × n_heads · head_dim`.
    q: B::Tensor,
    /// Output of attention: operand, `rows × n_heads · head_dim`.
    attended: B::Tensor,
    /// Operand, `rows × intermediate`.
    gated: B::Tensor,
    /// f32, `logit rows × vocabulary`.
    logits: B::Tensor,
}

impl<B: DecoderOps> Decoder<B> {
    /// Packs the weights of `checkpoint`, tensor by tensor; `progress(done, total)` counts layers.
    pub(crate) fn load(
        backend: &mut B,
        checkpoint: &Checkpoint,
        options: &LoadOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        checkpoint.check_complete()?;
        let config = checkpoint.config().clone();
        let (hidden, dim) = (config.hidden_size, config.head_dim);
        let (n_q, n_kv) = (config.n_heads * dim, config.n_kv_heads * dim);
        let total = config.n_layers + 1;
        progress(0, total);
        backend.begin_model(checkpoint.packed_bytes(backend.formats()), checkpoint.has_blocks());
        let mut loader = WeightLoader { backend, checkpoint };
        let embedding = loader.table("model.embed_tokens.weight", config.vocab_size, hidden)?;
        let head = match config.tie_embeddings {
            true => None,
            false => Some(loader.table("lm_head.weight", config.vocab_size, hidden)?),
        };
        let norm = loader.vector("model.norm.weight", hidden)?;
        let mut layers = Vec::with_capacity(config.n_layers);
        for i in 0..config.n_layers {
            progress(i + 1, total);
            let name = |part: &str| format!("model.layers.{i}.{part}");
            let projections = ["q", "k", "v"].map(|p| name(&format!("self_attn.{p}_proj")));
            let widths = [n_q, n_kv, n_kv];
            layers.push(Layer {
                attention_norm: loader.vector(&name("input_layernorm.weight"), hidden)?,
                qkv: loader.stacked_matrix(&projections, widths, hidden)?,
                qkv_bias: match config.qkv_bias {
                    true => Some(loader.stacked_vector(&projections, widths)?),
                    false => None,
                },
                qk_norm: match config.qk_norm {
                    true => Some((
                        loader.vector(&name("self_attn.q_norm.weight"), dim)?,
                        loader.vector(&name("self_attn.k_norm.weight"), dim)?,
                    )),
                    false => None,
                },
                output: loader.matrix(&name("self_attn.o_proj.weight"), hidden, n_q)?,
                mlp_norm: loader.vector(&name("post_attention_layernorm.weight"), hidden)?,
                gate_up: loader.gated(
                    &name("mlp.gate_proj.weight"),
                    &name("mlp.up_proj.weight"),
                    config.intermediate_size,
                    hidden,
                )?,
                down: loader.matrix(
                    &name("mlp.down_proj.weight"),
                    hidden,
                    config.intermediate_size,
                )?,
            });
        }
        progress(total, total);
        let rows = options.max_rows;
        let activations = Activations {
            x: backend.f32_rows(rows, hidden)?,
            normed: backend.operand_rows(rows, hidden)?,
            qkv: backend.f32_rows(rows, n_q + 2 * n_kv)?,
            q: backend.query_rows(rows, n_q)?,
            attended: backend.operand_rows(rows, n_q)?,
            gated: backend.operand_rows(rows, config.intermediate_size)?,
            logits: backend.f32_rows(options.max_logit_rows, config.vocab_size)?,
        };
        let rope = Rope {
            inv_freq: config.rope_inv_freq(),
            attention_scale: config.rope_attention_scale(),
        };
        let id = WeightsId::new();
        Ok(Self { id, config, rope, embedding, layers, norm, head, n_logit_rows: 0, activations })
    }

    /// Runs the layers over `pool`, selects tokens for the observations, and leaves one row of
    /// logits for each entry of `batch.logit_rows`.
    pub(crate) fn forward(
        &mut self,
        backend: &mut B,
        pool: &mut B::KvPool,
        batch: &Batch<'_>,
        mask: &LayerMask<'_>,
        observations: &mut [Observation<'_>],
    ) -> Result<()> {
        let config = &self.config;
        let scale = 1.0 / (config.head_dim as f32).sqrt();
        let params = AttentionParams { scale, window: config.sliding_window };
        backend.begin(batch, pool, &self.rope, config.n_heads, params)?;
        self.n_logit_rows = batch.logit_rows.len();
        if observations.is_empty() {
            let forward = GraphKey { model: self.id, layers: *mask };
            let mut work = |backend: &mut B| self.run(backend, pool, batch, params, mask, &mut []);
            backend.run_forward(&forward, batch, &mut work)?;
        } else {
            self.run(backend, pool, batch, params, mask, observations)?;
        }
        Ok(())
    }

    /// The operations of a forward, on the batch of the last [`DecoderOps::begin`].
    fn run(
        &mut self,
        backend: &mut B,
        pool: &mut B::KvPool,
        batch: &Batch<'_>,
        params: AttentionParams,
        mask: &LayerMask<'_>,
        observations: &mut [Observation<'_>],
    ) -> galley_backend::Result<()> {
        let a = &mut self.activations;
        let n_rows = batch.tokens.len();
        let eps = self.config.rms_norm_eps;
        backend.embed(&self.embedding, batch, &mut a.x)?;
        for (i, layer) in self.layers.iter().enumerate() {
            if mask.attention(i) {
                let qk_norm = layer.qk_norm.as_ref().map(|(q, k)| QkNorm { q, k, eps });
                let rope_params = RopeParams { rope: &self.rope, qk_norm };
                backend.rms_norm(&a.x, n_rows, &layer.attention_norm, eps, &mut a.normed)?;
                backend.linear(
                    &a.normed,
                    n_rows,
                    &layer.qkv,
                    layer.qkv_bias.as_ref(),
                    &mut a.qkv,
                )?;
                backend.rope_and_store_kv(&a.qkv, &rope_params, batch, i, pool, &mut a.q)?;
                let (q, out) = (&a.q, &mut a.attended);
                match observations.is_empty() {
                    true => backend.attention(q, pool, i, batch, params, out)?,
                    false => {
                        backend.observed_attention(q, pool, i, batch, params, observations, out)?
                    }
                }
                backend.linear_add(&a.attended, n_rows, &layer.output, &mut a.x)?;
            }
            if mask.mlp(i) {
                backend.rms_norm(&a.x, n_rows, &layer.mlp_norm, eps, &mut a.normed)?;
                backend.linear_silu_mul(&a.normed, n_rows, &layer.gate_up, &mut a.gated)?;
                backend.linear_add(&a.gated, n_rows, &layer.down, &mut a.x)?;
            }
        }
        let head = self.head.as_ref().unwrap_or(&self.embedding);
        backend.logits(&a.x, &self.norm, eps, head, batch, &mut a.logits)
    }

    /// Logits of the last forward, and their number of f32 rows.
    pub(crate) fn logits(&self) -> (&B::Tensor, usize) {
        (&self.activations.logits, self.n_logit_rows)
    }

    /// Bytes of packed weights.
    pub(crate) fn weight_bytes(&self, backend: &B) -> usize {
        let unread = match &self.head {
            None => 0,
            Some(_) => backend.matrix_bytes(&self.embedding),
        };
        self.step_weight_bytes(backend) + unread
    }

    /// Bytes of packed weights that a step reads ([`LoadedModel::step_weight_bytes`]).
    ///
    /// [`LoadedModel::step_weight_bytes`]: crate::LoadedModel::step_weight_bytes
    pub(crate) fn step_weight_bytes(&self, backend: &B) -> usize {
        let layers = self.layers.iter().flat_map(|l| [&l.qkv, &l.output, &l.gate_up, &l.down]);
        let head = self.head.as_ref().unwrap_or(&self.embedding);
        layers.chain([head]).map(|m| backend.matrix_bytes(m)).sum()
    }
}

/// Moves tensors from a checkpoint to a device, one at a time.
struct WeightLoader<'a, B: DeviceMemory> {
    backend: &'a mut B,
    checkpoint: &'a Checkpoint,
}

impl<B: DeviceMemory> WeightLoader<'_, B> {
    fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<B::Matrix> {
        let source = MatrixRows::new(vec![self.checkpoint.tensor(name, &[rows, cols])?]);
        let matrix = self.backend.load_matrix(rows, cols, &source)?;
        source.finish()?;
        Ok(matrix)
    }

    /// A matrix with a row for each token.
    fn table(&mut self, name: &str, rows: usize, cols: usize) -> Result<B::Matrix> {
        let source = MatrixRows::new(vec![self.checkpoint.tensor(name, &[rows, cols])?]);
        let table = self.backend.load_table(rows, cols, &source)?;
        source.finish()?;
        Ok(table)
    }

    /// Stacks three matrices by rows into one, for a single product.
    fn stacked_matrix(
        &mut self,
        names: &[String; 3],
        rows: [usize; 3],
        cols: usize,
    ) -> Result<B::Matrix> {
        let mut parts = Vec::new();
        for (name, &rows) in names.iter().zip(&rows) {
            parts.push(self.checkpoint.tensor(&format!("{name}.weight"), &[rows, cols])?);
        }
        let source = MatrixRows::new(parts);
        let matrix = self.backend.load_matrix(rows.iter().sum(), cols, &source)?;
        source.finish()?;
        Ok(matrix)
    }

    fn gated(&mut self, gate: &str, up: &str, rows: usize, cols: usize) -> Result<B::Matrix> {
        let gate = MatrixRows::new(vec![self.checkpoint.tensor(gate, &[rows, cols])?]);
        let up = MatrixRows::new(vec![self.checkpoint.tensor(up, &[rows, cols])?]);
        let matrix = self.backend.load_gated(rows, cols, &gate, &up)?;
        gate.finish()?;
        up.finish()?;
        Ok(matrix)
    }

    fn read_vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let tensor = self.checkpoint.tensor(name, &[len])?;
        let mut values = vec![0.0; len];
        tensor.read_row(0, &mut values);
        match values.iter().position(|v| !v.is_finite()) {
            None => Ok(values),
            Some(i) => Err(ModelError::invalid(
                self.checkpoint.path(),
                name,
                format!("value {i} is {}, not a finite number", values[i]),
            )),
        }
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<B::Vector> {
        let values = self.read_vector(name, len)?;
        Ok(self.backend.load_vector(&values)?)
    }

    fn stacked_vector(&mut self, names: &[String; 3], lens: [usize; 3]) -> Result<B::Vector> {
        let mut values = Vec::new();
        for (name, len) in names.iter().zip(lens) {
            values.extend(self.read_vector(&format!("{name}.bias"), len)?);
        }
        Ok(self.backend.load_vector(&values)?)
    }
}
