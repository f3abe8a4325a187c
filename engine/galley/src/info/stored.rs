//! The weights of a model in its file, by kind of tensor, and their size in memory.

use super::gib;
use galley_backend::Formats;
use galley_model::weights::{Checkpoint, WeightKind};
use serde_json::{Value, json};
use std::io::{self, Write};

/// Storage and size of a model's weights.
pub(super) struct Stored {
    kinds: Vec<WeightKind>,
    n_weights: usize,
    has_blocks: bool,
    /// Bytes in the file, of all tensors that the model needs.
    pub(super) file_bytes: usize,
    /// Bytes of the packed matrices on the CPU, with `--weights native`.
    pub(super) packed_bytes: usize,
    /// Bytes of the packed matrices with `--weights bf16`.
    bf16_bytes: usize,
}

impl Stored {
    pub(super) fn of(checkpoint: &Checkpoint) -> Self {
        let kinds = checkpoint.weight_types();
        let types = || kinds.iter().flat_map(|kind| &kind.types);
        Self {
            n_weights: types().map(|stored| stored.n_weights).sum(),
            has_blocks: checkpoint.has_blocks(),
            file_bytes: types().map(|stored| stored.file_bytes).sum(),
            packed_bytes: checkpoint.packed_bytes(Formats::NATIVE),
            bf16_bytes: checkpoint.packed_bytes(Formats::BF16),
            kinds,
        }
    }

    /// Bytes a weight, if all weights take `bytes`.
    pub(super) fn a_weight(&self, bytes: usize) -> f64 {
        bytes as f64 / self.n_weights.max(1) as f64
    }

    pub(super) fn types_json(&self) -> Value {
        let of_kind = |kind: &WeightKind| {
            let types = kind.types.iter().map(|stored| {
                json!({
                    "type": stored.codec.to_string(),
                    "tensors": stored.n_tensors,
                    "weights": stored.n_weights,
                    "file_bytes": stored.file_bytes,
                })
            });
            json!({"kind": kind.kind, "types": types.collect::<Vec<_>>()})
        };
        self.kinds.iter().map(of_kind).collect()
    }

    pub(super) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let size =
            |bytes| format!("{:.2} GiB ({:.2} bytes a weight)", gib(bytes), self.a_weight(bytes));
        let (file, packed) = (size(self.file_bytes), size(self.packed_bytes));
        writeln!(out, "weights         {file} in the file, {packed} packed for the CPU")?;
        if self.has_blocks {
            writeln!(
                out,
                "                {} with --weights bf16, or on a GPU",
                size(self.bf16_bytes)
            )?;
        }
        let mut label = "stored as";
        for (types, kinds) in self.by_types() {
            writeln!(out, "{label:<16}{types}: {}", kinds.join(", "))?;
            label = "";
        }
        Ok(())
    }

    /// Kinds of tensors by their storage types: "Q4_K", or "14 Q6_K, 14 Q4_K" if a kind has several.
    fn by_types(&self) -> Vec<(String, Vec<&'static str>)> {
        let mut groups: Vec<(String, Vec<_>)> = Vec::new();
        for WeightKind { kind, types } in &self.kinds {
            let types = match &types[..] {
                [stored] => stored.codec.to_string(),
                several => {
                    let each = several.iter().map(|of| format!("{} {}", of.n_tensors, of.codec));
                    each.collect::<Vec<_>>().join(", ")
                }
            };
            match groups.iter_mut().find(|(of, _)| *of == types) {
                Some((_, kinds)) => kinds.push(*kind),
                None => groups.push((types, vec![*kind])),
            }
        }
        groups
    }
}
