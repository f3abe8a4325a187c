//! The header of a safetensors file.
//!
//! Names of types come from the `safetensors` crate. This module reads headers itself, because the
//! crate's reader refuses a file for a tensor that the model does not need, and its errors do not
//! name the tensor.

use super::{
    codec::Codec,
    mapped::Mapped,
    tensor::{Storage, TensorEntry},
};
use crate::{ModelError, Result, files};
use safetensors::Dtype;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::Value;
use std::{collections::BTreeMap, fmt};

/// Reads the tensors of a file. Their entries get `index` as the number of the file.
///
/// A defect of a tensor is kept in its entry ([`Storage::Broken`]): the model may not need it.
pub(super) fn read_header(file: &Mapped, index: usize) -> Result<BTreeMap<String, TensorEntry>> {
    parse_header(file, index).map_err(|error| match files::recognise(file.bytes()) {
        Some(mistake) => ModelError::unsupported(file.path(), mistake),
        None => error,
    })
}

fn parse_header(file: &Mapped, index: usize) -> Result<BTreeMap<String, TensorEntry>> {
    let (path, bytes) = (file.path(), file.bytes());
    let invalid = |reason: String| ModelError::invalid(path, "header", reason);
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(invalid(format!(
            "is cut off: the file has {} bytes: {DOWNLOAD_AGAIN}",
            bytes.len()
        )));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        return Err(invalid(format!(
            "says it has {length} bytes; the format allows {MAX_HEADER_BYTES}: this is no safetensors file"
        )));
    }
    let header = usize::try_from(length).ok().and_then(|length| rest.get(..length));
    let Some(header) = header else {
        return Err(invalid(format!(
            "says it has {length} bytes, but only {} follow in the file: {DOWNLOAD_AGAIN}",
            rest.len()
        )));
    };
    let data = DataSection { start: LENGTH_BYTES + header.len(), len: rest.len() - header.len() };

    // The header is copied, as the file may change while serde reads it.
    let header = String::from_utf8_lossy(header).into_owned();
    let Header(tensors) =
        serde_json::from_str(&header).map_err(|error| invalid(error.to_string()))?;
    let mut entries = BTreeMap::<String, TensorEntry>::new();
    let mut described = 0_usize;
    for (name, description) in tensors {
        let entry = data.entry(index, &description);
        described = described.saturating_add(entry.len);
        match entries.get_mut(&name) {
            Some(first) if first.offset == entry.offset && first.len == entry.len => {}
            Some(first) => first.storage = Storage::Broken("appears twice".into()),
            None => drop(entries.insert(name, entry)),
        }
    }
    if described < data.len {
        tracing::warn!(
            "{}: {} of {} bytes of data belong to no tensor",
            path.display(),
            data.len - described,
            data.len
        );
    }
    Ok(entries)
}

/// The part of a file after its header.
struct DataSection {
    start: usize,
    len: usize,
}

impl DataSection {
    fn entry(&self, file: usize, description: &Value) -> TensorEntry {
        self.checked_entry(file, description).unwrap_or_else(|reason| TensorEntry {
            file,
            offset: 0,
            len: 0,
            storage: Storage::Broken(reason),
            shape: Vec::new(),
        })
    }

    /// The entry. An error if its size contradicts its shape, or if it exceeds the file.
    fn checked_entry(&self, file: usize, description: &Value) -> Result<TensorEntry, String> {
        let sizes = |field: &str| -> Result<Vec<usize>, String> {
            let value = &description[field];
            let sizes = value.as_array().map(|sizes| {
                sizes.iter().map(|size| size.as_u64().and_then(|size| usize::try_from(size).ok()))
            });
            let sizes: Option<Vec<usize>> = sizes.and_then(Iterator::collect);
            sizes.ok_or_else(|| format!("{field} {value} is no list of sizes"))
        };
        let dtype = &description["dtype"];
        let Some(dtype_name) = dtype.as_str() else {
            return Err(format!("dtype {dtype} is no name of a type"));
        };
        let (shape, offsets) = (sizes("shape")?, sizes("data_offsets")?);
        let [start, end] = offsets[..] else {
            return Err(format!("data_offsets {offsets:?} are not two"));
        };
        if end < start {
            return Err(format!("data ends at {end}, before its start at {start}"));
        }
        if end > self.len {
            return Err(format!(
                "data ends at {end}, but the file has {} bytes of data: {DOWNLOAD_AGAIN}",
                self.len
            ));
        }
        // A type that Galley cannot read is no error yet: the model may not need the tensor.
        let storage = match Dtype::deserialize(dtype) {
            Ok(Dtype::F32) => Storage::Codec(Codec::F32),
            Ok(Dtype::F16) => Storage::Codec(Codec::F16),
            Ok(Dtype::BF16) => Storage::Codec(Codec::BF16),
            Ok(_) | Err(_) => Storage::Other(dtype_name.into()),
        };
        if let Storage::Codec(codec) = storage
            && codec.tensor_bytes(&shape) != Some(end - start)
        {
            return Err(format!(
                "has {} bytes of data, which is not the size of {codec} with shape {shape:?}",
                end - start
            ));
        }
        Ok(TensorEntry { file, offset: self.start + start, len: end - start, storage, shape })
    }
}

/// The header's tensors in the order of the file. Names may repeat.
struct Header(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut tensors = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            tensors.push((name, map.next_value::<Value>()?));
        }
        Ok(Header(tensors))
    }
}

const DOWNLOAD_AGAIN: &str = "the file is cut off, so download it again";
/// Bytes of the header's length, which stands before the header.
const LENGTH_BYTES: usize = 8;
/// The longest header that the format allows.
const MAX_HEADER_BYTES: u64 = 100_000_000;
