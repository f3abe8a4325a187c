//! Published acceptances, for plans without measured ones.

/// Acceptance of StreamingLLM drafts with a KV budget of 512 tokens: Llama-3.1-8B on PG-19 (MagicDec), by tokens of context.
const STREAMING_LLM: [(f64, f64); 6] = [
    (4_000.0, 0.84),
    (8_000.0, 0.83),
    (16_000.0, 0.82),
    (32_000.0, 0.81),
    (64_000.0, 0.79),
    (100_000.0, 0.79),
];

/// Acceptance of Llama-3.2-1B as a draft model of Llama-3.1-8B on PG-19 (MagicDec gives 0.67 to 0.72).
pub const DRAFT_MODEL_ACCEPTANCE: f64 = 0.7;

/// The published acceptance of StreamingLLM drafts with a KV budget of 512 tokens: between two published lengths by a line
/// over the logarithm of the length, and outside of them the nearest.
pub fn streaming_llm_acceptance(context_tokens: usize) -> f64 {
    let context = context_tokens as f64;
    let (first, last) = (STREAMING_LLM[0], STREAMING_LLM[STREAMING_LLM.len() - 1]);
    let context = context.clamp(first.0, last.0);
    let pair = STREAMING_LLM.windows(2).find(|pair| context <= pair[1].0);
    pair.map_or(last.1, |pair| {
        let (from, to) = (pair[0], pair[1]);
        let share = (context / from.0).ln() / (to.0 / from.0).ln();
        from.1 + share * (to.1 - from.1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_lengths_have_their_acceptances_and_lengths_between_lie_between() {
        for (context, acceptance) in STREAMING_LLM {
            let found = streaming_llm_acceptance(context as usize);
            assert!((found - acceptance).abs() < 1e-12, "{context}: {found}");
        }
        assert!((0.81..0.82).contains(&streaming_llm_acceptance(22_000)));
        assert_eq!(streaming_llm_acceptance(1), 0.84);
        assert_eq!(streaming_llm_acceptance(usize::MAX), 0.79);
    }
}
