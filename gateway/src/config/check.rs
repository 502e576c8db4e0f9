//! From what was written to what was meant: references across files, ranges, contradictions. Goes on
//! after a mistake, so that all are found.

use super::checked::{Backend, Config, Deadlines, Endpoint, Gateway, Identity, Model, Project, User, position};
use super::limits::{allowance, concurrency};
use super::raw::{self, IdentityMode, Places};
use super::read::{At, Named, nearest};
use super::report::Problem;
use policy::{Class, ModelId, PlanId, Prices, Priority, ProjectId, Rates, SubjectRules, UserId};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What was read; `None` where a file could not be.
pub(super) type Files = (
    Option<raw::UsersFile>,
    Option<raw::ProjectsFile>,
    Option<raw::ModelsFile>,
    Option<raw::LimitsFile>,
    Option<raw::DegradationFile>,
    Option<raw::GatewayFile>,
);

/// Checks across files; what it returns is right if no problem was added.
pub(super) fn check(dir: &Path, files: Files, problems: &mut Vec<Problem>) -> Option<Config> {
    let (users, projects, models, limits, degradation, gateway) = files;
    let mut check = Check { dir, problems };
    let mut limits = limits.map(|file| (check.limits(&file), file));
    let plan_names = limits.as_ref().map(|(limits, _)| names(&limits.plans, |plan| &plan.id));
    let mut projects = projects.map(|file| check.projects(&file.projects, plan_names.as_deref()));
    let project_names = projects.as_ref().map(|all| names(all, |project| &project.id));
    let mut users = users.map(|file| check.users(&file.users, project_names.as_deref()));
    let user_names = users.as_ref().map(|all| names(all, |user| &user.id));
    let defaults = gateway
        .as_ref()
        .map_or_else(raw::Timeouts::default, |file| file.timeouts.clone());
    let total = limits
        .as_ref()
        .map_or(Duration::ZERO, |(limits, _)| limits.request_timeout);
    let mut models = models.map(|file| check.models(&file.models, &defaults, total));
    let degradation = degradation.map(|file| check.degradation(&file));
    if let Some((_, file)) = &mut limits {
        check.single_limits(
            file,
            projects.as_deref_mut(),
            users.as_deref_mut(),
            models.as_mut().map(|(all, _)| &mut all[..]),
        );
    }
    let gateway = gateway.and_then(|file| check.gateway(&file, user_names.as_deref()));
    let (models, models_by_name) = models?;
    let (users, (limits, _)) = (users?, limits?);
    let users_by_id = users
        .iter()
        .zip(0u32..)
        .map(|(user, index)| (user.id.clone(), UserId(index)));
    Some(Config {
        users_by_id: users_by_id.collect(),
        users,
        projects: projects?,
        plans: limits.plans,
        models,
        models_by_name,
        degradation: degradation?,
        scheduling: limits.scheduling,
        global: limits.global,
        keys: limits.keys,
        request_timeout: limits.request_timeout,
        gateway: gateway?,
    })
}

/// Where a problem is: file, line and key.
pub(super) struct Check<'a> {
    dir: &'a Path,
    problems: &'a mut Vec<Problem>,
}

impl Check<'_> {
    pub(super) fn problem(&mut self, file: &str, line: usize, key: String, message: impl Into<String>) {
        self.problems.push(Problem {
            file: self.dir.join(file).to_string_lossy().into_owned(),
            line,
            key,
            message: message.into(),
        });
    }

    /// The index of a name that must exist; 0 where it does not, or is a placeholder.
    pub(super) fn reference(
        &mut self,
        (file, key): (&str, String),
        name: &At<String>,
        known: Option<&[String]>,
        what: &str,
    ) -> u32 {
        let Some(known) = known.filter(|_| name.line > 0) else {
            return 0;
        };
        if let Some(index) = position(known.iter().position(|known| *known == name.value)) {
            return index;
        }
        let hint = nearest(&name.value, known.iter().map(String::as_str)).map_or_else(
            || format!("there are {}", known.join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        self.problem(
            file,
            name.line,
            key,
            format!("there is no {what} `{}`; {hint}", name.value),
        );
        0
    }

    pub(super) fn at_least_one<T: PartialEq + From<u8>>(&mut self, file: &str, key: &str, number: &At<T>) {
        if number.line > 0 && number.value == T::from(0) {
            self.problem(file, number.line, key.to_owned(), "must be at least 1");
        }
    }

    pub(super) fn at_least_one_of(&mut self, file: &str, key: &str, line: usize, count: usize) {
        if line > 0 && count == 0 {
            self.problem(file, line, key.to_owned(), "must be at least 1");
        }
    }

    fn users(&mut self, raw: &Named<raw::User>, projects: Option<&[String]>) -> Vec<User> {
        let mut users = Vec::new();
        for (id, user) in &raw.0 {
            let key = format!("users.{}.project_id", id.value);
            let project = self.reference(("users.yaml", key), &user.project_id, projects, "project");
            users.push(User {
                id: id.value.clone(),
                name: user.name.clone(),
                project: ProjectId(project),
                class: match user.role {
                    raw::Role::Batch => Class::Batch,
                    raw::Role::User | raw::Role::Admin => Class::Interactive,
                },
                role: user.role.word(),
                enabled: user.enabled,
                is_removed: false,
                limits: SubjectRules {
                    rates: Rates::default(),
                    allowance: allowance!(self, "users.yaml", format!("users.{}", id.value), user),
                },
            });
        }
        users
    }

    fn projects(&mut self, raw: &Named<raw::Project>, plans: Option<&[String]>) -> Vec<Project> {
        let mut projects = Vec::new();
        for (id, project) in &raw.0 {
            let key = format!("projects.{}.plan", id.value);
            let plan = self.reference(("projects.yaml", key), &project.plan, plans, "plan");
            projects.push(Project {
                id: id.value.clone(),
                name: project.name.clone(),
                plan: PlanId(plan),
                priority: band(project.priority),
                enabled: project.enabled,
                is_removed: false,
                limits: SubjectRules {
                    rates: Rates::default(),
                    allowance: allowance!(self, "projects.yaml", format!("projects.{}", id.value), project),
                },
                max_concurrent_requests: project.max_concurrent_requests.as_ref().map(|at| at.value),
            });
            if let Some(at) = &project.max_concurrent_requests {
                let key = format!("projects.{}.max_concurrent_requests", id.value);
                self.at_least_one_of("projects.yaml", &key, at.line, at.value);
            }
        }
        projects
    }

    fn models(
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
            let timeouts = model.timeouts.as_ref();
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
                prices: Prices {
                    input: model.input_cost_per_1k_tokens_eur,
                    cached_input: model
                        .cached_input_cost_per_1k_tokens_eur
                        .unwrap_or(model.input_cost_per_1k_tokens_eur),
                    output: model.output_cost_per_1k_tokens_eur,
                },
                rates: Rates::default(),
                concurrency: concurrency(model),
                smaller: None,
                average_latency: model
                    .average_latency_seconds
                    .as_ref()
                    .map_or(Duration::ZERO, |at| at.value),
                endpoints: self.endpoints(&name.value, model),
                deadlines: Deadlines {
                    connect: timeouts
                        .and_then(|t| t.connect_seconds)
                        .unwrap_or(defaults.connect_seconds),
                    first_byte: timeouts
                        .and_then(|t| t.first_byte_seconds)
                        .unwrap_or(defaults.first_byte_seconds),
                    gap: timeouts.and_then(|t| t.gap_seconds).unwrap_or(defaults.gap_seconds),
                    total: timeouts.and_then(|t| t.total_seconds).unwrap_or(total),
                },
            });
        }
        self.smaller_models(raw, &mut models, &by_name);
        (models, by_name)
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
                    self.problem("models.yaml", smaller.line, key, "is this model itself");
                }
                Some(id) => models[at].smaller = Some(*id),
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
            endpoints.extend(
                self.endpoint(key("ollama_base_url"), url)
                    .map(|(authority, path_prefix)| Endpoint {
                        authority,
                        path_prefix,
                        api_key_env: None,
                        weight: 1,
                        max_concurrent_requests: None,
                    }),
            );
        }
        for (raw, index) in model.endpoints.iter().zip(0..) {
            let key = |field: &str| format!("models.{name}.endpoints.{index}.{field}");
            self.at_least_one(file, &key("weight"), &raw.weight);
            endpoints.extend(
                self.endpoint(key("base_url"), &raw.base_url)
                    .map(|(authority, path_prefix)| Endpoint {
                        authority,
                        path_prefix,
                        api_key_env: raw.api_key_env.as_ref().map(|at| at.value.clone()),
                        weight: raw.weight.value,
                        max_concurrent_requests: raw.max_concurrent_requests.as_ref().and_then(|at| match at.value {
                            Places::Fixed(count) => Some(count),
                            Places::Auto => None,
                        }),
                    }),
            );
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

    /// `http://host:port[/prefix][/v1]` taken apart.
    fn endpoint(&mut self, key: String, url: &At<String>) -> Option<(String, String)> {
        if url.line == 0 {
            return None;
        }
        let wrong = match url.value.parse::<http::Uri>() {
            Ok(uri) if uri.scheme_str() == Some("http") && uri.query().is_none() => {
                let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
                if let Some(authority) = authority {
                    let port = authority.port_u16().unwrap_or(80);
                    let path = uri.path().trim_end_matches('/');
                    let prefix = path.strip_suffix("/v1").unwrap_or(path);
                    return Some((format!("{}:{port}", authority.host()), prefix.to_owned()));
                }
                "has no host, or has a user in it"
            }
            Ok(uri) if uri.scheme_str() == Some("https") => {
                "TLS to upstreams is not there yet; use http:// (for a hosted API, through a local TLS proxy)"
            }
            _ => "is not an address such as http://127.0.0.1:8080",
        };
        self.problem("models.yaml", url.line, key, format!("`{}` {wrong}", url.value));
        None
    }

    fn gateway(&mut self, raw: &raw::GatewayFile, users: Option<&[String]>) -> Option<Gateway> {
        let file = "gateway.yaml";
        let listen = self.address("listen", &raw.listen);
        let admin_listen = self.address("admin_listen", &raw.admin_listen);
        if let (Some(proxy), Some(admin)) = (listen, admin_listen)
            && proxy == admin
            && proxy.port() != 0
        {
            self.problem(
                file,
                raw.admin_listen.line,
                "admin_listen".to_owned(),
                "is the same address as `listen`",
            );
        }
        let default_user = raw
            .default_user
            .as_ref()
            .map(|user| UserId(self.reference((file, "default_user".to_owned()), user, users, "user")));
        let url = &raw.database_url;
        let is_known = ["sqlite:", "postgres://", "postgresql://"]
            .iter()
            .any(|scheme| url.value.starts_with(scheme));
        if !is_known && url.line > 0 {
            let message = "must begin with sqlite://, such as sqlite://data/usage.db, or with postgres://";
            self.problem(file, url.line, "database_url".to_owned(), message);
        }
        if let Some(days) = &raw.retention_days {
            self.at_least_one(file, "retention_days", days);
        }
        let timeouts = &raw.timeouts;
        Some(Gateway {
            listen: listen?,
            admin_listen: admin_listen?,
            data_dir: PathBuf::from(&raw.data_dir),
            identity: match raw.identity {
                IdentityMode::Open => Identity::Open { default_user },
                IdentityMode::Keys => Identity::Keys,
            },
            database_url: raw.database_url.value.clone(),
            retention: raw
                .retention_days
                .as_ref()
                .map(|days| Duration::from_secs(days.value.saturating_mul(86_400))),
            simulated: raw.simulated,
            metrics_need_token: raw.metrics_need_token,
            max_body_bytes: raw.bounds.max_body_bytes,
            max_response_bytes: raw.bounds.max_response_bytes,
            max_buffered_bytes: raw.bounds.max_buffered_bytes,
            max_files_bytes: i64::try_from(raw.bounds.max_files_bytes).unwrap_or(i64::MAX),
            ledger_backlog: raw.bounds.ledger_backlog,
            head_timeout: timeouts.head_seconds,
            body_timeout: timeouts.body_seconds,
            keepalive: timeouts.keepalive_seconds,
            drain: timeouts.drain_seconds,
        })
    }

    fn address(&mut self, key: &str, text: &At<String>) -> Option<SocketAddr> {
        let parsed = text.value.parse().ok();
        if parsed.is_none() && !text.value.is_empty() {
            let message = format!("`{}` is not an address such as 127.0.0.1:8000", text.value);
            self.problem("gateway.yaml", text.line, key.to_owned(), message);
        }
        parsed
    }
}

fn names<T>(all: &[T], name: impl Fn(&T) -> &String) -> Vec<String> {
    all.iter().map(|one| name(one).clone()).collect()
}

pub(super) fn band(band: raw::Band) -> Priority {
    match band {
        raw::Band::High => Priority::High,
        raw::Band::Normal => Priority::Normal,
        raw::Band::Low => Priority::Low,
    }
}
