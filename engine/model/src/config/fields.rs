//! Fields of a `config.json`, checked at each read.

use super::size;
use crate::{ModelError, Result};
use serde_json::{Map, Value};
use std::path::Path;

/// A JSON object. Each read of a field checks it. `null` counts as absent. An integer may have the
/// form of a float, as Python writes it after a division.
pub(super) struct JsonFields<'a> {
    pub(super) path: &'a Path,
    prefix: &'static str,
    pub(super) object: &'a Map<String, Value>,
}

impl<'a> JsonFields<'a> {
    /// The fields of a whole file.
    pub(super) fn of_file(path: &'a Path, object: &'a Map<String, Value>) -> Self {
        Self { path, prefix: "", object }
    }

    /// The object's name in the file; empty for the whole file.
    pub(super) fn name(&self) -> &'static str {
        self.prefix
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn object(&self, name: &'static str) -> Result<Option<Self>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(Self { path: self.path, prefix: name, object })),
            Some(other) => Err(self.invalid(name, format!("{other} is no object"))),
        }
    }

    pub(super) fn integer(&self, name: &str) -> Result<Option<u64>> {
        self.read(name, "unsigned integer", unsigned)
    }

    pub(super) fn size(&self, name: &str, max: usize) -> Result<Option<usize>> {
        let value = self.integer(name)?;
        value.map(|value| size(self.path, &self.full_name(name), value, max)).transpose()
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<f64>> {
        self.read(name, "number", Value::as_f64)
    }

    /// A boolean, also in the form of 0 or 1.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>> {
        let flag = |value: &Value| match unsigned(value) {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => value.as_bool(),
        };
        self.read(name, "boolean", flag)
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>> {
        self.read(name, "string", Value::as_str)
    }

    pub(super) fn required_number(&self, name: &str) -> Result<f64> {
        self.number(name)?.ok_or_else(|| self.missing(name))
    }

    fn read<T>(
        &self,
        name: &str,
        kind: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let checked =
            |value| read(value).ok_or_else(|| self.invalid(name, format!("{value} is no {kind}")));
        self.get(name).map(checked).transpose()
    }

    pub(super) fn missing(&self, name: &str) -> ModelError {
        self.invalid(name, "is missing")
    }

    pub(super) fn invalid(&self, name: &str, reason: impl Into<String>) -> ModelError {
        ModelError::invalid(self.path, self.full_name(name), reason)
    }

    fn full_name(&self, name: &str) -> String {
        match self.prefix {
            "" => name.into(),
            prefix => format!("{prefix}.{name}"),
        }
    }
}

/// An unsigned integer, also in the form of a float.
pub(super) fn unsigned(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let float = value.as_f64()?;
        (float.fract() == 0.0 && (0.0..=F64_EXACT).contains(&float)).then_some(float as u64)
    })
}

/// Up to this number, `f64` holds every integer.
const F64_EXACT: f64 = (1_u64 << 53) as f64;
