//! A macro for models that wrap another model and change part of its behaviour.

/// Delegates methods of `LanguageModel` to the wrapped model in field `$inner`: all methods except
/// `forward`, `sample` and `wait_tokens`, which tests change or count.
#[macro_export]
macro_rules! left_to_the_inner_model {
    ($inner:tt) => {
        fn loaded(&self, model: ::galley_model::ModelIndex) -> &::galley_model::LoadedModel {
            self.$inner.loaded(model)
        }
        fn row_limits(&self) -> ::galley_model::RowLimits {
            self.$inner.row_limits()
        }
        fn device(&self) -> String {
            self.$inner.device()
        }
        fn sample_async(
            &mut self,
            model: ::galley_model::ModelIndex,
            rows: &[::galley_backend::sample::SampleRow<'_>],
        ) -> ::galley_model::Result<::galley_backend::Placeholders> {
            self.$inner.sample_async(model, rows)
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
        fn load_draft(
            &mut self,
            checkpoint: &::galley_model::weights::Checkpoint,
        ) -> ::galley_model::Result<::galley_model::ModelIndex> {
            self.$inner.load_draft(checkpoint)
        }
        fn read_logits(
            &self,
            model: ::galley_model::ModelIndex,
        ) -> ::galley_model::Result<Vec<f32>> {
            self.$inner.read_logits(model)
        }
        fn copy_blocks(&mut self, copies: &[(u32, u32)]) -> ::galley_model::Result<()> {
            self.$inner.copy_blocks(copies)
        }
    };
}
