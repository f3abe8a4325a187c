//! The header of a GGUF file, versions 2 and 3: metadata and tensor directory.
//!
//! An own reader, as it is short and the crates to be had trust the counts and lengths of the file.
//! Here whatever is allocated was first seen to fit the rest of the file, and errors name the key or
//! tensor. <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>

use super::{Metadata, Value};
use crate::{
    ModelError, Result,
    weights::{
        codec::Codec,
        mapped::Mapped,
        tensor::{Entry, Storage},
    },
};
use std::{
    collections::{HashSet, hash_map},
    path::Path,
};

/// Reads the metadata and the tensors, checked against the file's size.
pub(crate) fn read(file: &Mapped) -> Result<(Metadata, Vec<(String, Entry)>)> {
    let mut reader = Reader { path: file.path(), bytes: file.bytes(), position: 0 };
    let (n_tensors, n_pairs) = reader.preamble()?;
    let mut metadata = Metadata::default();
    for i in 0..n_pairs {
        let key = reader.name(&format!("metadata key {i}"))?;
        let kind = reader.u32(&key)?;
        let value = reader.value(&key, kind)?;
        match metadata.values.entry(key) {
            hash_map::Entry::Vacant(place) => place.insert(value),
            hash_map::Entry::Occupied(place) => {
                return Err(reader.invalid(place.key(), "appears twice"));
            }
        };
    }
    let alignment = reader.alignment(&metadata)?;

    let (mut tensors, mut seen) = (Vec::new(), HashSet::new());
    for i in 0..n_tensors {
        let name = reader.name(&format!("name of tensor {i}"))?;
        let entry = reader.tensor(&name, alignment)?;
        if !seen.insert(name.clone()) {
            return Err(reader.invalid(&name, "appears twice"));
        }
        tensors.push((name, entry));
    }
    place_tensors(&reader, alignment, &mut tensors)?;
    Ok((metadata, tensors))
}

/// Moves offsets from the start of the data to the start of the file, and checks that every tensor
/// lies inside the file and on no other.
fn place_tensors(
    reader: &Reader<'_>,
    alignment: usize,
    tensors: &mut [(String, Entry)],
) -> Result<()> {
    let file_len = reader.bytes.len();
    let data_start = reader.position.checked_next_multiple_of(alignment);
    for (name, entry) in tensors.iter_mut() {
        let start = data_start.and_then(|start| start.checked_add(entry.offset));
        let end = start.and_then(|start| start.checked_add(entry.len));
        match (start, end) {
            (Some(start), Some(end)) if end <= file_len => entry.offset = start,
            _ => {
                let (offset, len) = (entry.offset, entry.len);
                let reason = format!(
                    "{len} bytes at data offset {offset} go beyond the end of the file ({file_len} bytes)"
                );
                return Err(reader.invalid(name, reason));
            }
        }
    }
    let mut in_order: Vec<_> = tensors.iter().collect();
    in_order.sort_by_key(|(_, entry)| entry.offset);
    for pair in in_order.windows(2) {
        let [(before, first), (name, second)] = pair else { unreachable!("windows of two") };
        if first.offset + first.len > second.offset {
            return Err(reader.invalid(name, format!("overlaps {before}")));
        }
    }
    Ok(())
}

/// A position in the file, and its end.
struct Reader<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    position: usize,
}

impl Reader<'_> {
    /// Magic, version, number of tensors, number of metadata pairs.
    fn preamble(&mut self) -> Result<(u64, u64)> {
        if self.array::<4>("magic")? != *MAGIC {
            return Err(self.invalid("magic", "this is no GGUF file"));
        }
        let version = self.u32("version")?;
        if !(2..=3).contains(&version) {
            let what = if (2..=3).contains(&version.swap_bytes()) {
                "big-endian GGUF; only little-endian files are supported".into()
            } else {
                format!("GGUF version {version}; versions 2 and 3 are supported")
            };
            return Err(ModelError::unsupported(self.path, what));
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

    /// One row of the tensor directory; the offset still counts from the start of the data.
    fn tensor(&mut self, name: &str, alignment: usize) -> Result<Entry> {
        let n_dims = self.u32(name)?;
        if !(1..=MAX_DIMS).contains(&n_dims) {
            return Err(self.invalid(name, format!("has {n_dims} dimensions, not 1 to {MAX_DIMS}")));
        }
        let mut shape = Vec::with_capacity(n_dims as usize);
        for _ in 0..n_dims {
            let n = self.u64(name)?;
            match usize::try_from(n) {
                Ok(n) if n > 0 => shape.push(n),
                _ => return Err(self.invalid(name, format!("has a dimension of {n}"))),
            }
        }
        // GGUF lists the innermost dimension first.
        shape.reverse();
        let kind = self.u32(name)?;
        let Some(codec) = codec(kind) else {
            let what = format!("tensor {name} is of ggml type {kind}; supported are {SUPPORTED}");
            return Err(ModelError::unsupported(self.path, what));
        };
        let Some(len) = codec.tensor_bytes(&shape) else {
            return Err(self.invalid(name, format!("{codec} of shape {shape:?} is impossible")));
        };
        let offset = self.u64(name)?;
        match usize::try_from(offset) {
            Ok(offset) if offset.is_multiple_of(alignment) => {
                Ok(Entry { file: 0, offset, len, storage: Storage::Codec(codec), shape })
            }
            _ => Err(self.invalid(name, format!("offset {offset} is not aligned to {alignment}"))),
        }
    }

    fn value(&mut self, key: &str, kind: u32) -> Result<Value> {
        Ok(match kind {
            kind::U8 => Value::Unsigned(self.array::<1>(key)?[0].into()),
            kind::I8 => Value::Signed(i8::from_le_bytes(self.array(key)?).into()),
            kind::U16 => Value::Unsigned(u16::from_le_bytes(self.array(key)?).into()),
            kind::I16 => Value::Signed(i16::from_le_bytes(self.array(key)?).into()),
            kind::U32 => Value::Unsigned(self.u32(key)?.into()),
            kind::I32 => Value::Signed(i32::from_le_bytes(self.array(key)?).into()),
            kind::F32 => Value::Float(f32::from_le_bytes(self.array(key)?).into()),
            kind::BOOL => match self.array::<1>(key)? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [other] => return Err(self.invalid(key, format!("{other} is no boolean"))),
            },
            kind::STRING => Value::Str(self.string(key)?),
            kind::ARRAY => self.array_value(key, 0)?,
            kind::U64 => Value::Unsigned(self.u64(key)?),
            kind::I64 => Value::Signed(i64::from_le_bytes(self.array(key)?)),
            kind::F64 => Value::Float(f64::from_le_bytes(self.array(key)?)),
            _ => return Err(self.invalid(key, format!("is of unknown type {kind}"))),
        })
    }

    fn array_value(&mut self, key: &str, depth: usize) -> Result<Value> {
        let kind = self.u32(key)?;
        let n = self.u64(key)?;
        let Some(min_bytes) = min_value_bytes(kind) else {
            return Err(self.invalid(key, format!("is an array of unknown type {kind}")));
        };
        let n = self.expect_room(key, n, min_bytes)?;
        match kind {
            kind::STRING => {
                let mut strings = Vec::with_capacity(n);
                for _ in 0..n {
                    strings.push(self.string(key)?);
                }
                Ok(Value::Strings(strings))
            }
            kind::F32 | kind::F64 => {
                let mut floats = Vec::with_capacity(n);
                for _ in 0..n {
                    if let Value::Float(value) = self.value(key, kind)? {
                        floats.push(value as f32);
                    }
                }
                Ok(Value::Floats(floats))
            }
            kind::ARRAY if depth == MAX_ARRAY_DEPTH => {
                Err(self.invalid(key, "has arrays nested too deep"))
            }
            kind::ARRAY => {
                for _ in 0..n {
                    self.array_value(key, depth + 1)?;
                }
                Ok(Value::Skipped)
            }
            _ => {
                let mut integers = Some(Vec::with_capacity(n));
                for _ in 0..n {
                    let value = match self.value(key, kind)? {
                        Value::Unsigned(value) => i32::try_from(value).ok(),
                        Value::Signed(value) => i32::try_from(value).ok(),
                        _ => None,
                    };
                    integers = integers.zip(value).map(|(mut all, value)| {
                        all.push(value);
                        all
                    });
                }
                Ok(integers.map_or(Value::Skipped, Value::Integers))
            }
        }
    }

    /// A key or the name of a tensor.
    fn name(&mut self, field: &str) -> Result<String> {
        let name = self.string(field)?;
        match name.len() {
            1..=MAX_NAME_BYTES => Ok(name),
            n => Err(self.invalid(field, format!("is {n} bytes long"))),
        }
    }

    /// A string, copied before it is looked at, as the file may change meanwhile.
    fn string(&mut self, field: &str) -> Result<String> {
        let length = self.u64(field)?;
        let length = self.expect_room(field, length, 1)?;
        let bytes = self.take(field, length)?.to_vec();
        String::from_utf8(bytes).map_err(|error| self.invalid(field, error.to_string()))
    }

    /// `count` as `usize`, if the rest of the file can hold that many things.
    fn expect_room(&self, field: &str, count: u64, bytes_each: usize) -> Result<usize> {
        let left = self.bytes.len() - self.position;
        match usize::try_from(count) {
            Ok(count) if count <= left / bytes_each => Ok(count),
            _ => Err(self.invalid(
                field,
                format!("says {count}, but only {left} bytes are left in the file"),
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
            None => Err(self.invalid(field, format!("the file ends at byte {}", bytes.len()))),
        }
    }

    fn invalid(&self, field: &str, reason: impl Into<String>) -> ModelError {
        ModelError::invalid(self.path, field, reason)
    }
}

/// Fewest bytes that a value of this kind takes; `None` if there is no such kind.
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

/// `enum ggml_type`.
fn codec(kind: u32) -> Option<Codec> {
    Some(match kind {
        0 => Codec::F32,
        1 => Codec::F16,
        2 => Codec::Q4_0,
        3 => Codec::Q4_1,
        6 => Codec::Q5_0,
        7 => Codec::Q5_1,
        8 => Codec::Q8_0,
        12 => Codec::Q4_K,
        13 => Codec::Q5_K,
        14 => Codec::Q6_K,
        30 => Codec::BF16,
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
const SUPPORTED: &str = "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K and Q6_K";
/// Longest key or tensor name; the format says 2^16 - 1 for keys and less for tensors.
const MAX_NAME_BYTES: usize = u16::MAX as usize;
/// `GGML_MAX_DIMS`.
const MAX_DIMS: u32 = 4;
/// Nothing in use nests arrays at all.
const MAX_ARRAY_DEPTH: usize = 3;
/// Length of a name, number of dimensions, one dimension, type, offset.
const MIN_TENSOR_BYTES: usize = 8 + 4 + 8 + 4 + 8;
/// Length of a key, type, a one-byte value.
const MIN_PAIR_BYTES: usize = 8 + 4 + 1;
