//! Pulls from a hub in the test process.

mod environment;
mod hub;
mod network;
#[cfg(unix)]
mod packages;
mod refusals;
#[cfg(unix)]
mod untouched;

use super::*;
use hub::{COMMIT, Hub, Plan, hash, redirect};
use std::fs;

/// Fetches a model without a look at the progress.
fn pull(
    name: &str,
    file: Option<&str>,
    force: bool,
    environment: &Environment,
) -> Result<PathBuf, HubError> {
    let options = PullOptions::default().file(file.map(str::to_owned)).force(force);
    pull_in(name, &options, &|_| {}, environment)
}

fn weights() -> Vec<u8> {
    (0..300_000_u32).flat_map(u32::to_le_bytes).collect()
}

fn model() -> Hub {
    Hub::new(Plan {
        files: vec![
            ("README.md", b"not needed".to_vec()),
            ("config.json", b"{}".to_vec()),
            ("consolidated.safetensors", b"not needed".to_vec()),
            ("model.safetensors", weights()),
            ("onnx/model.onnx", b"not needed".to_vec()),
            ("tokenizer.json", b"{\"a\": 1}".to_vec()),
            ("tokenizer_config.json", b"[]".to_vec()),
        ],
        ..Plan::default()
    })
}

#[test]
fn a_model_is_fetched_once_into_the_shared_layout() {
    let hub = model();
    assert!(find_cached("org/name", &hub.settings()).is_err());
    let path = hub.pull("org/name").unwrap();
    let repo = hub.cache.join("models--org--name");
    assert_eq!(path, repo.join("snapshots").join(COMMIT));
    assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), weights());
    assert_eq!(fs::read(path.join("tokenizer.json")).unwrap(), b"{\"a\": 1}");
    assert_eq!(fs::read_dir(&path).unwrap().count(), 4);
    assert_eq!(fs::read_to_string(repo.join("refs/main")).unwrap(), COMMIT);
    assert!(repo.join("blobs").join(hash(&weights())).is_file());
    #[cfg(unix)]
    assert_eq!(
        fs::read_link(path.join("model.safetensors")).unwrap(),
        Path::new("../../blobs").join(hash(&weights()))
    );

    assert_eq!(find_cached("org/name", &hub.settings()).unwrap(), path);
    assert_eq!(find_cached(&format!("org/name@{COMMIT}"), &hub.settings()).unwrap(), path);
    assert_eq!(hub.requests("/cdn/").len(), 4);
    assert_eq!(hub.pull("org/name").unwrap(), path);
    assert_eq!(hub.requests("/cdn/").len(), 0, "it is there already");
    pull("org/name", None, true, &hub.environment).unwrap();
    assert_eq!(hub.requests("/cdn/").len(), 4, "forced");
}

#[test]
fn shards_are_those_of_the_index() {
    let index = br#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#;
    let mut files: Vec<(&'static str, &[u8])> = vec![
        ("config.json", b"{}"),
        ("model-1.safetensors", b"one"),
        ("model-2.safetensors", b"two"),
        ("lora.safetensors", b"not needed"),
        ("model.safetensors.index.json", index),
    ];
    let hub = Hub::with(&files);
    let path = hub.pull("org/name").unwrap();
    assert_eq!(fs::read(path.join("model-2.safetensors")).unwrap(), b"two");
    assert!(!path.join("lora.safetensors").exists());

    files.remove(2);
    let hub = Hub::with(&files);
    assert!(hub.error("org/name").contains("model-2.safetensors"));
    let error = find_cached("org/name", &hub.settings()).unwrap_err().to_string();
    assert!(error.contains("galley pull org/name"), "half a model is none: {error}");
}

#[test]
fn one_gguf_is_the_model_and_of_several_one_is_chosen() {
    let hub = Hub::with(&[("a-Q4.gguf", b"four"), ("README.md", b"")]);
    assert_eq!(fs::read(hub.pull("org/name").unwrap()).unwrap(), b"four");

    let hub = Hub::with(&[("a-Q4.gguf", b"four"), ("sub/a Q8.gguf", b"eight")]);
    let error = hub.error("org/name");
    assert!(error.contains("--file") && error.contains("sub/a Q8.gguf"), "{error}");
    let pull = |file| pull("org/name", Some(file), false, &hub.environment);
    assert!(pull("b.gguf").unwrap_err().to_string().contains("a-Q4.gguf"));
    hub.change(|plan| plan.files.push(("sub/a%20Q8.gguf", b"eight".to_vec())));
    assert_eq!(fs::read(pull("sub/a Q8.gguf").unwrap()).unwrap(), b"eight");
    let path = find_cached("org/name", &hub.settings()).unwrap();
    assert!(path.ends_with("sub/a Q8.gguf"));
    pull("a-Q4.gguf").unwrap();
    let error = find_cached("org/name", &hub.settings()).unwrap_err().to_string();
    assert!(error.contains("a-Q4.gguf") && error.contains("sub/a Q8.gguf"), "{error}");

    assert!(Hub::with(&[("README.md", b"")]).error("org/name").contains("no model"));
}

#[test]
fn a_cut_connection_is_continued() {
    let hub = model();
    hub.change(|plan| plan.cut = Some((100_000, 9)));
    let path = hub.pull("org/name").unwrap();
    assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), weights());
    let requests = hub.requests("/cdn/model.safetensors");
    assert_eq!(requests.len(), 10);
    assert_eq!(requests[9].1["range"], "bytes=900000-");
}

#[test]
fn a_part_of_an_earlier_run_is_continued() {
    let hub = model();
    let blobs = hub.cache.join("models--org--name/blobs");
    fs::create_dir_all(&blobs).unwrap();
    let part = blobs.join(hash(&weights())).with_extension("incomplete");
    for (part_len, first_range) in [(500_000, Some("bytes=500000-")), (9_000_000, None)] {
        let mut bytes = weights();
        bytes.resize(part_len, 0);
        fs::write(&part, bytes).unwrap();
        let path = pull("org/name", None, true, &hub.environment).unwrap();
        assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), weights());
        let requests = hub.requests("/cdn/model.safetensors");
        assert_eq!(requests[0].1.get("range").map(String::as_str), first_range);
        assert!(!part.exists());
    }

    // A server that does not support ranges sends the whole file again.
    hub.change(|plan| plan.whole_files_only = true);
    fs::write(&part, &weights()[..1000]).unwrap();
    let path = pull("org/name", None, true, &hub.environment).unwrap();
    assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), weights());
}

#[test]
fn damaged_files_never_get_their_name() {
    let hub = model();
    hub.change(|plan| plan.wrong_hash = true);
    let error = hub.error("org/name");
    assert!(error.contains("model.safetensors") && error.contains("SHA-256"), "{error}");
    let blobs = hub.cache.join("models--org--name/blobs");
    assert_eq!(fs::read_dir(blobs).unwrap().count(), 0);
    assert!(find_cached("org/name", &hub.settings()).is_err());

    // A damaged partial file is detected, too, and the next attempt succeeds.
    let hub = model();
    let blobs = hub.cache.join("models--org--name/blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(hash(&weights())).with_extension("incomplete"), b"nonsense").unwrap();
    assert!(hub.error("org/name").contains("SHA-256"));
    hub.pull("org/name").unwrap();
}

#[test]
fn the_token_stays_with_the_hub() {
    let (mut hub, elsewhere) = (model(), model());
    hub.set("HF_TOKEN", "secret");
    // Another name for the same machine is another host.
    let cdn = elsewhere.endpoint.replace("127.0.0.1", "localhost");
    hub.set("HF_ENDPOINT", &redirect(cdn, hub.requests.clone()));
    hub.pull("org/name").unwrap();
    assert!(
        hub.requests("").iter().all(|(_, headers)| headers["authorization"] == "Bearer secret")
    );
    let there = elsewhere.requests("/cdn/");
    assert_eq!(there.len(), 4);
    assert!(there.iter().all(|(_, headers)| !headers.contains_key("authorization")));
}

#[test]
fn offline_means_the_cache() {
    let mut hub = model();
    hub.set("HF_HUB_OFFLINE", "1");
    let error = hub.error("org/name");
    assert!(error.contains("galley pull org/name") && error.contains("HF_HUB_OFFLINE"), "{error}");
    assert_eq!(hub.requests("").len(), 0);
    hub.set("HF_HUB_OFFLINE", "0");
    let path = hub.pull("org/name").unwrap();
    hub.set("HF_HUB_OFFLINE", "");
    hub.set("TRANSFORMERS_OFFLINE", "yes");
    hub.requests("");
    assert_eq!(hub.pull("org/name").unwrap(), path);
    let file = |name| pull("org/name", Some(name), false, &hub.environment);
    assert_eq!(file("config.json").unwrap(), path.join("config.json"));
    assert!(file("../x").is_err() && file("x.gguf").is_err());
    assert_eq!(hub.requests("").len(), 0);
    assert!(hub.error("smollm2-135m-instruct").contains("TRANSFORMERS_OFFLINE"));
}

#[test]
fn names_cannot_leave_the_cache() {
    for name in ["../x.safetensors", "/x.gguf", "a/../../x.gguf", "a//x", "./x", "a\\..\\x", "c:x"]
    {
        let hub = Hub::with(&[("config.json", b"{}"), ("model.safetensors", b"x"), (name, b"x")]);
        let error = hub.error("org/name");
        assert!(error.contains("written anywhere"), "{name}: {error}");
        assert!(fs::read_dir(&hub.cache).unwrap().next().is_none());
    }
    for source in ["org", "a/b/c", "../x", "org/..", "-o/x", "org/na--me", "org/x@../y", "org/x@"] {
        assert!(Repo::parse(source).is_err(), "{source}");
    }
    let repo = Repo::parse("Org-1/Name_2.5@refs/pr/1").unwrap();
    assert_eq!((repo.id.as_str(), repo.revision.as_str()), ("Org-1/Name_2.5", "refs/pr/1"));
}

#[test]
fn case_15_shards_without_an_index_are_all_fetched_or_none() {
    let shard = |i: usize| {
        [
            "model-00001-of-00003.safetensors",
            "model-00002-of-00003.safetensors",
            "model-00003-of-00003.safetensors",
        ][i]
    };
    let mut files: Vec<(&'static str, &[u8])> = vec![
        ("config.json", b"{}"),
        (shard(0), b"one"),
        (shard(1), b"two"),
        (shard(2), b"three"),
        ("lora.safetensors", b"not needed"),
        ("special_tokens_map.json", b"{}"),
        ("added_tokens.json", b"{}"),
    ];
    let hub = Hub::with(&files);
    let path = hub.pull("org/name").unwrap();
    for (i, bytes) in ["one", "two", "three"].iter().enumerate() {
        assert_eq!(fs::read_to_string(path.join(shard(i))).unwrap(), *bytes);
    }
    assert!(!path.join("lora.safetensors").exists());
    assert!(
        path.join("special_tokens_map.json").exists() && path.join("added_tokens.json").exists()
    );
    assert_eq!(find_cached("org/name", &hub.settings()).unwrap(), path);

    // Weights without shard numbers are all fetched.
    let hub =
        Hub::with(&[("config.json", b"{}"), ("a.safetensors", b"a"), ("b.safetensors", b"b")]);
    let path = hub.pull("org/name").unwrap();
    assert!(path.join("a.safetensors").exists() && path.join("b.safetensors").exists());

    // A model with a missing shard is refused before any file is fetched.
    files.remove(2);
    let hub = Hub::with(&files);
    let error = hub.error("org/name");
    assert!(error.contains("shard 2 of 3") && error.contains("org/name"), "{error}");
    assert_eq!(hub.requests("/cdn/").len(), 0);
}
