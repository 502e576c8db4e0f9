//! Models and where they are: what is in `models.yaml`, checked.

use super::Found;
use super::checked::{Backend, Deadlines, Discovery, Endpoint, EndpointTls, Model};
use super::checks::{Check, band};
use super::limits::{concurrency, token_limit};
use super::raw::{self, Api, Slots};
use super::read::{At, Named};
use policy::{ModelId, NanoEuro, Prices, Rates};
use protocol::Tokenizer;
use protocol::passthrough::Pattern;
use protocol::translate::NativeApis;
use protocol::unsupported::Unsupported;
use simulated_upstream::Timing;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// The time that Ollama may take to load a model, unless `load_timeout` says otherwise; its own default is 5 minutes.
const LOAD: Duration = Duration::from_secs(300);

impl Check<'_> {
    pub(super) fn models(
        &mut self,
        raw: &Named<raw::Model>,
        defaults: &raw::Timeouts,
        total: Duration,
    ) -> (Vec<Model>, HashMap<String, ModelId>) {
        let mut models = Vec::new();
        let mut by_name = HashMap::new();
        for ((name, model), index) in raw.0.iter().zip(0u32..) {
            let key = |field: &str| format!("models.{}.{field}", name.value);
            self.at_least_one("models.yaml", &key("max_output_tokens"), &model.max_output_tokens);
            for (name, field) in
                std::iter::once((name, None)).chain(model.aliases.iter().map(|alias| (alias, Some("aliases"))))
            {
                if by_name.insert(name.value.clone(), ModelId(index)).is_some() {
                    let key = field.map_or_else(|| format!("models.{}", name.value), key);
                    self.problem(
                        "models.yaml",
                        name.line,
                        key,
                        format!("the name `{}` is taken by another model", name.value),
                    );
                }
            }
            models.push(Model {
                name: name.value.clone(),
                backend: model.backend.value,
                enabled: model.enabled,
                is_removed: false,
                priority: band(model.priority),
                upstream_name: model
                    .upstream_model
                    .clone()
                    .or_else(|| model.ollama_model.as_ref().map(|at| at.value.clone())),
                max_input_tokens: model.max_input_tokens,
                max_output_tokens: model.max_output_tokens.value.max(1),
                aliases: model.aliases.iter().map(|alias| alias.value.clone()).collect(),
                unsupported: match model.unsupported {
                    raw::Hints::Drop => Unsupported::Drop,
                    raw::Hints::Refuse => Unsupported::Refuse,
                },
                tokenizer: tokenizer(&name.value, model),
                image_tokens: model.image_tokens,
                audio_tokens_per_second: model.audio_tokens_per_second,
                prices: prices(model),
                passthrough: self.passthrough(&name.value, model),
                rates: Rates::default(),
                concurrency: concurrency(model),
                max_concurrent_tokens: token_limit(model),
                smaller: None,
                timing: self.timing(&name.value, model),
                endpoints: self.endpoints(&name.value, model),
                native_apis: native_apis(model),
                fallbacks: Vec::new(),
                deadlines: deadlines(model, defaults, total),
            });
        }
        self.smaller_models(raw, &mut models, &by_name);
        self.fallbacks(raw, &mut models, &by_name);
        (models, by_name)
    }

    /// Paths that are passed through.
    fn passthrough(&mut self, name: &str, model: &raw::Model) -> Vec<Pattern> {
        let mut patterns = Vec::new();
        for path in &model.passthrough {
            match Pattern::new(&path.value) {
                Ok(pattern) => patterns.push(pattern),
                Err(why) => {
                    let message = format!("`{}` {why}", path.value);
                    self.problem("models.yaml", path.line, format!("models.{name}.passthrough"), message);
                }
            }
        }
        patterns
    }

    /// The timing of a simulated model.
    fn timing(&mut self, name: &str, model: &raw::Model) -> Timing {
        let whole = model.average_latency_seconds.as_ref().map(|at| at.value);
        let Some(profile) = &model.profile else {
            return Timing::Whole(whole.unwrap_or_default());
        };
        let key = format!("models.{name}.profile");
        if model.backend.value != Backend::Simulated {
            self.problem(
                "models.yaml",
                profile.line,
                key.clone(),
                "only for `backend: simulated`",
            );
        } else if whole.is_some() {
            let message = "cannot be combined with `average_latency_seconds`";
            self.problem("models.yaml", profile.line, key.clone(), message);
        }
        Timing::parse(&profile.value).unwrap_or_else(|error| {
            self.problem("models.yaml", profile.line, key, error);
            Timing::Whole(Duration::ZERO)
        })
    }

    /// Resolves `fallbacks`: other models.
    fn fallbacks(&mut self, raw: &Named<raw::Model>, models: &mut [Model], by_name: &HashMap<String, ModelId>) {
        let known: Vec<String> = raw.0.iter().map(|(name, _)| name.value.clone()).collect();
        for (at, (name, model)) in raw.0.iter().enumerate() {
            for fallback in &model.fallbacks {
                let key = format!("models.{}.fallbacks", name.value);
                match by_name.get(&fallback.value) {
                    Some(id) if id.0 as usize == at => {
                        self.problem("models.yaml", fallback.line, key, "must not contain the model itself");
                    }
                    Some(id) => models[at].fallbacks.push(*id),
                    None => {
                        self.reference(("models.yaml", key), fallback, Some(&known), "model");
                    }
                }
            }
        }
    }

    /// Entries with `discover: true`.
    pub(super) fn discoveries(&mut self, raw: &Named<raw::Model>) -> Vec<Discovery> {
        let mut discoveries = Vec::new();
        for (name, model) in raw.0.iter().filter(|(_, model)| model.discover) {
            let key = |field: &str| format!("models.{}.{field}", name.value);
            for (field, line) in [
                ("upstream_model", model.upstream_model.as_ref().map(|_| name.line)),
                ("ollama_model", model.ollama_model.as_ref().map(|at| at.line)),
                ("aliases", model.aliases.first().map(|at| at.line)),
            ] {
                if let Some(line) = line {
                    let message = "cannot be given with `discover: true`, which takes the names that the servers give";
                    self.problem("models.yaml", line, key(field), message);
                }
            }
            if model.backend.value == Backend::Simulated && model.backend.line > 0 {
                let message = "is not supported for `backend: simulated`";
                self.problem("models.yaml", model.backend.line, key("discover"), message);
            }
            let endpoints = self.endpoints(&name.value, model);
            if model.enabled {
                discoveries.push(Discovery {
                    name: name.value.clone(),
                    backend: model.backend.value,
                    endpoints,
                });
            }
        }
        discoveries
    }

    /// Resolves `smaller_model`: another model, and not in a circle.
    fn smaller_models(&mut self, raw: &Named<raw::Model>, models: &mut [Model], by_name: &HashMap<String, ModelId>) {
        for (at, (name, model)) in raw.0.iter().enumerate() {
            let Some(smaller) = model.smaller_model.as_ref().filter(|smaller| smaller.line > 0) else {
                continue;
            };
            let key = format!("models.{}.smaller_model", name.value);
            match by_name.get(&smaller.value) {
                Some(id) if id.0 as usize == at => {
                    self.problem("models.yaml", smaller.line, key, "must not be the model itself");
                }
                Some(id) => {
                    let (own, its) = (models[at].prices, models[id.index()].prices);
                    if let Some((what, own, its)) = dearer(&own, &its) {
                        let message = format!(
                            "\"{}\" is dearer than this model: {its} per {what}, this model {own}; degradation and budgets \
                             route to a model that costs no more",
                            smaller.value
                        );
                        self.problem("models.yaml", smaller.line, key, message);
                    }
                    models[at].smaller = Some(*id);
                }
                None => {
                    let known: Vec<String> = raw.0.iter().map(|(name, _)| name.value.clone()).collect();
                    self.reference(("models.yaml", key), smaller, Some(&known), "model");
                }
            }
        }
    }

    fn endpoints(&mut self, name: &str, model: &raw::Model) -> Vec<Endpoint> {
        let file = "models.yaml";
        let key = |field: &str| format!("models.{name}.{field}");
        let backend = &model.backend;
        if backend.line > 0 && backend.value != Backend::Ollama {
            for (field, line) in [
                ("ollama_model", model.ollama_model.as_ref().map(|at| at.line)),
                ("ollama_base_url", model.ollama_base_url.as_ref().map(|at| at.line)),
            ] {
                if let Some(line) = line {
                    self.problem(
                        file,
                        line,
                        key(field),
                        format!("only for `backend: ollama`, and this one is {}", backend.value.word()),
                    );
                }
            }
        }
        if backend.line > 0
            && backend.value != Backend::Simulated
            && let Some(latency) = &model.average_latency_seconds
        {
            self.problem(
                file,
                latency.line,
                key("average_latency_seconds"),
                "only for `backend: simulated`",
            );
        }
        let mut endpoints = Vec::new();
        if let Some(url) = &model.ollama_base_url {
            endpoints.extend(self.endpoint(key("ollama_base_url"), url).map(|address| Endpoint {
                tls: address.tls(None, None),
                authority: address.authority,
                path_prefix: address.path_prefix,
                api_key_env: None,
                weight: 1,
                max_concurrent_requests: None,
            }));
        }
        for (raw, index) in model.endpoints.iter().zip(0..) {
            let key = |field: &str| format!("models.{name}.endpoints.{index}.{field}");
            self.at_least_one(file, &key("weight"), &raw.weight);
            if let Some(at) = &raw.max_concurrent_requests
                && let Slots::Fixed(count) = at.value
            {
                self.at_most(file, &key("max_concurrent_requests"), at.line, count);
            }
            let ca_file = raw
                .ca_file
                .as_ref()
                .filter(|at| self.file_is_there(file, &key("ca_file"), at));
            endpoints.extend(self.endpoint(key("base_url"), &raw.base_url).map(|address| Endpoint {
                tls: address.tls(raw.server_name.as_ref(), ca_file),
                authority: address.authority,
                path_prefix: address.path_prefix,
                api_key_env: raw.api_key_env.as_ref().map(|at| at.value.clone()),
                weight: raw.weight.value,
                max_concurrent_requests: raw.max_concurrent_requests.as_ref().and_then(|at| match at.value {
                    Slots::Fixed(count) => Some(count),
                    Slots::Auto => None,
                }),
            }));
        }
        let declared = !model.endpoints.is_empty() || model.ollama_base_url.is_some();
        if backend.line > 0 && backend.value != Backend::Simulated && !declared {
            self.problem(
                file,
                backend.line,
                key("endpoints"),
                format!(
                    "`backend: {}` needs `endpoints: [{{base_url: http://host:port}}]`",
                    backend.value.word()
                ),
            );
        }
        endpoints
    }

    /// `http(s)://host:port[/prefix][/v1]` taken apart.
    fn endpoint(&mut self, key: String, url: &At<String>) -> Option<Address> {
        if url.line == 0 {
            return None;
        }
        let wrong = match url.value.parse::<http::Uri>() {
            Ok(_) if url.value.matches("://").count() > 1 => "has two schemes",
            Ok(uri) if matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none() => {
                let is_tls = uri.scheme_str() == Some("https");
                let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
                if let Some(authority) = authority {
                    let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
                    let path = uri.path().trim_end_matches('/');
                    let prefix = path.strip_suffix("/v1").unwrap_or(path);
                    return Some(Address {
                        host: is_tls.then(|| authority.host().trim_matches(['[', ']']).to_owned()),
                        authority: format!("{}:{port}", authority.host()),
                        path_prefix: prefix.to_owned(),
                    });
                }
                "has no host, or has a user in it"
            }
            _ => "is not a URL such as http://127.0.0.1:8080",
        };
        let hint = match url.value.rsplit_once("://") {
            None => format!("; did you mean `http://{}`?", url.value),
            // The URL that was pasted behind a scheme.
            Some((before, rest)) if before.contains("://") => {
                let scheme = if before.ends_with("https") { "https" } else { "http" };
                format!("; did you mean `{scheme}://{rest}`?")
            }
            Some(_) => String::new(),
        };
        self.problem("models.yaml", url.line, key, format!("`{}` {wrong}{hint}", url.value));
        None
    }
}

/// A server's address.
struct Address {
    /// The host alone, if it speaks TLS.
    host: Option<String>,
    authority: String,
    path_prefix: String,
}

impl Address {
    fn tls(&self, server_name: Option<&At<String>>, ca_file: Option<&At<String>>) -> Option<EndpointTls> {
        let host = self.host.as_ref()?;
        Some(EndpointTls {
            server_name: server_name.map_or_else(|| host.clone(), |at| at.value.clone()),
            ca_file: ca_file.map(|at| at.value.clone()),
        })
    }
}

/// The family of a model's tokenizer: as configured, else by the name at its servers.
fn tokenizer(name: &str, model: &raw::Model) -> Tokenizer {
    match model.tokenizer {
        Some(raw::TokenizerFamily::O200k) => Tokenizer::O200k,
        Some(raw::TokenizerFamily::Llama) => Tokenizer::Llama,
        Some(raw::TokenizerFamily::Qwen) => Tokenizer::Qwen,
        Some(raw::TokenizerFamily::Deepseek) => Tokenizer::DeepSeek,
        Some(raw::TokenizerFamily::Gemma) => Tokenizer::Gemma,
        Some(raw::TokenizerFamily::Mistral) => Tokenizer::Mistral,
        None => {
            let at_server = model.ollama_model.as_ref().map(|at| at.value.as_str());
            Tokenizer::of_model(model.upstream_model.as_deref().or(at_server).unwrap_or(name))
        }
    }
}

/// Prices of a model's tokens; cached input costs as much as other input where nothing else is set.
fn prices(model: &raw::Model) -> Prices {
    let input = model.input_cost_per_1k_tokens_eur;
    Prices {
        input,
        cached_input: model.cached_input_cost_per_1k_tokens_eur.unwrap_or(input),
        output: model.output_cost_per_1k_tokens_eur,
        audio_minute: model.price_per_minute_eur,
        image: model.price_per_image_eur,
        passthrough_request: model.price_per_request_eur,
    }
}

/// The first price by which a model is dearer than another, with both.
fn dearer(own: &Prices, its: &Prices) -> Option<(&'static str, NanoEuro, NanoEuro)> {
    let prices = [
        ("1,000 input tokens", own.input, its.input),
        ("1,000 cached input tokens", own.cached_input, its.cached_input),
        ("1,000 output tokens", own.output, its.output),
        ("minute of audio", own.audio_minute, its.audio_minute),
        ("image", own.image, its.image),
    ];
    prices.into_iter().find(|(_, own, its)| its > own)
}

/// A model's own timeouts, or those of all models.
fn deadlines(model: &raw::Model, defaults: &raw::Timeouts, total: Duration) -> Deadlines {
    let own = model.timeouts.as_ref();
    let load = match model.backend.value {
        Backend::Ollama => LOAD,
        _ => Duration::ZERO,
    };
    Deadlines {
        connect: own
            .and_then(|own| own.connect_seconds)
            .unwrap_or(defaults.connect_seconds),
        first_token: own
            .and_then(|own| own.first_token_seconds)
            .unwrap_or(defaults.first_token_seconds),
        load: model.load_timeout.unwrap_or(load),
        gap: own.and_then(|own| own.gap_seconds).unwrap_or(defaults.gap_seconds),
        total: own.and_then(|own| own.total_seconds).unwrap_or(total),
    }
}

/// The APIs that a model's servers offer themselves.
fn native_apis(model: &raw::Model) -> NativeApis {
    let backend = model.backend.value;
    let also = |api: Api| model.native_apis.contains(&api);
    NativeApis {
        openai: backend != Backend::Ollama || also(Api::Openai),
        responses: also(Api::Responses),
        anthropic: also(Api::Anthropic),
        ollama: backend != Backend::Openai || also(Api::Ollama),
    }
}

/// The entries, with each that stands for what its servers offer replaced by what was found there. A name that is
/// configured by itself stays what it is.
pub(super) fn expanded(models: Named<raw::Model>, found: &Found) -> Named<raw::Model> {
    let mut taken: HashSet<String> = HashSet::new();
    for (name, model) in models.0.iter().filter(|(_, model)| !model.discover) {
        taken.insert(name.value.clone());
        taken.extend(model.aliases.iter().map(|alias| alias.value.clone()));
    }
    let mut all = Vec::with_capacity(models.0.len());
    for (name, model) in models.0 {
        if !model.discover {
            all.push((name, model));
            continue;
        }
        for offered in found.get(&name.value).into_iter().flatten() {
            if taken.insert(offered.clone()) {
                let mut model = model.clone();
                (model.upstream_model, model.discover) = (Some(offered.clone()), false);
                let line = name.line;
                all.push((
                    At {
                        value: offered.clone(),
                        line,
                    },
                    model,
                ));
            }
        }
    }
    Named(all)
}
