//! Scaled rotary embeddings compared with transformers in float32, beyond the original context.
//! `tests/oracle/make_rope.py` documents how each reference was made.

#[path = "../engine/model/tests/common/edit.rs"]
mod edit;

use edit::GgufCopy;
use galley_backend::Formats;
use galley_model::config::RopeScaling;
use galley_model::weights::Checkpoint;
use galley_model::{Device, LoadOptions, load};
use galley_tests::{cpu, data, on_cpu, relative_error, run_prompt};
use safetensors::SafeTensors;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// The results of transformers for a sequence.
struct Reference {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    logits: Vec<Vec<f32>>,
    inv_freq: Vec<f32>,
    scale: f32,
}

impl Reference {
    fn read(variant: &str) -> Self {
        let path = data("rope").join(variant).join("reference.safetensors");
        let bytes = fs::read(path).expect("a reference");
        let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let words = |name: &str| -> Vec<u32> {
            let data = file.tensor(name).expect("a tensor").data();
            data.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
        };
        let floats = |name: &str| words(name).into_iter().map(f32::from_bits).collect::<Vec<_>>();
        let (positions, logits) = (words("positions"), floats("logits"));
        let vocab = logits.len() / positions.len();
        Self {
            tokens: words("tokens"),
            logits: logits.chunks(vocab).map(<[f32]>::to_vec).collect(),
            positions,
            inv_freq: floats("inv_freq"),
            scale: floats("scale")[0],
        }
    }

    /// The largest relative error of a model's logits, with the prompt in chunks of `chunk` tokens.
    fn worst_error(&self, checkpoint: &Checkpoint, device: impl Into<Device>, chunk: usize) -> f32 {
        let options = LoadOptions::new(16, 8).max_rows(128).max_logit_rows(128);
        let mut model = load(checkpoint, device, options, &mut |_, _| {}).expect("a model");
        let logits = run_prompt(&mut *model, &self.tokens, chunk);
        let rows = self.positions.iter().zip(&self.logits);
        rows.map(|(&position, expected)| relative_error(expected, &logits[position as usize]))
            .fold(0.0, f32::max)
    }
}

/// The model of a variant: its configuration together with the weights of a tiny model.
fn variant(name: &str, base: &str) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let weights = "model.safetensors";
    fs::copy(data("models").join(base).join(weights), directory.path().join(weights))
        .expect("a copy");
    let config = "config.json";
    fs::copy(data("rope").join(name).join(config), directory.path().join(config)).expect("a copy");
    directory
}

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path).unwrap_or_else(|error| panic!("{error}"))
}

/// Name, tiny model, longest context, and the context with which the comparison opens the model.
const VARIANTS: [(&str, &str, usize, usize); 6] = [
    ("yarn-qwen", "qwen2", 160, 160),
    ("yarn-mscale", "smollm2", 256, 75),
    ("yarn-ratio", "qwen3", 160, 160),
    ("yarn-gguf", "smollm2", 256, 256),
    ("dynamic", "smollm2", 80, 75),
    ("dynamic-qwen3", "qwen3", 132, 75),
];

fn assert_agrees(name: &str, reference: &Reference, checkpoint: &Checkpoint) {
    let config = checkpoint.config();
    let frequencies = config.rope_inv_freq();
    assert_eq!(frequencies.len(), reference.inv_freq.len(), "{name}");
    for (i, (found, expected)) in frequencies.iter().zip(&reference.inv_freq).enumerate() {
        assert!((found / expected - 1.0).abs() < 1e-6, "{name} {i}: {found}, not {expected}");
    }
    assert!((config.rope_attention_scale() / reference.scale - 1.0).abs() < 1e-6, "{name}");
    let exact = reference.worst_error(checkpoint, cpu(None, Formats::F32, 2), 32);
    let rounded = reference.worst_error(checkpoint, cpu(None, Formats::BF16, 2), 32);
    println!("{name:14} f32 {exact:.1e}  bf16 {rounded:.1e}");
    assert!(exact < 1e-4, "{name}: {exact}");
    assert!(rounded < 0.05, "{name} in bf16: {rounded}");
}

#[test]
fn logits_beyond_the_original_context_agree_with_transformers() {
    for (name, base, longest, opened) in VARIANTS {
        let reference = Reference::read(name);
        let directory = variant(name, base);
        let mut checkpoint = open(directory.path());
        assert_eq!(checkpoint.config().max_context, longest, "{name}");
        checkpoint.set_max_context(opened).expect("a context");
        assert_agrees(name, &reference, &checkpoint);
    }
}

/// The comparison notices a missing scaling, and a scaling for another context.
#[test]
fn other_frequencies_do_not_agree() {
    for (name, base, ..) in VARIANTS {
        let reference = Reference::read(name);
        let error =
            reference.worst_error(&open(&data("models").join(base)), on_cpu(Formats::F32, 2), 32);
        assert!(error > 0.01, "{name} without scaling: {error}");
    }
    let reference = Reference::read("dynamic");
    let directory = variant("dynamic", "smollm2");
    for context in [80, 74, 40] {
        let mut checkpoint = open(directory.path());
        checkpoint.set_max_context(context).expect("a context");
        let error = reference.worst_error(&checkpoint, on_cpu(Formats::F32, 2), 32);
        assert!(error > 2e-4, "opened for {context} tokens: {error}");
    }
}

/// If a frequency followed the length of a sequence, the first tokens of a prompt, already in the
/// cache, would be rotated differently from the last.
#[test]
fn a_dynamic_model_gives_the_same_bits_however_a_prompt_is_chunked() {
    let directory = variant("dynamic", "smollm2");
    let checkpoint = open(directory.path());
    let reference = Reference::read("dynamic");
    let run = |chunk| {
        let options = LoadOptions::new(16, 8).max_rows(128).max_logit_rows(128);
        let mut model =
            load(&checkpoint, on_cpu(Formats::BF16, 1), options, &mut |_, _| {}).expect("a model");
        run_prompt(&mut *model, &reference.tokens, chunk)
    };
    let whole = run(75);
    for chunk in [1, 7, 41] {
        assert!(run(chunk) == whole, "chunks of {chunk}");
    }
}

/// The same settings under the keys of a GGUF file, some of them left to llama.cpp's defaults.
#[test]
fn yarn_of_a_gguf_file_agrees_with_transformers() {
    let scratch = tempfile::tempdir().expect("a directory");
    let path = scratch.path().join("yarn.gguf");
    let edited = || {
        GgufCopy::of(&data("models").join("smollm2.gguf"))
            .add_text("llama.rope.scaling.type", "yarn")
            .add_f32("llama.rope.scaling.factor", 4.0)
            .add_u32("llama.rope.scaling.original_context_length", 64)
    };
    let reference = Reference::read("yarn-gguf");
    edited().write(&path);
    assert_eq!(open(&path).config().max_context, 256);
    assert_agrees("yarn.gguf", &reference, &open(&path));
    edited()
        .add_f32("llama.rope.scaling.attn_factor", 1.0)
        .add_f32("llama.rope.scaling.yarn_beta_fast", 32.0)
        .add_f32("llama.rope.scaling.yarn_beta_slow", 1.0)
        .add_f32("llama.rope.scaling.yarn_ext_factor", 1.0)
        .write(&path);
    assert_agrees("yarn.gguf", &reference, &open(&path));

    // The control: each of these settings matters.
    let worst = |file: GgufCopy| {
        file.write(&path);
        reference.worst_error(&open(&path), on_cpu(Formats::F32, 2), 32)
    };
    let beta = worst(edited().add_f32("llama.rope.scaling.yarn_beta_slow", 4.0));
    let scale = worst(edited().add_f32("llama.rope.scaling.attn_factor", 0.9));
    assert!(beta > 0.01 && scale > 0.01, "{beta} {scale}");
}

/// The CUDA backend implements RoPE too; the scale of cosines and sines matters there as well.
#[test]
#[cfg(feature = "emulate")]
fn logits_on_the_emulated_device_agree_with_transformers() {
    use galley_backend::cuda::{CudaConfig, CudaDevice};
    let (name, base, _, opened) = VARIANTS[1];
    let reference = Reference::read(name);
    let directory = variant(name, base);
    let mut checkpoint = open(directory.path());
    checkpoint.set_max_context(opened).expect("a context");
    let error = reference.worst_error(&checkpoint, CudaConfig::new(CudaDevice::Emulated), 32);
    assert!(error < 0.05, "{error}");
    let unscaled = open(&data("models").join(base));
    let error = reference.worst_error(&unscaled, CudaConfig::new(CudaDevice::Emulated), 32);
    assert!(error > 0.1, "without scaling: {error}");
}

/// Without an original length in the file, the model's own context is stretched.
#[test]
fn a_context_is_as_long_as_its_scaling_says() {
    let scratch = tempfile::tempdir().expect("a directory");
    let path = scratch.path().join("a.gguf");
    let factor = |kind: &str| {
        GgufCopy::of(&data("models").join("smollm2.gguf"))
            .add_text("llama.rope.scaling.type", kind)
            .add_f32("llama.rope.scaling.factor", 4.0)
    };
    factor("yarn").write(&path);
    let mut checkpoint = open(&path);
    assert_eq!(checkpoint.config().max_context, 1024);
    let error = checkpoint.set_max_context(1025).expect_err("too long").to_string();
    assert!(error.contains("a context of 1025 tokens") && error.contains("1 to 1024"), "{error}");
    assert!(checkpoint.set_max_context(0).is_err());
    checkpoint.set_max_context(7).expect("a context");
    assert_eq!(checkpoint.config().max_context, 7);

    // `linear`: the model is tuned to the length in the file, but the context may be longer.
    factor("linear").write(&path);
    let mut checkpoint = open(&path);
    assert_eq!(checkpoint.config().max_context, 256);
    checkpoint.set_max_context(1024).expect("a context");
    assert!(checkpoint.set_max_context(1025).is_err());

    // The formula of `dynamic` accepts any length.
    let directory = variant("dynamic", "smollm2");
    let mut checkpoint = open(directory.path());
    checkpoint.set_max_context(100_000).expect("a context");
    assert!(matches!(checkpoint.config().rope_scaling, RopeScaling::Dynamic { .. }));
    assert!(open(&data("models").join("smollm2")).set_max_context(257).is_err());
}
