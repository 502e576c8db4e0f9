//! Two projects with API keys over every endpoint that takes an id: whatever one sends, with the other's ids, equal ids
//! or malformed ones, nothing of the other's is read, cancelled or changed, and no answer reveals that an id exists.

use end_to_end::upstream::{Scripted, WHOLE};
use end_to_end::{Gateway, config_dir, roomy, sluice, wait_for, with_model};
use reqwest::Method;
use serde_json::{Value, json};

/// Steps of one random sequence.
const STEPS: usize = 12;

/// Ids that no object has; the last ones are not even of an id's form.
const UNKNOWN: [&str; 7] = [
    "req_00000000000000000000000000000000",
    "resp_req_00000000000000000000000000000000",
    "file-00000000000000000000000000000000",
    "batch_00000000000000000000000000000000",
    "%2e%2e%2fusage.db",
    "'%20OR%20'1'='1",
    "%00",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Request,
    Response,
    /// A response that has been answered and stored.
    Stored,
    File,
    Batch,
}

const KINDS: [Kind; 5] = [Kind::Request, Kind::Response, Kind::Stored, Kind::File, Kind::Batch];

/// Of a response in the background, and of a stored one.
const ON_RESPONSES: &[(Method, &str)] = &[
    (Method::GET, ""),
    (Method::GET, "?stream=true"),
    (Method::GET, "/input_items"),
    (Method::DELETE, ""),
    (Method::POST, "/cancel"),
];

impl Kind {
    fn collection(self) -> &'static str {
        match self {
            Kind::Request => "/requests",
            Kind::Response | Kind::Stored => "/v1/responses",
            Kind::File => "/v1/files",
            Kind::Batch => "/v1/batches",
        }
    }

    /// Every operation on one object of this kind: method and what follows the id in the path.
    fn operations(self) -> &'static [(Method, &'static str)] {
        match self {
            Kind::Request => &[(Method::GET, ""), (Method::DELETE, "")],
            Kind::Response | Kind::Stored => ON_RESPONSES,
            Kind::File => &[(Method::GET, ""), (Method::DELETE, ""), (Method::GET, "/content")],
            Kind::Batch => &[(Method::GET, ""), (Method::POST, "/cancel")],
        }
    }
}

/// A project's user and API key.
struct Tenant {
    user: &'static str,
    project: &'static str,
    key: String,
}

/// Something that a tenant (by index) has created.
#[derive(Debug, Clone)]
struct Object {
    kind: Kind,
    id: String,
    owner: usize,
}

/// Both tenants at one gateway. The upstream of model `tested` never answers: whatever was accepted runs or waits until
/// it is cancelled; the one of `answers` does at once.
struct World {
    gateway: Gateway,
    tenants: [Tenant; 2],
    _upstreams: [Scripted; 2],
}

/// A splitmix64 generator: a seed repeats a sequence.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).expect("below a usize")
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
}

impl World {
    async fn start() -> Self {
        let upstream = Scripted::start(|mut connection| async move {
            connection.read_request().await;
            connection.closed().await;
        })
        .await;
        let answering = Scripted::answering(WHOLE).await;
        let dir = config_dir(|name, text| match name {
            "models.yaml" => {
                let text = with_model(&text, "tested", "openai", &upstream.url, ", max_concurrent_requests: 2");
                with_model(&text, "answers", "openai", &answering.url, "")
            }
            "limits.yaml" => roomy(name, text)
                .replace("max_queue_wait_seconds: 30", "max_queue_wait_seconds: 3600")
                .replace("request_timeout_seconds: 120", "request_timeout_seconds: 86400")
                .replace("requests_per_minute: 300\n", "requests_per_minute: 1000000\n")
                .replace("tokens_per_minute: 500000\n", "tokens_per_minute: 1000000000000\n"),
            "gateway.yaml" => format!("{text}\nstored_responses: {{keep_days: 30}}\n")
                .replace("first_token_seconds: 120", "first_token_seconds: 86400")
                .replace("gap_seconds: 60", "gap_seconds: 86400"),
            _ => roomy(name, text),
        });
        let gateway = Gateway::start_in(dir, &["--identity", "keys"]).await;
        let tenant = |user, project| {
            let made = sluice(gateway.dir.path(), &["keys", "create", "--user", user]);
            let key = String::from_utf8(made.stdout).expect("text").trim().to_owned();
            Tenant { user, project, key }
        };
        let tenants = [
            tenant("user_standard_01", "standard_project"),
            tenant("user_vip_01", "vip_project"),
        ];
        let world = Self {
            gateway,
            tenants,
            _upstreams: [upstream, answering],
        };
        world.settle().await;
        world
    }

    /// Waits until both keys are valid, and fills both slots of the upstream, so that what follows is queued.
    async fn settle(&self) {
        for by in 0..2 {
            wait_for("a valid key", || async {
                (self.send(by, Method::GET, "/v1/models", |request| request).await.0 == 200).then_some(())
            })
            .await;
            let body = json!({"model": "tested", "messages": [{"role": "user", "content": "hello"}]});
            let url = format!("{}/v1/chat/completions", self.gateway.proxy);
            let request = self.gateway.http.post(url).bearer_auth(&self.tenants[by].key);
            tokio::spawn(request.json(&body).send());
        }
        wait_for("filled slots", || async {
            (self.gateway.admin_json("/queue/status").await["active_requests"] == 2).then_some(())
        })
        .await;
    }

    /// Sends a request as a tenant; status and body.
    async fn send(
        &self,
        by: usize,
        method: Method,
        path: &str,
        with: impl Fn(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> (u16, String) {
        let url = format!("{}{path}", self.gateway.proxy);
        let request = with(
            self.gateway
                .http
                .request(method, url)
                .bearer_auth(&self.tenants[by].key),
        );
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        (status, answer.text().await.expect("text"))
    }

    /// Creates an object, with a chosen `x-request-id`.
    async fn create(&self, by: usize, kind: Kind, request_id: &str) -> Object {
        let tenant = &self.tenants[by];
        let (path, body) = match kind {
            Kind::Request => (
                "/generate",
                json!({"user_id": tenant.user, "project_id": tenant.project, "model": "tested", "prompt": tenant.project}),
            ),
            Kind::Response => (
                "/v1/responses",
                json!({"model": "tested", "input": tenant.project, "background": true}),
            ),
            Kind::Stored => (
                "/v1/responses",
                json!({"model": "answers", "input": tenant.project, "store": true}),
            ),
            Kind::File => return self.upload(by, request_id).await,
            Kind::Batch => {
                let input = self.upload(by, request_id).await.id;
                let body =
                    json!({"input_file_id": input, "endpoint": "/v1/chat/completions", "completion_window": "24h"});
                ("/v1/batches", body)
            }
        };
        let sent = self
            .send(by, Method::POST, path, |request| {
                request.json(&body).header("x-request-id", request_id)
            })
            .await;
        self.created(by, kind, &sent)
    }

    async fn upload(&self, by: usize, request_id: &str) -> Object {
        let line = json!({"custom_id": self.tenants[by].project, "method": "POST", "url": "/v1/chat/completions",
            "body": {"model": "tested", "messages": []}});
        let form = format!(
            "--b\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--b\r\n\
             content-disposition: form-data; name=\"file\"; filename=\"x.jsonl\"\r\n\r\n{line}\r\n--b--\r\n"
        );
        let sent = self
            .send(by, Method::POST, "/v1/files", |request| {
                let request = request.header("content-type", "multipart/form-data; boundary=b");
                request.header("x-request-id", request_id).body(form.clone())
            })
            .await;
        self.created(by, Kind::File, &sent)
    }

    fn created(&self, by: usize, kind: Kind, (status, body): &(u16, String)) -> Object {
        assert!(
            matches!(status, 200 | 202),
            "{kind:?} of {}: {status} {body}",
            self.tenants[by].user
        );
        let body: Value = serde_json::from_str(body).expect("JSON");
        let id = body["id"].as_str().or(body["request_id"].as_str()).expect("an id");
        Object {
            kind,
            id: id.to_owned(),
            owner: by,
        }
    }

    /// The owner's view of an object, without the fields that time alone changes.
    async fn view(&self, object: &Object) -> (u16, Value) {
        let path = format!("{}/{}", object.kind.collection(), object.id);
        let (status, body) = self.send(object.owner, Method::GET, &path, |request| request).await;
        let mut body: Value = serde_json::from_str(&body).expect("JSON");
        for volatile in [
            "position",
            "expected_wait_seconds",
            "status",
            "message",
            "request_counts",
            "in_progress_at",
        ] {
            let is_settled = matches!(body[volatile].as_str(), Some("cancelled" | "cancelling"));
            if !is_settled && let Some(fields) = body.as_object_mut() {
                fields.remove(volatile);
            }
        }
        (status, body)
    }

    /// A tenant uses the other's id, at its own endpoint or at the one of the other kind of request: the answer is the
    /// one for an id that never existed, and the owner sees no change.
    async fn intrude(&self, random: &mut Random, object: &Object) {
        let intruder = 1 - object.owner;
        let (kind, name) = match (object.kind, random.below(3)) {
            (Kind::Request, 0) => (Kind::Response, format!("resp_{}", object.id)),
            (Kind::Response | Kind::Stored, 0) => (Kind::Request, object.id.trim_start_matches("resp_").to_owned()),
            (kind, _) => (kind, object.id.clone()),
        };
        let (method, rest) = random.pick(kind.operations());
        let before = self.view(object).await;
        let collection = kind.collection();
        let ask = |id: String| {
            let (path, method) = (format!("{collection}/{id}{rest}"), method.clone());
            async move {
                let header = ("x-request-id", object.id.clone());
                let sent = self.send(intruder, method, &path, |request| request.header(header.0, &header.1));
                let (status, body) = sent.await;
                (status, body.replace(&id, "ID").replace(&object.id, "ID"))
            }
        };
        let answer = ask(name.clone()).await;
        assert_eq!(answer.0, 404, "{method} {collection}/{name}{rest}: {}", answer.1);
        let digits = name.rfind(['_', '-']).map_or(0, |at| at + 1);
        let never = format!("{}{}", &name[..digits], "0".repeat(name.len() - digits));
        assert_eq!(answer, ask(never).await, "an answer reveals that {object:?} exists");
        assert_eq!(
            before,
            self.view(object).await,
            "{method} by the other project changed {object:?}"
        );
    }

    /// A tenant goes on from the other's stored response: refused as for an id that never existed, before a server is
    /// asked, and in words that do not tell which it is.
    async fn continue_from(&self, object: &Object) {
        let intruder = 1 - object.owner;
        let never = format!("resp_req_{}", "0".repeat(32));
        let mut answers = Vec::new();
        for id in [&object.id, &never] {
            let body = json!({"model": "answers", "input": "go on", "previous_response_id": id});
            for path in ["/v1/responses", "/v1/responses/input_tokens"] {
                let sent = self
                    .send(intruder, Method::POST, path, |request| request.json(&body))
                    .await;
                assert_eq!(sent.0, 400, "{path} from {id}: {}", sent.1);
                answers.push((path, sent.1.replace(id, "ID")));
            }
        }
        assert_eq!(answers[..2], answers[2..], "an answer reveals that {object:?} exists");
    }

    /// Lists and usage show a tenant's own objects alone, and a claim of the other's name is refused.
    async fn look_around(&self, by: usize, objects: &[Object]) {
        for path in ["/v1/files", "/v1/batches"] {
            let (status, body) = self.send(by, Method::GET, path, |request| request).await;
            assert_eq!(status, 200, "{body}");
            let theirs = objects
                .iter()
                .find(|object| object.owner != by && body.contains(&object.id));
            assert!(theirs.is_none(), "{path} of {} shows {theirs:?}", self.tenants[by].user);
        }
        let (_, body) = self.send(by, Method::GET, "/usage/me", |request| request).await;
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(body["project_id"], self.tenants[by].project);
        let other = &self.tenants[1 - by];
        for claim in [("x-sluice-user", other.user), ("x-sluice-project", other.project)] {
            let sent = self.send(by, Method::GET, "/usage/me", |request| request.header(claim.0, claim.1));
            let (status, body) = sent.await;
            assert_eq!(status, 403, "{claim:?}: {body}");
        }
    }

    /// One random history: both create, intrude and look around; at its end everything is still its owner's to remove.
    async fn sequence(&self, seed: u64) {
        let mut random = Random(seed);
        let mut objects: Vec<Object> = Vec::new();
        for step in 0..STEPS {
            let by = random.below(2);
            let choice = if step < 2 { 0 } else { random.below(8) };
            match choice {
                0 | 1 => {
                    let own = format!("same-{}", random.below(3));
                    let request_id = objects.last().map_or(own, |object| object.id.clone());
                    let kind = random.pick(&KINDS);
                    let made = self.create(by, kind, &request_id).await;
                    let is_new = objects.iter().all(|object| object.id != made.id);
                    assert!(is_new && made.id != request_id, "{made:?} was there before");
                    objects.push(made);
                }
                2 => self.look_around(by, &objects).await,
                3 => {
                    let kind = random.pick(&KINDS);
                    let (method, rest) = random.pick(kind.operations());
                    let path = format!("{}/{}{rest}", kind.collection(), random.pick(&UNKNOWN));
                    let (status, body) = self.send(by, method, &path, |request| request).await;
                    assert!((400..500).contains(&status), "{path}: {status} {body}");
                }
                _ => {
                    let object = random.pick(&objects);
                    if object.kind == Kind::Stored && random.below(2) == 0 {
                        self.continue_from(&object).await;
                    }
                    self.intrude(&mut random, &object).await;
                }
            }
        }
        for object in &objects {
            self.remove(object).await;
        }
    }

    /// The owner ends an object.
    async fn remove(&self, object: &Object) {
        let (method, rest) = match object.kind {
            Kind::Request | Kind::File | Kind::Stored => (Method::DELETE, ""),
            Kind::Response | Kind::Batch => (Method::POST, "/cancel"),
        };
        let path = format!("{}/{}{rest}", object.kind.collection(), object.id);
        let (status, body) = self.send(object.owner, method, &path, |request| request).await;
        assert_eq!(status, 200, "{object:?}: {body}");
        if object.kind == Kind::Batch {
            // Its lines are queued behind requests that never end, and are not to wait for them.
            wait_for("end of a cancelled batch", || async {
                let (_, batch) = self.view(object).await;
                (batch["status"] == "cancelled").then_some(())
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_another_project_is_read_cancelled_or_changed_by_any_id() {
    let world = World::start().await;
    for seed in 0..30 {
        world.sequence(seed).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: 10,000 random sequences"]
async fn ten_thousand_random_sequences_keep_projects_apart() {
    let world = World::start().await;
    for seed in 0..10_000 {
        world.sequence(seed).await;
    }
}
