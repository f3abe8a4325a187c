//! Refusals by the hub, and their messages to the user.

use super::*;

#[test]
fn what_the_hub_refuses_is_explained() {
    let mut hub = model();
    hub.change(|plan| plan.token = Some("secret"));
    assert!(hub.error("org/name").contains("set HF_TOKEN"));
    hub.set("HF_TOKEN", "wrong");
    let error = hub.error("org/name");
    assert!(error.contains("does not accept") && error.contains("token in HF_TOKEN"), "{error}");
    hub.set("HF_TOKEN", "secret\n");
    hub.pull("org/name").unwrap();
    assert!(hub.error("org/other").contains("no such model"));
    let cases = [(403, "terms"), (404, "no such model"), (500, "500"), (429, "429"), (400, "400")];
    for (status, words) in cases {
        hub.change(|plan| plan.status = Some((status, "No")));
        let error = hub.error("org/name");
        assert!(error.contains(words), "{error}");
    }
    let n_tries = 4;
    let n_expected = 1 + 1 + 1 + 1 + 1 + 1 + 2 * n_tries + 1;
    assert_eq!(hub.requests("/api/").len(), n_expected, "only 500 and 429 may pass");

    hub.set("HF_ENDPOINT", "http://127.0.0.1:9");
    let error = hub.error("org/name");
    assert!(error.contains("127.0.0.1") && error.contains("HTTPS_PROXY"), "{error}");
}

#[test]
fn case_14_a_refusal_says_which_and_the_way_out() {
    // Status and headers of the real hub, the token if there is one, and the required parts of the error.
    let cases: [(u16, &str, Option<&str>, &[&str]); 8] = [
        (401, "No\r\nX-Error-Code: GatedRepo", None, &["agree at", "/org/name", "HF_TOKEN"]),
        (
            403,
            "No\r\nX-Error-Code: GatedRepo\r\nX-Error-Message: Access is awaiting a review.",
            Some("t"),
            &["agree to its terms at", "/org/name", "token in HF_TOKEN", "awaiting a review"],
        ),
        (401, "No\r\nX-Error-Code: RepoNotFound", None, &["no such model", "private", "HF_TOKEN"]),
        (401, "No\r\nX-Error-Code: RepoNotFound", Some("t"), &["no such model", "may not read it"]),
        (404, "No\r\nX-Error-Code: RevisionNotFound", None, &["no revision main"]),
        (404, "No\r\nX-Error-Code: RepoNotFound", Some("t"), &["no such model"]),
        (403, "No\r\nX-Error-Code: DisabledRepo", None, &["disabled"]),
        (401, "Invalid", Some("t"), &["does not accept", "HF_TOKEN"]),
    ];
    for (status, more, token, words) in cases {
        let mut hub = model();
        hub.set("HF_TOKEN", token.unwrap_or_default());
        hub.change(|plan| plan.status = Some((status, more)));
        let error = hub.error("org/name");
        assert!(words.iter().all(|word| error.contains(word)), "{status} {more}: {error}");
        assert_eq!(hub.requests("").len(), 1, "{status} {more}: it is tried once");
    }
}

#[test]
fn case_14_files_of_a_gated_model_are_refused_like_its_listing() {
    // The real hub shows the listing of a gated model to every user, but refuses its files.
    let hub = model();
    let gated =
        Hub::new(Plan { status: Some((401, "No\r\nX-Error-Code: GatedRepo")), ..Plan::default() });
    hub.change(|plan| plan.cdn = Some(gated.endpoint.clone()));
    let error = hub.error("org/name");
    assert!(error.contains("127.0.0.1") && error.contains("firewall"), "not the hub's: {error}");
    hub.change(|plan| plan.files_refused = Some((401, "No\r\nX-Error-Code: GatedRepo")));
    let error = hub.error("org/name");
    assert!(error.contains("agree at") && error.contains("HF_TOKEN"), "{error}");
}

#[test]
fn case_14_a_token_that_is_not_sent_is_explained() {
    let mut hub = model();
    hub.change(|plan| plan.token = Some("secret"));
    hub.set("HF_TOKEN", "secret");
    hub.set("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1");
    let error = hub.error("org/name");
    assert!(error.contains("HF_HUB_DISABLE_IMPLICIT_TOKEN"), "{error}");
    assert!(hub.requests("").iter().all(|(_, headers)| !headers.contains_key("authorization")));

    hub.set("HF_HUB_DISABLE_IMPLICIT_TOKEN", "");
    hub.set("HF_TOKEN", "");
    let directory = hub.cache.to_str().unwrap().to_owned();
    hub.set("HF_TOKEN_PATH", &directory);
    let error = hub.error("org/name");
    assert!(error.contains(&directory) && error.contains("no token was sent"), "{error}");

    // A token that cannot be in a header is never sent.
    hub.requests("");
    for token in ["sec ret", "secret\u{200b}", "sec\u{7}ret", "sécret"] {
        hub.set("HF_TOKEN", token);
        let error = hub.error("org/name");
        assert!(error.contains("HF_TOKEN") && error.contains("copy the token"), "{error}");
        assert!(!error.contains(token), "a secret is not shown: {error}");
    }
    assert_eq!(hub.requests("").len(), 0);
}
