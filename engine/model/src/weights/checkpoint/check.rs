//! Checks of the tensors that the model needs, before any is loaded.

use super::{Checkpoint, EMBEDDING};
use crate::{
    ModelError, Result,
    config::{Family, ModelConfig},
    weights::{
        needed,
        tensor::{RowOrder, Storage, TensorEntry},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

impl Checkpoint {
    /// Refuses the checkpoint if a needed tensor is defective, and warns of unused tensors. An
    /// absent tensor is an error here only if files are missing or unreadable. Otherwise only
    /// [`Self::check_complete`] refuses it, since a model can be inspected without it.
    pub(super) fn check(&self, file: &Path, doubles: &[(String, TensorEntry)]) -> Result<()> {
        if self.config.n_layers > self.tensors.len() {
            let (layers, tensors) = (self.config.n_layers, self.tensors.len());
            let reason = format!("{layers}, but there are only {tensors} tensors");
            return Err(ModelError::invalid(file, "number of layers", reason));
        }
        let mut found = Vec::new();
        for name in needed::names(&self.config) {
            match self.entry(&name) {
                Some((stored, entry)) => {
                    self.tensor_ref(stored, entry, RowOrder::Plain)?;
                    found.push((stored, entry));
                }
                None if !self.absent.is_empty() => return Err(self.absent(&name)),
                None => {}
            }
        }
        self.refuse_overlaps(&mut found)?;
        self.refuse_contradictions(doubles, &found)?;
        self.refuse_biases(file)?;
        self.tell_unused(file, &found);
        Ok(())
    }

    /// Checks that all tensors that the model needs are present.
    pub(crate) fn check_complete(&self) -> Result<()> {
        let missing = needed::names(&self.config).find(|name| !self.has_tensor(name));
        missing.map_or(Ok(()), |name| Err(self.absent(&name)))
    }

    /// Refuses tensors that overlap in part: the header is wrong about one of them.
    fn refuse_overlaps(&self, found: &mut [(&str, &TensorEntry)]) -> Result<()> {
        found.sort_by_key(|(_, entry)| (entry.file, entry.offset, entry.len));
        for pair in found.windows(2) {
            let [(before, first), (name, second)] = pair else { unreachable!("windows of two") };
            let is_apart = first.file != second.file || first.offset + first.len <= second.offset;
            let is_shared = first.offset == second.offset && first.len == second.len;
            if !is_apart && !is_shared {
                let reason = format!("overlaps {before}");
                return Err(ModelError::invalid(self.files[second.file].path(), *name, reason));
            }
        }
        Ok(())
    }

    /// Refuses a needed tensor with different values in two files: either may be the model's.
    fn refuse_contradictions(
        &self,
        doubles: &[(String, TensorEntry)],
        found: &[(&str, &TensorEntry)],
    ) -> Result<()> {
        let bytes =
            |entry: &TensorEntry| &self.files[entry.file].bytes()[entry.offset..][..entry.len];
        for (name, double) in doubles {
            let Some((_, entry)) = found.iter().find(|(found, _)| found == name) else { continue };
            if matches!(double.storage, Storage::Broken(_)) || bytes(entry) == bytes(double) {
                continue;
            }
            let reason = format!(
                "is in {} too, with other values: remove the file that does not belong to the model",
                self.files[entry.file].path().display()
            );
            return Err(ModelError::invalid(self.files[double.file].path(), name.as_str(), reason));
        }
        Ok(())
    }

    /// Refuses biases that the forward pass does not add, unless they are zero.
    fn refuse_biases(&self, file: &Path) -> Result<()> {
        // transformers uses biases that the configuration names; llama.cpp uses all in the file.
        let output = match self.gguf {
            Some(_) => &["self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"][..],
            None if self.config.qkv_bias
                && matches!(self.config.family, Family::Llama | Family::Qwen3) =>
            {
                &["self_attn.o_proj"]
            }
            None => &[],
        };
        for layer in 0..self.config.n_layers {
            for module in output {
                let name = format!("model.layers.{layer}.{module}.bias");
                let Some((stored, entry)) = self.entry(&name) else { continue };
                let tensor = self.tensor_ref(stored, entry, RowOrder::Plain)?;
                let mut values = vec![0.0; tensor.cols()];
                (0..tensor.rows().min(1)).for_each(|row| tensor.read_row(row, &mut values));
                if values.iter().any(|value| *value != 0.0) {
                    let reason = format!("{name}: only queries, keys and values may have a bias");
                    return Err(ModelError::unsupported(file, reason));
                }
            }
        }
        Ok(())
    }

    /// Warns once if the model does not use some tensors.
    fn tell_unused(&self, file: &Path, found: &[(&str, &TensorEntry)]) {
        let used: BTreeSet<&str> = found.iter().map(|(name, _)| *name).collect();
        let is_told = |name: &&String| {
            !used.contains(name.as_str()) && !UNTOLD.iter().any(|part| name.contains(part))
        };
        let mut unused = self.tensors.keys().filter(is_told);
        if let Some(first) = unused.next() {
            tracing::warn!(
                "{}: {} tensors are not used, the first is {first}",
                file.display(),
                1 + unused.count()
            );
        }
    }
}

/// Whether the embedding and all matrices are present, none of them in an unsupported format.
pub(super) fn has_plain_matrices(
    config: &ModelConfig,
    tensors: &BTreeMap<String, TensorEntry>,
) -> bool {
    let names = needed::names(config);
    let mut matrices =
        names.filter(|name| name.ends_with("_proj.weight") || name.as_str() == EMBEDDING);
    matrices.all(|name| {
        tensors.get(&name).is_some_and(|entry| !matches!(entry.storage, Storage::Other(_)))
    })
}

/// Parts of tensor names without a warning: Galley computes the tensor, or another one equals it.
const UNTOLD: [&str; 5] =
    ["rotary_emb", "inv_freq", "rope_freqs.weight", "lm_head.weight", "masked_bias"];
