//! The header of a GGUF file, versions 2 and 3: metadata and tensor directory.
//!
//! Galley has its own reader, because the available crates trust the counts and lengths in the
//! file. This reader checks that a count fits the rest of the file before it allocates, and its
//! errors name the key or tensor. <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>

use super::types;
use crate::{
    ModelError, Result, files,
    metadata::{Metadata, MetadataValue},
    weights::{
        mapped::Mapped,
        tensor::{Storage, TensorEntry},
    },
};
use std::{
    collections::{BTreeMap, hash_map},
    path::Path,
};

/// Reads the metadata and the tensors, checked against the file's size.
///
/// A defect of a tensor is kept in its entry ([`Storage::Broken`]): the model may not need it.
pub(crate) fn read(file: &Mapped) -> Result<(Metadata, BTreeMap<String, TensorEntry>)> {
    let mut reader = HeaderReader { path: file.path(), bytes: file.bytes(), position: 0 };
    let (n_tensors, n_pairs) = reader.preamble()?;
    let mut metadata = Metadata::default();
    for i in 0..n_pairs {
        let key = reader.name(&format!("metadata key {i}"))?;
        let kind = reader.u32(&key)?;
        let value = reader.value(&key, kind)?;
        match metadata.values.entry(key) {
            hash_map::Entry::Vacant(place) => drop(place.insert(value)),
            hash_map::Entry::Occupied(place) if *place.get() == value => {}
            hash_map::Entry::Occupied(place) => tracing::warn!(
                "{}: {} is there twice, with different values: the first one counts",
                file.path().display(),
                place.key()
            ),
        }
    }
    let alignment = reader.alignment(&metadata)?;

    let mut tensors = BTreeMap::<String, TensorEntry>::new();
    for i in 0..n_tensors {
        let name = reader.name(&format!("name of tensor {i}"))?;
        let entry = reader.tensor(&name, alignment)?;
        match tensors.get_mut(&name) {
            Some(first) if first.offset == entry.offset => {}
            Some(first) => first.storage = Storage::Broken("appears twice".into()),
            None => drop(tensors.insert(name, entry)),
        }
    }
    place_tensors(&reader, alignment, &mut tensors);
    Ok((metadata, tensors))
}

/// Changes offsets to count from the start of the file instead of the data, and checks that every
/// tensor lies inside the file.
fn place_tensors(
    reader: &HeaderReader<'_>,
    alignment: usize,
    tensors: &mut BTreeMap<String, TensorEntry>,
) {
    let file_len = reader.bytes.len();
    let data_start = reader.position.checked_next_multiple_of(alignment);
    for entry in tensors.values_mut() {
        let start = data_start.and_then(|start| start.checked_add(entry.offset));
        let end = start.and_then(|start| start.checked_add(entry.len));
        match (start, end) {
            (Some(start), Some(end)) if end <= file_len => entry.offset = start,
            _ if matches!(entry.storage, Storage::Broken(_)) => {}
            _ => {
                let (offset, len) = (entry.offset, entry.len);
                entry.storage = Storage::Broken(format!(
                    "{len} bytes at data offset {offset} go beyond the end of the file ({file_len} bytes): the file \
                     is cut off, so download it again"
                ));
            }
        }
    }
}

/// The bytes of the file, and a position in them.
struct HeaderReader<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    position: usize,
}

impl HeaderReader<'_> {
    /// Reads magic and version, and returns the numbers of tensors and of metadata pairs.
    fn preamble(&mut self) -> Result<(u64, u64)> {
        if self.array::<4>("magic")? != *MAGIC {
            let reason =
                files::recognise(self.bytes).unwrap_or_else(|| "this is no GGUF file".into());
            return Err(ModelError::unsupported(self.path, reason));
        }
        let version = self.u32("version")?;
        if !(2..=3).contains(&version) {
            let reason = if (2..=3).contains(&version.swap_bytes()) {
                "big-endian GGUF, and Galley reads little-endian files: convert it with gguf-py's \
                 `gguf-convert-endian FILE little`"
                    .into()
            } else {
                let way_out = match version {
                    0 | 1 => "an old file: take a newer one of the model, or convert it again",
                    _ => "a newer Galley may read it",
                };
                format!("GGUF version {version}; versions 2 and 3 are supported ({way_out})")
            };
            return Err(ModelError::unsupported(self.path, reason));
        }
        let n_tensors = self.u64("tensor count")?;
        let n_pairs = self.u64("metadata count")?;
        self.expect_room("tensor count", n_tensors, MIN_TENSOR_BYTES)?;
        self.expect_room("metadata count", n_pairs, MIN_PAIR_BYTES)?;
        Ok((n_tensors, n_pairs))
    }

    fn alignment(&self, metadata: &Metadata) -> Result<usize> {
        if !metadata.contains(ALIGNMENT) {
            return Ok(DEFAULT_ALIGNMENT);
        }
        metadata
            .u64(ALIGNMENT)
            .and_then(|value| usize::try_from(value).ok())
            .filter(|value| value.is_power_of_two())
            .ok_or_else(|| self.invalid(ALIGNMENT, "must be a power of two"))
    }

    /// Reads an entry of the tensor directory. Its offset counts from the start of the data.
    fn tensor(&mut self, name: &str, alignment: usize) -> Result<TensorEntry> {
        let n_dims = self.u32(name)?;
        let n_dims = self.expect_room(name, n_dims.into(), size_of::<u64>())?;
        let mut shape = Vec::with_capacity(n_dims);
        for _ in 0..n_dims {
            // A dimension beyond `usize` is too large for any file.
            shape.push(usize::try_from(self.u64(name)?).unwrap_or(usize::MAX));
        }
        // GGUF lists the innermost dimension first.
        shape.reverse();
        let kind = self.u32(name)?;
        let offset = self.u64(name)?;
        let mut storage = types::storage(kind);
        let mut len = 0;
        if let Storage::Codec(codec) = storage {
            match codec.tensor_bytes(&shape) {
                Some(bytes) => len = bytes,
                None => {
                    let mut reason = format!("{codec} of shape {shape:?} is impossible");
                    if codec.block_format().is_some() {
                        let len = codec.block_len();
                        reason += &format!(": rows are whole blocks of {len} weights");
                    }
                    storage = Storage::Broken(reason);
                }
            }
        }
        if n_dims > MAX_DIMS {
            storage = Storage::Broken(format!("has {n_dims} dimensions, not 0 to {MAX_DIMS}"));
        }
        let offset = match usize::try_from(offset) {
            Ok(offset) if offset.is_multiple_of(alignment) => offset,
            _ => {
                let reason = format!("offset {offset} is not aligned to {alignment}");
                storage = Storage::Broken(reason);
                0
            }
        };
        Ok(TensorEntry { file: 0, offset, len, storage, shape })
    }

    fn value(&mut self, key: &str, kind: u32) -> Result<MetadataValue> {
        Ok(match kind {
            kind::U8 => MetadataValue::Unsigned(self.array::<1>(key)?[0].into()),
            kind::I8 => MetadataValue::Signed(i8::from_le_bytes(self.array(key)?).into()),
            kind::U16 => MetadataValue::Unsigned(u16::from_le_bytes(self.array(key)?).into()),
            kind::I16 => MetadataValue::Signed(i16::from_le_bytes(self.array(key)?).into()),
            kind::U32 => MetadataValue::Unsigned(self.u32(key)?.into()),
            kind::I32 => MetadataValue::Signed(i32::from_le_bytes(self.array(key)?).into()),
            kind::F32 => MetadataValue::Float(f32::from_le_bytes(self.array(key)?).into()),
            kind::BOOL => MetadataValue::Bool(self.array::<1>(key)? != [0]),
            kind::STRING => MetadataValue::Str(self.text(key)?),
            kind::ARRAY => self.array_value(key, 0)?,
            kind::U64 => MetadataValue::Unsigned(self.u64(key)?),
            kind::I64 => MetadataValue::Signed(i64::from_le_bytes(self.array(key)?)),
            kind::F64 => MetadataValue::Float(f64::from_le_bytes(self.array(key)?)),
            _ => return Err(self.invalid(key, format!("is of unknown type {kind}"))),
        })
    }

    fn array_value(&mut self, key: &str, depth: usize) -> Result<MetadataValue> {
        let kind = self.u32(key)?;
        let n = self.u64(key)?;
        let Some(min_bytes) = min_value_bytes(kind) else {
            return Err(self.invalid(key, format!("is an array of unknown type {kind}")));
        };
        let n = self.expect_room(key, n, min_bytes)?;
        match kind {
            kind::STRING => {
                let (mut texts, mut raw) = (Vec::with_capacity(n), BTreeMap::new());
                for i in 0..n {
                    texts.push(String::from_utf8(self.string(key)?).unwrap_or_else(|error| {
                        let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                        raw.insert(i, error.into_bytes());
                        text
                    }));
                }
                Ok(MetadataValue::Strings { texts, raw })
            }
            kind::F32 | kind::F64 => {
                let mut floats = Vec::with_capacity(n);
                for _ in 0..n {
                    if let MetadataValue::Float(value) = self.value(key, kind)? {
                        floats.push(value as f32);
                    }
                }
                Ok(MetadataValue::Floats(floats))
            }
            kind::ARRAY if depth == MAX_ARRAY_DEPTH => {
                Err(self.invalid(key, "has arrays nested too deep"))
            }
            kind::ARRAY => {
                for _ in 0..n {
                    self.array_value(key, depth + 1)?;
                }
                Ok(MetadataValue::Skipped)
            }
            _ => {
                let mut integers = Some(Vec::with_capacity(n));
                for _ in 0..n {
                    let value = match self.value(key, kind)? {
                        MetadataValue::Unsigned(value) => i32::try_from(value).ok(),
                        MetadataValue::Signed(value) => i32::try_from(value).ok(),
                        _ => None,
                    };
                    integers = integers.zip(value).map(|(mut all, value)| {
                        all.push(value);
                        all
                    });
                }
                Ok(integers.map_or(MetadataValue::Skipped, MetadataValue::Integers))
            }
        }
    }

    /// Reads a key or the name of a tensor.
    fn name(&mut self, field: &str) -> Result<String> {
        let name = self.string(field)?;
        match name.len() {
            0..=MAX_NAME_BYTES => Ok(String::from_utf8_lossy(&name).into_owned()),
            n => Err(self.invalid(field, format!("is {n} bytes long"))),
        }
    }

    /// Reads a string value. Bytes that are not UTF-8, as in old encodings, are no error.
    fn text(&mut self, field: &str) -> Result<String> {
        String::from_utf8(self.string(field)?).or_else(|error| {
            tracing::warn!(
                "{}: {field} is no UTF-8: its invalid bytes are read as U+FFFD",
                self.path.display()
            );
            Ok(String::from_utf8_lossy(error.as_bytes()).into_owned())
        })
    }

    /// Copies the bytes of a string before they are parsed, as the file may change meanwhile.
    fn string(&mut self, field: &str) -> Result<Vec<u8>> {
        let length = self.u64(field)?;
        let length = self.expect_room(field, length, 1)?;
        Ok(self.take(field, length)?.to_vec())
    }

    /// `count` as `usize`, if the rest of the file can hold as many items of `bytes_each`.
    fn expect_room(&self, field: &str, count: u64, bytes_each: usize) -> Result<usize> {
        let left = self.bytes.len() - self.position;
        match usize::try_from(count) {
            Ok(count) if count <= left / bytes_each => Ok(count),
            _ => Err(self.invalid(
                field,
                format!(
                    "says {count}, but only {left} bytes are left in the file: it is cut off or damaged, so download \
                     it again"
                ),
            )),
        }
    }

    fn u32(&mut self, field: &str) -> Result<u32> {
        self.array(field).map(u32::from_le_bytes)
    }

    fn u64(&mut self, field: &str) -> Result<u64> {
        self.array(field).map(u64::from_le_bytes)
    }

    fn array<const N: usize>(&mut self, field: &str) -> Result<[u8; N]> {
        self.take(field, N).map(|bytes| bytes.try_into().expect("N bytes were taken"))
    }

    fn take(&mut self, field: &str, n: usize) -> Result<&[u8]> {
        let (start, bytes) = (self.position, self.bytes);
        match start.checked_add(n).and_then(|end| bytes.get(start..end)) {
            Some(taken) => {
                self.position += n;
                Ok(taken)
            }
            None => {
                let reason = format!(
                    "the file ends at byte {}: it is cut off, so download it again",
                    bytes.len()
                );
                Err(self.invalid(field, reason))
            }
        }
    }

    fn invalid(&self, field: &str, reason: impl Into<String>) -> ModelError {
        ModelError::invalid(self.path, field, reason)
    }
}

/// Fewest bytes of a value of this kind; `None` for an unknown kind.
fn min_value_bytes(kind: u32) -> Option<usize> {
    Some(match kind {
        kind::U8 | kind::I8 | kind::BOOL => 1,
        kind::U16 | kind::I16 => 2,
        kind::U32 | kind::I32 | kind::F32 => 4,
        kind::U64 | kind::I64 | kind::F64 | kind::STRING => 8,
        kind::ARRAY => 12,
        _ => return None,
    })
}

/// `enum gguf_metadata_value_type`.
mod kind {
    pub(super) const U8: u32 = 0;
    pub(super) const I8: u32 = 1;
    pub(super) const U16: u32 = 2;
    pub(super) const I16: u32 = 3;
    pub(super) const U32: u32 = 4;
    pub(super) const I32: u32 = 5;
    pub(super) const F32: u32 = 6;
    pub(super) const BOOL: u32 = 7;
    pub(super) const STRING: u32 = 8;
    pub(super) const ARRAY: u32 = 9;
    pub(super) const U64: u32 = 10;
    pub(super) const I64: u32 = 11;
    pub(super) const F64: u32 = 12;
}

pub(crate) const MAGIC: &[u8; 4] = b"GGUF";
const ALIGNMENT: &str = "general.alignment";
const DEFAULT_ALIGNMENT: usize = 32;
/// Longest key or tensor name. The format allows 2^16 - 1 bytes for keys, and fewer for tensors.
const MAX_NAME_BYTES: usize = u16::MAX as usize;
/// `GGML_MAX_DIMS`.
const MAX_DIMS: usize = 4;
/// Deepest nesting of arrays. Known files do not nest arrays.
const MAX_ARRAY_DEPTH: usize = 3;
/// Fewest bytes of a directory entry: length of the name, number of dimensions, one dimension,
/// type, offset.
const MIN_TENSOR_BYTES: usize = 8 + 4 + 8 + 4 + 8;
/// Fewest bytes of a metadata pair: length of the key, type, a one-byte value.
const MIN_PAIR_BYTES: usize = 8 + 4 + 1;
