//! Every family compared with transformers in float32: logits, including positions beyond the
//! sliding window and in the scaled range of the rotary embedding, and greedy continuations.

use galley_backend::Formats;
use galley_backend::cpu::InstructionSet;
use galley_tests::{TINY_MODELS, argmax, cpu, load_tiny, references, relative_error, run_prompt};

fn worst_error(model: &str, reference: &str, isa: InstructionSet, formats: Formats) -> f32 {
    let mut loaded = load_tiny(model, cpu(Some(isa), formats, 2));
    let mut worst = 0.0_f32;
    for reference in references(reference) {
        let logits = run_prompt(&mut *loaded, &reference.tokens, 32);
        for (&position, expected) in reference.positions.iter().zip(&reference.logits) {
            worst = worst.max(relative_error(expected, &logits[position as usize]));
        }
    }
    worst
}

#[test]
fn logits_agree_with_transformers() {
    for isa in InstructionSet::ALL.into_iter().filter(|isa| isa.is_available()) {
        for (model, reference) in TINY_MODELS {
            let exact = worst_error(model, reference, isa, Formats::F32);
            let rounded = worst_error(model, reference, isa, Formats::BF16);
            println!("{model:14} {:10} f32 {exact:.1e}  bf16 {rounded:.1e}", isa.name());
            assert!(exact < 1e-4, "{model} on {}: {exact}", isa.name());
            assert!(rounded < 0.05, "{model} in bf16 on {}: {rounded}", isa.name());
        }
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
        for (model, reference) in TINY_MODELS {
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
