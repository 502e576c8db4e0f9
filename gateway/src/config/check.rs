//! From what was written to what was meant: references across files, ranges, contradictions. Goes on
//! after a mistake, so that all are found.

use super::Found;
use super::address::listen_address;
use super::checked::{
    Config, ConnectionBounds, Gateway, Identity, Project, Startup, StoredResponses, Telemetry, Tls, User,
};
use super::checks::{Check, band};
use super::kept::{Durability, FileSettings, StoredResponseSettings};
use super::levels;
use super::limits::allowance;
use super::models::expanded;
use super::raw::{self, IdentityMode};
use super::read::{At, Named};
use super::report::Problem;
use ledger::files::FileBounds;
use policy::{BreakerRules, Class, Objectives, PlanId, ProjectId, Rates, SubjectRules, UserId};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Records are kept for a hundred years at most, or for ever.
const MAX_RETENTION_DAYS: u64 = 36_500;

/// The same for what clients have the gateway keep.
const MAX_KEEP_DAYS: f64 = 36_500.0;

const DAY_SECONDS: f64 = 86_400.0;

/// The files that were read; `None` where one could not be.
pub(super) type Files = (
    Option<raw::UsersFile>,
    Option<raw::ProjectsFile>,
    Option<raw::ModelsFile>,
    Option<raw::LimitsFile>,
    Option<levels::DegradationFile>,
    Option<raw::GatewayFile>,
);

/// Checks across files; what it returns is right if no problem was added.
pub(super) fn check(dir: &Path, files: Files, found: &Found, problems: &mut Vec<Problem>) -> Option<Config> {
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
    let discoveries = models.as_ref().map(|file| check.discoveries(&file.models));
    let models = models.map(|file| expanded(file.models, found));
    let mut models = models.map(|models| check.models(&models, &defaults, total));
    let degradation = degradation.map(|file| check.degradation(&file));
    if let Some((_, file)) = &mut limits {
        check.single_limits(
            file,
            projects.as_deref_mut(),
            users.as_deref_mut(),
            models.as_mut().map(|(all, _)| &mut all[..]),
        );
    }
    let gateway = gateway.and_then(|file| check.gateway(&file, user_names.as_deref(), project_names.as_deref()));
    let (models, models_by_name) = models?;
    let (users, (limits, _)) = (users?, limits?);
    let users_by_id = users
        .iter()
        .zip(0u32..)
        .map(|(user, index)| (user.id.clone(), UserId(index)));
    Some(Config {
        written: Value::Null,
        warnings: Vec::new(),
        users_by_id: users_by_id.collect(),
        users,
        projects: projects?,
        plans: limits.plans,
        models,
        models_by_name,
        degradation: degradation?,
        scheduling: limits.scheduling,
        token_weights: limits.token_weights,
        global: limits.global,
        keys: limits.keys,
        request_timeout: limits.request_timeout,
        gateway: gateway?,
        discoveries: discoveries?,
    })
}

impl Check<'_> {
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
                objectives: self.objectives(&format!("projects.{}.slo", id.value), project.slo.as_ref()),
            });
            if let Some(at) = &project.max_concurrent_requests {
                let key = format!("projects.{}.max_concurrent_requests", id.value);
                self.at_least_one_of("projects.yaml", &key, at.line, at.value);
            }
        }
        projects
    }

    fn objectives(&mut self, prefix: &str, slo: Option<&raw::Slo>) -> Objectives {
        let Some(slo) = slo else {
            return Objectives::default();
        };
        let mut objective = |name: &str, at: Option<&At<Duration>>| {
            let at = at?;
            if at.line > 0 && at.value.is_zero() {
                let key = format!("{prefix}.{name}");
                self.problem("projects.yaml", at.line, key, "must be more than 0");
            }
            Some(at.value)
        };
        Objectives {
            first_token: objective("first_token_seconds", slo.first_token_seconds.as_ref()),
            total: objective("total_seconds", slo.total_seconds.as_ref()),
        }
    }

    fn gateway(
        &mut self,
        raw: &raw::GatewayFile,
        users: Option<&[String]>,
        projects: Option<&[String]>,
    ) -> Option<Gateway> {
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
        if let Some(url) = &raw.cluster_url
            && !["redis://", "rediss://"]
                .iter()
                .any(|scheme| url.value.starts_with(scheme))
        {
            let message =
                "must begin with redis://, or with rediss:// for TLS, such as redis://valkey.example.org:6379";
            self.problem(file, url.line, "cluster_url".to_owned(), message);
        }
        if let Some(days) = &raw.retention_days {
            self.at_least_one(file, "retention_days", days);
            if days.value > MAX_RETENTION_DAYS {
                let message = format!("must be at most {MAX_RETENTION_DAYS}; omit it to keep records forever");
                self.problem(file, days.line, "retention_days".to_owned(), message);
            }
        }
        let timeouts = &raw.timeouts;
        Some(Gateway {
            startup: Startup {
                listen: listen?,
                admin_listen: admin_listen?,
                data_dir: PathBuf::from(&raw.data_dir),
                database_url: raw.database_url.value.clone(),
                cluster_url: raw.cluster_url.as_ref().map(|url| url.value.clone()),
                retention: raw
                    .retention_days
                    .as_ref()
                    .map(|days| Duration::from_secs(days.value.saturating_mul(86_400))),
                metrics_need_token: raw.metrics_need_token,
                ledger_backlog: raw.bounds.ledger_backlog,
                ledger_durability: match raw.ledger.durability {
                    Durability::Relaxed => ledger::Durability::Relaxed,
                    Durability::Strict => ledger::Durability::Strict,
                    Durability::Synced => ledger::Durability::Synced,
                },
                drain: timeouts.drain_seconds,
                tls: raw.tls.as_ref().and_then(|tls| self.tls(tls)),
                telemetry: self.telemetry(&raw.telemetry),
            },
            identity: match raw.identity.value {
                IdentityMode::Open => Identity::Open { default_user },
                IdentityMode::Keys => Identity::Keys,
            },
            jwt: self.jwt(raw.jwt.as_ref(), users),
            oidc: self.oidc(raw.oidc.as_ref(), projects),
            simulated: raw.simulated,
            max_body_bytes: raw.bounds.max_body_bytes,
            max_response_bytes: raw.bounds.max_response_bytes,
            max_buffered_bytes: raw.bounds.max_buffered_bytes,
            connections: self.connections(&raw.bounds),
            wrong_credentials_per_minute: raw.bounds.wrong_credentials_per_minute.value,
            files: self.files(&raw.bounds),
            max_unfinished_batches: raw.bounds.max_unfinished_batches.value.try_into().unwrap_or(usize::MAX),
            max_ended_batches: raw.bounds.max_ended_batches.value.into(),
            stored_responses: self.stored_responses(&raw.stored_responses),
            files_keep: self.kept_files(&raw.files),
            head_timeout: timeouts.head_seconds,
            body_timeout: timeouts.body_seconds,
            keepalive: timeouts.keepalive_seconds,
            probes: (!raw.health.interval_seconds.is_zero())
                .then_some((raw.health.interval_seconds, raw.health.timeout_seconds)),
            breaker: self.breaker(&raw.health),
            attempts: self.attempts(&raw.retries),
            retry_share: raw.retries.share.value,
            log_requests: raw.telemetry.log_requests,
            cors_origins: self.origins(&raw.cors_origins),
            admin_hosts: self.host_names(&raw.admin_hosts),
            ollama_version: raw.ollama_version.clone(),
        })
    }

    /// Origins as browsers send them: a scheme and a host, perhaps a port, and no path; or `*`.
    fn origins(&mut self, raw: &[At<String>]) -> Vec<String> {
        for origin in raw {
            let host = ["http://", "https://"]
                .iter()
                .find_map(|scheme| origin.value.strip_prefix(scheme));
            let is_origin = host.is_some_and(|host| !host.is_empty() && !host.contains('/'));
            if !is_origin && origin.value != "*" {
                let message = format!(
                    "`{}` is not an origin such as https://chat.example.org, nor `*`",
                    origin.value
                );
                self.problem("gateway.yaml", origin.line, "cors_origins".to_owned(), message);
            }
        }
        raw.iter().map(|origin| origin.value.clone()).collect()
    }

    /// Host names without scheme, port and path.
    fn host_names(&mut self, raw: &[At<String>]) -> Vec<String> {
        for host in raw {
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
            if host.value.is_empty() || !host.value.bytes().all(is_name) {
                let message = format!("`{}` is not a host name such as sluice.example.org", host.value);
                self.problem("gateway.yaml", host.line, "admin_hosts".to_owned(), message);
            }
        }
        raw.iter().map(|host| host.value.clone()).collect()
    }

    /// Settings of stored responses; `None`: none are stored.
    fn stored_responses(&mut self, raw: &StoredResponseSettings) -> Option<StoredResponses> {
        self.at_least_one("gateway.yaml", "stored_responses.max_turns", &raw.max_turns);
        Some(StoredResponses {
            keep: self.days("stored_responses.keep_days", raw.keep_days.as_ref())?,
            max_bytes: i64::try_from(raw.max_bytes).unwrap_or(i64::MAX),
            max_turns: raw.max_turns.value.max(1).into(),
        })
    }

    /// Retention of files and ended batches; `None`: until they are deleted.
    fn kept_files(&mut self, raw: &FileSettings) -> Option<Duration> {
        self.days("files.keep_days", raw.keep_days.as_ref())
    }

    fn days(&mut self, key: &str, days: Option<&At<f64>>) -> Option<Duration> {
        let days = days?;
        if days.value <= 0.0 || days.value > MAX_KEEP_DAYS {
            let message = format!("must be above 0 and at most {MAX_KEEP_DAYS}; omit it for the default");
            self.problem("gateway.yaml", days.line, key.to_owned(), message);
            return None;
        }
        Some(Duration::from_secs_f64(days.value * DAY_SECONDS))
    }

    fn telemetry(&mut self, raw: &raw::Telemetry) -> Telemetry {
        let file = "gateway.yaml";
        let ratio = &raw.sample_ratio;
        if ratio.value > 1.0 {
            let message = "must be at most 1, which traces every request";
            self.problem(file, ratio.line, "telemetry.sample_ratio".to_owned(), message);
        }
        if let Some(endpoint) = &raw.otlp_endpoint {
            let is_address = ["http://", "https://"]
                .iter()
                .any(|scheme| endpoint.value.starts_with(scheme));
            if !is_address && endpoint.line > 0 {
                let message = format!("`{}` is not an address such as http://127.0.0.1:4318", endpoint.value);
                self.problem(file, endpoint.line, "telemetry.otlp_endpoint".to_owned(), message);
            }
        }
        Telemetry {
            is_json: raw.log_format == raw::LogFormat::Json,
            otlp_endpoint: raw
                .otlp_endpoint
                .as_ref()
                .map(|at| at.value.trim_end_matches('/').to_owned()),
            sample_ratio: ratio.value,
            service_name: raw.service_name.clone(),
        }
    }

    fn tls(&mut self, raw: &raw::Tls) -> Option<Tls> {
        let files = [
            ("tls.cert_file", Some(&raw.cert_file)),
            ("tls.key_file", Some(&raw.key_file)),
            ("tls.client_ca_file", raw.client_ca_file.as_ref()),
        ];
        let mut are_there = true;
        for (key, file) in files {
            are_there &= file.is_none_or(|file| self.file_is_there("gateway.yaml", key, file));
        }
        are_there.then(|| Tls {
            cert_file: raw.cert_file.value.clone(),
            key_file: raw.key_file.value.clone(),
            client_ca_file: raw.client_ca_file.as_ref().map(|at| at.value.clone()),
        })
    }

    fn breaker(&mut self, raw: &raw::Health) -> BreakerRules {
        self.at_least_one("gateway.yaml", "health.failures", &raw.failures);
        BreakerRules {
            failures: raw.failures.value.max(1),
            rest: raw.rest_seconds,
            longest_rest: raw.longest_rest_seconds.max(raw.rest_seconds),
            slow_start: raw.slow_start_seconds,
        }
    }

    fn connections(&mut self, raw: &raw::Bounds) -> ConnectionBounds {
        let file = "gateway.yaml";
        self.at_least_one(file, "bounds.max_connections", &raw.max_connections);
        self.at_least_one(
            file,
            "bounds.max_connections_per_address",
            &raw.max_connections_per_address,
        );
        self.at_least_one(file, "bounds.max_http2_control_frames", &raw.max_http2_control_frames);
        self.at_least_one(
            file,
            "bounds.wrong_credentials_per_minute",
            &raw.wrong_credentials_per_minute,
        );
        ConnectionBounds {
            total: raw.max_connections.value,
            per_address: raw.max_connections_per_address.value,
            reserved_descriptors: raw.reserved_descriptors,
            control_frames: raw.max_http2_control_frames.value,
        }
    }

    fn files(&mut self, raw: &raw::Bounds) -> FileBounds {
        let file = "gateway.yaml";
        self.at_least_one(file, "bounds.max_files", &raw.max_files);
        self.at_least_one(file, "bounds.max_unfinished_batches", &raw.max_unfinished_batches);
        self.at_least_one(file, "bounds.max_ended_batches", &raw.max_ended_batches);
        FileBounds {
            count: raw.max_files.value.into(),
            bytes: i64::try_from(raw.max_files_bytes).unwrap_or(i64::MAX),
        }
    }

    fn attempts(&mut self, raw: &raw::Retries) -> usize {
        self.at_least_one("gateway.yaml", "retries.attempts", &raw.attempts);
        usize::try_from(raw.attempts.value.max(1)).unwrap_or(1)
    }

    fn address(&mut self, key: &str, text: &At<String>) -> Option<SocketAddr> {
        let parsed = listen_address(&text.value);
        match parsed {
            Ok(address) => Some(address),
            Err(message) => {
                if !text.value.is_empty() {
                    self.problem("gateway.yaml", text.line, key.to_owned(), message);
                }
                None
            }
        }
    }
}

fn names<T>(all: &[T], name: impl Fn(&T) -> &String) -> Vec<String> {
    all.iter().map(|one| name(one).clone()).collect()
}
