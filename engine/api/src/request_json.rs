//! The engine's `Request` as JSON, which [`parse_request`](crate::parse_request) reads again.

use crate::request::OFF;
use galley_engine::{AUTO, DrafterChoice, Prompt, Request};
use serde::{Serialize, Serializer};

/// A request as JSON. [`parse_request`](crate::parse_request) of it gives an equal request, if
/// [`Request::check`](galley_engine::Request::check) accepts the request, no token has two biases and no drafter is named
/// `off`.
pub fn request_json(request: &Request) -> String {
    let (sampling, drafting) = (&request.sampling, &request.drafting);
    let (prompt, add_special_tokens) = match &request.prompt {
        Prompt::Text(text) => (PromptBody::Text(text), None),
        Prompt::Rendered(text) => (PromptBody::Text(text), Some(false)),
        Prompt::Tokens(ids) => (PromptBody::Tokens(ids), None),
    };
    let body = Body {
        prompt,
        add_special_tokens,
        chat: request.chat,
        temperature: sampling.temperature,
        top_p: sampling.top_p,
        top_k: sampling.top_k,
        min_p: sampling.min_p,
        repetition_penalty: sampling.repetition_penalty,
        presence_penalty: sampling.presence_penalty,
        frequency_penalty: sampling.frequency_penalty,
        logit_bias: &sampling.logit_bias,
        logprobs: sampling.logprobs,
        seed: request.seed,
        n: request.n,
        max_tokens: request.max_tokens,
        min_tokens: request.min_tokens,
        stop: &request.stop,
        stop_token_ids: &request.stop_tokens,
        include_stop_str_in_output: request.include_stop,
        ignore_eos: request.ignore_eos,
        priority: request.priority,
        cache_salt: request.cache_salt,
        drafter: match &drafting.drafter {
            DrafterChoice::Default => None,
            DrafterChoice::Off => Some(OFF),
            DrafterChoice::Auto => Some(AUTO),
            DrafterChoice::Named(name) => Some(name),
        },
        draft_length: drafting.draft_length,
        kv_budget: drafting.kv_budget,
        verify: drafting.verify.to_string(),
        resume: ResumeBody {
            generated: &request.generated,
            fingerprint: request.fingerprint.as_deref(),
        },
    };
    crate::json::to_string(&body)
}

#[derive(Serialize)]
struct Body<'a> {
    prompt: PromptBody<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    add_special_tokens: Option<bool>,
    chat: bool,
    temperature: f32,
    top_p: f32,
    top_k: u32,
    min_p: f32,
    repetition_penalty: f32,
    presence_penalty: f32,
    frequency_penalty: f32,
    #[serde(serialize_with = "biases")]
    logit_bias: &'a [(u32, f32)],
    logprobs: Option<u32>,
    seed: Option<u64>,
    n: u32,
    max_tokens: Option<u32>,
    min_tokens: u32,
    stop: &'a [String],
    stop_token_ids: &'a [u32],
    include_stop_str_in_output: bool,
    ignore_eos: bool,
    priority: i32,
    cache_salt: u64,
    drafter: Option<&'a str>,
    draft_length: Option<u32>,
    kv_budget: Option<u32>,
    verify: String,
    resume: ResumeBody<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum PromptBody<'a> {
    Text(&'a str),
    Tokens(&'a [u32]),
}

#[derive(Serialize)]
struct ResumeBody<'a> {
    generated: &'a [u32],
    fingerprint: Option<&'a str>,
}

fn biases<S: Serializer>(biases: &[(u32, f32)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(biases.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_request;
    use galley_engine::{DraftRequest, SamplingParams, Verify};
    use proptest::collection::{btree_map, vec};
    use proptest::option;
    use proptest::prelude::*;

    fn sampling() -> impl Strategy<Value = SamplingParams> {
        let penalties = (0.01f32..=100.0, -100f32..=100.0, -100f32..=100.0);
        let biases = btree_map(any::<u32>(), -1e4f32..=1e4, 0..5);
        let filters = (0f32..=100.0, f32::MIN_POSITIVE..=1.0, 0f32..=1.0, any::<u32>());
        (filters, penalties, biases, option::of(0u32..=128)).prop_map(
            |((temperature, top_p, min_p, top_k), penalties, biases, logprobs)| {
                let (repetition, presence, frequency) = penalties;
                SamplingParams::default()
                    .temperature(temperature)
                    .top_p(top_p)
                    .min_p(min_p)
                    .top_k(top_k)
                    .repetition_penalty(repetition)
                    .presence_penalty(presence)
                    .frequency_penalty(frequency)
                    .logit_bias(biases)
                    .logprobs(logprobs)
            },
        )
    }

    fn drafting() -> impl Strategy<Value = DraftRequest> {
        let drafter = prop_oneof![
            Just(DrafterChoice::Default),
            Just(DrafterChoice::Off),
            Just(DrafterChoice::Auto),
            "[b-z]{4,9}".prop_map(DrafterChoice::Named),
        ];
        let verify = prop_oneof![Just(Verify::Equality), Just(Verify::Rejection)];
        (drafter, option::of(any::<u32>()), option::of(1u32..), verify).prop_map(
            |(drafter, draft_length, kv_budget, verify)| {
                let request = DraftRequest::default().drafter(drafter).verify(verify);
                request.draft_length(draft_length).kv_budget(kv_budget)
            },
        )
    }

    fn request() -> impl Strategy<Value = Request> {
        let prompt = prop_oneof![
            any::<String>().prop_map(Prompt::Text),
            any::<String>().prop_map(Prompt::Rendered),
            vec(any::<u32>(), 0..20).prop_map(Prompt::Tokens),
        ];
        let limits =
            (option::of(any::<u64>()), any::<u32>(), option::of(any::<u32>()), any::<u32>());
        let stops = (vec(".{1,20}", 0..4), vec(any::<u32>(), 0..4));
        let flags = any::<[bool; 3]>();
        let resume = (vec(any::<u32>(), 0..9), option::of(any::<String>()));
        let order = (any::<i32>(), any::<u64>());
        (prompt, sampling(), drafting(), limits, stops, flags, resume, order).prop_map(
            |(prompt, sampling, drafting, limits, stops, flags, resume, order)| {
                let mut request = Request::new(prompt).sampling(sampling).drafting(drafting);
                (request.seed, request.n, request.max_tokens, request.min_tokens) = limits;
                (request.stop, request.stop_tokens) = stops;
                [request.chat, request.include_stop, request.ignore_eos] = flags;
                (request.generated, request.fingerprint) = resume;
                (request.priority, request.cache_salt) = order;
                request
            },
        )
    }

    fn read(json: &str) -> Request {
        let body = parse_request(json.as_bytes()).unwrap_or_else(|error| panic!("{json}: {error}"));
        body.request
    }

    proptest! {
        #[test]
        fn a_printed_request_is_read_as_an_equal_one(request in request()) {
            prop_assume!(request.check().is_ok());
            prop_assert_eq!(read(&request_json(&request)), request);
        }

        /// Control: the comparison sees a change of any number by one unit.
        #[test]
        fn another_request_is_another_text(request in request(), priority in any::<i32>()) {
            prop_assume!(request.check().is_ok() && request.priority != priority);
            let other = request.clone().priority(priority);
            prop_assert_ne!(read(&request_json(&other)), request);
        }
    }
}
