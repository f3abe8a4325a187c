//! Values of JSON in which no object has a key twice.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// Reads a value. Numbers that f64 cannot hold, objects with a key twice and more than 127 levels are errors.
pub(super) fn read(text: &str) -> serde_json::Result<Value> {
    let mut source = serde_json::Deserializer::from_str(text);
    let value = Unique.deserialize(&mut source)?;
    source.end()?;
    Ok(value)
}

struct Unique;

impl<'de> DeserializeSeed<'de> for Unique {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Value, D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Unique)? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key {key:?} is there twice")));
            }
            object.insert(key, fields.next_value_seed(Unique)?);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_that_of_serde_json_unless_a_key_is_there_twice() {
        for text in
            ["null", "[true, -1, 2, 0.5, \"a\\u00e9\"]", r#"{"b": {"a": 1}, "a": []}"#, "1e3"]
        {
            assert_eq!(
                read(text).expect("a value"),
                serde_json::from_str::<Value>(text).expect("a value")
            );
        }
        for (text, part) in [
            (r#"{"a": 1, "a": 2}"#, "\"a\" is there twice"),
            (r#"[{"b": {"a": 1, "\u0061": 1}}]"#, "\"a\" is there twice"),
            ("1e400", "out of range"),
            ("[1] 2", "trailing"),
            (&"[".repeat(200), "recursion limit"),
            (r#""\ud800""#, "hex escape"),
        ] {
            let error = read(text).expect_err("an error").to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
