use super::*;
use crate::{HeadFields, LimitRule, RequestChanges, parse, parse_with_head, rewrite};

fn opens(pattern: &str, path: &str) -> bool {
    let Some(target) = target(path) else { return false };
    Pattern::new(pattern).expect("a pattern").opens(&target.decoded)
}

#[test]
fn a_pattern_opens_its_path_or_what_is_below_it_and_nothing_else() {
    assert!(opens("/pooling", "/pooling"));
    assert!(opens("/pooling", "/pooling/"), "servers see no difference");
    assert!(!opens("/pooling", "/pooling/x") && !opens("/pooling", "/poolings"));
    assert!(opens("/v1/voices/*", "/v1/voices/a") && opens("/v1/voices/*", "/v1/voices/a/b"));
    assert!(!opens("/v1/voices/*", "/v1/voices") && !opens("/v1/voices/*", "/v1/voicesx"));
    assert!(opens("/v1/voices/*", "/v1/voices/%C3%A4"));
}

#[test]
fn no_way_of_writing_a_path_leads_out_of_what_is_opened() {
    for path in [
        "/v1/voices/../chat/completions",
        "/v1/voices/..",
        "/v1/voices/./a",
        "/v1/voices//a",
        "/v1/voices/%2e%2e/x",
        "/v1/voices/%2E./x",
        "/v1/voices/a%2Fb",
        "/v1/voices/a%2fb",
        "/v1/voices/a%5Cb",
        "/v1/voices/a\\b",
        "/v1/voices/%252e%252e/x",
        "/v1/voices/a;b",
        "/v1/voices/..;/x",
        "/v1/voices/a%00",
        "/v1/voices/a%0d%0ab",
        "/v1/voices/a%",
        "/v1/voices/a%4",
        "/v1/voices/a?b",
        "v1/voices/a",
    ] {
        assert!(!opens("/v1/voices/*", path), "{path}");
    }
}

#[test]
fn what_administers_a_server_or_is_the_gateways_is_opened_only_by_its_own_name() {
    for path in [
        "/api/pull",
        "/api/delete",
        "/api/%70ull",
        "/api/PULL",
        "/api/blobs/sha256:1",
        "/api/chat",
        "/api/tags",
        "/api/%63hat",
    ] {
        assert!(!opens("/api/*", path), "{path}");
    }
    assert!(opens("/api/*", "/api/other") && opens("/api/pull", "/api/pull"));
    assert!(!opens("/v1/*", "/v1/files") && !opens("/v1/*", "/v1/load_lora_adapter"));
    assert!(!opens("/v1/*", "/v1/chat/completions") && !opens("/v1/*", "/v1/responses/r1"));
    assert!(opens("/v1/load_lora_adapter", "/v1/load_lora_adapter"));
}

#[test]
fn a_pattern_that_would_open_everything_or_bypass_metering_is_refused() {
    for wrong in [
        "",
        "/",
        "/*",
        "pooling",
        "/a*",
        "/a/*/b",
        "/a/**",
        "/../a",
        "/a//b",
        "/a/",
        "/a?b",
        "/%61",
        "/v1/embeddings",
        "/v1/chat/completions",
        "/api/chat",
        "/passthrough/m/x",
        "/a b",
    ] {
        assert!(Pattern::new(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_path_may_name_its_model_before_the_servers_own_path() {
    let read = |path| target(path).map(|target| (target.model.unwrap_or_default(), target.path.to_owned()));
    let named = |model: &str, path: &str| Some((model.to_owned(), path.to_owned()));
    assert_eq!(read("/passthrough/m/pooling"), named("m", "/pooling"));
    assert_eq!(read("/passthrough/org%2Fm/v1/%C3%A4"), named("org/m", "/v1/%C3%A4"));
    assert_eq!(read("/pooling"), named("", "/pooling"));
    assert_eq!(read("/passthrough/m/../x"), None);
    assert_eq!(read("/passthrough/m"), None);
}

#[test]
fn a_body_is_left_as_it_is_but_for_the_name_of_its_model() {
    let head = HeadFields {
        model: Some("mine"),
        content_type: Some("application/json"),
    };
    let theirs = |body: &[u8], head| {
        let parsed = parse_with_head(Operation::Passthrough, body, head).expect("valid");
        let changes = RequestChanges::new(&parsed, "theirs", 1, LimitRule::WhereGiven);
        rewrite(Operation::Passthrough, body, &parsed, &changes)
    };
    assert_eq!(theirs(br#"{"input" : 1.0}"#, head), None, "no model is added");
    assert_eq!(theirs(b"\x00\xff binary", head), None);
    assert_eq!(theirs(b"", head), None);
    let named = br#"{"x":1, "model" : "mine"}"#;
    let wanted = br#"{"x":1, "model" : "theirs"}"#;
    assert_eq!(theirs(named, head).as_deref(), Some(&wanted[..]));
    let parsed = parse(Operation::Passthrough, named).expect("valid");
    assert_eq!((parsed.model.as_ref(), parsed.units.passthrough_requests), ("mine", 1));
}

#[test]
fn a_request_that_names_two_models_is_seen_and_one_that_hides_its_model_is_refused() {
    let head = HeadFields {
        model: Some("one"),
        content_type: Some("application/json"),
    };
    let parsed = parse_with_head(Operation::Passthrough, br#"{"model":"two"}"#, head).expect("valid");
    assert_eq!(
        (parsed.model.as_ref(), parsed.model_of_body.as_deref()),
        ("one", Some("two"))
    );
    for hidden in [
        &br#"{"model":"one","model":"two"}"#[..],
        br#"{"Model":"two"}"#,
        br#"{"model":"two",}"#,
    ] {
        assert!(parse_with_head(Operation::Passthrough, hidden, head).is_err());
    }
    assert!(parse(Operation::Passthrough, b"[1]").is_err(), "no model at all");
}
