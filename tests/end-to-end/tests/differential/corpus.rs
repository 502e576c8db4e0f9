//! The corpus of requests: every field of each protocol with values that are valid, missing, wrong or odd, one by one,
//! and random combinations of them.

use serde_json::{Map, Value, json};

/// Fields by endpoint, with valid values. Values that are odd for any field are [`odd`].
const FIELDS: &str = include_str!("fields.json");

/// An endpoint of a protocol.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) path: String,
    /// The API that a server needs for it, by its name in `native_apis`.
    pub(crate) api: String,
    base: Value,
    /// JSON pointers, with valid values.
    pub(crate) fields: Vec<(String, Vec<Value>)>,
}

/// A request of the corpus.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) path: String,
    /// The model whose server is asked.
    pub(crate) model: String,
    pub(crate) body: Value,
    /// The field that was set in the endpoint's simplest request.
    pub(crate) set: Vec<String>,
}

/// All endpoints.
pub(crate) fn endpoints() -> Vec<Endpoint> {
    let Value::Object(endpoints) = serde_json::from_str(FIELDS).expect("JSON") else {
        panic!("fields.json is an object of endpoints");
    };
    endpoints.into_iter().map(endpoint).collect()
}

fn endpoint((path, mut value): (String, Value)) -> Endpoint {
    let fields: Map<String, Value> = serde_json::from_value(value["fields"].take()).expect("an object");
    let list = |value: Value| value.as_array().expect("a list of values").clone();
    Endpoint {
        path,
        api: value["api"].as_str().expect("the name of an API").to_owned(),
        base: value["base"].take(),
        fields: fields.into_iter().map(|(field, valid)| (field, list(valid))).collect(),
    }
}

/// Values that may be wrong for any field: null, zero, negative, of each type, empty, and large.
fn odd() -> Vec<Value> {
    vec![
        Value::Null,
        json!(0),
        json!(-1),
        json!(2),
        json!(1.5),
        json!(8.0),
        json!(1_000_000_000_000_u64),
        json!(true),
        json!(false),
        json!(""),
        json!("7"),
        json!("no such value"),
        json!("long ".repeat(400)),
        json!([]),
        json!([null]),
        json!(["a"]),
        json!({}),
        json!({"type": "no such type"}),
    ]
}

impl Endpoint {
    /// Every field one by one with every value, and every field left out, plain and, if the endpoint has them,
    /// streamed.
    pub(crate) fn one_by_one(&self, model: &str) -> Vec<Request> {
        self.each_field(model, &odd())
    }

    /// Every field one by one with every valid value, and null.
    pub(crate) fn valid_one_by_one(&self, model: &str) -> Vec<Request> {
        let mut requests = self.each_field(model, &[Value::Null]);
        requests.retain(|request| self.has_what_it_needs(request));
        requests
    }

    /// A valid request with some fields set at random.
    pub(crate) fn valid_at_random(&self, model: &str, random: &mut Random) -> Request {
        loop {
            let request = self.some_fields(model, random, &[Value::Null]);
            if self.has_what_it_needs(&request) {
                return request;
            }
        }
    }

    /// Returns whether every field of the simplest request, and a message's text, has a value.
    fn has_what_it_needs(&self, request: &Request) -> bool {
        let needed = self.base.as_object().into_iter().flatten();
        let mut needed = needed
            .map(|(key, _)| format!("/{key}"))
            .chain(message_texts(&self.base));
        needed.all(|pointer| request.body.pointer(&pointer).is_some_and(|value| !value.is_null()))
    }

    fn each_field(&self, model: &str, odd: &[Value]) -> Vec<Request> {
        let base = self.base(model);
        let mut requests = vec![self.request(model, base.clone(), Vec::new())];
        for (field, valid) in &self.fields {
            for value in valid.iter().chain(odd).cloned() {
                requests.push(self.request(model, base.clone(), vec![(field, value)]));
            }
            let mut without = base.clone();
            if remove(&mut without, field) {
                requests.push(self.request(model, without, Vec::new()));
            }
        }
        if self.streams() {
            let streamed = requests.clone().into_iter().map(|request| self.other_way(request));
            requests.extend(streamed.collect::<Vec<_>>());
        }
        requests
    }

    /// A request with some fields set at random, mostly to valid values.
    pub(crate) fn at_random(&self, model: &str, random: &mut Random) -> Request {
        self.some_fields(model, random, &odd())
    }

    fn some_fields(&self, model: &str, random: &mut Random, odd: &[Value]) -> Request {
        let count = 1 + random.below(6);
        let mut set = Vec::new();
        for _ in 0..count {
            let (field, valid) = &self.fields[random.below(self.fields.len())];
            let values = if valid.is_empty() || random.below(4) == 0 {
                odd
            } else {
                valid
            };
            set.push((field, values[random.below(values.len())].clone()));
        }
        // Nested fields are set last, in the field that contains them.
        set.sort_by_key(|(field, _)| field.matches('/').count());
        let request = self.request(model, self.base(model), set);
        if self.streams() && random.below(2) == 0 {
            self.other_way(request)
        } else {
            request
        }
    }

    fn streams(&self) -> bool {
        self.fields.iter().any(|(field, _)| field == "/stream")
    }

    /// The same streamed, or whole where the protocol streams by itself.
    fn other_way(&self, mut request: Request) -> Request {
        let streams = self.api != "ollama";
        let fields = request.body.as_object_mut().expect("an object");
        fields.entry("stream").or_insert_with(|| streams.into());
        request.set.push(format!("/stream={streams}"));
        request
    }

    fn base(&self, model: &str) -> Value {
        let mut base = self.base.clone();
        base["model"] = model.into();
        base
    }

    fn request(&self, model: &str, mut body: Value, set: Vec<(&String, Value)>) -> Request {
        let mut names = Vec::new();
        for (field, value) in set {
            names.push(format!(
                "{field}={}",
                value.to_string().chars().take(80).collect::<String>()
            ));
            put(&mut body, field, value);
        }
        Request {
            path: self.path.clone(),
            model: model.to_owned(),
            body,
            set: names,
        }
    }
}

/// Where the first message has its role and its text, if there are messages.
fn message_texts(base: &Value) -> Vec<String> {
    let fields = ["role", "content"].map(|key| format!("/messages/0/{key}"));
    fields
        .into_iter()
        .filter(|pointer| base.pointer(pointer).is_some())
        .collect()
}

/// Sets the value at a JSON pointer, whose parents are made where they are missing; a parent of another type is kept.
fn put(body: &mut Value, pointer: &str, value: Value) {
    let mut place = body;
    for part in pointer.split('/').skip(1) {
        place = match place {
            Value::Array(items) => {
                let Some(item) = part.parse::<usize>().ok().and_then(|index| items.get_mut(index)) else {
                    return;
                };
                item
            }
            Value::Object(fields) => fields.entry(part).or_insert_with(|| json!({})),
            _ => return,
        };
    }
    *place = value;
}

fn remove(body: &mut Value, pointer: &str) -> bool {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    let parent = body.pointer_mut(parent).and_then(Value::as_object_mut);
    parent.is_some_and(|parent| parent.remove(name).is_some())
}

/// Numbers that are the same for the same seed (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) as usize;
        high % bound
    }
}
