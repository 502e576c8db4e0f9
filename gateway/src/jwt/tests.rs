//! Tokens made here and by others: what RFC 7519, RFC 8725 (best current practices) and OpenID Connect Core 1.0 say of
//! each.

use super::*;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{EncodingKey, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData};
use serde_json::json;

const NOW: i64 = 1_800_000_000_000;
const NOW_SECONDS: i64 = NOW / 1000;

struct Provider {
    pair: KeyPair,
    id: &'static str,
}

impl Provider {
    fn new(id: &'static str) -> Self {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        Self { pair, id }
    }

    /// Its public key as RFC 7518, section 6.2 writes it.
    fn jwk(&self) -> Jwk {
        let point = self.pair.der_bytes();
        let (x, y) = (BASE64.encode(&point[1..33]), BASE64.encode(&point[33..65]));
        let key = json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id, "x": x, "y": y});
        serde_json::from_value(key).expect("a key")
    }

    fn sign(&self, claims: &Value) -> String {
        let header = Header {
            kid: Some(self.id.to_owned()),
            ..Header::new(Algorithm::ES256)
        };
        let key = EncodingKey::from_ec_pem(self.pair.serialize_pem().as_bytes()).expect("a key");
        encode(&header, claims, &key).expect("a token")
    }
}

fn settings() -> Jwt {
    Jwt {
        issuer: "https://login.example.org".to_owned(),
        audience: vec!["sluice".to_owned(), "llm".to_owned()],
        jwks_url: None,
        ca_file: None,
        user_claim: "sub".to_owned(),
        groups_claim: "groups".to_owned(),
        groups: Vec::new(),
    }
}

fn issuer(providers: &[&Provider]) -> Issuer {
    let issuer = Issuer::new(settings());
    issuer.keys.take(providers.iter().map(|one| one.jwk()).collect());
    issuer
}

fn claims() -> Value {
    json!({"iss": "https://login.example.org", "aud": "sluice", "sub": "ada", "exp": NOW_SECONDS + 600})
}

/// The claims with some replaced; null removes one.
fn with(changes: &Value) -> Value {
    let mut claims = claims();
    let map = claims.as_object_mut().expect("claims");
    for (name, value) in changes.as_object().expect("changes") {
        map.insert(name.clone(), value.clone());
    }
    map.retain(|_, value| !value.is_null());
    claims
}

fn reason(result: Result<Arc<Verified>, RequestError>) -> (&'static str, String) {
    result.map_or_else(
        |error| (error.code.name(), error.message.clone()),
        |_| ("", String::new()),
    )
}

#[test]
fn a_token_of_the_provider_names_its_user_and_groups() {
    let provider = Provider::new("a");
    let issuer = issuer(&[&Provider::new("b"), &provider]);
    let token = provider.sign(&with(
        &json!({"aud": ["other", "llm"], "groups": ["ml", 7, "ops"], "nbf": NOW_SECONDS}),
    ));
    assert!(is_token(&token));
    let verified = issuer.verify(&token, NOW).expect("valid");
    assert_eq!(verified.user.as_deref(), Some("ada"));
    assert_eq!(verified.groups, ["ml", "ops"]);
    let single = issuer
        .verify(&provider.sign(&with(&json!({"groups": "ml"}))), NOW)
        .expect("valid");
    assert_eq!(single.groups, ["ml"]);
}

#[test]
fn a_token_for_others_or_of_others_is_refused_with_the_reason() {
    let provider = Provider::new("a");
    let issuer = issuer(&[&provider]);
    for (changes, word) in [
        (json!({"iss": "https://login.example.org/"}), "issuer"),
        (json!({"iss": null}), "issuer"),
        (json!({"aud": "sluice-admin"}), "audience"),
        (json!({"aud": ["a", "b"]}), "audience"),
        (json!({"aud": null}), "audience"),
        (json!({"exp": null}), "expiry"),
        (json!({"exp": "tomorrow"}), "content"),
        (json!({"nbf": NOW_SECONDS + 61}), "not valid yet"),
    ] {
        let (code, message) = reason(issuer.verify(&provider.sign(&with(&changes)), NOW));
        assert_eq!(code, "invalid_key", "{changes}");
        assert!(message.contains(word), "{changes}: {message}");
    }
}

#[test]
fn a_token_expires_also_once_it_is_remembered() {
    let provider = Provider::new("a");
    let issuer = issuer(&[&provider]);
    let token = provider.sign(&claims());
    // A minute's difference of clocks is tolerated.
    let ends = NOW + 600_000 + LEEWAY_MS;
    for (at, code) in [
        (NOW, ""),
        (ends - 1, ""),
        (ends, "key_expired"),
        (i64::MAX, "key_expired"),
    ] {
        assert_eq!(reason(issuer.verify(&token, at)).0, code, "{at}");
    }
}

/// RFC 8725, sections 2.1 and 3.1: no algorithm `none`, and no public key used as a shared secret.
#[test]
fn unsigned_tokens_and_shared_secrets_are_refused() {
    let provider = Provider::new("a");
    let issuer = issuer(&[&provider]);
    let part = |value: Value| BASE64.encode(value.to_string());
    let unsigned = format!("{}.{}.", part(json!({"alg": "none", "typ": "JWT"})), part(claims()));
    assert!(issuer.verify(&unsigned, NOW).is_err() && !is_token(&unsigned));
    let public = provider.pair.public_key_pem();
    for secret in [public.as_bytes(), public.trim().as_bytes(), b""] {
        let header = Header {
            kid: Some("a".to_owned()),
            ..Header::new(Algorithm::HS256)
        };
        let token = encode(&header, &claims(), &EncodingKey::from_secret(secret)).expect("a token");
        let (code, message) = reason(issuer.verify(&token, NOW));
        assert_eq!((code, message.contains("HS256")), ("invalid_key", true), "{message}");
    }
}

/// RFC 8725, section 2.1: a key is for its own algorithm.
#[test]
fn another_keys_signature_under_a_known_id_is_refused() {
    let (provider, thief) = (Provider::new("a"), Provider::new("a"));
    let issuer = issuer(&[&provider]);
    assert_eq!(reason(issuer.verify(&thief.sign(&claims()), NOW)).0, "invalid_key");
    let pair = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
    let header = Header {
        kid: Some("a".to_owned()),
        ..Header::new(Algorithm::EdDSA)
    };
    let key = EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()).expect("a key");
    let other_kind = encode(&header, &claims(), &key).expect("a token");
    assert_eq!(reason(issuer.verify(&other_kind, NOW)).0, "invalid_key");
    let unknown = Provider::new("b").sign(&claims());
    assert_eq!(reason(issuer.verify(&unknown, NOW)).0, "invalid_key");
}

#[test]
fn every_changed_byte_of_a_token_makes_it_invalid() {
    let provider = Provider::new("a");
    let issuer = issuer(&[&provider]);
    let token = provider.sign(&claims());
    issuer.verify(&token, NOW).expect("valid");
    for at in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        // Not the neighbour: the last character of base64 has bits that mean nothing.
        bytes[at] = if bytes[at] == b'Q' { b'x' } else { b'Q' };
        let changed = String::from_utf8(bytes).expect("text");
        assert!(issuer.verify(&changed, NOW).is_err(), "byte {at}");
    }
}

#[test]
fn tokens_of_a_withdrawn_key_are_refused_also_when_they_are_remembered() {
    let (old, new) = (Provider::new("old"), Provider::new("new"));
    let issuer = issuer(&[&old]);
    let token = old.sign(&claims());
    issuer.verify(&token, NOW).expect("valid");
    issuer.keys.take(vec![old.jwk(), new.jwk()]);
    issuer.verify(&token, NOW).expect("both keys are published");
    issuer.keys.take(vec![new.jwk()]);
    assert_eq!(reason(issuer.verify(&token, NOW)).0, "invalid_key");
}

#[test]
fn without_keys_the_gateway_says_that_it_cannot_verify() {
    let provider = Provider::new("a");
    let issuer = Issuer::new(settings());
    let (code, message) = reason(issuer.verify(&provider.sign(&claims()), NOW));
    assert_eq!(code, "identity_unavailable", "{message}");
}

#[test]
fn the_memory_of_verified_tokens_is_bounded() {
    let provider = Provider::new("a");
    let issuer = issuer(&[&provider]);
    for number in 0..3 * i64::try_from(REMEMBERED).expect("small") {
        let verified = Arc::new(Verified {
            user: None,
            groups: Vec::new(),
            nonce: None,
            expires_at: NOW + number,
            begins_at: 0,
            generation: 1,
        });
        issuer.remember(hash(&number.to_string()), &verified, NOW);
        assert!(issuer.verified.lock().len() <= REMEMBERED);
    }
}

#[test]
fn a_reload_keeps_the_keys_unless_the_provider_changes() {
    let first = Issuer::renewed(None, Some(&settings())).expect("configured");
    let same = Issuer::renewed(Some(&first), Some(&settings())).expect("configured");
    assert!(Arc::ptr_eq(&first, &same));
    let changed = Jwt {
        audience: vec!["other".to_owned()],
        ..settings()
    };
    let other = Issuer::renewed(Some(&first), Some(&changed)).expect("configured");
    assert!(!Arc::ptr_eq(&first, &other));
    assert!(Issuer::renewed(Some(&first), None).is_none());
}

proptest::proptest! {
    #[test]
    fn no_text_makes_verification_panic(text in "[A-Za-z0-9_.=-]{0,200}|\\PC*") {
        let issuer = Issuer::new(settings());
        let _ = is_token(&text);
        proptest::prop_assert!(issuer.verify(&text, NOW).is_err());
    }
}
