//! The storage of the weights that a model needs, by kind of tensor.

use super::Checkpoint;
use crate::weights::{
    codec::Codec,
    needed::{self, KINDS},
    tensor::{Storage, TensorEntry},
};
use galley_backend::{BLOCK_LEN, BlockFormat, Formats, WeightFormat};

/// All tensors of one kind that a model needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightKind {
    /// The kind, such as "embedding", "q", "gate" or "norms".
    pub kind: &'static str,
    /// The storage types of these tensors, that with the most bytes first.
    pub types: Vec<StoredType>,
}

/// The tensors of one kind with the same storage type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredType {
    /// The storage type.
    pub codec: Codec,
    /// Number of tensors.
    pub n_tensors: usize,
    /// Bytes in the file.
    pub file_bytes: usize,
    /// Number of weights.
    pub n_weights: usize,
}

impl Checkpoint {
    /// The storage types of all tensors that the model needs, by kind. Absent tensors and kinds do not
    /// count.
    pub fn weight_types(&self) -> Vec<WeightKind> {
        let mut kinds = KINDS.map(|(kind, _)| WeightKind { kind, types: Vec::new() });
        for (name, entry, codec) in self.needed() {
            let at = KINDS.iter().position(|(_, ending)| name.ends_with(ending));
            let types = &mut kinds[at.expect("every needed tensor has a kind")].types;
            let at = types.iter().position(|stored| stored.codec == codec).unwrap_or_else(|| {
                types.push(StoredType { codec, n_tensors: 0, file_bytes: 0, n_weights: 0 });
                types.len() - 1
            });
            let stored = &mut types[at];
            stored.n_tensors += 1;
            stored.file_bytes = stored.file_bytes.saturating_add(entry.len);
            stored.n_weights = stored.n_weights.saturating_add(n_weights(&entry.shape));
        }
        for kind in &mut kinds {
            kind.types.sort_by_key(|stored| std::cmp::Reverse(stored.file_bytes));
        }
        kinds.into_iter().filter(|kind| !kind.types.is_empty()).collect()
    }

    /// Bytes that the packed matrices take on the CPU. Rows and columns are padded to multiples of 32. The
    /// two matrices of a gated pair share panels, so both are packed as values unless both have blocks.
    pub fn packed_bytes(&self, formats: Formats) -> usize {
        let bytes = self.matrices().map(|(name, entry, codec)| {
            let padded = |n: usize| n.div_ceil(BLOCK_LEN).saturating_mul(BLOCK_LEN);
            let (rows, cols) = rows_and_cols(&entry.shape);
            let n_weights = padded(rows).saturating_mul(padded(cols));
            let as_values = |bytes| n_weights.saturating_mul(bytes);
            let partner = needed::gated_partner(&name);
            let is_split = partner.is_some_and(|partner| !self.is_in_blocks(&partner));
            match (formats.weights, codec.block_format().filter(|_| !is_split)) {
                (WeightFormat::Native, Some(format)) => format.packed_bytes(n_weights),
                (WeightFormat::Native, None) => as_values(formats.operands.bytes()),
                (WeightFormat::Bf16, _) => as_values(2),
                (WeightFormat::F32, _) => as_values(4),
                (WeightFormat::Q4, _) if !needed::is_vocabulary(&name) => {
                    BlockFormat::Q4_0.packed_bytes(n_weights)
                }
                (WeightFormat::Q4 | WeightFormat::Q8, _) => {
                    BlockFormat::Q8_0.packed_bytes(n_weights)
                }
            }
        });
        bytes.fold(0, usize::saturating_add)
    }

    /// Whether any matrix that the model needs is stored in blocks of quantised weights.
    pub fn has_blocks(&self) -> bool {
        self.matrices().any(|(_, _, codec)| codec.block_format().is_some())
    }

    fn is_in_blocks(&self, name: &str) -> bool {
        let storage = self.entry(name).map(|(_, entry)| &entry.storage);
        matches!(storage, Some(Storage::Codec(codec)) if codec.block_format().is_some())
    }

    /// Needed matrices: their Hugging Face names, entries and formats.
    fn matrices(&self) -> impl Iterator<Item = (String, &TensorEntry, Codec)> {
        self.needed().filter(|(name, _, _)| needed::is_matrix(name))
    }

    /// Needed tensors that are present: their Hugging Face names, entries and formats.
    fn needed(&self) -> impl Iterator<Item = (String, &TensorEntry, Codec)> {
        needed::names(&self.config).filter_map(|name| {
            let (_, entry) = self.entry(&name)?;
            match entry.storage {
                Storage::Codec(codec) => Some((name, entry, codec)),
                Storage::Other(_) | Storage::Broken(_) => None,
            }
        })
    }
}

/// Rows and columns of a tensor; a vector is one row.
fn rows_and_cols(shape: &[usize]) -> (usize, usize) {
    let (cols, outer) = shape.split_last().map_or((1, &[][..]), |(&n, outer)| (n, outer));
    (n_weights(outer), cols)
}

fn n_weights(shape: &[usize]) -> usize {
    shape.iter().fold(1, |product, &n| product.saturating_mul(n))
}
