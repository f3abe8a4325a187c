//! A hash of a model's configuration and weights.

use super::Checkpoint;
use crate::config::RopeScaling;
use crate::weights::{codec::Codec, tensor::Storage};
use sha2::{Digest, Sha256};

/// Bytes of a tensor that are hashed together.
const SAMPLE_BYTES: usize = 1024;
/// Samples of a tensor, evenly spread, the first at its start and the last at its end.
const N_SAMPLES: usize = 16;

impl Checkpoint {
    /// A hash of configuration and weights. Of each tensor it reads name, shape, size, and up to 16
    /// KiB in 16 places, so it takes milliseconds for any model. Models that differ in a few
    /// weights alone may have the same hash.
    ///
    /// The same weights in another file format have another hash.
    pub fn content_hash(&self) -> u64 {
        let mut hash = Sha256::new();
        let mut config = self.config.clone();
        if !matches!(config.rope_scaling, RopeScaling::Dynamic { .. }) {
            config.max_context = self.longest_context; // a shorter context changes no number
        }
        hash.update(format!("{config:?}"));
        for (name, entry) in &self.tensors {
            hash.update(format!("{name} {:?} {}", entry.shape, entry.len));
            // Blocks of several formats have the same size.
            if let Storage::Codec(Codec::Blocks(format)) = entry.storage {
                hash.update(format.to_string());
            }
            let file = &self.files[entry.file];
            let bytes = file.bytes().get(entry.offset..).unwrap_or_default();
            let bytes = &bytes[..entry.len.min(bytes.len())];
            samples(bytes).for_each(|sample| hash.update(sample));
            // A sample brings its neighbours into memory, up to megabytes of them.
            file.release(entry.offset..entry.offset + bytes.len());
        }
        let digest = hash.finalize();
        u64::from_be_bytes(std::array::from_fn(|i| digest[i]))
    }
}

/// The parts of a tensor's bytes that are hashed: all of a small tensor.
fn samples(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let is_small = bytes.len() <= N_SAMPLES * SAMPLE_BYTES;
    let (n, size) = if is_small { (1, bytes.len()) } else { (N_SAMPLES, SAMPLE_BYTES) };
    let last = bytes.len() - size;
    (0..n).map(move |i| {
        let start = if n == 1 { 0 } else { last / (n - 1) * i };
        &bytes[start..start + size]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_reach_from_start_to_end() {
        let bytes: Vec<u8> = (0..1_000_000_u32).map(|i| i as u8).collect();
        let starts: Vec<_> = samples(&bytes).map(|part| part.as_ptr() as usize).collect();
        let base = bytes.as_ptr() as usize;
        assert_eq!((starts.len(), starts[0]), (N_SAMPLES, base));
        assert!(base + bytes.len() - starts[N_SAMPLES - 1] <= SAMPLE_BYTES + N_SAMPLES);
        assert_eq!(samples(&bytes[..5000]).map(<[u8]>::len).collect::<Vec<_>>(), [5000]);
        assert_eq!(samples(&[]).map(<[u8]>::len).sum::<usize>(), 0);
    }
}
