//! A Hugging Face directory: which files the weights are in.

use super::{mapped::Mapped, safetensors::read_header, tensor::Entry};
use crate::{ModelError, Result};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Read,
    path::{Component, Path, PathBuf},
};

/// Mapped files and the tensors in them, by name.
pub(super) type Files = (Vec<Mapped>, BTreeMap<String, Entry>);

/// Where the weights of a directory are.
pub(super) enum Weights {
    /// One or more safetensors files, and the index that lists their tensors if there is one.
    Safetensors {
        /// The files.
        paths: Vec<PathBuf>,
        /// The index, and which tensor it says is in which of the files.
        index: Option<(PathBuf, BTreeMap<String, usize>)>,
    },
    /// A GGUF file.
    Gguf(PathBuf),
}

/// Finds the weights in a directory.
pub(super) fn find_weights(directory: &Path) -> Result<Weights> {
    let index = directory.join("model.safetensors.index.json");
    if index.exists() {
        return read_index(directory, index);
    }
    let single = directory.join("model.safetensors");
    if single.exists() {
        return Ok(Weights::Safetensors { paths: vec![single], index: None });
    }
    let mut ggufs = Vec::new();
    for entry in fs::read_dir(directory).map_err(|error| ModelError::io(directory, error))? {
        let path = entry.map_err(|error| ModelError::io(directory, error))?.path();
        if path.extension().is_some_and(|extension| extension == "gguf") {
            ggufs.push(path);
        }
    }
    match ggufs.len() {
        0 => Err(ModelError::invalid(
            directory,
            "directory",
            "has neither model.safetensors, nor model.safetensors.index.json, nor a .gguf file",
        )),
        1 => Ok(Weights::Gguf(ggufs.remove(0))),
        n => Err(ModelError::invalid(
            directory,
            "directory",
            format!("has {n} .gguf files: name the one to load"),
        )),
    }
}

/// Maps the files and merges their headers.
pub(super) fn open_files(
    paths: &[PathBuf],
    index: Option<&(PathBuf, BTreeMap<String, usize>)>,
) -> Result<Files> {
    let mut files: Vec<Mapped> = Vec::with_capacity(paths.len());
    let mut tensors = BTreeMap::<String, Entry>::new();
    for (number, path) in paths.iter().enumerate() {
        let file = Mapped::open(path)?;
        for (name, entry) in read_header(&file, number)? {
            if let Some(other) = tensors.get(&name) {
                let reason = format!("is in {} too", paths[other.file].display());
                return Err(ModelError::invalid(path, name, reason));
            }
            tensors.insert(name, entry);
        }
        files.push(file);
    }
    if let Some((path, listed)) = index {
        for (name, &file) in listed {
            if tensors.get(name).is_none_or(|entry| entry.file != file) {
                let reason = format!("is listed, but not in {}", paths[file].display());
                return Err(ModelError::invalid(path, name.as_str(), reason));
            }
        }
    }
    Ok((files, tensors))
}

/// Reads a JSON file that is not absurdly large.
pub(super) fn read_json(path: &Path) -> Result<Value> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_JSON_BYTES + 1).read_to_end(&mut text))
        .map_err(|error| ModelError::io(path, error))?;
    if text.len() as u64 > MAX_JSON_BYTES {
        let reason = format!("is longer than {MAX_JSON_BYTES} bytes");
        return Err(ModelError::invalid(path, "file", reason));
    }
    serde_json::from_slice(&text)
        .map_err(|error| ModelError::invalid(path, "JSON", error.to_string()))
}

/// The `weight_map` of an index: names to files of the same directory.
fn read_index(directory: &Path, path: PathBuf) -> Result<Weights> {
    let index = read_json(&path)?;
    let Some(weight_map) = index.get("weight_map").and_then(Value::as_object) else {
        return Err(ModelError::invalid(&path, "weight_map", "is missing or no object"));
    };
    let mut files = BTreeSet::new();
    let mut listed = Vec::with_capacity(weight_map.len());
    for (name, file) in weight_map {
        let invalid =
            |reason: String| ModelError::invalid(&path, format!("weight_map: {name}"), reason);
        let Some(file) = file.as_str() else {
            return Err(invalid(format!("{file} is no file name")));
        };
        let mut parts = Path::new(file).components();
        let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
        if !plain {
            return Err(invalid(format!("{file:?} is not the name of a file in the directory")));
        }
        if files.insert(file) && !directory.join(file).exists() {
            return Err(invalid(format!("{file:?} does not exist")));
        }
        listed.push((name, file));
    }
    if files.is_empty() {
        return Err(ModelError::invalid(&path, "weight_map", "is empty"));
    }
    let files: Vec<&str> = files.into_iter().collect();
    let listed = listed
        .into_iter()
        .map(|(name, file)| {
            let number = files.binary_search(&file).expect("every file listed is in the set");
            (name.clone(), number)
        })
        .collect();
    let paths = files.iter().map(|file| directory.join(file)).collect();
    Ok(Weights::Safetensors { paths, index: Some((path, listed)) })
}

/// The index of a model with a million tensors is about this long.
const MAX_JSON_BYTES: u64 = 64 << 20;
