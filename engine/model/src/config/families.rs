//! The supported families, and the nearest of them to an unsupported architecture.

use super::Family;

/// A family and its names in files.
pub(super) struct KnownFamily {
    /// The class in `architectures`.
    pub(super) class: &'static str,
    /// The `model_type`.
    pub(super) model_type: &'static str,
    /// The `general.architecture` of GGUF files. Families may share a name; a file with the name is
    /// read as the first of them.
    pub(super) gguf: &'static str,
    pub(super) family: Family,
    /// Well-known models of the family, for error messages.
    models: &'static str,
}

pub(super) const FAMILIES: [KnownFamily; 4] = [
    KnownFamily {
        class: "LlamaForCausalLM",
        model_type: "llama",
        gguf: "llama",
        family: Family::Llama,
        models: "Llama 2, 3.1, 3.2 and 3.3, SmolLM2, TinyLlama, Yi",
    },
    KnownFamily {
        class: "MistralForCausalLM",
        model_type: "mistral",
        gguf: "llama",
        family: Family::Mistral,
        models: "Mistral 7B and Nemo",
    },
    KnownFamily {
        class: "Qwen2ForCausalLM",
        model_type: "qwen2",
        gguf: "qwen2",
        family: Family::Qwen2,
        models: "Qwen2, Qwen2.5, QwQ",
    },
    KnownFamily {
        class: "Qwen3ForCausalLM",
        model_type: "qwen3",
        gguf: "qwen3",
        family: Family::Qwen3,
        models: "Qwen3 from 0.6B to 32B",
    },
];

/// Prefixes of architecture names, and the family that is nearest to each.
const RELATIVES: [(&str, Family); 9] = [
    ("mixtral", Family::Mistral),
    ("ministral", Family::Mistral),
    ("pixtral", Family::Mistral),
    ("voxtral", Family::Mistral),
    ("mllama", Family::Llama),
    ("smol", Family::Llama),
    ("llava", Family::Llama),
    ("deepseek", Family::Llama),
    ("granite", Family::Llama),
];

/// Alternatives to the unsupported architecture `name`, for an error message: the models of the
/// nearest family, then all families. `name_of` names a family.
pub(super) fn instead_of(name: &str, name_of: impl Fn(&KnownFamily) -> &'static str) -> String {
    let all: Vec<_> = FAMILIES.iter().map(&name_of).collect();
    let listed = |known: &KnownFamily| format!("{} ({})", name_of(known), known.models);
    match nearest(name) {
        Some(known) => {
            format!("nearest is {}; supported are {}", listed(known), all.join(", "))
        }
        None => {
            let all: Vec<_> = FAMILIES.iter().map(listed).collect();
            format!("supported are {}", all.join(", "))
        }
    }
}

/// The family of the relative that `name` begins with, or the one with the longest common prefix.
fn nearest(name: &str) -> Option<&'static KnownFamily> {
    let name = name.to_ascii_lowercase();
    let related = RELATIVES.iter().find(|(relative, _)| name.starts_with(relative));
    if let Some((_, family)) = related {
        return FAMILIES.iter().find(|known| known.family == *family);
    }
    let shared = |known: &KnownFamily| {
        name.bytes().zip(known.model_type.bytes()).take_while(|(a, b)| a == b).count()
    };
    // Of equal lengths, the last family wins: for "qwen", the newest.
    FAMILIES.iter().filter(|known| shared(known) >= MIN_SHARED).max_by_key(|known| shared(known))
}

/// Shortest common prefix that counts as related, bytes.
const MIN_SHARED: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_family_is_that_of_the_name() {
        let family = |name| nearest(name).map(|known| known.family);
        for (name, expected) in [
            ("Qwen3MoeForCausalLM", Some(Family::Qwen3)),
            ("Qwen2_5_VLForConditionalGeneration", Some(Family::Qwen2)),
            ("QWenLMHeadModel", Some(Family::Qwen3)),
            ("qwen3moe", Some(Family::Qwen3)),
            ("MixtralForCausalLM", Some(Family::Mistral)),
            ("Mistral3ForConditionalGeneration", Some(Family::Mistral)),
            ("Llama4ForConditionalGeneration", Some(Family::Llama)),
            ("MllamaForConditionalGeneration", Some(Family::Llama)),
            ("SmolLM3ForCausalLM", Some(Family::Llama)),
            ("LlamaForSequenceClassification", Some(Family::Llama)),
            ("Gemma3ForCausalLM", None),
            ("phi3", None),
            ("MiniCPMForCausalLM", None),
            ("", None),
        ] {
            assert_eq!(family(name), expected, "{name}");
        }
    }

    #[test]
    fn every_answer_lists_all_families_and_a_model_to_use() {
        for name in ["MixtralForCausalLM", "Gemma2ForCausalLM"] {
            let text = instead_of(name, |known| known.class);
            assert!(FAMILIES.iter().all(|known| text.contains(known.class)), "{text}");
            assert!(text.contains("Mistral 7B"), "{text}");
        }
    }
}
