//! `sluice limits`: what is left of a project's, user's or key's limits, and what each gateway of a cluster holds of them.

use super::Failure;
use super::client::{Admin, AdminArgs};
use super::members;
use super::table::aligned;
use crate::percent::push_encoded;
use clap::{Args, ValueEnum};
use serde_json::Value;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(super) struct LimitsArgs {
    /// Whose limits.
    #[arg(value_enum)]
    scope: Scope,
    /// Id of the project, user or key.
    id: String,
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Scope {
    Project,
    User,
    Key,
}

pub(super) fn run(args: &LimitsArgs) -> Result<ExitCode, Failure> {
    let scope = match args.scope {
        Scope::Project => "project",
        Scope::User => "user",
        Scope::Key => "key",
    };
    let mut path = format!("/limits/{scope}/");
    push_encoded(&mut path, &args.id);
    let limits = Admin::find(&args.admin)?.get(&path)?;
    if args.json {
        println!("{limits}");
    } else {
        print!("{}", render(&limits));
    }
    Ok(ExitCode::SUCCESS)
}

fn render(limits: &Value) -> String {
    let head = ["limit", "used", "reserved", "remaining", "of", "resets"].map(str::to_owned);
    let rates = list(&limits["rates"]).map(|rate| {
        let used = whole(&rate["limit"]).saturating_sub(whole(&rate["remaining"]));
        let resets = rate["resets_in_seconds"].as_f64().unwrap_or_default();
        [
            name(rate),
            used.to_string(),
            String::new(),
            figure(&rate["remaining"]),
            figure(&rate["limit"]),
            format!("in {resets:.0} s"),
        ]
    });
    let allowances = list(&limits["allowances"]).filter(|one| !one["limit"].is_null());
    let allowances = allowances.map(|one| {
        [
            name(one),
            figure(&one["used"]),
            figure(&one["reserved"]),
            figure(&one["remaining"]),
            figure(&one["limit"]),
            one["resets_at"].as_str().unwrap_or_default().to_owned(),
        ]
    });
    let rows: Vec<_> = [head].into_iter().chain(rates).chain(allowances).collect();
    if rows.len() == 1 {
        return "no limits\n".to_owned();
    }
    aligned(&rows, 1) + &cluster(&limits["cluster"])
}

/// What each gateway holds of each limit; nothing where one gateway serves.
fn cluster(cluster: &Value) -> String {
    if list(&cluster["members"]).count() < 2 {
        return String::new();
    }
    let mut rows = vec![["limit", "gateway", "used by all", "granted in advance"].map(str::to_owned)];
    for limit in list(&cluster["rates"]).chain(list(&cluster["allowances"])) {
        let all = "all".to_owned();
        rows.push([name(limit), all, figure(&limit["used"]), figure(&limit["granted"])]);
        for member in list(&limit["members"]) {
            let gateway = members::name_of(&cluster["members"], &member["gateway"]);
            rows.push([String::new(), gateway, String::new(), figure(&member["granted"])]);
        }
    }
    let detail = cluster["detail"]
        .as_str()
        .map(|detail| format!("not known: {detail}\n"));
    format!("\n{}{}", aligned(&rows, 2), detail.unwrap_or_default())
}

/// The name of a rate limit, or of a quota or budget.
fn name(limit: &Value) -> String {
    match limit["counts"].as_str() {
        Some(counts) if limit["limit_of"] == "plan" => format!("{counts} of the plan"),
        Some(counts) => counts.to_owned(),
        None => format!(
            "{} a {}",
            limit["measure"].as_str().unwrap_or_default(),
            limit["window"].as_str().unwrap_or_default()
        ),
    }
}

fn figure(value: &Value) -> String {
    if value.is_null() {
        String::new()
    } else {
        value.to_string()
    }
}

fn whole(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn limits_are_a_table_and_in_a_cluster_another_says_who_holds_what() {
        let mut limits = json!({
            "rates": [{"limit_of": "plan", "counts": "requests per minute", "limit": 300, "remaining": 100, "resets_in_seconds": 40.2}],
            "allowances": [
                {"window": "month", "measure": "eur", "limit": 50.0, "used": 1.5, "reserved": 0.0, "remaining": 48.5, "resets_at": "2026-12-01T00:00:00Z"},
                {"window": "day", "measure": "tokens", "limit": null, "used": 7, "reserved": 0, "remaining": null, "resets_at": ""},
            ],
        });
        let alone = "limit                            used  reserved  remaining    of                resets\n\
                     requests per minute of the plan   200                  100   300               in 40 s\n\
                     eur a month                       1.5       0.0       48.5  50.0  2026-12-01T00:00:00Z\n";
        assert_eq!(render(&limits), alone);
        limits["cluster"] = json!({
            "members": [{"gateway": "5f", "name": "gw-1"}, {"gateway": "9b", "name": "gw-2"}],
            "rates": [{"limit_of": "plan", "counts": "requests per minute", "limit": 300, "used": 190, "granted": 12,
                "members": [{"gateway": "5f", "granted": 10}, {"gateway": "gone", "granted": 2}]}],
            "allowances": [],
        });
        let cluster = "\nlimit                            gateway    used by all  granted in advance\n\
                       requests per minute of the plan  all                190                  12\n\
                       \x20                                gw-1 (5f)                               10\n\
                       \x20                                gone                                     2\n";
        assert_eq!(render(&limits), format!("{alone}{cluster}"));
    }
}
