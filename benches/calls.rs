//! The drafter of `c/calls.c`, for measurements and for the allocation test.

use galley_drafter_host::{
    DraftRow, Drafter, DrafterLimits, Library, ModelFacts, ModelId, ModelLoader, ModelRefused,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// Compiles and loads the drafter's library.
pub(crate) fn library() -> Arc<Library> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("libcalls.so");
    let status = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC"])
        .args(["-fvisibility=hidden", "-I"])
        .arg(here.join("../plugins/abi/include"))
        .arg(here.join("c/calls.c"))
        .arg("-o")
        .arg(&path)
        .status()
        .expect("a C compiler is there");
    assert!(status.success(), "calls.c compiles");
    Library::open(&path).expect("it loads")
}

/// An active drafter whose `guess` calls `call` `times` times. With `is_asked` the host calls
/// `guess` in every round; without it the host may repeat a recorded program.
pub(crate) fn drafter(library: &Arc<Library>, call: &str, times: usize, is_asked: bool) -> Drafter {
    let options = [
        ("call", call.to_owned()),
        ("times", times.to_string()),
        ("every", u8::from(is_asked).to_string()),
    ];
    let options: BTreeMap<_, _> = options.map(|(k, v)| (k.to_owned(), v)).into();
    let facts = ModelFacts {
        n_layers: 32,
        n_heads: 32,
        n_kv_heads: 8,
        head_dim: 128,
        hidden_size: 4096,
        vocab_size: 128_256,
        block_size_tokens: 16,
        max_context_tokens: 131_072,
        n_parameters: 8_000_000_000,
    };
    let limits = DrafterLimits { max_rows: 1024, max_draft_length: 4, max_context_tokens: 131_072 };
    let mut drafter = Drafter::create(library, &options, facts).expect("it is created");
    drafter.activate(limits, &mut NoModels).expect("it is activated");
    drafter
}

/// A batch of `n_rows` rows.
pub(crate) fn rows(n_rows: usize) -> Vec<DraftRow<'static>> {
    let row = |sequence| DraftRow { sequence, tokens: &[5; 1000], draft_length: 3 };
    (0..n_rows as u64).map(row).collect()
}

struct NoModels;

impl ModelLoader for NoModels {
    fn load(&mut self, source: &str) -> Result<(ModelId, ModelFacts), ModelRefused> {
        Err(ModelRefused::Unsupported(source.to_owned()))
    }
}
