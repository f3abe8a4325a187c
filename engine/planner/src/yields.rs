//! The tokens that a round of speculative decoding yields.

/// Expected tokens of one round with `draft_length` draft tokens, of which each is accepted with the probability
/// `acceptance` if all before it are: Ω(γ, α) = (1 − α^(γ+1)) / (1 − α), the target's own token included (Leviathan et
/// al., arXiv 2211.17192, equation 1).
pub fn expected_tokens(draft_length: u32, acceptance: f64) -> f64 {
    (0..=draft_length as i32).map(|n| acceptance.powi(n)).sum()
}

#[cfg(test)]
mod tests {
    use super::expected_tokens;

    #[test]
    fn tokens_of_a_round_are_those_of_the_closed_form() {
        for draft_length in 0..9 {
            for acceptance in [0.0, 0.3, 0.82, 0.99] {
                let closed = (1.0 - f64::powi(acceptance, draft_length + 1)) / (1.0 - acceptance);
                let sum = expected_tokens(draft_length as u32, acceptance);
                assert!((sum - closed).abs() < 1e-12, "{draft_length} {acceptance}");
            }
            assert_eq!(expected_tokens(draft_length as u32, 1.0), f64::from(draft_length + 1));
        }
    }
}
