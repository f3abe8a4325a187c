//! Typed metadata of a model file, as GGUF has it.

use std::collections::{BTreeMap, HashMap};

/// The key-value pairs of a GGUF file. An accessor returns `None` if the key is absent or its value
/// has another kind.
#[derive(Debug, Default)]
pub struct Metadata {
    pub(crate) values: HashMap<String, MetadataValue>,
}

impl Metadata {
    /// A string.
    pub fn str(&self, key: &str) -> Option<&str> {
        match self.values.get(key)? {
            MetadataValue::Str(text) => Some(text),
            _ => None,
        }
    }

    /// An integer of any width that is not negative.
    pub fn u64(&self, key: &str) -> Option<u64> {
        match *self.values.get(key)? {
            MetadataValue::Unsigned(value) => Some(value),
            MetadataValue::Signed(value) => u64::try_from(value).ok(),
            _ => None,
        }
    }

    /// An integer of any width and sign.
    pub fn integer(&self, key: &str) -> Option<i128> {
        match *self.values.get(key)? {
            MetadataValue::Unsigned(value) => Some(value.into()),
            MetadataValue::Signed(value) => Some(value.into()),
            _ => None,
        }
    }

    /// A float of either width, rounded to `f32`, or an integer that `f32` holds exactly.
    pub fn f32(&self, key: &str) -> Option<f32> {
        match *self.values.get(key)? {
            MetadataValue::Float(value) => Some(value as f32),
            MetadataValue::Unsigned(value) if value <= F32_EXACT => Some(value as f32),
            MetadataValue::Signed(value) if value.unsigned_abs() <= F32_EXACT => Some(value as f32),
            _ => None,
        }
    }

    /// A boolean.
    pub fn bool(&self, key: &str) -> Option<bool> {
        match *self.values.get(key)? {
            MetadataValue::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// An array of strings.
    pub fn strings(&self, key: &str) -> Option<&[String]> {
        match self.values.get(key)? {
            MetadataValue::Strings { texts, .. } => Some(texts),
            _ => None,
        }
    }

    /// The bytes of the strings in an array that are not UTF-8, by index. [`Self::strings`] has
    /// them with U+FFFD.
    pub(crate) fn raw_strings(&self, key: &str) -> Option<&BTreeMap<usize, Vec<u8>>> {
        match self.values.get(key)? {
            MetadataValue::Strings { raw, .. } => Some(raw),
            _ => None,
        }
    }

    /// An array of numbers, rounded to `f32`.
    pub fn f32s(&self, key: &str) -> Option<Vec<f32>> {
        match self.values.get(key)? {
            MetadataValue::Floats(values) => Some(values.clone()),
            MetadataValue::Integers(values) => {
                Some(values.iter().map(|&value| value as f32).collect())
            }
            _ => None,
        }
    }

    /// An array of integers of any width, if all fit into `i32`.
    pub fn i32s(&self, key: &str) -> Option<&[i32]> {
        match self.values.get(key)? {
            MetadataValue::Integers(values) => Some(values),
            _ => None,
        }
    }

    /// Whether the key is present, with a value of any kind.
    pub fn contains(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// Replaces the value of a key by the value that the tensors show.
    pub(crate) fn correct(&mut self, key: String, value: u64) {
        self.values.insert(key, MetadataValue::Unsigned(value));
    }

    /// Removes a key that no longer holds.
    pub(crate) fn remove(&mut self, key: &str) {
        self.values.remove(key);
    }
}

/// One metadata value.
#[derive(Debug, PartialEq)]
pub(crate) enum MetadataValue {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Str(String),
    Strings {
        texts: Vec<String>,
        /// The bytes of the strings that are not UTF-8, by index.
        raw: BTreeMap<usize, Vec<u8>>,
    },
    Floats(Vec<f32>),
    Integers(Vec<i32>),
    /// An array without its values: nested, of booleans, or of integers beyond `i32`.
    Skipped,
}

/// Up to this number, `f32` holds every integer.
const F32_EXACT: u64 = 1 << 24;
