//! The models of a LiteLLM proxy, from its `config.yaml`: names, servers, keys, prices, limits, aliases and fallbacks.
//! What has no counterpart is named, and nothing is dropped in silence.
//!
//! Source: LiteLLM's documentation of the proxy's configuration (`model_list`, `litellm_settings`, `router_settings`,
//! `general_settings`).

use super::detect::Protocol;
use super::{Address, Extras, Published};
use crate::cli::Failure;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;

/// Providers whose servers speak OpenAI's API.
const OPENAI: [&str; 10] = [
    "openai",
    "hosted_vllm",
    "vllm",
    "custom_openai",
    "text-completion-openai",
    "openai_like",
    "llamafile",
    "lm_studio",
    "xinference",
    "litellm_proxy",
];

/// Where a model is if its entry does not say.
const OLLAMA: &str = "http://localhost:11434";
const OPENAI_CLOUD: &str = "https://api.openai.com";

/// Settings whose effect Sluice has by default, or that concern LiteLLM's own process.
const NEEDLESS: [&str; 7] = [
    "drop_params",
    "num_retries",
    "allowed_fails",
    "set_verbose",
    "json_logs",
    "routing_strategy",
    "enable_pre_call_checks",
];

/// Prefix of variables for keys that stand in the file.
const KEY_VARIABLE: &str = "UPSTREAM_API_KEY";

/// What was read.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) models: Vec<Published>,
    pub(super) request_timeout: Option<u64>,
    /// What a reader has to do or to know, a sentence each.
    pub(super) notes: Vec<String>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    model_list: Vec<Deployment>,
    #[serde(default)]
    litellm_settings: Map<String, Value>,
    #[serde(default)]
    router_settings: Map<String, Value>,
    #[serde(default)]
    general_settings: Map<String, Value>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Deployment {
    model_name: String,
    litellm_params: Map<String, Value>,
    #[serde(default)]
    model_info: Map<String, Value>,
}

/// A deployment as an entry of `models.yaml` could have it.
struct Target {
    protocol: Protocol,
    upstream: String,
    address: Address,
}

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<Read, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?;
    parse(&text).map_err(|why| Failure::usage(format!("{}: {why}", path.display())))
}

fn parse(text: &str) -> Result<Read, String> {
    let file: File = serde_yaml::from_str(text).map_err(|error| format!("not a config.yaml of LiteLLM: {error}"))?;
    let mut reading = Reading::default();
    for deployment in &file.model_list {
        reading.deployment(deployment);
    }
    reading.links(&file);
    reading.settings(&file);
    if reading.models.is_empty() {
        reading
            .notes
            .push("it has no model that Sluice can serve; see the notes above".to_owned());
        return Err(reading.notes.join("\n"));
    }
    let timeout = ["request_timeout", "timeout"]
        .iter()
        .find_map(|key| number(&file.litellm_settings, key).or_else(|| number(&file.router_settings, key)));
    Ok(Read {
        models: reading.models,
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        request_timeout: timeout.map(|seconds| seconds.clamp(1.0, 86_400.0).ceil() as u64),
        notes: reading.notes,
    })
}

fn text<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    map.get(key)?.as_str().filter(|text| !text.is_empty())
}

fn number(map: &Map<String, Value>, key: &str) -> Option<f64> {
    let value = map.get(key)?;
    let number = value.as_f64().or_else(|| value.as_str()?.parse().ok())?;
    (number.is_finite() && number >= 0.0).then_some(number)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn count(map: &Map<String, Value>, key: &str) -> Option<u64> {
    number(map, key)
        .map(|number| number as u64)
        .filter(|number| *number > 0)
}

#[derive(Default)]
struct Reading {
    models: Vec<Published>,
    notes: Vec<String>,
    /// Keys that stand in the file, in the order of their variables.
    keys: Vec<String>,
}

impl Reading {
    fn deployment(&mut self, deployment: &Deployment) {
        let name = &deployment.model_name;
        if name.contains('*') {
            self.notes.push(format!(
                "model `{name}` is left out: for all models of a server set `discover: true` on an entry of models.yaml"
            ));
            return;
        }
        let target = match self.target(deployment) {
            Ok(target) => target,
            Err(why) => return self.notes.push(format!("model `{name}` is left out: {why}")),
        };
        let extras = extras(deployment, &target.upstream);
        match self.models.iter_mut().find(|model| model.name == *name) {
            None => self.models.push(Published {
                name: name.clone(),
                protocol: target.protocol,
                servers: vec![target.address],
                context: None,
                slots: None,
                extras,
            }),
            Some(known) if known.protocol == target.protocol && known.extras.upstream_model == extras.upstream_model => {
                known.servers.push(target.address);
                known.extras.join(&extras);
            }
            Some(_) => self.notes.push(format!(
                "a server of model `{name}` is left out, since it has it under another name or protocol than the first ({}): \
                 give it an entry of its own, and name that in `fallbacks`",
                target.address.url
            )),
        }
    }

    /// The server and the model's name there.
    fn target(&mut self, deployment: &Deployment) -> Result<Target, String> {
        let params = &deployment.litellm_params;
        let model = text(params, "model").ok_or("it has no `litellm_params.model`")?;
        let base = text(params, "api_base").or_else(|| text(params, "base_url"));
        let (provider, upstream) = model.split_once('/').unwrap_or(("", model));
        let provider = text(params, "custom_llm_provider").unwrap_or(provider);
        let is_openais = OPENAI.contains(&provider);
        let (protocol, upstream, base) = match (provider, base) {
            ("ollama" | "ollama_chat", base) => (Protocol::Ollama, upstream, base.unwrap_or(OLLAMA)),
            (_, Some(base)) if is_openais => (Protocol::OpenAi, upstream, base),
            // A name with a slash whose first part is no provider, such as `Qwen/Qwen3-8B`.
            ("", Some(base)) => (Protocol::OpenAi, model, base),
            ("openai" | "", None) => (Protocol::OpenAi, upstream, OPENAI_CLOUD),
            _ => {
                return Err(format!(
                    "Sluice does not speak the API of the provider `{provider}`; use a server with an OpenAI-compatible one"
                ));
            }
        };
        let base = match base.strip_prefix("os.environ/") {
            Some(variable) => std::env::var(variable)
                .map_err(|_| format!("its address is in the variable {variable}, which is not set here"))?,
            None => base.to_owned(),
        };
        let key = text(params, "api_key").and_then(|key| self.key(&deployment.model_name, key));
        Ok(Target {
            protocol,
            upstream: upstream.to_owned(),
            address: Address {
                url: base.trim_end_matches('/').trim_end_matches("/v1").to_owned(),
                key_env: key,
            },
        })
    }

    /// The variable that has a key. A key that stands in the file is not copied.
    fn key(&mut self, model: &str, key: &str) -> Option<String> {
        if let Some(variable) = key.strip_prefix("os.environ/") {
            return Some(variable.to_owned());
        }
        // Clients of LiteLLM that need no key write one of these.
        if matches!(
            key,
            "none" | "None" | "EMPTY" | "empty" | "fake-key" | "dummy" | "not-needed"
        ) {
            return None;
        }
        let known = self.keys.iter().position(|known| known == key);
        let at = known.unwrap_or_else(|| {
            self.keys.push(key.to_owned());
            self.keys.len() - 1
        });
        let variable = if at == 0 {
            KEY_VARIABLE.to_owned()
        } else {
            format!("{KEY_VARIABLE}_{}", at + 1)
        };
        if known.is_none() {
            self.notes.push(format!(
                "the API key of model `{model}` stands in the file: put it into the environment variable {variable}"
            ));
        }
        Some(variable)
    }

    /// Aliases and fallbacks, which name other models.
    fn links(&mut self, file: &File) {
        let aliases = file.router_settings.get("model_group_alias").and_then(Value::as_object);
        for (alias, target) in aliases.into_iter().flatten() {
            let target = target.as_str().or_else(|| target["model"].as_str()).unwrap_or_default();
            match self.models.iter_mut().find(|model| model.name == target) {
                Some(model) => model.extras.aliases.push(alias.clone()),
                None => self
                    .notes
                    .push(format!("alias `{alias}` is left out: there is no model `{target}`")),
            }
        }
        for settings in [&file.litellm_settings, &file.router_settings] {
            for entry in settings
                .get("fallbacks")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                for (model, fallbacks) in entry.as_object().into_iter().flatten() {
                    let fallbacks: Vec<&str> = fallbacks
                        .as_array()
                        .into_iter()
                        .flatten()
                        .filter_map(Value::as_str)
                        .collect();
                    self.fallbacks(model, &fallbacks);
                }
            }
        }
    }

    fn fallbacks(&mut self, model: &str, fallbacks: &[&str]) {
        let (known, unknown): (Vec<&str>, Vec<&str>) = fallbacks
            .iter()
            .partition(|name| self.models.iter().any(|model| model.name == **name));
        if !unknown.is_empty() {
            self.notes.push(format!(
                "fallbacks of `{model}` are left out: there is no model `{}`",
                unknown.join("`, `")
            ));
        }
        match self.models.iter_mut().find(|known| known.name == model) {
            Some(found) => found.extras.fallbacks.extend(known.into_iter().map(str::to_owned)),
            None => self
                .notes
                .push(format!("fallbacks of `{model}` are left out: there is no such model")),
        }
    }

    /// Names what is not taken over.
    fn settings(&mut self, file: &File) {
        const TAKEN: [&str; 4] = ["fallbacks", "model_group_alias", "request_timeout", "timeout"];
        if self.models.iter().any(|model| model.extras.prices.is_some()) {
            self.notes
                .push("prices are LiteLLM's, in US dollars: convert them to euros in models.yaml".to_owned());
        }
        let sections = [
            ("litellm_settings", &file.litellm_settings),
            ("router_settings", &file.router_settings),
            ("general_settings", &file.general_settings),
        ];
        let left = sections.iter().flat_map(|(section, settings)| {
            let keys = settings
                .keys()
                .filter(|key| !TAKEN.contains(&&***key) && !NEEDLESS.contains(&&***key));
            keys.map(move |key| format!("{section}.{key}"))
        });
        let left: Vec<String> = left.chain(file.others.keys().cloned()).collect();
        if !left.is_empty() {
            self.notes.push(format!(
                "not taken over: {} (docs/from-litellm.md says what does the same)",
                left.join(", ")
            ));
        }
        self.notes.push(
            "virtual keys, teams and their budgets are in LiteLLM's database: list the people in a CSV file for --people, and \
             create keys with `sluice keys import`"
                .to_owned(),
        );
    }
}

/// What an entry says beside its server.
fn extras(deployment: &Deployment, upstream: &str) -> Extras {
    let (params, info) = (&deployment.litellm_params, &deployment.model_info);
    let price = |key: &str| {
        number(info, key)
            .or_else(|| number(params, key))
            // Whole billionths, without what multiplying leaves at their end.
            .map(|price| (price * 1e12).round() / 1e9)
    };
    let prices = price("input_cost_per_token").zip(price("output_cost_per_token"));
    Extras {
        upstream_model: (upstream != deployment.model_name).then(|| upstream.to_owned()),
        prices,
        max_input: count(info, "max_input_tokens"),
        max_output: count(info, "max_output_tokens").or_else(|| count(info, "max_tokens")),
        requests_per_minute: count(params, "rpm"),
        tokens_per_minute: count(params, "tpm"),
        ..Extras::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries as LiteLLM's documentation shows them.
    const CONFIG: &str = r#"
model_list:
  - model_name: qwen3
    litellm_params:
      model: hosted_vllm/Qwen/Qwen3-32B
      api_base: http://gpu1:8000/v1
      api_key: os.environ/VLLM_KEY
      rpm: 60
      tpm: 100000
    model_info:
      max_input_tokens: 30000
      max_output_tokens: 2000
      input_cost_per_token: 0.0000002
      output_cost_per_token: 0.0000004
  - model_name: qwen3
    litellm_params:
      model: hosted_vllm/Qwen/Qwen3-32B
      api_base: http://gpu2:8000/v1/
      api_key: os.environ/VLLM_KEY
      rpm: 60
  - model_name: llama3.1
    litellm_params: {model: ollama_chat/llama3.1}
  - model_name: local
    litellm_params: {model: openai/local, api_base: "http://gpu3:8080", api_key: sk-secret-in-file}
  - model_name: claude
    litellm_params: {model: anthropic/claude-sonnet-4, api_key: os.environ/ANTHROPIC_API_KEY}
  - model_name: "openai/*"
    litellm_params: {model: "openai/*"}
litellm_settings:
  drop_params: true
  request_timeout: 90
  cache: true
  fallbacks: [{"qwen3": ["llama3.1", "claude"]}]
router_settings:
  model_group_alias: {"gpt-4": "qwen3", "gone": "nothing"}
general_settings:
  master_key: sk-master
"#;

    #[test]
    fn models_servers_keys_prices_limits_aliases_and_fallbacks_are_taken_over() {
        let read = parse(CONFIG).expect("valid");
        let names: Vec<&str> = read.models.iter().map(|model| model.name.as_str()).collect();
        assert_eq!(names, ["qwen3", "llama3.1", "local"]);
        let qwen = &read.models[0];
        let servers: Vec<(&str, Option<&str>)> = qwen
            .servers
            .iter()
            .map(|server| (server.url.as_str(), server.key_env.as_deref()))
            .collect();
        assert_eq!(
            servers,
            [
                ("http://gpu1:8000", Some("VLLM_KEY")),
                ("http://gpu2:8000", Some("VLLM_KEY"))
            ]
        );
        assert_eq!(
            qwen.extras,
            Extras {
                upstream_model: Some("Qwen/Qwen3-32B".to_owned()),
                prices: Some((0.0002, 0.0004)),
                max_input: Some(30_000),
                max_output: Some(2_000),
                aliases: vec!["gpt-4".to_owned()],
                fallbacks: vec!["llama3.1".to_owned()],
                requests_per_minute: Some(120),
                tokens_per_minute: Some(100_000),
            }
        );
        assert_eq!(read.models[1].servers[0].url, "http://localhost:11434");
        assert_eq!(read.models[1].protocol, Protocol::Ollama);
        assert_eq!(read.request_timeout, Some(90));
    }

    #[test]
    fn what_has_no_counterpart_is_named_and_no_secret_is_copied() {
        let read = parse(CONFIG).expect("valid");
        let notes = read.notes.join("\n");
        for words in [
            "model `claude` is left out: Sluice does not speak the API of the provider `anthropic`",
            "model `openai/*` is left out",
            "`local` stands in the file: put it into the environment variable UPSTREAM_API_KEY",
            "alias `gone` is left out",
            "there is no model `claude`",
            "not taken over: litellm_settings.cache, general_settings.master_key",
            "US dollars",
        ] {
            assert!(notes.contains(words), "{words}: {notes}");
        }
        assert!(!format!("{read:?}").contains("sk-"), "{read:?}");
    }

    #[test]
    fn a_file_without_a_usable_model_says_why() {
        for (text, words) in [
            (
                "model_list: [{model_name: a, litellm_params: {model: bedrock/x}}]",
                "bedrock",
            ),
            ("model_list: 7", "not a config.yaml"),
            ("{}", "no model"),
        ] {
            let why = parse(text).map(|_| ()).expect_err(text);
            assert!(why.contains(words), "{text}: {why}");
        }
    }
}
