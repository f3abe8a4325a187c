//! Requests as JSON: from bytes to the engine's `Request`.

use crate::chat::{Conversation, ModelTexts};
use crate::error::ApiError;
use crate::json::{Field, Object, read_into, text, values};
use galley_engine::{AUTO, DraftRequest, DrafterChoice, Prompt, Request, SamplingParams, Verify};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

/// A request that has passed all checks that need no model.
#[derive(Clone, Debug)]
pub struct RequestBody {
    /// The request. Its prompt is empty if there is a conversation.
    pub(crate) request: Request,
    conversation: Option<Conversation>,
}

/// Reads a request: one JSON object. `docs/requests.md` lists its keys.
///
/// ```
/// let body = br#"{"prompt": "Once upon a time", "temperature": 0.8, "max_tokens": 64}"#;
/// galley_api::parse_request(body)?;
/// let error = galley_api::parse_request(br#"{"prompt": "Once", "temprature": 0.8}"#).unwrap_err();
/// assert!(error.to_string().starts_with("temprature: unknown key; is \"temperature\" meant?"));
/// # Ok::<(), galley_api::ApiError>(())
/// ```
///
/// # Errors
///
/// The first wrong field, with the values that are allowed.
pub fn parse_request(json: &[u8]) -> Result<RequestBody, ApiError> {
    body_of(&Field::body(text(json)?), None)
}

/// Reads several requests: a list of objects, or objects one after the other, such as one a line. The fields in errors
/// begin with the index of the request from 0, as `[2].temperature`, unless the text is one object.
///
/// # Errors
///
/// The first wrong field of the first wrong request.
pub fn parse_requests(json: &[u8]) -> Result<Vec<RequestBody>, ApiError> {
    let text = text(json)?;
    let whole = Field::body(text);
    let items = if whole.is_list() { whole.items("a list of requests")? } else { values(text)? };
    if let ([item], false) = (&items[..], whole.is_list()) {
        return Ok(vec![body_of(&Field::body(item.get()), None)?]);
    }
    let body = |(index, item): (usize, &RawValue)| {
        body_of(&Field::body(item.get()), None).map_err(|error| error.of_item(index))
    };
    items.into_iter().enumerate().map(body).collect()
}

/// Reads a request with a prompt of token ids that is not part of the JSON, which then has neither `prompt` nor
/// `messages`.
///
/// # Errors
///
/// The first wrong field.
pub fn parse_request_of_tokens(json: &[u8], prompt: Vec<u32>) -> Result<RequestBody, ApiError> {
    body_of(&Field::body(text(json)?), Some(prompt))
}

impl RequestBody {
    /// The engine's request. The messages of a conversation are rendered by the model's chat template.
    ///
    /// # Errors
    ///
    /// A model without a chat template, or a conversation that the template refuses.
    pub fn into_request(self, texts: &ModelTexts) -> Result<Request, ApiError> {
        match &self.conversation {
            None => Ok(self.request),
            Some(conversation) => {
                let rendered = texts.render(conversation)?;
                Ok(self.request.prompt(Prompt::Rendered(rendered)))
            }
        }
    }
}

fn body_of(whole: &Field<'_>, given: Option<Vec<u32>>) -> Result<RequestBody, ApiError> {
    let mut object = whole.object()?;
    let mut ignores_unknown = false;
    read_into(&mut object, "ignore_unknown", &mut ignores_unknown, Field::bool)?;
    let conversation = Conversation::take(&mut object)?;
    let prompt = prompt_of(&mut object, conversation.is_some(), given)?;
    let mut request = Request::new(prompt.clone().unwrap_or(Prompt::Tokens(Vec::new())));
    request.chat |= conversation.is_some();
    read_into(&mut object, "chat", &mut request.chat, Field::bool)?;
    read_sampling(&mut object, &mut request.sampling)?;
    read_length_and_stops(&mut object, &mut request)?;
    read_drafting(&mut object, &mut request.drafting)?;
    if let Some(resume) = object.take("resume") {
        read_resume(&resume, &mut request)?;
    }
    if !ignores_unknown {
        object.finish(" (\"ignore_unknown\": true lets such keys pass)")?;
    }
    if prompt.is_none() && conversation.is_none() {
        return Err(ApiError::invalid("prompt", "prompt or messages is needed"));
    }
    request.check()?;
    Ok(RequestBody { request, conversation })
}

/// The prompt of `prompt`, or the one that is given beside the JSON.
fn prompt_of(
    object: &mut Object<'_>,
    has_messages: bool,
    given: Option<Vec<u32>>,
) -> Result<Option<Prompt>, ApiError> {
    let field = object.take("prompt");
    let special = object.take("add_special_tokens");
    if given.is_some() && (field.is_some() || has_messages) {
        let key = if has_messages { "messages" } else { "prompt" };
        return Err(ApiError::invalid(key, "the prompt is given as token ids already"));
    }
    if let (Some(field), true) = (&field, has_messages) {
        return Err(field.wrong("the request has messages, too: leave out one of them"));
    }
    let prompt = match &field {
        None => given.map(Prompt::Tokens),
        Some(field) if field.is_string() => Some(Prompt::Text(field.string()?)),
        Some(field) if field.is_list() => Some(Prompt::Tokens(field.ids()?)),
        Some(field) => return Err(field.mistyped("a string or a list of token ids")),
    };
    match (prompt, special) {
        (Some(Prompt::Text(text)), Some(special)) if !special.bool()? => {
            Ok(Some(Prompt::Rendered(text)))
        }
        (prompt @ Some(Prompt::Text(_)), _) | (prompt, None) => Ok(prompt),
        (_, Some(special)) => Err(special.wrong("it has a meaning for a prompt of text only")),
    }
}

fn read_sampling(object: &mut Object<'_>, to: &mut SamplingParams) -> Result<(), ApiError> {
    read_into(object, "temperature", &mut to.temperature, Field::f32)?;
    read_into(object, "top_p", &mut to.top_p, Field::f32)?;
    read_into(object, "top_k", &mut to.top_k, |field| {
        let k: i64 = field.whole(-1, u32::MAX.into())?;
        Ok(u32::try_from(k).unwrap_or(0)) // -1 keeps all tokens, as 0 does
    })?;
    read_into(object, "min_p", &mut to.min_p, Field::f32)?;
    read_into(object, "repetition_penalty", &mut to.repetition_penalty, Field::f32)?;
    read_into(object, "presence_penalty", &mut to.presence_penalty, Field::f32)?;
    read_into(object, "frequency_penalty", &mut to.frequency_penalty, Field::f32)?;
    read_into(object, "logit_bias", &mut to.logit_bias, biases_of)?;
    to.logprobs = logprobs_of(object)?;
    Ok(())
}

fn biases_of(field: &Field<'_>) -> Result<Vec<(u32, f32)>, ApiError> {
    let bias = |(key, field): (String, Field<'_>)| match key.parse::<u32>() {
        // Another spelling of an id, such as 07, could stand beside the usual one.
        Ok(id) if id.to_string() == key => Ok((id, field.f32()?)),
        _ => Err(field.wrong("the key is no token id")),
    };
    field.object()?.into_fields().map(bias).collect()
}

/// A number of alternatives: `"logprobs": 3`, or as for chats of OpenAI `"logprobs": true, "top_logprobs": 3`.
fn logprobs_of(object: &mut Object<'_>) -> Result<Option<u32>, ApiError> {
    let asked = object.take("logprobs");
    let top = object.take("top_logprobs");
    match (asked, top) {
        (None, None) => Ok(None),
        (Some(asked), top) if asked.is_bool() => match (asked.bool()?, top) {
            (true, None) => Ok(Some(0)),
            (true, Some(top)) => top.u32().map(Some),
            (false, None) => Ok(None),
            (false, Some(top)) => Err(top.wrong("it needs \"logprobs\": true")),
        },
        (Some(asked), None) => asked.u32().map(Some),
        (Some(_), Some(top)) => {
            Err(top.wrong("logprobs gives the number already: leave out one of them"))
        }
        (None, Some(top)) => Err(top.wrong("it needs \"logprobs\": true")),
    }
}

fn read_length_and_stops(object: &mut Object<'_>, to: &mut Request) -> Result<(), ApiError> {
    let (one, other) = (object.take("max_tokens"), object.take("max_completion_tokens"));
    let number = |field: &Field<'_>| field.u32();
    let (max_tokens, completion) =
        (one.as_ref().map(number).transpose()?, other.as_ref().map(number).transpose()?);
    if let (Some(_), Some(_), Some(field)) = (max_tokens, completion, &other)
        && max_tokens != completion
    {
        return Err(field.wrong("it is another name of max_tokens, which has another value"));
    }
    to.max_tokens = max_tokens.or(completion);
    read_into(object, "min_tokens", &mut to.min_tokens, Field::u32)?;
    read_into(object, "seed", &mut to.seed, |field| field.u64().map(Some))?;
    read_into(object, "n", &mut to.n, Field::u32)?;
    read_into(object, "stop", &mut to.stop, Field::strings)?;
    read_into(object, "stop_token_ids", &mut to.stop_tokens, Field::ids)?;
    read_into(object, "include_stop_str_in_output", &mut to.include_stop, Field::bool)?;
    read_into(object, "ignore_eos", &mut to.ignore_eos, Field::bool)?;
    read_into(object, "priority", &mut to.priority, |field| {
        field.whole(i32::MIN.into(), i32::MAX.into())
    })?;
    read_into(object, "cache_salt", &mut to.cache_salt, |field| match field.is_string() {
        true => field.string().map(|text| salt_of(&text)),
        false => field.u64(),
    })
}

/// The salt of a text: the same in every version, on every machine.
fn salt_of(text: &str) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(Sha256::digest(text));
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

fn read_drafting(object: &mut Object<'_>, to: &mut DraftRequest) -> Result<(), ApiError> {
    read_into(object, "drafter", &mut to.drafter, |field| {
        let name = field.string()?;
        Ok(match name.as_str() {
            OFF => DrafterChoice::Off,
            AUTO => DrafterChoice::Auto,
            _ => DrafterChoice::Named(name),
        })
    })?;
    read_into(object, "draft_length", &mut to.draft_length, |field| field.u32().map(Some))?;
    read_into(object, "kv_budget", &mut to.kv_budget, |field| {
        field.whole(1, u32::MAX.into()).map(Some)
    })?;
    read_into(object, "verify", &mut to.verify, |field| {
        field.string()?.parse::<Verify>().map_err(|reason| field.wrong(reason))
    })
}

/// The name of no drafter.
pub(crate) const OFF: &str = "off";

fn read_resume(field: &Field<'_>, to: &mut Request) -> Result<(), ApiError> {
    let mut object = field.object()?;
    read_into(&mut object, "generated", &mut to.generated, Field::ids)?;
    read_into(&mut object, "fingerprint", &mut to.fingerprint, |field| field.string().map(Some))?;
    object.finish("")
}

#[cfg(test)]
mod tests;
