//! Case 14: the environment, read as the hub's own client reads it.

use super::*;
use crate::settings::{AccessToken, Network};

fn settings(variables: &[(&str, &str)]) -> HubSettings {
    HubSettings::from(&Environment::of(variables)).unwrap()
}

fn network(variables: &[(&str, &str)]) -> Network {
    Network::from(&Environment::of(variables)).unwrap()
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
        let mut variables: Vec<_> =
            all[first..].iter().map(|&(name, value, _)| (name, value)).collect();
        assert_eq!(settings(&variables).cache, Path::new(all[first].2));
        // An empty variable counts as not set.
        variables.extend(all[..first].iter().map(|&(name, ..)| (name, "")));
        assert_eq!(settings(&variables).cache, Path::new(all[first].2));
    }
    assert!(HubSettings::from(&Environment::default()).is_err());
}

#[test]
fn case_14_home_and_variables_are_expanded_in_paths() {
    let cases = [
        ("HF_HOME", "~/hf", "/u/hf/hub"),
        ("HF_HOME", "~", "/u/hub"),
        ("HF_HOME", "$BASE/hf", "/data/hf/hub"),
        ("HF_HOME", "${BASE}/hf", "/data/hf/hub"),
        ("HF_HOME", "/x/$BASE_2/~", "/x/two/~/hub"),
        ("HF_HOME", "/x/$UNSET/y", "/x/$UNSET/y/hub"),
        ("HF_HOME", "relative", "relative/hub"),
        ("HF_HUB_CACHE", "~/c", "/u/c"),
        ("HUGGINGFACE_HUB_CACHE", "$HOME/c", "/u/c"),
        ("GALLEY_CACHE", "~/c", "/u/c"),
        ("XDG_CACHE_HOME", "~/x", "/u/x/huggingface/hub"),
    ];
    for (name, value, cache) in cases {
        let variables = [("HOME", "/u"), ("BASE", "/data"), ("BASE_2", "two"), (name, value)];
        assert_eq!(settings(&variables).cache, Path::new(cache), "{name}={value}");
    }
    // Without this error, a directory named "~" would be created.
    for (home, value) in [("/u", "~other/hf"), ("", "~/hf")] {
        let environment = Environment::of(&[("HOME", home), ("HF_HOME", value)]);
        let error = HubSettings::from(&environment).unwrap_err().to_string();
        assert!(error.contains("HF_HOME") && error.contains(value), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn a_path_that_is_not_unicode_is_taken_as_it_is() {
    use std::os::unix::ffi::OsStringExt;
    let path = std::ffi::OsString::from_vec(b"/data/\xff".to_vec());
    let mut environment = Environment::default();
    environment.set("HF_HOME", path.clone());
    assert_eq!(HubSettings::from(&environment).unwrap().cache, Path::new(&path).join("hub"));
    environment.set("HF_TOKEN", path);
    let error = Network::from(&environment).unwrap_err().to_string();
    assert!(error.contains("HF_TOKEN"), "{error}");
}

#[test]
fn case_14_offline_is_spelt_as_the_libraries_spell_it() {
    let offline = |variables: &[(&str, &str)]| {
        let mut all = vec![("HOME", "/u")];
        all.extend(variables);
        settings(&all).offline
    };
    for name in ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"] {
        for yes in ["1", "on", "ON", "Yes", "TRUE", "true"] {
            assert_eq!(offline(&[(name, yes)]), Some(name), "{name}={yes}");
        }
        for no in ["", "0", "off", "no", "false", "2", "y", "enabled"] {
            assert_eq!(offline(&[(name, no)]), None, "{name}={no}");
        }
    }
    let both = |hub, transformers| {
        offline(&[("HF_HUB_OFFLINE", hub), ("TRANSFORMERS_OFFLINE", transformers)])
    };
    assert_eq!(both("", "1"), Some("TRANSFORMERS_OFFLINE"));
    assert_eq!(both("0", "1"), None, "the first that is set decides");
}

#[test]
fn case_14_tokens_are_found_and_trimmed() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("token"), "from home\n").unwrap();
    fs::write(path("other"), "\u{feff} from\r\n other \n").unwrap();
    fs::write(path("blank"), " \n").unwrap();
    fs::create_dir(path("directory")).unwrap();
    let hf_home = home.path().to_str().unwrap();
    let token = |variables: &[(&str, &str)]| {
        let mut all = vec![("HF_HOME", hf_home)];
        all.extend(variables);
        match network(&all).token {
            AccessToken::Given { value, .. } => value,
            other => format!("{other:?}"),
        }
    };
    assert_eq!(token(&[]), "from home");
    assert_eq!(token(&[("HF_TOKEN", "hf_x\n")]), "hf_x");
    assert_eq!(token(&[("HF_TOKEN", " hf_\r\nx\t\r\n")]), "hf_x");
    assert_eq!(token(&[("HUGGING_FACE_HUB_TOKEN", "old\n")]), "old");
    assert_eq!(token(&[("HF_TOKEN", "new"), ("HUGGING_FACE_HUB_TOKEN", "old")]), "new");
    assert_eq!(token(&[("HF_TOKEN", ""), ("HUGGING_FACE_HUB_TOKEN", "old")]), "old");
    assert_eq!(token(&[("HF_TOKEN", " \n")]), "from home", "a blank is no token");
    assert_eq!(token(&[("HF_TOKEN_PATH", &path("other"))]), "from other");
    assert_eq!(token(&[("HF_TOKEN_PATH", "$HF_HOME/other")]), "from other");
    assert_eq!(token(&[("HOME", hf_home), ("HF_TOKEN_PATH", "~/other")]), "from other");
    assert_eq!(token(&[("HF_TOKEN_PATH", &path("blank"))]), "Absent");
    assert_eq!(token(&[("HF_TOKEN_PATH", &path("nothing"))]), "Absent");
    assert!(token(&[("HF_TOKEN_PATH", &path("directory"))]).starts_with("Unreadable"));
    assert_eq!(token(&[("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1"), ("HF_TOKEN", "x")]), "Withheld");
    assert_eq!(token(&[("HF_HUB_DISABLE_IMPLICIT_TOKEN", "0"), ("HF_TOKEN", "x")]), "x");
}

#[test]
fn case_14_addresses_and_times_are_read_or_refused() {
    let endpoint = |value| network(&[("HF_ENDPOINT", value)]).endpoint;
    assert_eq!(endpoint(""), "https://huggingface.co");
    for slashes in ["http://h/a", "http://h/a/", "http://h/a//\n"] {
        assert_eq!(endpoint(slashes), "http://h/a");
    }
    let times = network(&[("HF_HUB_ETAG_TIMEOUT", "3"), ("HF_HUB_DOWNLOAD_TIMEOUT", "500\n")]);
    assert_eq!((times.metadata_timeout.as_secs(), times.download_timeout.as_secs()), (3, 500));
    let usual = network(&[("HF_HUB_ETAG_TIMEOUT", "0"), ("HF_HUB_DOWNLOAD_TIMEOUT", "")]);
    assert_eq!(usual.metadata_timeout, network(&[]).metadata_timeout);
    for (name, value) in [
        ("HF_ENDPOINT", "hub.company.com"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "10s"),
        ("HF_HUB_ETAG_TIMEOUT", "-1"),
        ("HTTPS_PROXY", "ftp://x"),
    ] {
        let error = Network::from(&Environment::of(&[(name, value)])).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
}
