//! Finds the weight files in a Hugging Face directory.

use super::{foreign, gguf, mapped::Mapped, safetensors::read_header, tensor::TensorEntry};
use crate::{ModelError, Result, files};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
};

/// The weight files of a directory.
#[derive(Debug)]
pub(super) enum Weights {
    /// One or several safetensors files.
    Safetensors(Shards),
    /// A GGUF file, or the first file of a split GGUF model.
    Gguf(PathBuf),
}

/// The safetensors files to read.
#[derive(Debug, Default)]
pub(super) struct Shards {
    paths: Vec<PathBuf>,
    /// Whether all `paths` certainly belong to the model, so that an unreadable file is an error.
    are_all_of_the_model: bool,
    /// Names of files that are missing.
    missing: Vec<String>,
    /// The index: names of tensors, and the name of the file of each.
    index: BTreeMap<String, String>,
}

/// Mapped files, their tensors by name, and the reasons for absent tensors.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) files: Vec<Mapped>,
    pub(super) tensors: BTreeMap<String, TensorEntry>,
    /// Tensors that are in a second file too: the name, and the entry in that file.
    pub(super) doubles: Vec<(String, TensorEntry)>,
    /// Reasons why tensors may be absent, one sentence each, for the error about an absent tensor.
    pub(super) absent: Vec<String>,
}

impl Shards {
    /// The single file at `path`.
    pub(super) fn single(path: PathBuf) -> Self {
        Self { paths: vec![path], are_all_of_the_model: true, ..Self::default() }
    }
}

/// Finds the weights of a directory. As in transformers, `model.safetensors` comes before an index
/// of shards.
pub(super) fn find_weights(directory: &Path) -> Result<Weights> {
    let single = directory.join("model.safetensors");
    if files::exists(&single)? {
        return Ok(Weights::Safetensors(Shards::single(single)));
    }
    let index_path = directory.join("model.safetensors.index.json");
    let mut shards = Shards::default();
    if files::exists(&index_path)? {
        match read_index(directory, &index_path) {
            Ok(read) if read.missing.is_empty() => return Ok(Weights::Safetensors(read)),
            Ok(read) => shards = read,
            Err(error) => tracing::warn!("{error}: every .safetensors file is read instead"),
        }
    }
    let names = files::names(directory)?;
    let found = safetensors_files(&names);
    if !found.is_empty() {
        if shards.missing.is_empty() {
            shards.missing = missing_numbers(&found);
        }
        shards.paths = found.iter().map(|name| directory.join(name)).collect();
        shards.are_all_of_the_model = false;
        return Ok(Weights::Safetensors(shards));
    }
    find_gguf(directory, &names)?
        .map(Weights::Gguf)
        .ok_or_else(|| foreign::no_weights(directory, &names, &shards.missing))
}

/// The directory's only GGUF model; image projectors and importance matrices do not count.
fn find_gguf(directory: &Path, names: &[String]) -> Result<Option<PathBuf>> {
    let mut ggufs: Vec<String> = files_with_suffix(names, ".gguf");
    if ggufs.len() > 1 {
        ggufs.retain(|name| !name.starts_with("mmproj") && !name.contains("imatrix"));
    }
    if let Some(first) = gguf::first_of_split(directory, &ggufs) {
        return Ok(Some(first));
    }
    match &ggufs[..] {
        [] => Ok(None),
        [name] => Ok(Some(directory.join(name))),
        all => {
            let reason =
                format!("has {} .gguf files: name the one to load: {}", all.len(), all.join(", "));
            Err(ModelError::invalid(directory, "directory", reason))
        }
    }
}

/// Names of the safetensors files that may hold the model, whole or in shards.
fn safetensors_files(names: &[String]) -> Vec<String> {
    let mut found: Vec<String> = files_with_suffix(names, ".safetensors");
    found.retain(|name| !foreign::is_adapter(name));
    // Mistral's own format lies beside the shards of the same model, with other tensor names.
    if found.iter().any(|name| !name.starts_with("consolidated")) {
        found.retain(|name| !name.starts_with("consolidated"));
    }
    found
}

fn files_with_suffix(names: &[String], suffix: &str) -> Vec<String> {
    let is_file = |name: &&String| name.ends_with(suffix) && !name.starts_with('.');
    names.iter().filter(is_file).cloned().collect()
}

/// Maps the files and merges their headers.
pub(super) fn open_files(shards: &Shards) -> Result<Files> {
    let mut opened = Files::default();
    let mut failed = Vec::new();
    for path in &shards.paths {
        let number = opened.files.len();
        let header = Mapped::open(path).and_then(|file| Ok((read_header(&file, number)?, file)));
        match header {
            Ok((tensors, file)) => {
                opened.files.push(file);
                merge(&mut opened, tensors, &shards.index);
            }
            Err(error) if shards.are_all_of_the_model => return Err(error),
            Err(error) => failed.push(error),
        }
    }
    if opened.files.is_empty() && !failed.is_empty() {
        return Err(failed.remove(0));
    }
    if !shards.missing.is_empty() {
        let way_out = "the download did not finish: `galley pull` fetches the missing files";
        opened.absent.push(format!("{} not there: {way_out}", foreign::are(&shards.missing)));
    }
    opened.absent.extend(failed.iter().map(ToString::to_string));
    Ok(opened)
}

fn merge(
    opened: &mut Files,
    tensors: BTreeMap<String, TensorEntry>,
    index: &BTreeMap<String, String>,
) {
    for (name, entry) in tensors {
        let Some(first) = opened.tensors.get_mut(&name) else {
            opened.tensors.insert(name, entry);
            continue;
        };
        let listed = |entry: &TensorEntry| {
            let file = opened.files[entry.file].path().file_name();
            index.get(&name).is_some_and(|listed| file == Some(listed.as_ref()))
        };
        match (listed(first), listed(&entry)) {
            (true, _) => {}
            (false, true) => *first = entry,
            (false, false) => opened.doubles.push((name, entry)),
        }
    }
}

/// Reads the `weight_map` of an index, from names of tensors to files of the same directory. The
/// index only lists the files; their headers list the tensors.
fn read_index(directory: &Path, path: &Path) -> Result<Shards> {
    let json = files::read_json(path)?;
    let Some(weight_map) = json.get("weight_map").and_then(Value::as_object) else {
        return Err(ModelError::invalid(path, "weight_map", "is missing or no object"));
    };
    let (mut names, mut index) = (BTreeSet::new(), BTreeMap::new());
    for (tensor, file) in weight_map {
        let invalid =
            |reason: String| ModelError::invalid(path, format!("weight_map: {tensor}"), reason);
        let Some(file) = file.as_str() else {
            return Err(invalid(format!("{file} is no file name")));
        };
        let mut parts = Path::new(file).components();
        if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
            return Err(invalid(format!("{file:?} is not the name of a file in the directory")));
        }
        names.insert(file);
        index.insert(tensor.clone(), file.to_owned());
    }
    if names.is_empty() {
        return Err(ModelError::invalid(path, "weight_map", "is empty"));
    }
    let (mut paths, mut missing) = (Vec::new(), Vec::new());
    for name in names {
        let file = directory.join(name);
        match files::exists(&file)? {
            true => paths.push(file),
            false => missing.push(name.to_owned()),
        }
    }
    Ok(Shards { paths, are_all_of_the_model: true, missing, index })
}

/// Names of missing shards, by the numbers in the present names (`model-00002-of-00003`).
fn missing_numbers(names: &[String]) -> Vec<String> {
    let parse = |name: &String| {
        let (stem, count) = name.strip_suffix(".safetensors")?.rsplit_once("-of-")?;
        let (prefix, number) = stem.rsplit_once('-')?;
        let count: usize = count.parse().ok().filter(|&count| count <= MOST_SHARDS)?;
        number.parse::<usize>().ok()?;
        Some((prefix.to_owned(), count))
    };
    let sets: BTreeSet<(String, usize)> = names.iter().filter_map(parse).collect();
    let all = sets.iter().flat_map(|(prefix, count)| {
        (1..=*count).map(move |number| format!("{prefix}-{number:05}-of-{count:05}.safetensors"))
    });
    all.filter(|name| !names.contains(name)).collect()
}

/// Most shards of a model. Real models have far fewer.
const MOST_SHARDS: usize = 10_000;
