//! Errors about sound models in forms that Galley does not read: formats of other programs, other
//! quantisation methods, adapters. The error names the form and a remedy.

use super::tensor::TensorEntry;
use crate::{ModelError, files};
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

/// Whether a file of this name holds an adapter or a training state, not the weights of a model.
pub(super) fn is_adapter(name: &str) -> bool {
    ["adapter_", "adapters", "optimizer", "scheduler", "lora", "pytorch_lora_weights", "training_"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// The error about a directory without weights that Galley reads.
pub(super) fn no_weights(directory: &Path, names: &[String], missing: &[String]) -> ModelError {
    let has = |name: &str| names.iter().any(|other| other == name);
    if let Some(error) = adapter(directory, names) {
        return error;
    }
    if !missing.is_empty() {
        let reason = format!(
            "{} in the index and not there: the download did not finish: `galley pull` fetches the missing files",
            are(missing)
        );
        return ModelError::invalid(directory, "directory", reason);
    }
    let unsupported = |reason: String| ModelError::unsupported(directory, reason);
    if has("model_index.json") {
        return unsupported(
            "this is a pipeline of diffusers, which makes images: Galley runs language models"
                .into(),
        );
    }
    if let Some(name) = names.iter().find(|name| UNFINISHED.iter().any(|end| name.ends_with(end))) {
        return unsupported(format!("{name} is a download that did not finish: download it again"));
    }
    for (ends, description) in FORMATS {
        let is_of_format = |name: &&String| ends.iter().any(|end| name.ends_with(end));
        if let Some(name) = names.iter().find(is_of_format) {
            return unsupported(format!("the weights are in {name}: {description}"));
        }
    }
    if let Some(inner) = inner_folder(directory, names) {
        return unsupported(format!("the model lies in the folder {inner} of it: name that"));
    }
    let nothing =
        "has neither model.safetensors, nor model.safetensors.index.json, nor a .gguf file";
    let reason = match names {
        [] => format!("is empty: it {nothing}"),
        _ if has("config.json") => format!(
            "{nothing}, only a configuration: the download did not finish, or left the weights out"
        ),
        _ => nothing.to_owned(),
    };
    ModelError::invalid(directory, "directory", reason)
}

/// Joins names to a subject and its verb: "a is", "a and b are", "a, b and 3 more are".
pub(super) fn are(names: &[String]) -> String {
    match names {
        [] => "nothing is".into(),
        [one] => format!("{one} is"),
        [one, other] => format!("{one} and {other} are"),
        [first, second, rest @ ..] => format!("{first}, {second} and {} more are", rest.len()),
    }
}

/// The error about weights in `directory` without a `config.json`.
pub(super) fn no_config(directory: &Path, missing: ModelError) -> ModelError {
    let Ok(names) = files::names(directory) else { return missing };
    if let Some(error) = adapter(directory, &names) {
        return error;
    }
    let ModelError::Io { path, reason } = missing else { return missing };
    let way_out = match names.iter().any(|name| name == "params.json") {
        true => {
            "params.json is the configuration of Meta's and Mistral's own format: take the model in Hugging Face's \
                 format, or a GGUF file"
        }
        false => {
            "weights alone do not say how the model is built: put the model's config.json beside them"
        }
    };
    ModelError::unsupported(&path, format!("{reason}: {way_out}"))
}

/// The error about a directory with a LoRA adapter; `None` without an adapter.
fn adapter(directory: &Path, names: &[String]) -> Option<ModelError> {
    names
        .iter()
        .find(|name| *name == "adapter_config.json" || *name == "adapter_model.safetensors")?;
    let config = files::read_json(&directory.join("adapter_config.json")).unwrap_or_default();
    let base = config["base_model_name_or_path"].as_str().filter(|base| !base.is_empty());
    let base = base.map(|base| format!(" for {base}")).unwrap_or_default();
    let reason = format!(
        "this is a LoRA adapter{base}, which only changes the weights of another model: merge the two with peft's \
         `merge_and_unload` and save the result, or run the base model"
    );
    Some(ModelError::unsupported(directory, reason))
}

/// The first inner folder with a model: a snapshot in the hub's cache, or a folder from an archive.
fn inner_folder(directory: &Path, names: &[String]) -> Option<String> {
    let with_model = |folder: &str| {
        let inner = directory.join(folder);
        let names = files::names(&inner).unwrap_or_default();
        let is_model = |name: &String| name == "config.json" || name.ends_with(".gguf");
        names.iter().any(is_model).then(|| folder.to_owned())
    };
    let snapshots = files::names(&directory.join("snapshots")).unwrap_or_default();
    let snapshots = snapshots.iter().map(|name| format!("snapshots/{name}"));
    snapshots.chain(names.iter().cloned()).find_map(|folder| with_model(&folder))
}

/// The error text about quantised matrices, with the method if it is known. `None` if neither the
/// configuration nor the tensors show a quantisation.
pub(super) fn quantisation(
    config: &Value,
    tensors: &BTreeMap<String, TensorEntry>,
) -> Option<String> {
    let settings = match &config["quantization_config"] {
        Value::Null => &config["quantization"],
        settings => settings,
    };
    let method = settings["quant_method"].as_str().map(|method| {
        let known = METHODS.iter().find(|(name, _)| name.eq_ignore_ascii_case(method));
        known.map_or(method, |(_, name)| name)
    });
    let by_suffix = || {
        let has = |suffix: &str| tensors.keys().any(|name| name.ends_with(suffix));
        SUFFIXES
            .iter()
            .find(|(suffixes, _)| suffixes.iter().all(|suffix| has(suffix)))
            .map(|(_, name)| *name)
    };
    let name = method
        .or_else(by_suffix)
        .or_else(|| settings.is_object().then_some("a method it does not name"))?;
    let bits = settings["bits"].as_u64().or_else(|| settings["w_bit"].as_u64());
    let bits = bits.map(|bits| format!(" in {bits} bits")).unwrap_or_default();
    Some(format!(
        "the weights are quantised by {name}{bits}; of safetensors files Galley reads BF16, F16 and F32: take the \
         model that was quantised, or a GGUF file of it, which may be quantised (Q4_K_M, Q8_0 and more)"
    ))
}

/// Values of `quant_method` in `quantization_config`, and names of the methods.
const METHODS: [(&str, &str); 12] = [
    ("gptq", "GPTQ"),
    ("awq", "AWQ"),
    ("bitsandbytes", "bitsandbytes"),
    ("fp8", "FP8"),
    ("fbgemm_fp8", "FP8 (FBGEMM)"),
    ("compressed-tensors", "compressed-tensors"),
    ("hqq", "HQQ"),
    ("aqlm", "AQLM"),
    ("exl2", "EXL2"),
    ("exl3", "EXL3"),
    ("mxfp4", "MXFP4"),
    ("modelopt", "NVIDIA ModelOpt"),
];

/// Suffixes of tensor names, and the method. A method matches if all its suffixes occur.
const SUFFIXES: [(&[&str], &str); 9] = [
    (&[".qweight", ".qzeros", ".scales"], "GPTQ or AWQ"),
    (&[".weight", ".scales", ".biases"], "MLX"),
    (&[".weight_packed"], "compressed-tensors"),
    (&[".weight.absmax"], "bitsandbytes"),
    (&[".SCB"], "bitsandbytes"),
    (&[".weight_scale_inv"], "FP8"),
    (&[".weight_scale"], "FP8"),
    (&[".q_weight"], "EXL2"),
    (&[".W_q"], "HQQ"),
];

/// Suffixes of the files of unfinished downloads.
const UNFINISHED: [&str; 6] =
    [".incomplete", ".part", ".crdownload", ".aria2", ".download", ".!qB"];

/// Suffixes of the weight files of other programs, and a remedy for each.
const FORMATS: [(&[&str], &str); 7] = [
    (
        &[".bin", ".pth", ".pt", ".ckpt"],
        "these are PyTorch's pickles, which may run code when they are read: take the model's safetensors files or a \
         GGUF file, or load it with transformers and `save_pretrained` it",
    ),
    (
        &[".onnx", ".onnx_data", ".onnx.data"],
        "this is an ONNX model: take the model's safetensors files or a GGUF file",
    ),
    (
        &[".npz", "weights.npy"],
        "these are NumPy arrays, as early MLX models have: take the model's safetensors files or a GGUF file",
    ),
    (
        &[".h5", ".msgpack", ".tflite", ".pb"],
        "this is a file of TensorFlow or JAX: take the model's safetensors files or a GGUF file",
    ),
    (
        &[".ggml", "ggml-model.bin", ".ggjt"],
        "this is a GGML file of 2023, from before GGUF: take a GGUF file of the model",
    ),
    (
        &[".engine", ".plan", ".mlmodel", ".mlpackage", ".mlmodelc", ".xml"],
        "this is a model compiled for another program: take the model's safetensors files or a GGUF file",
    ),
    (&[".llamafile"], "this is a program with a model in it: take the model's GGUF file"),
];
