//! GGUF models in several files, as `llama-gguf-split` writes them.

use super::{MAGIC, read};
use crate::{
    ModelError, Result, files,
    metadata::Metadata,
    weights::{mapped::Mapped, tensor::TensorEntry},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// The files of a model, the metadata of the first file, and the tensors of all files.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) files: Vec<Mapped>,
    pub(crate) metadata: Metadata,
    pub(crate) tensors: BTreeMap<String, TensorEntry>,
}

/// Opens the model in `file`, or the split model that has `file` as a part.
pub(crate) fn open(file: &Path) -> Result<Parts> {
    let parts = read_part(file, 0)?;
    let Some(count) = parts.metadata.u64(COUNT).filter(|&count| count > 1) else {
        return Ok(parts);
    };
    let Some(name) = SplitName::parse(file).filter(|name| name.count == count) else {
        let reason = format!(
            "one of the {count} files of a split model, and its name does not say so: give the files their names \
             back (NAME-00001-of-{count:05}.gguf), or join them with `llama-gguf-split --merge`"
        );
        return Err(ModelError::unsupported(file, reason));
    };
    let mut all: Option<Parts> = None;
    for number in 1..=count {
        let path = name.part(number);
        if !files::exists(&path)? {
            let reason =
                format!("part {number} of {count} of a split model is missing: download it, too");
            return Err(ModelError::invalid(&path, "file", reason));
        }
        let mut part = read_part(&path, all.as_ref().map_or(0, |all| all.files.len()))?;
        let Some(all) = &mut all else {
            part.metadata.remove(COUNT);
            all = Some(part);
            continue;
        };
        if let Some(twice) = part.tensors.keys().find(|name| all.tensors.contains_key(*name)) {
            let reason =
                "is in an earlier part of the split model, too: the parts are of different models";
            return Err(ModelError::invalid(&path, twice.as_str(), reason));
        }
        all.files.append(&mut part.files);
        all.tensors.append(&mut part.tensors);
    }
    Ok(all.expect("a split model has two parts at least"))
}

/// The first part, if all `names` are parts of one split model.
pub(crate) fn first_of_split(directory: &Path, names: &[String]) -> Option<PathBuf> {
    let parts: Option<Vec<_>> =
        names.iter().map(|name| SplitName::parse(&directory.join(name))).collect();
    let parts = parts?;
    let first = parts.first()?;
    parts.iter().all(|part| part == first).then(|| first.part(1))
}

fn read_part(file: &Path, number: usize) -> Result<Parts> {
    let mapped = Mapped::open(file)?;
    if !mapped.bytes().starts_with(MAGIC) {
        let reason = files::recognise(mapped.bytes()).unwrap_or_else(|| {
            "neither a directory, nor a .safetensors file, nor a GGUF file".into()
        });
        return Err(ModelError::unsupported(file, reason));
    }
    let (metadata, mut tensors) = read(&mapped)?;
    tensors.values_mut().for_each(|entry| entry.file = number);
    Ok(Parts { files: vec![mapped], metadata, tensors })
}

/// A name of the form `NAME-00001-of-00003.gguf`.
#[derive(Debug, PartialEq)]
struct SplitName {
    /// Everything before the numbers, the folder included.
    prefix: PathBuf,
    count: u64,
}

impl SplitName {
    fn parse(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
        let (name, count) = name.rsplit_once("-of-")?;
        let (name, number) = name.rsplit_once('-')?;
        let is_number =
            |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(number) || !is_number(count) {
            return None;
        }
        Some(Self { prefix: path.with_file_name(name), count: count.parse().ok()? })
    }

    fn part(&self, number: u64) -> PathBuf {
        let mut path = self.prefix.clone().into_os_string();
        path.push(format!("-{number:05}-of-{:05}.gguf", self.count));
        path.into()
    }
}

/// Key of the number of files of a split model.
const COUNT: &str = "split.count";
