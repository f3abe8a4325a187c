//! Every family compared with transformers in float32: logits, including positions beyond the
//! sliding window and in the scaled range of the rotary embedding, and greedy continuations.

use galley_backend::cpu::InstructionSet;
use galley_backend::{Formats, WeightFormat};
use galley_tests::{
    QUANTISED, TINY_MODELS, argmax, cpu, data, float_instruction_sets, instruction_sets, load_tiny,
    references, relative_error, run_prompt, weights_in,
};

/// Distances of a model's logits from its reference, over all rows.
#[derive(Debug)]
struct Errors {
    /// The largest [`relative_error`].
    worst: f32,
    /// The mean distance over the length of the expected row.
    mean: f32,
}

fn errors(model: &str, reference: &str, isa: InstructionSet, formats: Formats) -> Errors {
    let mut loaded = load_tiny(model, cpu(Some(isa), formats, 2));
    let (mut worst, mut distances) = (0.0_f32, Vec::new());
    for reference in references(reference) {
        let logits = run_prompt(&mut *loaded, &reference.tokens, 32);
        for (&position, expected) in reference.positions.iter().zip(&reference.logits) {
            let got = &logits[position as usize];
            let difference: Vec<f32> = expected.iter().zip(got).map(|(e, g)| e - g).collect();
            worst = worst.max(relative_error(expected, got));
            distances.push(length(&difference) / length(expected));
        }
    }
    Errors { worst, mean: distances.iter().sum::<f32>() / distances.len() as f32 }
}

fn length(values: &[f32]) -> f32 {
    values.iter().map(|x| x * x).sum::<f32>().sqrt()
}

fn worst_error(model: &str, reference: &str, isa: InstructionSet, formats: Formats) -> f32 {
    errors(model, reference, isa, formats).worst
}

#[test]
fn logits_agree_with_transformers() {
    for isa in float_instruction_sets() {
        for (model, reference) in TINY_MODELS.into_iter().chain([QUANTISED]) {
            let exact = worst_error(model, reference, isa, Formats::F32);
            let rounded = worst_error(model, reference, isa, Formats::BF16);
            println!("{model:14} {:10} f32 {exact:.1e}  bf16 {rounded:.1e}", isa.name());
            assert!(exact < 1e-4, "{model} on {}: {exact}", isa.name());
            assert!(rounded < 0.05, "{model} in bf16 on {}: {rounded}", isa.name());
        }
    }
}

/// Products of native weights are exact but for their activations, which have 8 bits: a rounding error
/// of 0.5 % of a row of normally distributed activations. Some ten products follow each other, and
/// their errors are independent, so 1.5 % is expected. Rounding to bf16 adds less than that.
#[test]
fn logits_of_quantised_weights_agree_with_transformers() {
    let (model, reference) = QUANTISED;
    for isa in instruction_sets() {
        for rest in [Formats::F32, Formats::BF16] {
            let formats = weights_in(WeightFormat::Native, rest.operands);
            let native = errors(model, reference, isa, formats);
            println!("{:10} {formats}: {native:?}", isa.name());
            assert!(native.mean < 0.02 && native.worst < 0.04, "{}: {native:?}", isa.name());
            // The weights were not expanded.
            let expanded = errors(model, reference, isa, rest);
            assert!(native.mean > 1.5 * expanded.mean, "{}: {native:?}", isa.name());
        }
    }
}

/// Weights of 8 bits have a rounding error of 0.5 %, like activations, and weights of 4 bits one of 8 %.
/// The float models amplify an error about ten times, as their errors in bf16 show.
#[test]
fn logits_of_weights_that_are_quantised_while_loading_stay_near() {
    let isa = InstructionSet::best();
    let float_models = TINY_MODELS.map(|names| (names, [0.1, 0.7]));
    for ((model, reference), most) in float_models.into_iter().chain([(QUANTISED, [0.025, 0.15])]) {
        for rest in [Formats::BF16, Formats::F32] {
            let of =
                |weights| errors(model, reference, isa, weights_in(weights, rest.operands)).mean;
            let [q8, q4] = [WeightFormat::Q8, WeightFormat::Q4].map(of);
            let expanded = of(rest.weights);
            println!("{model:14} {rest:4} {expanded:.1e}  q8 {q8:.1e}  q4 {q4:.1e}");
            assert!(q8 < most[0] && q4 < most[1], "{model}, {rest}: {q8}, {q4}");
            assert!(q8 > 1.5 * expanded && q4 > 3.0 * q8, "{model}, {rest}: {q8}, {q4}");
        }
    }
}

/// The negative control: codes of one matrix of 23 under a format with blocks of the same size.
#[test]
fn another_format_of_a_matrix_is_noticed() {
    const Q4_0: u32 = 2;
    const IQ4_NL: u32 = 20;
    let (model, reference) = QUANTISED;
    let sound = std::fs::read(data("models").join(model)).expect("a model");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.gguf");
    for name in ["blk.2.attn_q.weight", "blk.2.ffn_gate.weight"] {
        let mut bytes = sound.clone();
        let at = bytes.windows(name.len()).position(|window| window == name.as_bytes());
        // Before the format: the number of dimensions, and two of them.
        let at = at.expect("a tensor") + name.len() + 4 + 2 * 8;
        assert_eq!(bytes[at..at + 4], IQ4_NL.to_le_bytes(), "{name}");
        bytes[at..at + 4].copy_from_slice(&Q4_0.to_le_bytes());
        std::fs::write(&path, bytes).expect("written");
        let path = path.to_str().expect("a path");
        let wrong = errors(path, reference, InstructionSet::best(), Formats::NATIVE);
        println!("{name}: {wrong:?}");
        assert!(wrong.mean > 0.05 && wrong.worst > 0.1, "{name}: {wrong:?}");
    }
}

/// The negative control: the comparison must notice the logits of another family.
#[test]
fn another_model_does_not_agree() {
    let isa = InstructionSet::best();
    assert!(worst_error("llama3", "smollm2", isa, Formats::F32) > 0.1);
}

#[test]
fn greedy_continuations_agree_with_transformers() {
    for formats in [Formats::F32, Formats::BF16] {
        for (model, reference) in TINY_MODELS.into_iter().chain([QUANTISED]) {
            let mut loaded = load_tiny(model, cpu(None, formats, 2));
            for reference in references(reference) {
                let mut tokens = reference.tokens.clone();
                for &expected in &reference.greedy {
                    let logits = run_prompt(&mut *loaded, &tokens, 128);
                    let likeliest = argmax(logits.last().expect("a row"));
                    assert_eq!(
                        likeliest,
                        expected,
                        "{model} in {formats} after {} tokens",
                        tokens.len()
                    );
                    tokens.push(likeliest);
                }
            }
        }
    }
}
