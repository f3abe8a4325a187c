//! Helpers of tests across crates: the tiny models, their reference values, and a plain way to run
//! a model without an engine.

use galley_backend::cpu::{CpuConfig, InstructionSet};
use galley_backend::{
    Batch, Formats, InputToken, KvView, LayerMask, OperandFormat, SeqSpan, WeightFormat,
};
use galley_model::weights::Checkpoint;
use galley_model::{Device, LanguageModel, LoadOptions, ModelIndex, load};
use safetensors::SafeTensors;
use std::path::PathBuf;

mod around;
pub mod failing;
pub mod plugins;
pub mod runs;
pub mod same_bytes;
pub mod soak;
pub mod texts;

/// Directories and files of `tests/data/models`, one per family and format, and for each the
/// directory that holds its reference.
pub const TINY_MODELS: [(&str, &str); 8] = [
    ("llama2", "llama2"),
    ("llama3", "llama3"),
    ("mistral", "mistral"),
    ("qwen2", "qwen2"),
    ("qwen3", "qwen3"),
    ("smollm2", "smollm2"),
    ("odd", "odd"),
    ("smollm2.gguf", "smollm2"),
];

/// A model of `tests/data/models` with weights in every quantised format, and the directory that holds
/// its reference. `tests/oracle/make_quantised_model.py` documents it.
pub const QUANTISED: (&str, &str) = ("quantised/model.gguf", "quantised");

/// A file or directory of `tests/data`.
pub fn data(name: &str) -> PathBuf {
    let here = || PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    carried().map_or_else(here, |root| root.join("tests")).join("data").join(name)
}

/// The folder in `GALLEY_TEST_ROOT`, for tests that were carried to a machine without this
/// repository. It holds `tests/data`, and the drafters in `bin`.
fn carried() -> Option<PathBuf> {
    std::env::var_os("GALLEY_TEST_ROOT").map(PathBuf::from)
}

/// The instruction sets of this machine, best first.
pub fn instruction_sets() -> impl Iterator<Item = InstructionSet> {
    InstructionSet::ALL.into_iter().filter(|isa| isa.is_available())
}

/// The instruction sets of this machine whose kernels of floats are different code.
pub fn float_instruction_sets() -> impl Iterator<Item = InstructionSet> {
    instruction_sets().filter(|isa| isa.of_same_bits() == *isa)
}

/// Weights in a format, with operands and the KV cache in `dtype`.
pub fn weights_in(weights: WeightFormat, dtype: OperandFormat) -> Formats {
    Formats::new(dtype, Some(weights)).expect("formats that go together")
}

/// A CPU configuration.
pub fn cpu(isa: Option<InstructionSet>, formats: Formats, n_threads: usize) -> CpuConfig {
    CpuConfig::default().n_threads(n_threads).instruction_set(isa).formats(formats)
}

/// The CPU with its best instruction set.
pub fn on_cpu(formats: Formats, n_threads: usize) -> Device {
    cpu(None, formats, n_threads).into()
}

/// The GPU with the number in `GALLEY_TEST_GPU`, if that is set.
#[cfg(feature = "cuda")]
pub fn gpu() -> Option<Device> {
    use galley_backend::cuda::{CudaConfig, CudaDevice};
    std::env::var("GALLEY_TEST_GPU").ok().map(|number| {
        let number = number.parse().expect("GALLEY_TEST_GPU is the number of a GPU");
        CudaConfig::new(CudaDevice::Gpu(number)).into()
    })
}

/// Loads a tiny model with a pool of 64 blocks of 16 tokens.
pub fn load_tiny(name: &str, device: impl Into<Device>) -> Box<dyn LanguageModel> {
    let checkpoint = Checkpoint::open(&data("models").join(name)).expect("a tiny model");
    let options = LoadOptions::new(16, 64).max_rows(128).max_logit_rows(128);
    load(&checkpoint, device, options, &mut |_, _| {}).expect("a tiny model loads")
}

/// A sequence that transformers computed in float32.
pub struct Reference {
    /// The prompt.
    pub tokens: Vec<u32>,
    /// Positions with known logits.
    pub positions: Vec<u32>,
    /// The logits at these positions, one row each.
    pub logits: Vec<Vec<f32>>,
    /// Greedy continuation of the prompt.
    pub greedy: Vec<u32>,
}

/// The two reference sequences of a tiny model.
pub fn references(name: &str) -> Vec<Reference> {
    let bytes = std::fs::read(data("models").join(name).join("reference.safetensors"))
        .expect("reference logits");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let words = |name: String| -> Vec<[u8; 4]> {
        file.tensor(&name).expect("a reference tensor").data().as_chunks::<4>().0.to_vec()
    };
    let ids = |name: String| words(name).into_iter().map(u32::from_le_bytes).collect::<Vec<_>>();
    (0..2)
        .map(|i| {
            let positions = ids(format!("seq{i}.positions"));
            let logits: Vec<f32> =
                words(format!("seq{i}.logits")).into_iter().map(f32::from_le_bytes).collect();
            let vocab = logits.len() / positions.len();
            Reference {
                tokens: ids(format!("seq{i}.tokens")),
                logits: logits.chunks(vocab).map(<[f32]>::to_vec).collect(),
                positions,
                greedy: ids(format!("seq{i}.greedy")),
            }
        })
        .collect()
}

/// Runs `tokens` through blocks `0..` of the pool in chunks of at most `chunk` rows and returns
/// the logits of every position.
pub fn run_prompt(model: &mut dyn LanguageModel, tokens: &[u32], chunk: usize) -> Vec<Vec<f32>> {
    let mut all = Vec::new();
    for (i, tokens) in tokens.chunks(chunk).enumerate() {
        let rows: Vec<u32> = (0..tokens.len() as u32).collect();
        all.extend(run_rows(model, tokens, i * chunk, chunk, &rows));
    }
    all
}

/// Runs `tokens` from position `first` on, in chunks of at most `chunk` rows, and returns the
/// logits of `logit_rows` of the last chunk.
pub fn run_rows(
    model: &mut dyn LanguageModel,
    tokens: &[u32],
    first: usize,
    chunk: usize,
    logit_rows: &[u32],
) -> Vec<Vec<f32>> {
    let block_table: Vec<u32> = (0..model.target().kv_shape.n_blocks as u32).collect();
    let n_chunks = tokens.len().div_ceil(chunk);
    for (i, tokens) in tokens.chunks(chunk).enumerate() {
        let start = (first + i * chunk) as u32;
        let tokens: Vec<_> = tokens.iter().copied().map(InputToken::known).collect();
        let positions: Vec<u32> = (start..start + tokens.len() as u32).collect();
        let view = KvView::default();
        let seqs = [SeqSpan {
            first_row: 0,
            n_rows: tokens.len(),
            block_table: &block_table,
            writes_kv: true,
            view,
        }];
        let logit_rows = if i + 1 == n_chunks { logit_rows } else { &[] };
        let batch = Batch { tokens: &tokens, positions: &positions, seqs: &seqs, logit_rows };
        model.forward(ModelIndex::TARGET, &batch, &LayerMask::All, &mut []).expect("a forward");
    }
    let logits = model.read_logits(ModelIndex::TARGET).expect("logits");
    logits.chunks(model.target().config.vocab_size).map(<[f32]>::to_vec).collect()
}

/// Largest difference over the largest logit of the row.
pub fn relative_error(expected: &[f32], got: &[f32]) -> f32 {
    assert_eq!(expected.len(), got.len());
    let size = expected.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
    expected.iter().zip(got).fold(0.0_f32, |m, (e, g)| m.max((e - g).abs())) / size
}

/// Index of the largest value; the first such index if there are several.
pub fn argmax(values: &[f32]) -> u32 {
    let mut best = 0;
    for (i, x) in values.iter().enumerate() {
        if *x > values[best] {
            best = i;
        }
    }
    best as u32
}
