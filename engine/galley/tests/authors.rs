//! Follows docs/plugin-author.md as a reader does: its programs and commands, in a folder outside Galley's tree.
#![cfg(unix)]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The only block in `language` under a heading of the document.
fn block(heading: &str, language: &str) -> String {
    let document = read("docs/plugin-author.md");
    let section = document.split("\n## ").find(|section| section.starts_with(heading));
    let section = section.unwrap_or_else(|| panic!("no heading {heading:?}"));
    let blocks: Vec<&str> = section.split("```").skip(1).step_by(2).collect();
    let fence = format!("{language}\n");
    let mut blocks = blocks.iter().filter_map(|block| block.strip_prefix(&fence));
    match (blocks.next(), blocks.next()) {
        (Some(block), None) => block.to_owned(),
        (first, _) => {
            panic!("{heading:?}: {} of {language:?}", first.map_or("no block", |_| "two"))
        }
    }
}

/// The disk of a reader, with Galley in one folder and the drafter in a folder beside it.
struct Reader {
    disk: tempfile::TempDir,
}

impl Reader {
    fn new() -> Self {
        let disk = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(disk.path().join("drafter")).expect("a folder");
        std::os::unix::fs::symlink(root(), disk.path().join("galley")).expect("a link");
        Self { disk }
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.disk.path().join("drafter").join(file);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, text).expect("written");
    }

    /// Runs `commands` in a shell in the drafter's folder, with this build's galley on the PATH.
    fn types(&self, commands: &str) -> Output {
        let mut shell = Command::new("sh");
        // Variables of the machine that runs the tests must not reach the commands.
        for (name, _) in std::env::vars() {
            if name.starts_with("GALLEY_") || name == "CARGO_TARGET_DIR" {
                shell.env_remove(name);
            }
        }
        let galley = Path::new(env!("CARGO_BIN_EXE_galley")).parent().expect("a folder");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(galley.to_owned()).chain(std::env::split_paths(&path));
        shell.env("PATH", std::env::join_paths(path).expect("a path"));
        // A build must not need the network, neither in Rust nor in C.
        shell.env("CARGO_NET_OFFLINE", "true").current_dir(self.disk.path().join("drafter"));
        shell.args(["-e", "-c", commands]).output().expect("a shell")
    }

    fn succeeds(&self, commands: &str) -> (String, String) {
        let output = self.types(commands);
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        assert!(output.status.success(), "{commands}\n{stdout}\n{stderr}");
        (stdout, stderr)
    }

    /// Builds with the commands of `section`, then runs the section "Try it" with only the model replaced.
    fn builds_and_tries(&self, section: &str) {
        let commands = block("Try it", "sh");
        let tiny = root().join("tests/data/models/smollm2");
        let tiny = tiny.to_str().expect("UTF-8");
        assert!(commands.contains(" -m smollm2-135m-instruct "), "{commands}");
        let commands = commands.replace("smollm2-135m-instruct", tiny);
        let (list, run) = commands.trim_end().split_once('\n').expect("two commands");
        assert!(list.starts_with("galley drafters ") && run.starts_with("galley run "));
        assert!(!self.succeeds(list).0.contains("echo"), "nothing is built yet");
        assert!(!self.types(run).status.success(), "nothing is built yet");

        self.succeeds(&block(section, "sh"));
        let (listed, _) = self.succeeds(list);
        assert!(listed.contains("echo 0.1.0") && listed.contains("times"), "{listed}");
        let (drafted_text, stats) = self.succeeds(run);
        assert!(stats.contains("drafts  "), "{stats}");

        let without = run.replace("--drafter-plugin ./libecho.so ", "--drafter none ");
        assert_ne!(without, run);
        let (plain_text, stats) = self.succeeds(&without);
        assert!(!stats.contains("drafts  "), "{stats}");
        assert_eq!(drafted_text, plain_text);

        let json = |command: &str| -> Value {
            let (printed, _) = self.succeeds(&format!("{command} --json --ignore-eos"));
            serde_json::from_str(&printed).expect("JSON")
        };
        let ids = |run: &Value| run["outputs"][0]["token_ids"].clone();
        let (drafted, plain) = (json(run), json(&without));
        assert!(drafted["drafting"]["drafted"].as_u64() > Some(10), "{drafted}");
        assert_eq!(plain["drafting"]["drafted"], 0);
        assert_eq!(ids(&drafted), ids(&plain));
        assert_eq!(ids(&plain).as_array().expect("ids").len(), 64);
        // Control: the comparison detects another output.
        assert_ne!(ids(&plain), ids(&json(&without.replace("ha ha ha ha", "other"))));

        let refused = self.types(&run.replace("libecho.so", "libecho.so,times=0"));
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && error.contains("times"), "{error}");
    }

    /// Runs the commands of the section "Check it". The sanitizer's commands are not in an `sh` block and are left out.
    fn checks(&self) {
        let commands = block("Check it", "sh");
        let galley = "--manifest-path ../galley/";
        assert!(commands.lines().all(|command| command.contains(galley)), "{commands}");
        // The root has the same path in every run, so that cargo does not build again the next time.
        let commands = commands.replace(galley, &format!("--manifest-path {}/", root().display()));
        let target = env!("CARGO_TARGET_TMPDIR");
        let commands = format!("export CARGO_TARGET_DIR='{target}/drafter-check'\n{commands}");
        let (said, _) = self.succeeds(&commands);
        assert_eq!(said.matches(" passed, 0 failed, ").count(), 2, "{said}");
        assert!(said.contains("\nR22  "), "the rules: {said}");
        // Control: an option that the drafter refuses is reported as a failure.
        let refused = self.types(&commands.replace("times=4", "times=0"));
        let said = String::from_utf8_lossy(&refused.stdout).into_owned();
        assert!(!refused.status.success() && said.contains("R03 FAIL"), "{said}");
    }
}

#[test]
fn a_drafter_in_c_takes_what_the_document_says() {
    let program = block("In C", "c");
    assert_eq!(program, read("examples/drafters/echo.c"));
    let reader = Reader::new();
    reader.write("echo.c", &program);
    reader.builds_and_tries("In C");
    reader.checks();
    // The compiler flags of the document's checklist.
    let build = block("In C", "sh");
    let flags = "-Wall -Wextra -pedantic -Werror";
    assert!(read("docs/plugin-author.md").contains(flags));
    reader.succeeds(&build.replace("cc ", &format!("cc {flags} ")));
}

#[test]
fn a_drafter_in_rust_takes_what_the_document_says() {
    let (manifest, program) = (block("In Rust", "toml"), block("In Rust", "rust"));
    assert_eq!(program, read("examples/drafters/echo-rs/src/lib.rs"));
    // The example is inside Galley's tree, so its manifest has another path and a workspace of its own.
    let example = read("examples/drafters/echo-rs/Cargo.toml");
    let (example, _) = example.split_once("\n# Not part of").expect("a remark");
    assert_eq!(manifest, example.replace("../../../plugins", "../galley/plugins"));
    let reader = Reader::new();
    reader.write("Cargo.toml", &manifest);
    reader.write("src/lib.rs", &program);
    reader.builds_and_tries("In Rust");
    reader.checks();
}
