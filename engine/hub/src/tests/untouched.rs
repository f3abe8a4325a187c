//! Case 14: pulling a model that is in the cache writes nothing, so the cache may be read-only.

use super::*;
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

/// Everything below `directory`, with the times of its last write and rename: permissions alone do not stop root.
fn state(directory: &Path) -> BTreeMap<PathBuf, (u64, i64, i64, i64, i64)> {
    let mut all = BTreeMap::new();
    let mut todo = vec![directory.to_owned()];
    while let Some(path) = todo.pop() {
        let data = fs::symlink_metadata(&path).unwrap();
        if data.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let times = (data.ino(), data.mtime(), data.mtime_nsec(), data.ctime(), data.ctime_nsec());
        all.insert(path, times);
    }
    all
}

fn set_writable(directory: &Path, is_writable: bool) {
    for path in state(directory).keys().filter(|path| path.is_dir()) {
        let mode = if is_writable { 0o755 } else { 0o555 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

#[test]
fn case_14_a_complete_model_in_a_read_only_cache_is_pulled_without_a_write() {
    let hub = model();
    let path = hub.pull("org/name").unwrap();
    set_writable(&hub.cache, false);
    let before = state(&hub.cache);
    assert_eq!(hub.pull("org/name").unwrap(), path);
    assert_eq!(hub.pull(&format!("org/name@{COMMIT}")).unwrap(), path);
    assert_eq!(find_cached("org/name", &hub.settings()).unwrap(), path);
    assert_eq!(
        pull("org/name", Some("config.json"), false, &hub.environment).unwrap(),
        path.join("config.json")
    );
    assert_eq!(state(&hub.cache), before, "nothing was written");
    set_writable(&hub.cache, true);

    // Control: the check detects the writes for another revision and for another commit.
    let before = state(&hub.cache);
    hub.pull("org/name@v2").unwrap();
    assert_ne!(state(&hub.cache), before);
    hub.change(|plan| plan.commit = Some("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
    let newer = hub.pull("org/name").unwrap();
    assert_ne!(newer, path);
    let refs = hub.cache.join("models--org--name/refs");
    assert!(newer.ends_with(fs::read_to_string(refs.join("main")).unwrap()));
    assert_eq!(fs::read_to_string(refs.join("v2")).unwrap(), COMMIT);
    assert_eq!(fs::read_dir(&refs).unwrap().count(), 2, "nothing but references");
    let mode = fs::metadata(refs.join("main")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644, "other users may read it");
}

#[test]
fn case_14_a_reference_that_another_tool_wrote_is_kept() {
    let hub = model();
    hub.pull("org/name").unwrap();
    let main = hub.cache.join("models--org--name/refs/main");
    fs::write(&main, format!("{COMMIT}\n")).unwrap();
    hub.pull("org/name").unwrap();
    assert_eq!(fs::read_to_string(&main).unwrap(), format!("{COMMIT}\n"));
}

#[test]
fn case_14_a_cache_that_cannot_be_written_is_named_with_the_way_out() {
    let mut hub = model();
    let file = hub.cache.join("file");
    fs::write(&file, "").unwrap();
    hub.set("GALLEY_CACHE", file.join("cache").to_str().unwrap());
    let error = hub.error("org/name");
    assert!(error.contains("place of a directory") && error.contains("HF_HOME"), "{error}");
    assert_eq!(hub.requests("/cdn/").len(), 0, "it is tried once");

    if cfg!(target_os = "linux") && Path::new("/sys").is_dir() {
        // Not even root can create a directory there.
        hub.set("GALLEY_CACHE", "/sys/galley");
        let error = hub.error("org/name");
        assert!(error.contains("/sys/galley") && error.contains("that you may write"), "{error}");
    }
    if cfg!(target_os = "linux") && Path::new("/dev/full").exists() {
        let mut hub = model();
        hub.set("HF_HUB_DOWNLOAD_TIMEOUT", "9");
        let blobs = hub.cache.join("models--org--name/blobs");
        fs::create_dir_all(&blobs).unwrap();
        let part = blobs.join(hash(&weights())).with_extension("incomplete");
        std::os::unix::fs::symlink("/dev/full", part).unwrap();
        let error = hub.error("org/name");
        assert!(error.contains("model.safetensors") && error.contains("another disk"), "{error}");
        assert_eq!(hub.requests("/cdn/model.safetensors").len(), 1, "it is tried once");
    }
}
