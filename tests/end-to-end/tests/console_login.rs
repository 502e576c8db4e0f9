//! Login to the console at a real OpenID Connect provider, and what each role sees and does.

use end_to_end::identity_provider::Provider;
use end_to_end::{Gateway, config_dir, roomy, sluice};
use reqwest::{Method, StatusCode, Url};
use serde_json::json;
use std::collections::HashMap;

/// A gateway whose console people log in to at a provider.
async fn gateway_of(provider: &Provider) -> Gateway {
    let dir = config_dir(|name, text| match name {
        "gateway.yaml" => format!(
            "{text}\noidc:\n  issuer: {}\n  client_id: console\n  client_secret_env: CONSOLE_SECRET\n  scopes: [groups]\n  \
             roles:\n    - {{group: sre, role: operator}}\n    \
             - {{group: team-blue, role: project_owner, project: standard_project}}\n    \
             - {{group: everyone, role: viewer}}\n",
            provider.url
        ),
        _ => roomy(name, text),
    });
    let secret = ("CONSOLE_SECRET", "a secret: with & signs");
    let gateway = Gateway::start_with(dir, &[], &[secret]).await;
    provider
        .control(&format!("console?{}/login/callback", gateway.admin))
        .await;
    gateway
}

/// A browser without a window: it keeps cookies and follows redirections.
struct Browser {
    http: reqwest::Client,
    cookies: HashMap<String, String>,
}

struct Page {
    status: StatusCode,
    url: Url,
    text: String,
}

impl Browser {
    fn new() -> Self {
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        Self {
            http: http.build().expect("a client"),
            cookies: HashMap::new(),
        }
    }

    async fn get(&mut self, url: &str) -> Page {
        self.ask(Method::GET, url, None).await
    }

    async fn send(&mut self, url: &str, form: &[(&str, &str)]) -> Page {
        self.ask(Method::POST, url, Some(form)).await
    }

    async fn ask(&mut self, mut method: Method, url: &str, mut form: Option<&[(&str, &str)]>) -> Page {
        let mut url: Url = url.parse().expect("a URL");
        for _ in 0..10 {
            let cookies: Vec<String> = self
                .cookies
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            let mut request = self
                .http
                .request(method.clone(), url.clone())
                .header("cookie", cookies.join("; "));
            if let Some(form) = form {
                request = request.form(form);
            }
            let answer = request.send().await.expect("an answer");
            for set in answer.headers().get_all("set-cookie") {
                let (name, rest) = set.to_str().expect("text").split_once('=').expect("a cookie");
                self.cookies
                    .insert(name.to_owned(), rest.split(';').next().expect("a value").to_owned());
            }
            let status = answer.status();
            let Some(next) = answer.headers().get("location").filter(|_| status.is_redirection()) else {
                let text = answer.text().await.expect("text");
                return Page { status, url, text };
            };
            url = url.join(next.to_str().expect("text")).expect("a URL");
            (method, form) = (Method::GET, None);
        }
        panic!("too many redirections at {url}");
    }

    /// Logs in at the provider; the console's first page.
    async fn log_in(&mut self, gateway: &Gateway) -> Page {
        self.get(&format!("{}/login/provider", gateway.admin)).await
    }

    /// The secret of this session's forms.
    async fn csrf(&mut self, gateway: &Gateway) -> String {
        let page = self.get(&gateway.admin).await.text;
        let (_, rest) = page.split_once("name=\"csrf\" value=\"").expect("a form");
        rest.split('"').next().expect("a value").to_owned()
    }
}

async fn as_person(provider: &Provider, gateway: &Gateway, name: &str) -> (Browser, Page) {
    provider.control(&format!("person?{name}")).await;
    let mut browser = Browser::new();
    let page = browser.log_in(gateway).await;
    (browser, page)
}

#[tokio::test]
async fn people_get_the_role_of_the_first_group_and_nobody_without_one_gets_in() {
    let provider = Provider::start().await;
    let gateway = gateway_of(&provider).await;
    let page = Browser::new().get(&gateway.admin).await;
    assert!(
        page.status == 401 && page.text.contains("href=\"/login/provider\""),
        "{}",
        page.text
    );
    for (name, role) in [("ada", "viewer"), ("grace", "operator"), ("blue", "project owner")] {
        let (_, page) = as_person(&provider, &gateway, name).await;
        assert_eq!(
            (page.status, page.url.path()),
            (StatusCode::OK, "/"),
            "{name}: {}",
            page.text
        );
        assert!(page.text.contains(&format!("{name} · {role}")), "{name}: {}", page.text);
    }
    let (mut browser, page) = as_person(&provider, &gateway, "stranger").await;
    assert_eq!(page.status, 403);
    assert!(
        page.text.contains("no role in this console. Its groups are: visitors"),
        "{}",
        page.text
    );
    assert_eq!(browser.get(&gateway.admin).await.status, 401);
}

#[tokio::test]
async fn a_viewer_sees_everything_and_changes_nothing() {
    let provider = Provider::start().await;
    let gateway = gateway_of(&provider).await;
    let (mut browser, _) = as_person(&provider, &gateway, "ada").await;
    for path in [
        "/",
        "/console/queue",
        "/console/projects",
        "/console/models",
        "/console/requests",
        "/console/keys",
        "/console/batches",
        "/console/configuration",
    ] {
        let page = browser.get(&format!("{}{path}", gateway.admin)).await;
        assert_eq!(page.status, 200, "{path}");
        // Searching and logging out are all that it may send.
        let forms = page.text.matches("method=\"post\"").count();
        assert_eq!(forms, 1, "{path}: {}", page.text);
    }
    let csrf = browser.csrf(&gateway).await;
    let key = made_key(&gateway, "user_standard_01");
    for (path, field) in [
        ("/console/keys", ("user", "user_standard_01")),
        ("/console/keys/revoke", ("id", key.as_str())),
        ("/console/keys/rotate", ("id", key.as_str())),
        ("/console/requests/cancel", ("id", "req_1")),
        ("/console/reload", ("id", "")),
    ] {
        let page = browser
            .send(&format!("{}{path}", gateway.admin), &[("csrf", &csrf), field])
            .await;
        assert_eq!(page.status, 403, "{path}");
        assert!(
            page.text.contains("Your role (viewer) does not include that."),
            "{path}: {}",
            page.text
        );
    }
    let keys = gateway.admin_json("/keys").await;
    assert_eq!(
        (keys["keys"].as_array().map(Vec::len), &keys["keys"][0]["state"]),
        (Some(1), &json!("active")),
        "{keys}"
    );
}

/// The id of a new key.
fn made_key(gateway: &Gateway, user: &str) -> String {
    let made = sluice(gateway.dir.path(), &["keys", "create", "--user", user, "--json"]);
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).expect("JSON");
    made["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn an_owner_of_a_project_sees_and_changes_that_project_alone() {
    let provider = Provider::start().await;
    let gateway = gateway_of(&provider).await;
    for user in ["user_standard_01", "user_vip_01"] {
        let body = json!({"user_id": user, "model": "simulated-small", "prompt": "x", "max_tokens": 4});
        assert_eq!(gateway.post("/generate", &body).await.status(), 200);
    }
    let records = gateway.wait_for_records(2).await;
    let id_of = |project: &str| {
        let record = records
            .iter()
            .find(|record| record["project_id"] == project)
            .expect("a record");
        record["request_id"].as_str().expect("an id").to_owned()
    };
    let (own, others) = (id_of("standard_project"), id_of("vip_project"));
    let others_key = made_key(&gateway, "user_vip_01");
    let (mut browser, page) = as_person(&provider, &gateway, "blue").await;
    assert!(page.text.contains("Project standard_project"), "{}", page.text);
    assert!(!page.text.contains("vip"), "{}", page.text);

    for path in [
        "/console/queue",
        "/console/models",
        "/console/batches",
        "/console/configuration",
        "/events",
        "/events?view=/console/queue",
    ] {
        assert_eq!(
            browser.get(&format!("{}{path}", gateway.admin)).await.status,
            403,
            "{path}"
        );
    }
    // Whatever is asked for, another project's name, requests and keys do not come.
    for path in [
        "/console/projects",
        "/console/project?id=vip_project",
        "/console/requests",
        "/console/requests?project=vip_project",
        "/console/requests?user=user_vip_01&project=",
        &format!("/console/requests?id={others}"),
        &format!("/console/request?id={others}"),
        "/console/keys",
        "/console/keys?user=user_vip_01",
    ] {
        let page = browser.get(&format!("{}{path}", gateway.admin)).await;
        assert_eq!(page.status, 200, "{path}");
        // What was asked for comes back in the page's own address and in the fields of its search.
        let mut text = page.text.replace(&path.replace('&', "&amp;"), "");
        for asked in ["user_vip_01", &others] {
            text = text
                .replace(&format!("value=\"{asked}\""), "")
                .replace(&format!("Request {asked}"), "");
        }
        for secret in ["vip_project", "user_vip_01", others_key.as_str(), &others[..18]] {
            assert!(!text.contains(secret), "{path} shows {secret}: {text}");
        }
    }
    let page = browser.get(&format!("{}/console/requests", gateway.admin)).await;
    assert!(page.text.contains(&own[..18]), "{}", page.text);

    let csrf = browser.csrf(&gateway).await;
    let form = |name: &'static str, value: &str| [("csrf", csrf.clone()), (name, value.to_owned())];
    for (path, field) in [
        ("/console/keys", form("user", "user_vip_01")),
        ("/console/keys/revoke", form("id", &others_key)),
        ("/console/keys/rotate", form("id", &others_key)),
        ("/console/keys/revoke", form("id", "key-000000000000")),
        ("/console/reload", form("id", "")),
    ] {
        let field: Vec<(&str, &str)> = field.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let page = browser.send(&format!("{}{path}", gateway.admin), &field).await;
        assert_eq!(page.status, 403, "{path} {field:?}");
    }
    let made = browser
        .send(
            &format!("{}/console/keys", gateway.admin),
            &[("csrf", &csrf), ("user", "user_standard_01")],
        )
        .await;
    assert!(
        made.status == 200 && made.text.contains("New key, shown only now"),
        "{}",
        made.text
    );
    let keys = gateway.admin_json("/keys").await;
    let states: Vec<(&str, &str)> = keys["keys"]
        .as_array()
        .expect("keys")
        .iter()
        .map(|key| {
            (
                key["user_id"].as_str().expect("a user"),
                key["state"].as_str().expect("a state"),
            )
        })
        .collect();
    assert!(
        states.contains(&("user_vip_01", "active")) && states.contains(&("user_standard_01", "active")),
        "{keys}"
    );
}

#[tokio::test]
async fn a_login_belongs_to_its_browser_works_once_and_fails_in_words() {
    let provider = Provider::start().await;
    let gateway = gateway_of(&provider).await;
    let admin = &gateway.admin;
    provider.control("person?grace").await;

    // Another's answer of the provider, in a browser that has begun no login or a login of its own.
    let mut attacker = Browser::new();
    let mut url = attacker
        .http
        .get(format!("{admin}/login/provider"))
        .send()
        .await
        .expect("an answer");
    let mut cookies: Vec<String> = Vec::new();
    let stolen = loop {
        cookies.extend(
            url.headers()
                .get_all("set-cookie")
                .iter()
                .filter_map(|set| Some(set.to_str().ok()?.split(';').next()?.to_owned())),
        );
        let next = url
            .url()
            .join(url.headers()["location"].to_str().expect("text"))
            .expect("a URL");
        if next.path() == "/login/callback" {
            break next;
        }
        url = attacker
            .http
            .get(next)
            .header("cookie", cookies.join("; "))
            .send()
            .await
            .expect("an answer");
    };
    for mut victim in [Browser::new(), as_person(&provider, &gateway, "ada").await.0] {
        let page = victim.get(stolen.as_str()).await;
        assert_eq!(page.status, 400, "{}", page.text);
        assert!(page.text.contains("begun in another browser"), "{}", page.text);
    }
    // In its own browser it works, once.
    for cookie in &cookies {
        let (name, value) = cookie.split_once('=').expect("a cookie");
        attacker.cookies.insert(name.to_owned(), value.to_owned());
    }
    let kept = attacker.cookies["sluice_login"].clone();
    assert_eq!(attacker.get(stolen.as_str()).await.status, 200);
    let mut again = Browser::new();
    again.cookies.insert("sluice_login".to_owned(), kept.clone());
    let page = again.get(stolen.as_str()).await;
    assert_eq!(page.status, 502, "{}", page.text);
    assert!(page.text.contains("did not complete the login"), "{}", page.text);

    // The provider refuses.
    let state = kept.split('.').next().expect("a state");
    let page = again
        .get(&format!("{admin}/login/callback?error=access_denied&state={state}"))
        .await;
    assert!(
        page.status == 403 && page.text.contains("refused the login (access_denied)"),
        "{}",
        page.text
    );
    provider.control("down").await;
    let page = Browser::new().log_in(&gateway).await;
    assert_eq!(page.status, 502, "{}", page.text);
    assert!(
        gateway.log().contains("the identity provider did not complete a login"),
        "{}",
        gateway.log()
    );
    for secret in ["a secret: with & signs", &kept] {
        assert!(!gateway.log().contains(secret), "a secret in the log");
    }
}
