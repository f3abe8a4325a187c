//! Makes changed copies of sound models, for the tests of several crates.
#![allow(dead_code, reason = "every test binary uses a part")]

use serde_json::Value;
use std::fs;
use std::path::Path;

/// Copies the files of a model directory, its weights and JSON files, to `to`.
pub(crate) fn copy_model(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a model directory") {
        let entry = entry.expect("an entry");
        if entry.file_name() != "reference.safetensors" {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
        }
    }
}

/// Changes the object in a JSON file. A missing file starts as `{}`.
pub(crate) fn edit_json(path: &Path, change: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    let text = fs::read(path).unwrap_or_else(|_| b"{}".to_vec());
    let mut json: Value = serde_json::from_slice(&text).expect("JSON");
    change(json.as_object_mut().expect("an object"));
    fs::write(path, json.to_string()).expect("written");
}

/// A copy of a GGUF file with changeable metadata.
pub(crate) struct GgufCopy {
    bytes: Vec<u8>,
    n_added: u64,
    added: Vec<u8>,
}

const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const BOOL: u32 = 7;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

impl GgufCopy {
    pub(crate) fn of(path: &Path) -> Self {
        Self { bytes: fs::read(path).expect("a GGUF file"), n_added: 0, added: Vec::new() }
    }

    /// Overwrites the 32-bit unsigned value of a key.
    pub(crate) fn set_u32(mut self, key: &str, value: u32) -> Self {
        let at = self.after(&[&string(key)[..], &U32.to_le_bytes()].concat());
        self.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        self
    }

    /// Overwrites the boolean value of a key.
    pub(crate) fn set_bool(mut self, key: &str, value: bool) -> Self {
        let at = self.after(&[&string(key)[..], &BOOL.to_le_bytes()].concat());
        self.bytes[at] = value.into();
        self
    }

    /// Overwrites the kind of a token.
    pub(crate) fn set_token_type(mut self, token: u32, kind: i32) -> Self {
        // Skips the type of the value, the type of the elements and their number.
        let at = self.after(&string("tokenizer.ggml.token_type")) + 4 + 4 + 8 + 4 * token as usize;
        self.bytes[at..at + 4].copy_from_slice(&kind.to_le_bytes());
        self
    }

    /// Gives a token another spelling of the same length, in the chat template too.
    pub(crate) fn respell(mut self, from: &str, to: &str) -> Self {
        assert_eq!(from.len(), to.len());
        self.after(&string(from));
        while let Some(at) = find(&self.bytes, from.as_bytes()) {
            self.bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        }
        self
    }

    /// Removes a key, by giving it another name of the same length.
    pub(crate) fn without(mut self, key: &str) -> Self {
        let end = self.after(&string(key));
        self.bytes[end - 1] = b'_';
        self
    }

    /// Makes blocks of Q8_0 of an f16 tensor. The data stay: each scale is one of the f16 weights.
    pub(crate) fn with_q8_0(mut self, tensor: &str) -> Self {
        const F16_TYPE: u32 = 1;
        const Q8_0_TYPE: u32 = 8;
        const DIMENSIONS: usize = 2;
        let at = self.after(&[&string(tensor)[..], &(DIMENSIONS as u32).to_le_bytes()].concat());
        let kind = &mut self.bytes[at + 8 * DIMENSIONS..][..4];
        assert_eq!(kind, F16_TYPE.to_le_bytes(), "{tensor} is f16");
        kind.copy_from_slice(&Q8_0_TYPE.to_le_bytes());
        self
    }

    pub(crate) fn add_f32(self, key: &str, value: f32) -> Self {
        self.add(key, F32, &value.to_le_bytes())
    }

    pub(crate) fn add_u32(self, key: &str, value: u32) -> Self {
        self.add(key, U32, &value.to_le_bytes())
    }

    pub(crate) fn add_text(self, key: &str, value: &str) -> Self {
        self.add(key, STRING, &string(value))
    }

    pub(crate) fn add_i32s(self, key: &str, values: &[i32]) -> Self {
        let mut list = I32.to_le_bytes().to_vec();
        list.extend((values.len() as u64).to_le_bytes());
        list.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        self.add(key, ARRAY, &list)
    }

    fn add(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.n_added += 1;
        self.added.extend(string(key));
        self.added.extend(kind.to_le_bytes());
        self.added.extend(value);
        self
    }

    /// Writes the file. New pairs come first, with a filler pair that keeps the data aligned.
    pub(crate) fn write(mut self, path: &Path) {
        if self.n_added > 0 {
            let empty = self.added.len() + 8 + "filler".len() + 4 + 8;
            let fill = "x".repeat(empty.next_multiple_of(ALIGNMENT) - empty);
            self = self.add_text("filler", &fill);
        }
        const COUNT: std::ops::Range<usize> = 16..24;
        let count = u64::from_le_bytes(self.bytes[COUNT].try_into().expect("8 bytes"));
        self.bytes[COUNT].copy_from_slice(&(count + self.n_added).to_le_bytes());
        self.bytes.splice(COUNT.end..COUNT.end, self.added);
        fs::write(path, self.bytes).expect("written");
    }

    /// The offset after the first occurrence of `pattern`.
    fn after(&self, pattern: &[u8]) -> usize {
        find(&self.bytes, pattern).expect("the file has it") + pattern.len()
    }
}

const ALIGNMENT: usize = 32;

/// Length and bytes of a GGUF string.
fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}
