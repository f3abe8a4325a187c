//! The calibration of a machine and a model: measured once, and kept in the cache folder.

use crate::calibrate::{self, Calibration};
use galley_model::{LanguageModel, Result};
use galley_planner::cost_table::CostTable;
use serde::{Deserialize, Serialize};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Time of the measurement when an engine starts for the first time.
const AT_START: Duration = Duration::from_millis(1500);
/// Time of the measurement that a user asks for.
const ON_REQUEST: Duration = Duration::from_secs(20);

/// A file of the cache.
#[derive(Serialize, Deserialize)]
struct Entry {
    /// Everything that the times depend on.
    key: String,
    calibration: Calibration,
}

/// Switches calibrations off for a whole process: tests would measure each other.
const OFF_VARIABLE: &str = "GALLEY_NO_CALIBRATION";

/// The times of a model on this machine: from the cache, or measured and put there. None if they may not or cannot be
/// measured; the planner then begins with estimates. A cache that cannot be read or written costs a measurement, and is no
/// error.
pub(super) fn calibrated(model: &mut dyn LanguageModel, may_measure: bool) -> Option<CostTable> {
    let is_set = |value: std::ffi::OsString| !matches!(value.to_str(), Some("" | "0" | "false"));
    if !may_measure || std::env::var_os(OFF_VARIABLE).is_some_and(is_set) {
        return None;
    }
    let key = key_of(model);
    let file = cache_folder().map(|folder| file_of(&folder, &key));
    if let Some(known) = file.as_deref().and_then(|file| read(file, &key)) {
        return Some(known.costs);
    }
    match calibrate::measure(model, AT_START) {
        Ok(Some(calibration)) => {
            let entry = Entry { key, calibration };
            if let Some(Err(error)) = file.map(|file| write(&file, &entry)) {
                tracing::debug!("the calibration was not kept: {error}");
            }
            Some(entry.calibration.costs)
        }
        Ok(None) => None,
        Err(error) => {
            tracing::warn!(
                "the machine was not measured, and the planner begins with estimates: {error}"
            );
            None
        }
    }
}

/// Measures the times of a model for up to 20 s, and keeps them for engines with the same settings. Returns the times and
/// the file that they are in; None for the file if it could not be written, with the reason in the log. None if the KV cache
/// or a step is too small to measure.
pub(super) fn calibrate(
    model: &mut dyn LanguageModel,
) -> Result<Option<(Calibration, Option<PathBuf>)>> {
    let Some(calibration) = calibrate::measure(model, ON_REQUEST)? else { return Ok(None) };
    let entry = Entry { key: key_of(model), calibration };
    let file = cache_folder().map(|folder| file_of(&folder, &entry.key));
    let file = file.filter(|file| match write(file, &entry) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!("the calibration is not kept in {}: {error}", file.display());
            false
        }
    });
    Ok(Some((entry.calibration, file)))
}

/// Version, model, formats, device, instruction set, threads and sizes of blocks.
fn key_of(model: &dyn LanguageModel) -> String {
    let target = model.target();
    format!(
        "{} {:016x} {} {} {:?}",
        env!("CARGO_PKG_VERSION"),
        target.content_hash,
        model.device(),
        target.arithmetic,
        (target.kv_shape.block_size, target.kv_shape.format),
    )
}

/// `$XDG_CACHE_HOME/galley/calibration`, or the same below `~/.cache`.
fn cache_folder() -> Option<PathBuf> {
    let absolute =
        |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join("galley/calibration"))
}

fn file_of(folder: &Path, key: &str) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    folder.join(format!("{:016x}.json", hasher.finish()))
}

fn read(file: &Path, key: &str) -> Option<Calibration> {
    let text = std::fs::read(file).ok()?;
    let entry: Entry = serde_json::from_slice(&text).ok()?;
    (entry.key == key).then_some(entry.calibration)
}

/// Writes a file beside the entry and renames it, so that no reader sees half of it.
fn write(file: &Path, entry: &Entry) -> std::io::Result<()> {
    std::fs::create_dir_all(file.parent().unwrap_or(Path::new("")))?;
    let unfinished = file.with_extension(format!("{}.tmp", std::process::id()));
    std::fs::write(&unfinished, serde_json::to_vec(entry)?)?;
    std::fs::rename(&unfinished, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_back_and_one_of_another_machine_or_a_broken_one_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let costs = CostTable::analytic(1e8, 1e7, 1e4, 1e10, 1e10);
        let calibration = Calibration { costs, error: 0.02 };
        let file = file_of(&folder.path().join("new"), "a key");
        assert!(read(&file, "a key").is_none(), "there is none");
        write(&file, &Entry { key: "a key".into(), calibration: calibration.clone() })
            .expect("written");
        assert_eq!(read(&file, "a key"), Some(calibration));
        assert!(read(&file, "another key").is_none());
        std::fs::write(
            &file,
            "{\"key\": \"a key\", \"calibration\": {\"error\": 0, \"costs\": {\"by_rows\": [], \"per_kv_token\": []}}}",
        )
        .expect("written");
        assert!(read(&file, "a key").is_none(), "a table without points");
        std::fs::write(&file, "{").expect("written");
        assert!(read(&file, "a key").is_none());
    }
}
