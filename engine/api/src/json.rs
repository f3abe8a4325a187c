//! Reads values of JSON by their type, with errors that name the field.
//!
//! A value stays text until its type is known. A number thus becomes the type of its field from its own digits, with one
//! rounding, as a flag of the command line does: an f32 is never rounded to an f64 first. The text is read a fixed number
//! of times, so the time is proportional to its length.

mod nearest;
mod unique;

use crate::error::ApiError;
use crate::limits::MAX_BODY_BYTES;
use nearest::nearest;
use serde::Serialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::HashSet;
use std::fmt;

/// The text of a body.
pub(crate) fn text(json: &[u8]) -> Result<&str, ApiError> {
    if json.len() > MAX_BODY_BYTES {
        let (n, most) = (json.len(), MAX_BODY_BYTES);
        return Err(ApiError::invalid(
            "",
            format!("the JSON has {n} bytes, and {most} are allowed"),
        ));
    }
    std::str::from_utf8(json).map_err(|error| {
        let at = error.valid_up_to();
        ApiError::invalid("", format!("the JSON is not UTF-8: byte {at} begins no character"))
    })
}

/// The fields of an object, which are taken out one by one.
#[derive(Debug)]
pub(crate) struct Object<'a> {
    /// Stands before the key in the name of a field: nothing, `resume.` or `[2].`.
    prefix: String,
    /// The fields that have not been taken, in the order of the text.
    fields: Vec<(String, &'a RawValue)>,
    /// The keys that were asked for.
    known: Vec<&'static str>,
}

/// One value, and its place.
#[derive(Debug)]
pub(crate) struct Field<'a> {
    /// The place, such as `resume.generated`. Empty for a whole body.
    pub(crate) name: String,
    /// The JSON of the value.
    text: &'a str,
}

impl<'a> Object<'a> {
    /// The field of this key. None if it is absent or null.
    pub(crate) fn take(&mut self, key: &'static str) -> Option<Field<'a>> {
        self.known.push(key);
        let at = self.fields.iter().position(|(known, _)| known == key)?;
        let (_, value) = self.fields.remove(at);
        let field = Field { name: format!("{}{key}", self.prefix), text: value.get() };
        (field.text != "null").then_some(field)
    }

    /// Every field, in order.
    pub(crate) fn into_fields(self) -> impl Iterator<Item = (String, Field<'a>)> {
        let Self { prefix, fields, .. } = self;
        fields.into_iter().map(move |(key, value)| {
            // An id is short; any other key is quoted in an error, and shortened there.
            let name = format!("{prefix}{:?}", shortened(&key));
            (key, Field { name, text: value.get() })
        })
    }

    /// An error if a field was not taken. It names the nearest of the known keys, and `way_out`.
    pub(crate) fn finish(self, way_out: &str) -> Result<(), ApiError> {
        let Some((key, _)) = self.fields.first() else { return Ok(()) };
        let meant = match nearest(key, &self.known) {
            Some(meant) => format!("unknown key; is \"{meant}\" meant?"),
            None => "unknown key".to_owned(),
        };
        let name = format!("{}{}", self.prefix, shortened(key));
        Err(ApiError::invalid(&name, format!("{meant}{way_out}")))
    }
}

impl<'a> Field<'a> {
    /// A whole body of JSON.
    pub(crate) fn body(text: &'a str) -> Self {
        Self { name: String::new(), text: trim(text) }
    }

    /// A wrong value of this field.
    pub(crate) fn wrong(&self, reason: impl Into<String>) -> ApiError {
        ApiError::invalid(&self.name, reason)
    }

    /// A value of the wrong type.
    pub(crate) fn mistyped(&self, needed: &str) -> ApiError {
        self.wrong(format!("{needed} is needed, not {}", self.described()))
    }

    /// JSON that has an error in itself.
    fn broken(&self, error: &serde_json::Error) -> ApiError {
        let text = error.to_string();
        // The position counts from the start of this field, which has a meaning for a whole body only.
        let reason = match text.rsplit_once(" at line ") {
            Some((reason, _)) if !self.name.is_empty() => reason,
            _ => &text,
        };
        self.wrong(format!("this is no JSON that can be read: {reason}"))
    }

    fn described(&self) -> String {
        match self.text.as_bytes().first() {
            Some(b'"') => format!("the string {}", shortened(self.text)),
            Some(b'[') => "a list".into(),
            Some(b'{') => "an object".into(),
            Some(b'0'..=b'9' | b'-') => format!("the number {}", shortened(self.text)),
            _ => shortened(self.text),
        }
    }

    pub(crate) fn is_string(&self) -> bool {
        self.text.starts_with('"')
    }

    pub(crate) fn is_list(&self) -> bool {
        self.text.starts_with('[')
    }

    pub(crate) fn is_bool(&self) -> bool {
        matches!(self.text, "true" | "false")
    }

    pub(crate) fn bool(&self) -> Result<bool, ApiError> {
        match self.text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(self.mistyped("true or false")),
        }
    }

    pub(crate) fn string(&self) -> Result<String, ApiError> {
        if !self.is_string() {
            return Err(self.mistyped("a string"));
        }
        serde_json::from_str(self.text).map_err(|error| self.broken(&error))
    }

    /// The digits of a number, without any rounding.
    fn digits(&self, needed: &str) -> Result<&'a str, ApiError> {
        match self.text.starts_with(|first: char| first.is_ascii_digit() || first == '-') {
            true => Ok(self.text),
            false => Err(self.mistyped(needed)),
        }
    }

    /// The f32 that is nearest to the number.
    pub(crate) fn f32(&self) -> Result<f32, ApiError> {
        let number = self.digits("a number")?.parse::<f32>();
        let number = number.map_err(|_| self.mistyped("a number"))?;
        if number.is_finite() { Ok(number) } else { Err(self.too_large("f32")) }
    }

    pub(crate) fn f64(&self) -> Result<f64, ApiError> {
        let number = self.digits("a number")?.parse::<f64>();
        let number = number.map_err(|_| self.mistyped("a number"))?;
        if number.is_finite() { Ok(number) } else { Err(self.too_large("f64")) }
    }

    fn too_large(&self, kind: &str) -> ApiError {
        self.wrong(format!("{} is more than an {kind} holds", shortened(self.text)))
    }

    /// A whole number from `least` to `most`.
    pub(crate) fn whole<T: TryFrom<i128>>(&self, least: i128, most: i128) -> Result<T, ApiError> {
        let digits = self.digits("a whole number")?;
        if digits.contains(['.', 'e', 'E']) {
            return Err(self.mistyped("a whole number"));
        }
        // A number that i128 does not hold is out of every range.
        let number = digits.parse::<i128>().ok().filter(|number| (least..=most).contains(number));
        number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| {
            self.wrong(format!("{} is not between {least} and {most}", shortened(digits)))
        })
    }

    pub(crate) fn u32(&self) -> Result<u32, ApiError> {
        self.whole(0, u32::MAX.into())
    }

    pub(crate) fn u64(&self) -> Result<u64, ApiError> {
        self.whole(0, u64::MAX.into())
    }

    /// The items of a list.
    pub(crate) fn items(&self, needed: &str) -> Result<Vec<&'a RawValue>, ApiError> {
        if !self.is_list() {
            return Err(self.mistyped(needed));
        }
        serde_json::from_str(self.text).map_err(|error| self.broken(&error))
    }

    /// An item of this list.
    pub(crate) fn item(&self, index: usize, item: &'a RawValue) -> Field<'a> {
        Field { name: format!("{}[{index}]", self.name), text: item.get() }
    }

    /// A list of token ids.
    pub(crate) fn ids(&self) -> Result<Vec<u32>, ApiError> {
        let items = self.items("a list of token ids")?;
        let id = |(index, item): (usize, &'a RawValue)| match plain_id(item.get()) {
            Some(id) => Ok(id),
            None => self.item(index, item).u32(), // the error, with a name that is made only for it
        };
        items.into_iter().enumerate().map(id).collect()
    }

    /// A string, or a list of strings.
    pub(crate) fn strings(&self) -> Result<Vec<String>, ApiError> {
        if self.is_string() {
            return Ok(vec![self.string()?]);
        }
        let items = self.items("a string or a list of strings")?.into_iter().enumerate();
        items.map(|(index, item)| self.item(index, item).string()).collect()
    }

    /// The fields of an object, each of which has another key.
    pub(crate) fn object(&self) -> Result<Object<'a>, ApiError> {
        if !self.text.starts_with('{') {
            if self.name.is_empty() && !self.text.starts_with(['[', '"']) {
                // Checks the syntax first: the text may be no JSON at all.
                serde_json::from_str::<&RawValue>(self.text)
                    .map_err(|error| self.broken(&error))?;
            }
            return Err(self.mistyped("an object"));
        }
        let mut source = serde_json::Deserializer::from_str(self.text);
        let fields =
            source.deserialize_map(Fields).and_then(|fields| source.end().map(|()| fields));
        let fields = fields.map_err(|error| self.broken(&error))?;
        let prefix = if self.name.is_empty() { String::new() } else { format!("{}.", self.name) };
        let mut seen = HashSet::with_capacity(fields.len());
        if let Some((twice, _)) = fields.iter().find(|(key, _)| !seen.insert(key.as_str())) {
            let name = format!("{prefix}{}", shortened(twice));
            return Err(ApiError::invalid(&name, "the key is there twice"));
        }
        Ok(Object { prefix, fields, known: Vec::new() })
    }

    /// Any value, in which no object has a key twice.
    pub(crate) fn value(&self) -> Result<Value, ApiError> {
        unique::read(self.text).map_err(|error| self.broken(&error))
    }
}

/// The field of a key, read into its place. An absent or null field leaves the place as it is.
pub(crate) fn read_into<'a, T>(
    object: &mut Object<'a>,
    key: &'static str,
    place: &mut T,
    read: impl FnOnce(&Field<'a>) -> Result<T, ApiError>,
) -> Result<(), ApiError> {
    if let Some(field) = object.take(key) {
        *place = read(&field)?;
    }
    Ok(())
}

/// A body as one line of JSON.
pub(crate) fn to_string(body: &impl Serialize) -> String {
    serde_json::to_string(body).expect("every key of a body is a string or a number")
}

/// The values of a text, one after the other, such as lines of JSON.
pub(crate) fn values(text: &str) -> Result<Vec<&RawValue>, ApiError> {
    let values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    values.collect::<Result<_, _>>().map_err(|error| Field::body(text).broken(&error))
}

/// An id of digits alone.
fn plain_id(text: &str) -> Option<u32> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// The text without the white space of JSON around it.
fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\n', '\r'])
}

/// Text for an error: no longer than a line, without control characters.
fn shortened(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(MAX_SHOWN_CHARS)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(MAX_SHOWN_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

const MAX_SHOWN_CHARS: usize = 60;

/// Visits an object, and leaves its values as text.
struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(fields)
    }
}
