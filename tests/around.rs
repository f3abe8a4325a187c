//! A macro for models that wrap another model and change part of its behaviour.

/// Delegates methods of `LanguageModel` to the wrapped model in field `$inner`: all methods except
/// `forward`, `sample` and `wait_tokens`, which tests change or count.
#[macro_export]
macro_rules! left_to_the_inner_model {
    ($inner:tt) => {
        fn config(&self) -> &::galley_model::config::ModelConfig {
            self.$inner.config()
        }
        fn kv_shape(&self) -> ::galley_backend::KvShape {
            self.$inner.kv_shape()
        }
        fn max_rows(&self) -> usize {
            self.$inner.max_rows()
        }
        fn max_logit_rows(&self) -> usize {
            self.$inner.max_logit_rows()
        }
        fn device(&self) -> String {
            self.$inner.device()
        }
        fn weight_bytes(&self) -> usize {
            self.$inner.weight_bytes()
        }
        fn sample_async(
            &mut self,
            rows: &[::galley_backend::sample::SampleRow<'_>],
        ) -> ::galley_model::Result<::std::ops::Range<u32>> {
            self.$inner.sample_async(rows)
        }
        fn finish_observing(
            &mut self,
            observations: &mut [::galley_backend::Observation<'_>],
        ) -> ::galley_model::Result<()> {
            self.$inner.finish_observing(observations)
        }
        fn start_token_copy(&mut self) -> ::galley_model::Result<()> {
            self.$inner.start_token_copy()
        }
        fn is_asynchronous(&self) -> bool {
            self.$inner.is_asynchronous()
        }
        fn read_logits(&self) -> ::galley_model::Result<Vec<f32>> {
            self.$inner.read_logits()
        }
        fn draft_models(&mut self) -> Option<&mut dyn ::galley_model::DraftModels> {
            self.$inner.draft_models()
        }
        fn copy_blocks(&mut self, copies: &[(u32, u32)]) -> ::galley_model::Result<()> {
            self.$inner.copy_blocks(copies)
        }
    };
}
