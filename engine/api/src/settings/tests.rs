//! Every key of the settings, and mistakes in them.

use super::*;
use crate::error::ErrorCode;
use galley_engine::{DeviceChoice, Formats, WeightFormat};

/// The keys, and no file: a path that exists passes the check of the name.
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/models/smollm2");

fn settings(fields: &str) -> Result<Settings, ApiError> {
    let mut settings = None;
    let body = parse_settings(format!(r#"{{"model": "{MODEL}"{fields}}}"#).as_bytes())?;
    let _ = body.builder.configure(|to| settings = Some(to.clone()));
    Ok(settings.expect("it was called"))
}

#[track_caller]
fn refused(json: &str, field: &str, part: &str) {
    let error = parse_settings(json.as_bytes()).err().expect("it is wrong");
    assert_eq!(
        (error.code, error.field.as_deref()),
        (ErrorCode::InvalidSetting, Some(field)),
        "{error}"
    );
    assert!(error.message.contains(part), "no {part:?} in: {error}");
}

#[test]
fn every_key_reaches_its_setting() {
    let fields = r#", "device": "cpu", "dtype": "f32", "cpu": "portable", "threads": 2, "gpu_memory_utilization": 0.5,
        "block_size": 32, "max_model_len": 100, "kv_cache_tokens": 1000, "max_num_seqs": 8,
        "max_num_batched_tokens": 64, "max_waiting": 7, "prefix_caching": false, "draft_length": 5,
        "max_draft_length": 9, "kv_budget": 64, "suffix_bytes": 1048576"#;
    let settings = settings(fields).expect("they are right");
    assert_eq!((settings.device, settings.formats), (DeviceChoice::Cpu, Formats::F32));
    assert_eq!(settings.instruction_set.map(|isa| isa.name()), Some("portable"));
    assert_eq!((settings.threads, settings.gpu_memory_utilization), (Some(2), 0.5));
    assert_eq!((settings.block_size, settings.max_model_len), (32, Some(100)));
    assert_eq!(settings.kv_cache_tokens, Some(1000));
    let engine = &settings.engine;
    assert_eq!((engine.max_num_seqs, engine.max_num_batched_tokens), (8, 64));
    assert_eq!((engine.max_waiting, engine.prefix_caching), (7, false));
    let drafting = &settings.drafting;
    assert_eq!((drafting.draft_length, drafting.max_draft_length), (5, 9));
    assert_eq!((drafting.kv_budget, drafting.suffix_bytes), (Some(64), 1 << 20));
}

#[test]
fn two_keys_set_the_formats() {
    let formats = |fields: &str| settings(fields).expect("they are right").formats;
    assert_eq!(formats(""), Formats::NATIVE);
    assert_eq!(formats(r#", "dtype": "bf16", "weights": "native""#), Formats::NATIVE);
    assert_eq!(formats(r#", "weights": "bf16""#), Formats::BF16);
    let with = |dtype, weights| Formats::new(dtype, Some(weights)).expect("a pair");
    assert_eq!(formats(r#", "weights": "q8""#), with(OperandFormat::Bf16, WeightFormat::Q8));
    let q4 = formats(r#", "weights": "q4", "dtype": "f32""#);
    assert_eq!(q4, with(OperandFormat::F32, WeightFormat::Q4));
    refused(
        &format!(r#"{{"model": "{MODEL}", "weights": "bf16", "dtype": "f32"}}"#),
        "weights",
        "dtype f32 takes weights native, q8, q4 or f32",
    );
}

#[test]
fn settings_that_are_left_out_are_those_of_the_engine() {
    let (read, own) = (settings("").expect("they are right"), Settings::default());
    assert_eq!(read.engine, own.engine);
    assert_eq!((read.block_size, read.kv_cache_tokens), (own.block_size, own.kv_cache_tokens));
    let body = format!(
        r#"{{"model": "{MODEL}", "drafters": "ngram", "plugin_path": "a:b", "download": true}}"#
    );
    let body = parse_settings(body.as_bytes()).expect("they are right");
    assert_eq!((body.drafters, body.plugin_path), (vec!["ngram".to_owned()], Some("a:b".into())));
}

#[test]
fn a_wrong_setting_is_refused_by_its_field() {
    refused("{}", "model", "is needed");
    refused(r#"{"model": 3}"#, "model", "a string");
    for (fields, field, part) in [
        (r#""kv_cache_token": 3"#, "kv_cache_token", "\"kv_cache_tokens\""),
        (r#""device": "gpu""#, "device", "cuda:N"),
        (r#""dtype": "int3""#, "dtype", "bf16 or f32"),
        (r#""weights": "q5""#, "weights", "native, q8, q4, bf16 or f32"),
        (r#""weights": 8"#, "weights", "a string"),
        (r#""cpu": "sse9""#, "cpu", "portable"),
        (r#""threads": 0"#, "threads", "between 1 and 1024"),
        (r#""block_size": 12"#, "block_size", "multiple of 16"),
        (r#""kv_cache_tokens": 18446744073709551616"#, "kv_cache_tokens", "4294967295"),
        (r#""max_num_seqs": 1.5"#, "max_num_seqs", "whole number"),
        (r#""gpu_memory_utilization": 2"#, "gpu_memory_utilization", "between 0.05 and 1"),
        (r#""gpu_memory_utilization": 1e999"#, "gpu_memory_utilization", "f64"),
        (r#""draft_length": 1025"#, "draft_length", "1024"),
        (r#""download": "yes""#, "download", "true or false"),
        (r#""drafters": [3]"#, "drafters[0]", "a string"),
        (r#""prefix_caching": 0"#, "prefix_caching", "true or false"),
    ] {
        refused(&format!(r#"{{"model": "{MODEL}", {fields}}}"#), field, part);
    }
}

#[test]
fn a_model_or_drafter_that_is_not_found_is_named() {
    let search = |_: Option<&OsStr>| Search::default();
    let open = |json: &str| open_engine(json.as_bytes(), |_| {}, search).map(drop);
    let error = open(r#"{"model": "galley-tests/no-such-model"}"#).expect_err("no model");
    assert_eq!(error.code, ErrorCode::ModelNotFound);
    assert!(error.message.contains("galley-tests/no-such-model"), "{error}");
    let gpu = r#""device": "cuda:0", "weights": "q8""#;
    let error = open(&format!(r#"{{"model": "{MODEL}", {gpu}}}"#)).expect_err("no such kernels");
    assert_eq!((error.code, error.field.as_deref()), (ErrorCode::InvalidSetting, Some("weights")));
    let error = open(&format!(r#"{{"model": "{MODEL}", "drafters": ["ngarm"]}}"#));
    let error = error.expect_err("no drafter");
    assert_eq!((error.code, error.field.as_deref()), (ErrorCode::InvalidSetting, Some("drafters")));
    assert!(error.message.contains("ngarm"), "{error}");
}
