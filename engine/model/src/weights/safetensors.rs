//! The header of a safetensors file.
//!
//! Types and field names come from the `safetensors` crate. The rules are checked here, because its
//! errors do not say which tensor broke them and it lets a name appear twice.

use super::{
    codec::Codec,
    mapped::Mapped,
    tensor::{Entry, Storage},
};
use crate::{ModelError, Result};
use safetensors::{Dtype, tensor::TensorInfo};
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};
use std::{collections::HashSet, fmt, path::Path};

/// The tensors of a file; `index` is the number its entries know it by.
pub(super) fn read_header(file: &Mapped, index: usize) -> Result<Vec<(String, Entry)>> {
    let (path, bytes) = (file.path(), file.bytes());
    let invalid = |reason: String| ModelError::invalid(path, "header", reason);
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(invalid(format!("is cut off: the file has {} bytes", bytes.len())));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        return Err(invalid(format!(
            "says it has {length} bytes; the format allows {MAX_HEADER_BYTES}"
        )));
    }
    let header = usize::try_from(length).ok().and_then(|length| rest.get(..length));
    let Some(header) = header else {
        return Err(invalid(format!(
            "says it has {length} bytes, but only {} follow in the file",
            rest.len()
        )));
    };
    let data_start = LENGTH_BYTES + header.len();
    let data_len = bytes.len() - data_start;

    // A copy, as the file may change while serde reads it.
    let header = String::from_utf8(header.to_vec()).map_err(|error| invalid(error.to_string()))?;
    let Header(tensors) =
        serde_json::from_str(&header).map_err(|error| invalid(error.to_string()))?;
    check_layout(path, &tensors, data_len)?;
    Ok(tensors
        .into_iter()
        .map(|(name, info)| {
            let entry = Entry {
                file: index,
                offset: data_start + info.data_offsets.0,
                len: info.data_offsets.1 - info.data_offsets.0,
                storage: storage(info.dtype),
                shape: info.shape,
            };
            (name, entry)
        })
        .collect())
}

/// Sizes agree with shapes, and the tensors cover the data without hole or overlap.
fn check_layout(path: &Path, tensors: &[(String, TensorInfo)], data_len: usize) -> Result<()> {
    let mut in_order: Vec<_> = tensors.iter().collect();
    in_order.sort_by_key(|(_, info)| info.data_offsets);
    let mut covered = 0;
    for (name, info) in in_order {
        let invalid = |reason: String| Err(ModelError::invalid(path, name.as_str(), reason));
        let (start, end) = info.data_offsets;
        if start < covered {
            return invalid(format!("data at {start} overlaps a tensor that ends at {covered}"));
        }
        if start > covered {
            return invalid(format!("data at {start} leaves a hole after byte {covered}"));
        }
        if end < start {
            return invalid(format!("data ends at {end}, before its start at {start}"));
        }
        if end > data_len {
            return invalid(format!(
                "data ends at {end}, but the file has {data_len} bytes of data"
            ));
        }
        let bits = info
            .shape
            .iter()
            .try_fold(info.dtype.bitsize(), |product, &n| product.checked_mul(n))
            .filter(|bits| bits.is_multiple_of(8));
        if bits.map(|bits| bits / 8) != Some(end - start) {
            return invalid(format!(
                "has {} bytes of data, which is not what {:?} of shape {:?} takes",
                end - start,
                info.dtype,
                info.shape
            ));
        }
        covered = end;
    }
    if covered != data_len {
        return Err(ModelError::invalid(
            path,
            "header",
            format!("describes {covered} bytes of data, but the file has {data_len}"),
        ));
    }
    Ok(())
}

/// Types that Galley cannot read are kept, as they may belong to tensors that it does not need.
fn storage(dtype: Dtype) -> Storage {
    match dtype {
        Dtype::F32 => Storage::Codec(Codec::F32),
        Dtype::F16 => Storage::Codec(Codec::F16),
        Dtype::BF16 => Storage::Codec(Codec::BF16),
        other => Storage::Other(format!("{other:?}")),
    }
}

/// The header's tensors in the order of the file, every name once.
struct Header(Vec<(String, TensorInfo)>);

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
        let (mut tensors, mut seen) = (Vec::new(), HashSet::new());
        while let Some(name) = map.next_key::<String>()? {
            if !seen.insert(name.clone()) {
                return Err(A::Error::custom(format!("{name} appears twice")));
            }
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let info = map
                .next_value::<TensorInfo>()
                .map_err(|error| A::Error::custom(format!("{name}: {error}")))?;
            tensors.push((name, info));
        }
        Ok(Header(tensors))
    }
}

/// Bytes before the header: its length.
const LENGTH_BYTES: usize = 8;
/// The longest header that the format allows.
const MAX_HEADER_BYTES: u64 = 100_000_000;
