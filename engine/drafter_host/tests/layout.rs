//! The ABI is a promise: C, C++, Rust and the golden file agree on every size and offset.
//!
//! After a struct has gained a field at its end, write plugins/abi/layout.txt anew with
//! `GALLEY_BLESS=1 cargo test -p galley-drafter-host --test layout`. Any other difference breaks
//! drafters.

use std::fmt::Write as _;
use std::mem::{align_of, offset_of, size_of};
use std::path::{Path, PathBuf};
use std::process::Command;

use galley_drafter_abi::*;

/// The same list as text from Rust, and as a C program that prints that text.
macro_rules! layout {
    ($($name:ident { $($field:ident),* })*) => {{
        let mut rust = String::new();
        let mut c = String::from("#include \"galley_drafter.h\"\n#include <stdio.h>\nint main(void) {\n");
        $(
            let (size, align) = (size_of::<$name>(), align_of::<$name>());
            let name = stringify!($name);
            writeln!(rust, "{name} size {size} align {align}").expect("memory");
            writeln!(
                c,
                "  struct align_{name} {{ char c; {name} x; }};\n  \
                 printf(\"{name} size %zu align %zu\\n\", sizeof({name}), offsetof(struct align_{name}, x));"
            )
            .expect("memory");
            $(
                let (field, offset) = (stringify!($field), offset_of!($name, $field));
                writeln!(rust, "{name}.{field} {offset}").expect("memory");
                writeln!(c, "  printf(\"{name}.{field} %zu\\n\", offsetof({name}, {field}));").expect("memory");
            )*
        )*
        c.push_str("  return 0;\n}\n");
        (rust, c)
    }};
}

fn both() -> (String, String) {
    layout! {
        gd_str { ptr, len }
        gd_model { id }
        gd_view { id }
        gd_layers { id }
        gd_queue { id }
        gd_matcher { id }
        gd_host { struct_size, abi_major, abi_minor, host_data, extension, log, rerecord }
        gd_model_info {
            struct_size, n_layers, n_heads, n_kv_heads, head_dim, hidden_size, vocab_size,
            block_size_tokens, max_context_tokens, n_parameters
        }
        gd_host_models { struct_size, describe, load }
        gd_window_args { struct_size, model, n_sinks, budget_tokens }
        gd_host_views { struct_size, window }
        gd_observe_args {
            struct_size, budget_tokens, granularity, n_sinks, n_recent, observe, n_queries, pool,
            pool_width, refresh, reserved
        }
        gd_host_observe { struct_size, observe }
        gd_host_layers { struct_size, mask, change }
        gd_chain_args { struct_size, queue, model, view, layers }
        gd_host_chain { struct_size, chain }
        gd_row { struct_size, sequence, n_tokens, tokens, draft_length, reserved }
        gd_host_tokens { struct_size, lookup, row, push }
        gd_matcher_args {
            struct_size, min_match, max_match, tokens_per_match, min_frequency, memory, reserved
        }
        gd_query { struct_size, queue, matcher, row, capacity, tokens, frequencies }
        gd_match { struct_size, count, match_tokens, n_tokens }
        gd_host_suffix { struct_size, matcher, propose, query }
        gd_replay_score { struct_size, n_matched, n_compared }
        gd_host_replay { struct_size, replay, score }
        gd_limits { struct_size, max_rows, max_draft_length, max_context_tokens }
        gd_batch { struct_size, queue, n_rows, draft_length }
        gd_cost { struct_size, weights_read, kv_tokens_read }
        gd_verified { struct_size, n_rows, reserved, sequences, n_proposed, n_accepted }
        gd_drafter_feedback { struct_size, feedback }
        gd_drafter {
            struct_size, data, destroy, activate, deactivate, after_prefill, guess, end, cost,
            get_extension
        }
        gd_option { name, value }
        gd_library { struct_size, abi_major, abi_minor, manifest, create }
    }
}

fn abi() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/abi")
}

/// Compiles and returns the program, or None if this compiler is not installed.
fn compile(compiler: &str, arguments: &[&str], source: &str, folder: &Path) -> Option<PathBuf> {
    let (input, output) = (folder.join("source.c"), folder.join(compiler));
    std::fs::write(&input, source).expect("written");
    let run = Command::new(compiler)
        .args(arguments)
        .args(["-Wall", "-Wextra", "-pedantic", "-Werror", "-I"])
        .arg(abi().join("include"))
        .arg(&input)
        .arg("-o")
        .arg(&output)
        .status();
    match run {
        Ok(status) => assert!(status.success(), "{compiler} {arguments:?}"),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{compiler}: {error}");
            println!("skipped: no {compiler} here");
            return None;
        }
    }
    Some(output)
}

fn output_of(program: &Path) -> String {
    let output = Command::new(program).output().expect("it runs");
    String::from_utf8(output.stdout).expect("ASCII")
}

#[test]
fn c_cpp_rust_and_the_golden_file_agree() {
    let (rust, c) = both();
    let folder = tempfile::tempdir().expect("a folder");
    if let Some(program) = compile("cc", &["-std=c11"], &c, folder.path()) {
        assert_eq!(output_of(&program), rust, "C11 and Rust");
    }
    if let Some(program) = compile("c++", &["-std=c++17", "-x", "c++"], &c, folder.path()) {
        assert_eq!(output_of(&program), rust, "C++17 and Rust");
    }
    let golden = abi().join("layout.txt");
    if std::env::var_os("GALLEY_BLESS").is_some() {
        std::fs::write(&golden, &rust).expect("written");
    }
    let kept = std::fs::read_to_string(&golden).expect("plugins/abi/layout.txt is there");
    assert_eq!(kept, rust, "plugins/abi/layout.txt");
}

/// The negative control: the comparison notices a compiler that lays structs out differently.
#[test]
fn another_layout_is_seen() {
    let (rust, c) = both();
    let folder = tempfile::tempdir().expect("a folder");
    if let Some(program) = compile("cc", &["-std=c11", "-fpack-struct=4"], &c, folder.path()) {
        assert_ne!(output_of(&program), rust);
    }
}

/// The list above is typed by hand: it must contain every struct of the header and every field.
#[test]
fn the_list_is_complete() {
    let bindings = std::fs::read_to_string(abi().join("src/bindings.rs")).expect("it is there");
    let n_structs = bindings.matches("pub struct ").count();
    let n_fields = bindings.matches("Offset of field").count();
    let (rust, _) = both();
    let n_listed = rust.lines().filter(|line| line.contains(" size ")).count();
    assert_eq!((n_listed, rust.lines().count() - n_listed), (n_structs, n_fields));
}
