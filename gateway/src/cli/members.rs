//! The gateways of a cluster as commands print them: a line each, and one for all.

use super::table::aligned;
use crate::cluster::state_of;
use serde_json::Value;

/// The members of `/queue/status`, and their sums; empty where one gateway serves.
pub(super) fn table(cluster: &Value) -> String {
    let members = cluster["members"].as_array().map_or(&[][..], Vec::as_slice);
    if members.len() < 2 {
        return String::new();
    }
    let head = [
        "gateway",
        "address",
        "state",
        "degradation",
        "running",
        "queued",
        "completed",
        "failed",
        "age",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for member in members {
        let word = |name: &str| member[name].as_str().unwrap_or("–").to_owned();
        rows.push([
            named(member),
            word("address"),
            state_of(member).to_owned(),
            word("current_degradation_level"),
            figure(&member["active_requests"]),
            figure(&member["queue_size"]),
            figure(&member["completed_requests"]),
            figure(&member["failed_requests"]),
            format!("{:.1} s", member["age_seconds"].as_f64().unwrap_or_default()),
        ]);
    }
    rows.push([
        format!("all {} live", cluster["live_members"]),
        String::new(),
        String::new(),
        String::new(),
        figure(&cluster["active_requests"]),
        figure(&cluster["queue_size"]),
        figure(&cluster["completed_requests"]),
        figure(&cluster["failed_requests"]),
        String::new(),
    ]);
    format!("\n{}", aligned(&rows, 4))
}

/// The name and the id of a member.
fn named(member: &Value) -> String {
    let name = member["name"].as_str().unwrap_or_default();
    let id = member["gateway"].as_str().unwrap_or_default();
    let mark = if member["is_this"] == true { ", this one" } else { "" };
    format!("{name} ({id}{mark})")
}

/// The name of the member with an id, or the id alone.
pub(super) fn name_of(members: &Value, id: &Value) -> String {
    let members = members.as_array().map_or(&[][..], Vec::as_slice);
    let member = members.iter().find(|member| member["gateway"] == *id);
    member.map_or_else(|| id.as_str().unwrap_or_default().to_owned(), named)
}

fn figure(value: &Value) -> String {
    value
        .as_u64()
        .map_or_else(|| "–".to_owned(), |figure| figure.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_gateway_has_a_line_and_all_of_them_one() {
        let member = |id: &str, state: &str, running: Option<u64>| {
            json!({
                "gateway": id, "name": "host", "address": "10.0.0.1:8000", "is_this": id == "a", "state": state,
                "coordinated": id != "b", "stopping": false, "age_seconds": 0.44, "active_requests": running,
                "queue_size": running, "completed_requests": 5, "failed_requests": 0, "current_degradation_level": "normal",
            })
        };
        let members = [
            member("a", "live", Some(3)),
            member("b", "live", Some(10)),
            member("c", "silent", None),
        ];
        let mut cluster = json!({
            "members": members, "live_members": 2, "active_requests": 13, "queue_size": 13, "completed_requests": 10,
            "failed_requests": 0,
        });
        assert_eq!(
            table(&cluster),
            "\ngateway             address        state       degradation  running  queued  completed  failed    age\n\
             host (a, this one)  10.0.0.1:8000  live        normal             3       3          5       0  0.4 s\n\
             host (b)            10.0.0.1:8000  on its own  normal            10      10          5       0  0.4 s\n\
             host (c)            10.0.0.1:8000  silent      normal             –       –          5       0  0.4 s\n\
             all 2 live                                                       13      13         10       0\n"
        );
        cluster["members"] = json!([member("a", "live", Some(3))]);
        assert_eq!((table(&cluster), table(&Value::Null)), (String::new(), String::new()));
    }
}
