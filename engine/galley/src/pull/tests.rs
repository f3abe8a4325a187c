//! Pulling from a hub on this machine.

mod hub;
#[cfg(unix)]
mod packages;

use super::*;
use hub::{COMMIT, Hub, Plan, hash, redirect};
use std::fs;

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
    assert!(resolve_cached("org/name", &hub.settings).is_err());
    let path = hub.pull("org/name").unwrap();
    let repo = hub.settings.cache.join("models--org--name");
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

    assert_eq!(resolve_cached("org/name", &hub.settings).unwrap(), path);
    assert_eq!(resolve_cached(&format!("org/name@{COMMIT}"), &hub.settings).unwrap(), path);
    assert_eq!(hub.requests("/cdn/").len(), 4);
    assert_eq!(hub.pull("org/name").unwrap(), path);
    assert_eq!(hub.requests("/cdn/").len(), 0, "it is there already");
    pull("org/name", None, true, &hub.settings).unwrap();
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
    let error = resolve_cached("org/name", &hub.settings).unwrap_err().to_string();
    assert!(error.contains("galley pull org/name"), "half a model is none: {error}");
}

#[test]
fn one_gguf_is_the_model_and_of_several_one_is_chosen() {
    let hub = Hub::with(&[("a-Q4.gguf", b"four"), ("README.md", b"")]);
    assert_eq!(fs::read(hub.pull("org/name").unwrap()).unwrap(), b"four");

    let hub = Hub::with(&[("a-Q4.gguf", b"four"), ("sub/a Q8.gguf", b"eight")]);
    let error = hub.error("org/name");
    assert!(error.contains("--file") && error.contains("sub/a Q8.gguf"), "{error}");
    let pull = |file| pull("org/name", Some(file), false, &hub.settings);
    assert!(pull("b.gguf").unwrap_err().to_string().contains("a-Q4.gguf"));
    hub.change(|plan| plan.files.push(("sub/a%20Q8.gguf", b"eight".to_vec())));
    assert_eq!(fs::read(pull("sub/a Q8.gguf").unwrap()).unwrap(), b"eight");
    let path = resolve_cached("org/name", &hub.settings).unwrap();
    assert!(path.ends_with("sub/a Q8.gguf"));
    pull("a-Q4.gguf").unwrap();
    let error = resolve_cached("org/name", &hub.settings).unwrap_err().to_string();
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
    let blobs = hub.settings.cache.join("models--org--name/blobs");
    fs::create_dir_all(&blobs).unwrap();
    let part = blobs.join(hash(&weights())).with_extension("incomplete");
    for (part_len, first_range) in [(500_000, Some("bytes=500000-")), (9_000_000, None)] {
        let mut bytes = weights();
        bytes.resize(part_len, 0);
        fs::write(&part, bytes).unwrap();
        let path = pull("org/name", None, true, &hub.settings).unwrap();
        assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), weights());
        let requests = hub.requests("/cdn/model.safetensors");
        assert_eq!(requests[0].1.get("range").map(String::as_str), first_range);
        assert!(!part.exists());
    }

    // A server without ranges sends everything again.
    hub.change(|plan| plan.whole_files_only = true);
    fs::write(&part, &weights()[..1000]).unwrap();
    let path = pull("org/name", None, true, &hub.settings).unwrap();
    assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), weights());
}

#[test]
fn damaged_files_never_get_their_name() {
    let hub = model();
    hub.change(|plan| plan.wrong_hash = true);
    let error = hub.error("org/name");
    assert!(error.contains("model.safetensors") && error.contains("SHA-256"), "{error}");
    let blobs = hub.settings.cache.join("models--org--name/blobs");
    assert_eq!(fs::read_dir(blobs).unwrap().count(), 0);
    assert!(resolve_cached("org/name", &hub.settings).is_err());

    // A damaged part is found out too, and the next attempt is right.
    let hub = model();
    let blobs = hub.settings.cache.join("models--org--name/blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(hash(&weights())).with_extension("incomplete"), b"nonsense").unwrap();
    assert!(hub.error("org/name").contains("SHA-256"));
    hub.pull("org/name").unwrap();
}

#[test]
fn what_the_hub_refuses_is_explained() {
    let mut hub = model();
    hub.change(|plan| plan.token = Some("secret"));
    assert!(hub.error("org/name").contains("HF_TOKEN"));
    hub.settings.token = Some("wrong".into());
    assert!(hub.error("org/name").contains("does not accept"));
    hub.settings.token = Some("secret".into());
    hub.pull("org/name").unwrap();
    assert!(hub.error("org/other").contains("no such model"));
    for (status, words) in [(403, "terms"), (404, "no such model"), (500, "500"), (400, "400")] {
        hub.change(|plan| plan.status = Some(status));
        let error = hub.error("org/name");
        assert!(error.contains(words), "{error}");
    }
    assert_eq!(hub.requests("/api/").len(), 1 + 1 + 1 + 1 + 1 + 1 + 4 + 1, "only 500 may pass");

    hub.settings.endpoint = "http://127.0.0.1:9".into();
    assert!(hub.error("org/name").contains("127.0.0.1:9"));
}

#[test]
fn the_token_stays_with_the_hub() {
    let (mut hub, elsewhere) = (model(), model());
    hub.settings.token = Some("secret".into());
    // Another name for the same machine is another host.
    let cdn = elsewhere.settings.endpoint.replace("127.0.0.1", "localhost");
    hub.settings.endpoint = redirect(cdn, hub.requests.clone());
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
    hub.settings.offline = true;
    assert!(hub.error("org/name").contains("galley pull org/name"));
    assert_eq!(hub.requests("").len(), 0);
    hub.settings.offline = false;
    let path = hub.pull("org/name").unwrap();
    hub.settings.offline = true;
    hub.requests("");
    assert_eq!(hub.pull("org/name").unwrap(), path);
    let file = |name| pull("org/name", Some(name), false, &hub.settings);
    assert_eq!(file("config.json").unwrap(), path.join("config.json"));
    assert!(file("../x").is_err() && file("x.gguf").is_err());
    assert_eq!(hub.requests("").len(), 0);
    assert!(hub.error("smollm2-135m-instruct").contains("HF_HUB_OFFLINE"));
}

#[test]
fn names_cannot_leave_the_cache() {
    for name in ["../x.safetensors", "/x.gguf", "a/../../x.gguf", "a//x", "./x", "a\\..\\x", "c:x"]
    {
        let hub = Hub::with(&[("config.json", b"{}"), ("model.safetensors", b"x"), (name, b"x")]);
        let error = hub.error("org/name");
        assert!(error.contains("written anywhere"), "{name}: {error}");
        assert!(fs::read_dir(&hub.settings.cache).unwrap().next().is_none());
    }
    for source in ["org", "a/b/c", "../x", "org/..", "-o/x", "org/na--me", "org/x@../y", "org/x@"] {
        assert!(Repo::parse(source).is_err(), "{source}");
    }
    let repo = Repo::parse("Org-1/Name_2.5@refs/pr/1").unwrap();
    assert_eq!((repo.id.as_str(), repo.revision.as_str()), ("Org-1/Name_2.5", "refs/pr/1"));
}

#[test]
fn the_cache_is_where_the_environment_says() {
    let all = [
        ("GALLEY_CACHE", "/g", "/g"),
        ("HF_HUB_CACHE", "/h", "/h"),
        ("HUGGINGFACE_HUB_CACHE", "/i", "/i"),
        ("HF_HOME", "/j", "/j/hub"),
        ("XDG_CACHE_HOME", "/k", "/k/huggingface/hub"),
        ("HOME", "/l", "/l/.cache/huggingface/hub"),
    ];
    for first in 0..all.len() {
        let var = |name: &str| {
            let set = all[first..].iter().find(|(variable, ..)| *variable == name);
            set.map(|(_, value, _)| (*value).to_owned())
        };
        assert_eq!(Settings::from(var).unwrap().cache, Path::new(all[first].2));
    }
    assert!(Settings::from(|_| None).is_err());

    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("token"), "from file\n").unwrap();
    let settings = |extra: &'static [(&str, &str)]| {
        let home = home.path().to_str().unwrap().to_owned();
        Settings::from(move |name| match extra.iter().find(|(variable, _)| *variable == name) {
            Some((_, value)) => Some((*value).to_owned()),
            None => (name == "HF_HOME").then(|| home.clone()),
        })
        .unwrap()
    };
    let plain = settings(&[]);
    assert_eq!(plain.token.as_deref(), Some("from file"));
    assert_eq!((plain.endpoint.as_str(), plain.offline), ("https://huggingface.co", false));
    let set =
        settings(&[("HF_TOKEN", "t"), ("HF_ENDPOINT", "http://h/"), ("HF_HUB_OFFLINE", "TRUE")]);
    assert_eq!(set.token.as_deref(), Some("t"));
    assert_eq!((set.endpoint.as_str(), set.offline), ("http://h", true));
}
