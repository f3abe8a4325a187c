//! Configurations as tools and people write them. An irrelevant field is never an error, and an
//! absent field has the default of transformers and llama.cpp.

mod common;
#[path = "common/edit.rs"]
mod edit;

use common::{ARRAY, Gguf, models};
use edit::{copy_model, edit_json};
use galley_model::config::{ModelConfig, RopeScaling, Yarn};
use galley_model::weights::Checkpoint;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;

/// The configuration of the tiny model `base` with its `config.json` changed, or the error.
fn changed(
    base: &str,
    change: impl FnOnce(&mut Map<String, Value>),
) -> Result<ModelConfig, String> {
    let directory = tempfile::tempdir().unwrap();
    copy_model(&models().join(base), directory.path());
    edit_json(&directory.path().join("config.json"), change);
    Checkpoint::open(directory.path())
        .map(|checkpoint| checkpoint.config().clone())
        .map_err(|error| error.to_string())
}

fn unchanged(base: &str) -> ModelConfig {
    Checkpoint::open(&models().join(base)).unwrap().config().clone()
}

/// The configuration of `base` with `fields` replaced or added, or the error.
fn with(base: &str, fields: Value) -> Result<ModelConfig, String> {
    changed(base, |json| json.extend(fields.as_object().unwrap().clone()))
}

#[test]
fn ways_to_write_the_same_configuration() {
    let base = unchanged("smollm2");
    for fields in [
        json!({"hidden_act": "swish"}),
        json!({"hidden_act": null}),
        json!({"hidden_size": 96.0, "num_hidden_layers": 2.0, "max_position_embeddings": 256.0}),
        json!({"rope_theta": 100_000}),
        json!({"tie_word_embeddings": 1, "attention_bias": 0, "mlp_bias": null}),
        json!({"rope_scaling": {}}),
        json!({"rope_scaling": {"type": "default"}}),
        json!({"rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0}}),
        json!({"rope_parameters": {"rope_type": "default"}}),
        json!({"architectures": null}),
        json!({"architectures": []}),
        json!({"architectures": ["LLaMAForCausalLM"]}),
        json!({"quantization_config": null, "head_dim": null, "sliding_window": null}),
        json!({"model_type": "of no interest"}),
        // Galley never reads these fields.
        json!({"torch_dtype": 7, "initializer_range": "x", "pad_token_id": -1, "bos_token_id": [1, 2]}),
        json!({"sliding_window": -5, "max_window_layers": "all", "layer_types": {}}),
        json!({"attention_dropout": null, "pretraining_tp": 0, "transformers_version": {}}),
        // The rows of the embedding decide the size of the vocabulary.
        json!({"vocab_size": 288.0}),
        json!({"vocab_size": 1}),
        json!({"vocab_size": 500_000}),
        json!({"vocab_size": null}),
        json!({"vocab_size": -1}),
        json!({"vocab_size": "288"}),
    ] {
        assert_eq!(with("smollm2", fields.clone()).as_ref(), Ok(&base), "{fields}");
    }
    // Qwen's window is switched off, so Galley reads none of its fields.
    let qwen = unchanged("qwen2");
    for fields in [
        json!({"use_sliding_window": 0}),
        json!({"use_sliding_window": null, "sliding_window": 0, "max_window_layers": -1}),
        json!({"layer_types": "of no interest", "sliding_window": "none"}),
    ] {
        assert_eq!(with("qwen2", fields.clone()).as_ref(), Ok(&qwen), "{fields}");
    }
}

#[test]
fn fields_left_out_have_the_values_of_transformers() {
    let without = |base, field: &str| changed(base, |json| drop(json.remove(field)));
    for (base, field) in [
        ("smollm2", "hidden_act"),
        ("smollm2", "vocab_size"),
        ("smollm2", "architectures"),
        ("smollm2", "model_type"),
        ("llama2", "num_key_value_heads"),
        ("llama2", "rope_theta"),
        ("llama2", "tie_word_embeddings"),
        ("qwen2", "rms_norm_eps"),
        ("qwen2", "use_sliding_window"),
        ("mistral", "rope_theta"),
    ] {
        assert_eq!(without(base, field).as_ref(), Ok(&unchanged(base)), "{base} {field}");
    }
    assert_eq!(without("smollm2", "max_position_embeddings").unwrap().max_context, 2048);
    assert_eq!(without("mistral", "max_position_embeddings").unwrap().max_context, 131_072);
    assert_eq!(without("qwen2", "max_position_embeddings").unwrap().max_context, 32_768);
    assert_eq!(without("smollm2", "rms_norm_eps").unwrap().rms_norm_eps, 1e-6);
    assert_eq!(without("smollm2", "rope_theta").unwrap().rope_theta, 1e4);
    assert_eq!(without("qwen2", "hidden_size").unwrap().hidden_size, 4096);
    assert_eq!(without("qwen2", "intermediate_size").unwrap().intermediate_size, 22_016);
    let heads = |json: &mut Map<String, Value>| {
        json.insert("num_attention_heads".into(), 8.into());
        json.remove("num_key_value_heads");
    };
    assert_eq!(changed("mistral", heads).unwrap().n_kv_heads, 8);
    assert_eq!(without("mistral", "sliding_window").unwrap().sliding_window, Some(4096));
}

/// Python's spelling of numbers that JSON does not have, in irrelevant and in relevant fields.
#[test]
fn infinities_refuse_only_where_they_are_read() {
    let directory = tempfile::tempdir().unwrap();
    copy_model(&models().join("smollm2"), directory.path());
    let path = directory.path().join("config.json");
    let text = fs::read_to_string(&path).unwrap();
    let open = || Checkpoint::open(directory.path()).map(drop).map_err(|error| error.to_string());
    let odd =
        r#"{"initializer_range": NaN, "attention_dropout": -Infinity, "x": [Infinity, 1e999],"#;
    fs::write(&path, text.replacen('{', odd, 1)).unwrap();
    assert_eq!(open(), Ok(()));
    fs::write(&path, text.replace("1e-05", "NaN")).unwrap();
    let error = open().unwrap_err();
    assert!(error.contains("rms_norm_eps: \"NaN\" is no number"), "{error}");
}

fn yarn(base: &str, fields: Value) -> (Yarn, usize) {
    let config = with(base, fields).unwrap();
    match config.rope_scaling {
        RopeScaling::Yarn(yarn) => (yarn, config.max_context),
        other => panic!("{other:?}"),
    }
}

#[test]
fn yarn_in_all_its_forms() {
    const ORIGINAL: &str = "original_max_position_embeddings";
    let log = |factor: f64, mscale: f64| 0.1 * mscale * factor.ln() + 1.0;
    let plain = Yarn {
        factor: 4.0,
        original_context: 256.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        truncate: true,
        attention_factor: log(4.0, 1.0),
    };
    for fields in [
        // The form in the model card of Qwen2.5.
        json!({"rope_scaling": {"factor": 4.0, ORIGINAL: 256, "type": "yarn"}}),
        json!({"rope_scaling": {"factor": 4, "rope_type": "yarn", "type": "linear"}}),
        json!({"rope_parameters": {"factor": 4, "rope_type": "yarn", "rope_theta": 1e6}}),
        // `rope_scaling`, which users add, overrides `rope_parameters`.
        json!({"rope_scaling": {"factor": 4, "type": "yarn"},
               "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
        json!({"rope_scaling": {"factor": 4, "type": "yarn", "beta_fast": 0, "beta_slow": null,
                                "attention_factor": null, "mscale": 0.0, "mscale_all_dim": 1.0,
                                "truncate": null, "finetuned": true}}),
    ] {
        assert_eq!(yarn("qwen2", fields.clone()), (plain, 1024), "{fields}");
        assert_eq!(with("qwen2", fields.clone()).unwrap().rope_theta, 1e6, "{fields}");
    }
    // The file's length includes the factor. The original length may stand outside the object.
    let counted = json!({"rope_scaling": {"factor": 4, "type": "yarn", ORIGINAL: 64}});
    assert_eq!(yarn("qwen2", counted), (Yarn { original_context: 64.0, ..plain }, 256));
    let beside =
        json!({"rope_scaling": {"factor": 4, "type": "yarn", ORIGINAL: 7}, ORIGINAL: 100.0});
    assert_eq!(yarn("qwen2", beside), (Yarn { original_context: 100.0, ..plain }, 400));
    // DeepSeek: the factor is the ratio of the two lengths, and the logarithm has two weights.
    let ratio = json!({"rope_scaling": {"factor": null, "type": "yarn", ORIGINAL: 64,
                                        "mscale": 1.0, "mscale_all_dim": 0.5}});
    let expected =
        Yarn { original_context: 64.0, attention_factor: log(4.0, 1.0) / log(4.0, 0.5), ..plain };
    assert_eq!(yarn("qwen2", ratio), (expected, 256));
    let equal =
        json!({"rope_scaling": {"factor": 40, "type": "yarn", "mscale": 1, "mscale_all_dim": 1}});
    assert_eq!(yarn("qwen2", equal).0.attention_factor, 1.0);
    let shrunk = json!({"rope_scaling": {"factor": 0.5, "type": "yarn"}});
    assert_eq!(yarn("qwen2", shrunk), (Yarn { factor: 0.5, attention_factor: 1.0, ..plain }, 256));
}

#[test]
fn unsupported_architectures_name_the_nearest_models() {
    let error = with("smollm2", json!({"architectures": ["Qwen3MoeForCausalLM"]})).unwrap_err();
    let nearest = "is not supported; nearest is Qwen3ForCausalLM (Qwen3 from 0.6B to 32B); supported are Llama";
    assert!(error.contains(nearest), "{error}");
    let error = with("smollm2", json!({"architectures": ["Gemma2ForCausalLM"]})).unwrap_err();
    assert!(
        error.contains("Gemma2ForCausalLM") && error.contains("MistralForCausalLM (Mistral 7B"),
        "{error}"
    );
    let error =
        with("smollm2", json!({"architectures": null, "model_type": "mixtral"})).unwrap_err();
    assert!(
        error.contains("model_type mixtral") && error.contains("nearest is MistralFor"),
        "{error}"
    );

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.gguf");
    let bytes = Gguf::default().text("general.architecture", "qwen2moe").bytes();
    fs::write(&path, bytes).unwrap();
    let error = Checkpoint::open(&path).unwrap_err().to_string();
    assert!(
        error.contains("architecture qwen2moe is not supported; nearest is qwen2 ("),
        "{error}"
    );
}

/// llama.cpp takes a list with a number for each layer. Galley takes one number for all layers.
#[test]
fn case_11_gguf_numbers_for_each_layer_are_one_where_they_agree() {
    let list = |values: &[i32]| {
        let mut bytes = 5_u32.to_le_bytes().to_vec();
        bytes.extend((values.len() as u64).to_le_bytes());
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        bytes
    };
    let open = |values: &[i32]| {
        let file = Gguf::tiny().without("llama.attention.head_count_kv");
        let file = file.pair("llama.attention.head_count_kv", ARRAY, &list(values));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.gguf");
        fs::write(&path, file.bytes()).unwrap();
        Checkpoint::open(&path)
            .map(|checkpoint| checkpoint.config().n_kv_heads)
            .map_err(|error| error.to_string())
    };
    assert_eq!(open(&[1]), Ok(1));
    assert_eq!(open(&[2, 2]), Ok(2));
    for values in [&[1, 2][..], &[], &[-1]] {
        let error = open(values).unwrap_err();
        assert!(
            error.contains("head_count_kv: is no unsigned integer, the same for all layers"),
            "{error}"
        );
    }
}

#[test]
fn a_configuration_of_no_object_is_refused() {
    let error = ModelConfig::from_hf_json(Path::new("config.json"), &json!([])).unwrap_err();
    assert!(error.to_string().contains("is no JSON object"), "{error}");
}
