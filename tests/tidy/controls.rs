//! Negative controls: every check notices violations, and accepts correct text.

use super::*;

const CPU: &str = "engine/backend/src/cpu/x.rs";

#[test]
fn arrows() {
    let table = "<!-- tests/tidy.rs parses this table -->\n\n| Crate | Folder | May import |\n\
        |---|---|---|\n| `a` | `x/a` | nothing |\n| `b` | `b` | `a`, `c` |\n\n| `z` | `z` | `a` |\n";
    let table = arrow_table(table);
    assert_eq!(table["b"], ("b".to_owned(), vec!["a".to_owned(), "c".to_owned()]));
    assert_eq!(table.len(), 2);
    let package = |name: &str, folder: &str, imports: &[(&str, &str)]| {
        let dependencies: Vec<_> = imports
            .iter()
            .map(|(name, kind)| serde_json::json!({"name": name, "kind": kind, "path": "p"}))
            .collect();
        let manifest = Path::new("r").join(folder).join("Cargo.toml");
        serde_json::json!({"name": name, "manifest_path": manifest, "dependencies": dependencies})
    };
    let check = |packages: &[Value]| {
        check_arrows(&table, &serde_json::json!({"workspace_root": "r", "packages": packages}))
    };
    let (a, b) = (package("a", "x/a", &[("b", "dev")]), package("b", "b", &[("a", "normal")]));
    assert!(check(&[a.clone(), b.clone()]).is_empty());
    assert_eq!(check(&[package("a", "x/a", &[("b", "normal")]), b.clone()]).len(), 1);
    assert_eq!(check(&[package("a", "x/a", &[("b", "build")]), b.clone()]).len(), 1);
    assert_eq!(check(&[package("a", "y/a", &[]), b.clone()]).len(), 1, "another folder");
    assert_eq!(check(&[a.clone(), b, package("z", "z", &[])]).len(), 1, "not listed");
    assert_eq!(check(&[a]).len(), 1, "listed and gone");
}

#[test]
fn first_lines_and_lengths() {
    assert!(check_first_line("//! What it is for.\n").is_empty());
    for text in ["", "use x;\n//! Late.\n", "//!\n", "// Not for rustdoc.\n", "\n//! Late.\n"] {
        assert_eq!(check_first_line(text).len(), 1, "{text:?}");
    }
    let (short, long) = ("x\n".repeat(MAX_LINES), "x\n".repeat(MAX_LINES + 1));
    assert!(check_length("a.rs", &short).is_empty());
    assert_eq!(check_length("a.rs", &long).len(), 1);
    assert!(check_length(LONG_FILES[0].0, &long).is_empty());
    assert_eq!(check_length(LONG_FILES[0].0, &short).len(), 1);
}

#[test]
fn columns() {
    // Width counts characters, not bytes.
    let (fits, wide) = ("ᵀ".repeat(MAX_COLUMNS), "x".repeat(MAX_COLUMNS + 1));
    assert!(check_columns(&format!("{fits}\n{fits}")).is_empty());
    assert_eq!(check_columns(&format!("{fits}\n{wide}\n{wide}\n")).len(), 2);
}

#[test]
fn unsafe_code() {
    let fine = [
        "// SAFETY: because.\nunsafe { f() }",
        "// SAFETY: because,\n// at length.\nlet x = y(\n    unsafe { f() });",
        "// SAFETY: because.\nunsafe impl Send for X {}",
        "/// # Safety\n///\n/// Valid.\n#[inline]\npub(super) unsafe fn f() {}",
        "unsafe fn private() {}\ntype F = unsafe fn(u32);",
        "#![forbid(unsafe_code)] // unsafe\nlet s = \"unsafe { }\";",
    ];
    for text in fine {
        assert_eq!(check_unsafe(CPU, text), Vec::<String>::new(), "{text}");
    }
    let bad = [
        "unsafe { f() }",
        "// Trust me.\nunsafe { f() }",
        "// SAFETY: for the first.\nunsafe { f() }\nunsafe { g() }",
        "// SAFETY: too far away.\n\n\n\nunsafe { f() }",
        "unsafe impl Send for X {}",
        "/// No section.\npub unsafe fn f() {}",
        "unsafe trait T {}",
    ];
    for text in bad {
        assert_eq!(check_unsafe(CPU, text).len(), 1, "{text}");
    }
    let exported = "#[unsafe(no_mangle)]\npub extern \"C\" fn galley_x() {}";
    assert!(check_unsafe("ffi/src/x.rs", exported).is_empty());
    assert_eq!(check_unsafe(CPU, exported).len(), 1);
    for path in ["engine/src/step.rs", "engine/backend/src/lib.rs", "tests/lib.rs"] {
        assert_eq!(check_unsafe(path, fine[0]).len(), 1, "{path}");
    }
}

#[test]
fn pure_folders() {
    let clock = "let now = Instant::now();";
    assert_eq!(check_pure("engine/model/src/x.rs", clock).len(), 1);
    assert_eq!(check_pure(CPU, "std::env::var_os(\"GALLEY_CPU\")").len(), 1);
    let behind_tests = format!("#[cfg(test)]\nmod tests {{\n{clock}\n}}");
    for (path, text) in [
        ("engine/src/x.rs", clock),
        ("engine/model/src/tests.rs", clock),
        (IMPURE_FILES[0].0, clock),
        (CPU, "// not Instant::now"),
        (CPU, &behind_tests),
    ] {
        assert!(check_pure(path, text).is_empty(), "{path}: {text}");
    }
}

#[test]
fn documents() {
    let path = ["", "home", "me", "galley"].join("/");
    for text in [path.clone(), format!("cd {path}"), format!("x = \"{path}\"")] {
        assert_eq!(check_machine_paths(&text).len(), 1, "{text}");
    }
    for text in [format!("see docs{path}"), format!("https://example.org{path}")] {
        assert!(check_machine_paths(&text).is_empty(), "{text}");
    }
    let links = "[a](here.md#part) [b](gone.md) [c](https://example.org) [d](#part)";
    assert_eq!(check_links(links, |target| target == "here.md").len(), 1);
    assert!(check_headings("# A\n## B\n", &["## B"]).is_empty());
    assert_eq!(check_headings("# A\ntext ## B\n", &["## B"]).len(), 1);
}
