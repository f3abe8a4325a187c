//! Settings of an engine over a model: one list, from which all sizes derive.

use super::cache_size::Needs;
use super::calibration::{calibrate, calibrated};
use super::device_choice::DeviceChoice;
use super::error::OpenError;
use super::files::ModelFiles;
use super::memory;
use crate::calibrate::Calibration;
use crate::config::EngineConfig;
use crate::draft_settings::DraftConfig;
use crate::handle::Engine;
use galley_backend::cpu::{InstructionSet, usable_cores};
#[cfg(feature = "cuda")]
use galley_backend::cuda::{CudaConfig, CudaDevice};
use galley_backend::{BackendError, Formats};
use galley_model::{Device, LanguageModel, LoadOptions, ModelError, load};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Tokens of a sequence for which the KV cache has room by default, if all sequences run together.
const TOKENS_OF_A_SEQUENCE: usize = 2048;

/// Settings of an engine over a model.
///
/// The sizes of the model's buffers, the KV cache and the engine's own limits all derive from them.
#[derive(Clone)]
#[non_exhaustive]
pub struct Settings {
    /// The device of the model.
    pub device: DeviceChoice,
    /// Share of a GPU's memory that may be in use, by all programs together, once weights and KV
    /// cache are loaded.
    pub gpu_memory_utilization: f64,
    /// Formats of weights, operands and KV cache: see [`Formats::new`]. By default quantised weights
    /// keep the blocks of their file on the CPU, and the rest is bf16. A GPU expands blocks to bf16, and
    /// has no other formats.
    pub formats: Formats,
    /// Instruction set of the CPU kernels; None is the best that the CPU supports.
    pub instruction_set: Option<InstructionSet>,
    /// CPU threads; None is one per usable core.
    pub threads: Option<usize>,
    /// Tokens per KV block, a multiple of 16.
    pub block_size: usize,
    /// Longest sequence, prompt and output together; None is the model's own limit.
    pub max_model_len: Option<usize>,
    /// Size of the KV cache in tokens. None derives it from memory: on a GPU all memory that
    /// [`Settings::gpu_memory_utilization`] leaves, on the CPU [`Settings::wanted_tokens`] within
    /// half of the memory that the process may take.
    pub kv_cache_tokens: Option<usize>,
    /// Tokens that the requests of the program have in the KV cache together, so that it is no
    /// larger than needed. None is one sequence of full length, or all sequences that run together at
    /// 2,048 tokens each. Has no effect beside [`Settings::kv_cache_tokens`], nor on a GPU.
    pub wanted_tokens: Option<usize>,
    /// Sequences, tokens of a step, prefix caching and schedule. The model's buffers are as large as
    /// these sizes need, so no size is cut.
    pub engine: EngineConfig,
    /// Drafters, and the number of their draft tokens.
    pub drafting: DraftConfig,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            device: DeviceChoice::Auto,
            gpu_memory_utilization: 0.9,
            formats: Formats::default(),
            instruction_set: None,
            threads: None,
            block_size: 16,
            max_model_len: None,
            kv_cache_tokens: None,
            wanted_tokens: None,
            engine: EngineConfig::default().max_num_seqs(64).max_num_batched_tokens(512),
            drafting: DraftConfig::default(),
        }
    }
}

/// The attention kernels read blocks in pieces of this many tokens.
const BLOCK_MULTIPLE: usize = 16;

/// More tokens than the KV of any GPU holds: the backend reduces the pool to the available memory.
#[cfg(feature = "cuda")]
const MOST_KV_TOKENS: usize = 1 << 30;

impl Settings {
    /// Opens the files of a model, for sequences of at most [`Settings::max_model_len`] tokens.
    ///
    /// # Errors
    ///
    /// Files that cannot be read, or a length that the model cannot have.
    pub fn open_files(&self, path: &Path) -> Result<ModelFiles, OpenError> {
        let mut files = ModelFiles::open(path)?;
        if let Some(tokens) = self.max_model_len {
            files.checkpoint.set_max_context(tokens).map_err(OpenError::MaxModelLen)?;
        }
        Ok(files)
    }

    /// Chooses the device, loads the model onto it and starts an engine.
    /// `on_layer(done, total)` counts layers as they are packed.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn start(
        &self,
        files: &ModelFiles,
        on_layer: &mut dyn FnMut(usize, usize),
    ) -> Result<Engine, OpenError> {
        self.start_on(self.choose_device()?.device, files, on_layer)
    }

    /// [`Settings::start`] on a device that was chosen already ([`Settings::choose_device`]).
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn start_on(
        &self,
        device: Device,
        files: &ModelFiles,
        on_layer: &mut dyn FnMut(usize, usize),
    ) -> Result<Engine, OpenError> {
        let mut model = self.load(device, files, on_layer)?;
        let tokenizer = Some(Arc::clone(&files.tokenizer));
        let max_draft_length = self.max_draft_length();
        let mut drafting = self.drafting.clone().max_draft_length(max_draft_length);
        if drafting.auto && !drafting.drafters.is_empty() && drafting.costs.is_none() {
            drafting.costs = calibrated(&mut *model, drafting.calibrates);
        }
        Ok(Engine::start_with_drafters(model, tokenizer, self.engine.clone(), &drafting)?)
    }

    /// Measures the times of a model on a device, for up to 20 s, and keeps them for engines with the same settings. Returns
    /// the times and the file that they are in; None for the file if it could not be written, with the reason in the log.
    ///
    /// # Errors
    ///
    /// See [`OpenError`]. A KV cache or a step that is too small to measure is [`OpenError::Setting`].
    pub fn calibrate(
        &self,
        device: Device,
        files: &ModelFiles,
        on_layer: &mut dyn FnMut(usize, usize),
    ) -> Result<(Calibration, Option<PathBuf>), OpenError> {
        let mut model = self.load(device, files, on_layer)?;
        let measured = calibrate(&mut *model)
            .map_err(|reason| OpenError::Load { path: files.path.clone(), reason })?;
        measured.ok_or_else(|| OpenError::Setting {
            name: "kv_cache_tokens",
            value: (model.target().kv_shape.n_blocks * self.block_size).to_string(),
            reason: "too few to measure attention".into(),
        })
    }

    /// Loads the model with the sizes of these settings.
    fn load(
        &self,
        device: Device,
        files: &ModelFiles,
        on_layer: &mut dyn FnMut(usize, usize),
    ) -> Result<Box<dyn LanguageModel>, OpenError> {
        self.check()?;
        let options = self.load_options(device, files)?;
        load(&files.checkpoint, device, options, on_layer)
            .map_err(|reason| self.not_loaded(files, reason))
    }

    /// Checks the values that depend on no model.
    fn check(&self) -> Result<(), OpenError> {
        let wrong = |name, value: &dyn ToString, reason: &str| {
            Err(OpenError::Setting { name, value: value.to_string(), reason: reason.into() })
        };
        let at_least_one = [
            ("block_size", self.block_size),
            ("max_num_seqs", self.engine.max_num_seqs),
            ("max_num_batched_tokens", self.engine.max_num_batched_tokens),
        ];
        if let Some((name, value)) = at_least_one.into_iter().find(|(_, value)| *value == 0) {
            return wrong(name, &value, "at least 1 is needed");
        }
        if !self.block_size.is_multiple_of(BLOCK_MULTIPLE) {
            return wrong("block_size", &self.block_size, "a multiple of 16 is needed");
        }
        if self.engine.max_num_batched_tokens < self.engine.max_num_seqs {
            return Err(OpenError::TooFewTokens {
                max_num_batched_tokens: self.engine.max_num_batched_tokens,
                max_num_seqs: self.engine.max_num_seqs,
            });
        }
        Ok(())
    }

    /// The sizes of the model's buffers and its KV pool.
    fn load_options(&self, device: Device, files: &ModelFiles) -> Result<LoadOptions, OpenError> {
        let mut options = LoadOptions::new(self.block_size, 0)
            .max_rows(self.engine.max_num_batched_tokens)
            .max_logit_rows(self.max_logit_rows());
        let tokens = match (self.kv_cache_tokens, device) {
            // The backend reduces the pool to the memory of the device.
            #[cfg(feature = "cuda")]
            (asked, Device::Cuda(CudaConfig { device: CudaDevice::Gpu(_), .. }))
                if asked != Some(0) =>
            {
                asked.unwrap_or(MOST_KV_TOKENS)
            }
            (asked, _) => {
                let room = memory::room(Path::new("/"));
                let formats = match device {
                    Device::Cpu(_) => self.formats,
                    #[cfg(any(feature = "cuda", feature = "emulate"))]
                    Device::Cuda(_) => self.formats.expanded(),
                };
                let needs = Needs::new(&files.checkpoint, formats, &options);
                let n_threads = self.threads.unwrap_or_else(usable_cores);
                let wanted = self.wanted_tokens_of(files);
                needs.with_threads(n_threads, &room).tokens(asked, wanted, &room)?
            }
        };
        options.n_blocks = tokens.div_ceil(self.block_size);
        Ok(options)
    }

    /// Tokens in the KV cache that the program can use.
    fn wanted_tokens_of(&self, files: &ModelFiles) -> usize {
        // The KV of a draft model takes at most as many blocks as the target's. Unused blocks take no memory.
        let drafters = &self.drafting.drafters;
        let needs = drafters.iter().flat_map(|setup| &setup.library.manifest().needs);
        let loads = needs.into_iter().any(|need| need.starts_with("galley.models/"));
        let longest = files.config().max_context;
        let together = self.engine.max_num_seqs.saturating_mul(longest.min(TOKENS_OF_A_SEQUENCE));
        let wanted = self.wanted_tokens.unwrap_or(longest.max(together));
        wanted.saturating_mul(1 + usize::from(loads))
    }

    /// One logit row per sequence, and one more for each draft token of the sequence.
    fn max_logit_rows(&self) -> usize {
        if self.drafting.drafters.is_empty() {
            return self.engine.max_num_seqs;
        }
        self.logit_rows_of_drafts()
    }

    fn logit_rows_of_drafts(&self) -> usize {
        let per_sequence = 1 + self.max_draft_length() as usize;
        self.engine
            .max_num_seqs
            .saturating_mul(per_sequence)
            .min(self.engine.max_num_batched_tokens)
    }

    /// The longest draft that a request may ask for: at least that of a request without a number.
    fn max_draft_length(&self) -> u32 {
        self.drafting.max_draft_length.max(self.drafting.draft_length)
    }

    fn not_loaded(&self, files: &ModelFiles, reason: ModelError) -> OpenError {
        match reason {
            ModelError::Backend(BackendError::Threads { .. }) => {
                OpenError::Threads { asked: self.threads, reason }
            }
            reason => OpenError::Load { path: files.path.clone(), reason },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Settings)) -> String {
        let mut settings = Settings::default();
        change(&mut settings);
        settings.check().expect_err("a wrong setting").to_string()
    }

    #[test]
    fn a_wrong_setting_is_refused_by_name() {
        Settings::default().check().expect("the defaults are right");
        assert_eq!(refused(|s| s.block_size = 0), "block_size 0: at least 1 is needed");
        assert!(refused(|s| s.block_size = 24).contains("block_size 24"));
        assert!(refused(|s| s.engine.max_num_seqs = 0).contains("max_num_seqs 0"));
        let error = refused(|s| s.engine.max_num_batched_tokens = 63);
        assert!(error.contains("max_num_batched_tokens 63 is below max_num_seqs 64"), "{error}");
    }

    #[test]
    fn logit_rows_derive_from_sequences_and_draft_lengths() {
        let mut settings = Settings::default();
        settings.engine.max_num_seqs = 4;
        assert_eq!(settings.max_logit_rows(), 4, "nothing drafts");
        settings.drafting.max_draft_length = 7;
        assert_eq!(settings.logit_rows_of_drafts(), 32);
        settings.drafting.draft_length = 15;
        assert_eq!(settings.logit_rows_of_drafts(), 64, "no request drafts more by default");
        settings.engine.max_num_batched_tokens = 20;
        assert_eq!(settings.logit_rows_of_drafts(), 20, "a step has no more rows");
    }
}
