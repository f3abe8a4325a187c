//! The fingerprint of an engine: all that its output depends on beside the request.

use crate::output::TextCodec;
use galley_model::LoadedModel;
use galley_model::end_tokens::EndTokens;
use std::sync::Arc;

/// The fingerprint of an engine over `model`. Settings of the engine are not part of it: batch sizes,
/// threads and drafters change no byte of the output, and the size of the KV cache only the length of
/// an answer without `max_tokens`.
pub(crate) fn of_model(
    model: &LoadedModel,
    codec: Option<&dyn TextCodec>,
    ends: &EndTokens,
) -> Arc<str> {
    let tokenizer = codec.map(|codec| codec.content_hash(&ends.of_chats()));
    fingerprint(model.content_hash, tokenizer, &model.arithmetic)
}

/// Joins the parts of a fingerprint.
pub(crate) fn fingerprint(content_hash: u64, tokenizer: Option<u64>, arithmetic: &str) -> Arc<str> {
    let version = env!("CARGO_PKG_VERSION");
    let tokenizer = tokenizer.map_or("none".to_owned(), |hash| format!("{hash:016x}"));
    format!("galley-{version}/{arithmetic}/model-{content_hash:016x}/tokenizer-{tokenizer}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_counts() {
        let all = [
            fingerprint(1, Some(2), "cpu-avx2-bf16"),
            fingerprint(3, Some(2), "cpu-avx2-bf16"),
            fingerprint(1, None, "cpu-avx2-bf16"),
            fingerprint(1, Some(2), "cpu-avx512-bf16"),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert!(
            all[0].starts_with(&format!("galley-{}/cpu-avx2-bf16/", env!("CARGO_PKG_VERSION")))
        );
    }
}
