//! Drafters by path: files that cannot be loaded, paths that are no files, paths with commas.
#![cfg(unix)]

use crate::{command, galley, json, refused, tiny};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Compiles the C example with `more` appended into `folder`.
fn build_echo(folder: &Path, more: &str, flags: &[&str]) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let program = std::fs::read_to_string(root.join("examples/drafters/echo.c")).expect("C");
    let source = folder.join("echo.c");
    std::fs::write(&source, program + more).expect("written");
    let library = folder.join("libecho.so");
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-O1", "-shared", "-fPIC", "-fvisibility=hidden", "-I"]);
    cc.arg(root.join("plugins/abi/include")).arg("-o").arg(&library).arg(&source).args(flags);
    assert!(cc.status().expect("a C compiler").success());
    library
}

fn run_with<'a>(model: &'a str, plugin: &'a str) -> [&'a str; 9] {
    ["run", "-m", model, "-p", "text", "--max-tokens", "2", "--drafter-plugin", plugin]
}

fn model() -> String {
    tiny("smollm2").to_str().expect("UTF-8").to_owned()
}

#[test]
fn case_27_the_linkers_reason_is_told_once() {
    let (model, folder) = (model(), tempfile::tempdir().expect("a folder"));
    let folder = folder.path();
    let uses = "\nextern int missing_thing(void);\nint use_it(void) { return missing_thing(); }\n";
    let check = |plugin: &Path, reason: &str| {
        let plugin = plugin.to_str().expect("UTF-8");
        let output = galley(&run_with(&model, plugin));
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{error}");
        assert!(error.contains("cannot load") && error.contains(plugin), "{error}");
        assert_eq!(error.matches(reason).count(), 1, "{error}");
        assert!(!error.contains("dlopen failed"), "{error}");
    };
    // The drafter calls a function that no library has.
    check(&build_echo(folder, uses, &[]), "missing_thing");
    // The drafter needs a library that existed only at build time.
    let source = folder.join("m.c");
    std::fs::write(&source, "int missing_thing(void) { return 1; }\n").expect("written");
    let other = folder.join("libmissing.so");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o"]).arg(&other).arg(&source);
    assert!(cc.status().expect("a C compiler").success());
    let path = format!("-L{}", folder.display());
    let echo = build_echo(folder, uses, &[&path, "-lmissing"]);
    std::fs::remove_file(&other).expect("removed");
    check(&echo, "libmissing.so");
    // The file is no library, although its bytes have a manifest.
    let bytes = std::fs::read(&echo).expect("bytes");
    let text = folder.join("text.so");
    std::fs::write(&text, [b"no ELF: ", &bytes[..]].concat()).expect("written");
    check(&text, "ELF");
    // Control: a complete drafter is loaded.
    let whole = build_echo(folder, "", &[]);
    json(&galley(&[&run_with(&model, whole.to_str().expect("UTF-8"))[..], &["--json"]].concat()));
}

#[test]
fn a_plugin_that_is_no_file_is_refused_and_not_waited_for() {
    let (model, folder) = (model(), tempfile::tempdir().expect("a folder"));
    let pipe = folder.path().join("pipe.so");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    let link = folder.path().join("link.so");
    std::os::unix::fs::symlink("/dev/zero", &link).expect("a link");
    let circle = folder.path().join("circle.so");
    std::os::unix::fs::symlink(&circle, &circle).expect("a link");
    let empty = folder.path().join("empty.so");
    std::fs::write(&empty, "").expect("written");
    for (plugin, part) in [
        (Path::new("/dev/zero"), "a device"),
        (Path::new("/dev/null"), "a device"),
        (&link, "a device"),
        (&pipe, "a pipe"),
        (folder.path(), "a folder"),
        (&circle, "cannot read"),
        (&empty, "no manifest"),
        (&folder.path().join("absent.so"), "cannot read"),
    ] {
        let plugin = plugin.to_str().expect("UTF-8");
        let began = Instant::now();
        refused(&run_with(&model, plugin), &[plugin, part]);
        assert!(began.elapsed() < Duration::from_secs(60), "{plugin}");
    }
    // A search of the folder skips these files.
    let path = folder.path().to_str().expect("UTF-8");
    let output = galley(&["drafters", "--plugin-path", path]);
    assert!(output.status.success() && output.stderr.is_empty());
    refused(
        &["run", "-m", &model, "-p", "x", "--drafter", "none-such", "--plugin-path", path],
        &["none-such", "--drafter-plugin"],
    );
}

#[test]
fn case_31_a_path_with_a_comma_can_be_written() {
    let (model, folder) = (model(), tempfile::tempdir().expect("a folder"));
    let odd = folder.path().join("a, b=c");
    std::fs::create_dir(&odd).expect("a folder");
    let library = build_echo(&odd, "", &[]);
    let path = library.to_str().expect("UTF-8");
    let drafts = |plugin: &str, variable: bool| {
        let args = ["run", "-m", &model, "-p", "a a a a", "--ignore-eos", "--max-tokens", "12"];
        let mut galley = command(&[&args[..], &["--json"]].concat());
        match variable {
            true => galley.env("GALLEY_DRAFTER_PLUGIN", plugin),
            false => galley.args(["--drafter-plugin", plugin]),
        };
        let run = json(&galley.output().expect("the binary starts"));
        run["drafting"]["drafted"].as_u64().expect("a number")
    };
    for variable in [false, true] {
        let unquoted = drafts(path, variable);
        assert!(unquoted > 0);
        assert_eq!(drafts(&format!("\"{path}\""), variable), unquoted);
        assert_ne!(drafts(&format!("\"{path}\",times=1"), variable), unquoted);
    }
    let args = run_with(&model, path);
    let absent = path.replace("libecho", "absent");
    refused(&[&args[..8], &[absent.as_str()]].concat(), &["double quotes", &absent]);
    let quoted = format!("\"{absent}\"");
    refused(&[&args[..8], &[quoted.as_str()]].concat(), &[absent.as_str(), "cannot read"]);

    // The path of a draft model may have a comma, too.
    crate::build_drafter("small-model");
    let draft = odd.join("draft, small.gguf");
    std::fs::copy(tiny("smollm2.gguf"), &draft).expect("a copy");
    let option = format!("small-model,model=\"{}\"", draft.display());
    let args = ["run", "-m", &model, "-p", "text", "--max-tokens", "8", "--ignore-eos", "--json"];
    let run = json(&galley(&[&args[..], &["--drafter", &option]].concat()));
    assert!(run["drafting"]["accepted"].as_u64() > Some(0), "{run}");
}

#[test]
fn a_folder_for_drafters_that_is_not_there_is_said() {
    let output = galley(&["drafters", "--plugin-path", "no/such/folder"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("no/such/folder"), "{said}");
}
