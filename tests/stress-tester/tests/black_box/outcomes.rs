//! Outcomes of requests, and their counts.

use crate::server::{Reply, Server, Step, answer, chunk, event, plain};
use crate::{program, stress};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tempfile::TempDir;

fn refusal() -> Reply {
    Reply::Json(
        429,
        "retry-after: 1\r\n",
        json!({"error": {"message": "too many", "type": "requests", "code": "rate_limit_exceeded"}}),
    )
}

#[test]
fn refused_requests_are_counted_by_reason_and_are_not_in_latencies() {
    let server = Server::start(|seen, number| match (seen.path.as_str(), number % 10) {
        ("/v1/models", _) => Reply::Json(404, "", json!({})),
        (_, 0) => Reply::Stream("text/event-stream", plain(200, 4, 10)),
        _ => refusal(),
    });
    let run = stress(
        &server.url,
        "--protocol openai --stream --model m --requests 40 --concurrency 8 --slo ttft=10s",
    )
    .succeeded();
    let summary = run.summary();
    let completed = summary["completed_final"].as_u64().expect("a count");
    assert_eq!(completed + summary["rejected"].as_u64().expect("a count"), 40);
    assert_eq!(
        summary["reasons_by_status"]["rejected"]["rate_limit_exceeded"],
        40 - completed
    );
    assert_eq!(summary["refusals_by_reason"]["rate_limit_exceeded"], 40 - completed);
    let seconds = |name: &str| summary[name].as_f64().expect("a figure");
    assert!(seconds("p50_latency_seconds") > 0.19 && seconds("average_end_to_end_latency_seconds") > 0.22);
    assert!(summary["refusal_latency_seconds"]["p50"].as_f64().expect("a figure") < 0.1);
    assert_eq!(summary["end_to_end_latency_by_model"]["m"]["count"], completed);
    #[allow(clippy::cast_precision_loss)]
    let share = completed as f64 / 40.0;
    assert!((summary["goodput_share"].as_f64().expect("a share") - share).abs() < 1e-9);
    for (file, text) in [
        ("latest_comparison.md", "rate_limit_exceeded"),
        ("latest_report.html", "rate_limit_exceeded"),
        ("latest_results.csv", "too many"),
    ] {
        assert!(run.file(file).contains(text), "{file}");
    }
}

#[test]
fn a_refusal_is_retried_after_its_retry_after_and_then_counts_as_completed() {
    let count = AtomicUsize::new(0);
    let server = Server::start(move |_, _| {
        if count.fetch_add(1, Relaxed) == 1 {
            refusal()
        } else {
            Reply::Json(200, "", answer("a", 1))
        }
    });
    let run = stress(&server.url, "--protocol openai --model m --requests 1 --retries 2").succeeded();
    let row = &run.rows()[0];
    assert_eq!(
        (
            row.text("final_backend_status"),
            row.text("retries"),
            row.text("reason")
        ),
        ("completed", "1", "")
    );
    assert!(
        row.number("end_to_end_latency_seconds") > Some(1.0),
        "the wait is part of it"
    );
}

#[test]
fn an_unknown_model_fails_the_run_with_the_servers_message() {
    let server = Server::start(|seen, _| match seen.body["model"].as_str() {
        Some("nosuch") => Reply::Json(
            404,
            "",
            json!({"error": {"message": "The model `nosuch` does not exist.", "type": "NotFoundError", "code": 404}}),
        ),
        _ => Reply::Json(200, "", answer("a", 1)),
    });
    let run = stress(&server.url, "--protocol openai --model nosuch --model m --requests 10");
    assert_eq!(run.output.status.code(), Some(1), "{}", run.said());
    let errors = String::from_utf8_lossy(&run.output.stderr).into_owned();
    assert!(
        errors.contains(
            "model `nosuch`: none of 5 requests succeeded: 5 × NotFoundError (The model `nosuch` does not exist.)"
        ),
        "{errors}"
    );
    assert_eq!(run.summary()["completed_final"], 5);
}

#[test]
fn a_server_that_is_not_there_fails_the_run_and_every_request_is_counted() {
    let run = stress("http://127.0.0.1:9", "--protocol openai --model m --requests 5");
    assert_eq!(run.output.status.code(), Some(1), "{}", run.said());
    let summary = run.summary();
    assert_eq!(summary["reasons_by_status"]["failed"]["connection_refused"], 5);
    assert!(summary["p50_latency_seconds"].is_null());
}

#[test]
fn a_poll_that_is_answered_by_a_proxys_page_is_retried_and_counted() {
    let polls = AtomicUsize::new(0);
    let server = Server::start(move |seen, number| match seen.method.as_str() {
        "POST" => Reply::Json(
            200,
            "",
            json!({"request_id": format!("q{number}"), "status": "queued", "message": "queued"}),
        ),
        _ if !seen.path.starts_with("/requests/") => Reply::Json(404, "", json!({})),
        _ => match polls.fetch_add(1, Relaxed) % 3 {
            0 => Reply::Whole(502, "text/html", "<html>bad gateway</html>".to_owned()),
            1 => Reply::Json(200, "", json!({"status": "processing"})),
            _ => Reply::Json(
                200,
                "",
                json!({"status": "completed", "message": "a", "output_tokens": 7, "backend_name": "b"}),
            ),
        },
    });
    let run = stress(&server.url, "--requests 4 --concurrency 1 --poll-interval 0.02").succeeded();
    let summary = run.summary();
    assert_eq!(
        (
            &summary["completed_final"],
            &summary["queued_initial"],
            &summary["polling_failures"]
        ),
        (&json!(4), &json!(4), &json!(4))
    );
    let row = &run.rows()[0];
    assert_eq!(
        (
            row.text("polling_attempts"),
            row.text("output_tokens"),
            row.text("backend_name")
        ),
        ("3", "7", "b")
    );
    assert!(
        row.text("polling_error").contains("HTTP 502"),
        "{}",
        row.text("polling_error")
    );
}

#[test]
fn polling_ends_when_its_time_is_over_or_the_request_is_lost() {
    let server = Server::start(|seen, number| match (seen.method.as_str(), seen.path.as_str()) {
        ("POST", _) => Reply::Json(
            200,
            "",
            json!({"request_id": if number % 2 == 0 { "lost" } else { "slow" }, "status": "queued"}),
        ),
        (_, "/requests/lost") => Reply::Json(404, "", json!({"status": "not_found", "message": "no such request"})),
        _ => Reply::Json(200, "", json!({"status": "queued"})),
    });
    let run = stress(
        &server.url,
        "--requests 6 --concurrency 6 --poll-interval 0.05 --poll-timeout 0.4",
    );
    let reasons = &run.summary()["reasons_by_status"];
    let count = |status: &str, reason: &str| reasons[status][reason].as_u64().unwrap_or(0);
    assert_eq!(
        count("failed", "not_found") + count("timed_out", "poll_timeout"),
        6,
        "{reasons}"
    );
    assert!(
        count("failed", "not_found") > 0 && count("timed_out", "poll_timeout") > 0,
        "{reasons}"
    );
}

#[test]
fn an_answer_without_end_times_out_and_is_counted() {
    let server = Server::start(|seen, _| match seen.body["model"].as_str() {
        Some("silent") => Reply::Silence,
        Some("endless") => Reply::Stream("text/event-stream", plain(10, 1000, 20)),
        _ => Reply::Json(200, "", answer("a", 1)),
    });
    let run = stress(
        &server.url,
        "--protocol openai --stream --model silent --model endless --model good --requests 6 --concurrency 6 --request-timeout 0.5",
    )
    .succeeded();
    let summary = run.summary();
    assert_eq!(
        (&summary["timed_out_final"], &summary["completed_final"]),
        (&json!(4), &json!(2))
    );
    assert_eq!(summary["reasons_by_status"]["timed_out"]["request_timeout"], 4);
    assert_eq!(summary["measured_requests"], 2);
}

#[test]
fn requests_under_way_at_an_interrupt_are_counted_as_interrupted() {
    let server = Server::start(|seen, number| match seen.method.as_str() {
        "POST" if number < 3 => Reply::Json(200, "", answer("a", 1)),
        "POST" => Reply::Silence,
        _ => Reply::Json(404, "", json!({})),
    });
    let dir = TempDir::new().expect("a directory");
    let args = format!(
        "--base-url {} --admin-url http://127.0.0.1:9 --protocol openai --model m --requests 50 --concurrency 10 --gap 0 --out .",
        server.url
    );
    let child = program(dir.path(), &args.split(' ').collect::<Vec<_>>())
        .spawn()
        .expect("it runs");
    while server.seen("/v1/chat").len() < 12 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("it runs");
    let output = child.wait_with_output().expect("an end");
    assert!(output.status.success(), "{output:?}");
    let text = std::fs::read(dir.path().join("latest_summary.json")).expect("a summary");
    let summary: Value = serde_json::from_slice(&text).expect("JSON");
    let completed = summary["completed_final"].as_u64().expect("a count");
    assert_eq!(summary["interrupted"], 10);
    assert_eq!((completed, summary["not_sent"].as_u64()), (2, Some(38)), "{summary}");
}

#[test]
fn a_stream_that_breaks_fails_with_what_happened() {
    let server = Server::start(|seen, _| {
        let mut steps = vec![Step::Parts(1, chunk(&json!({"content": "a"})))];
        steps.extend(match seen.body["model"].as_str().unwrap_or_default() {
            "broken" => vec![Step::Wait(5), Step::Break],
            "error" => vec![Step::Send(event(
                &json!({"error": {"message": "out of memory", "code": "upstream_error"}}),
            ))],
            "garbled" => vec![Step::Send("data: {\"choices\": [{]\n\n".to_owned())],
            _ => vec![],
        });
        Reply::Stream("text/event-stream", steps)
    });
    let models = "--model broken --model error --model garbled --model short";
    let run = stress(
        &server.url,
        &format!("--protocol openai --stream --requests 8 --concurrency 1 {models}"),
    );
    let summary = run.summary();
    assert_eq!(
        (&summary["failed_final"], &summary["measured_requests"]),
        (&json!(8), &json!(0))
    );
    let expected = json!({"connection_closed": 2, "malformed_event": 2, "stream_truncated": 2, "upstream_error": 2});
    assert_eq!(summary["reasons_by_status"]["failed"], expected);
}

#[test]
fn fields_of_the_original_are_filled_without_an_admin_token() {
    let server = Server::start(|seen, _| match seen.path.as_str() {
        "/v1/models" => Reply::Json(
            200,
            "",
            json!({"object": "list", "data": [{"id": "simulated-small", "owned_by": "simulated"}]}),
        ),
        _ => Reply::Json(
            200,
            "",
            json!({"request_id": "r", "status": "completed", "message": "a"}),
        ),
    });
    let run = stress(&server.url, "--scenario vip_protection --requests 4").succeeded();
    let rows = run.rows();
    let field = |name: &str| rows.iter().map(|row| row.text(name).to_owned()).collect::<Vec<_>>();
    assert_eq!(field("backend_name"), ["simulated"; 4]);
    assert_eq!(
        field("project_id"),
        ["standard_project", "vip_project", "standard_project", "vip_project"]
    );
    assert!(
        server
            .seen("/generate")
            .iter()
            .all(|seen| seen.body["project_id"].is_null()),
        "a guess is not sent"
    );
    let original = "request_index,user_id,project_id,model,backend_name,request_type,http_status,backend_status,request_id,\
                    latency_seconds,final_backend_status,final_latency_seconds,end_to_end_latency_seconds,polling_attempts,\
                    polling_error,error,";
    assert!(run.file("latest_results.csv").starts_with(original));
}

/// A server that is tested may be anyone's: its words go to a terminal and into a spreadsheet.
#[test]
fn a_servers_words_are_no_commands_to_the_terminal_or_the_spreadsheet() {
    let server = Server::start(|_, _| {
        let error = json!({"error": {"message": "=cmd|'/c calc'!A0\u{1b}[2J\r\n\u{202e}", "code": "<img src=x>"}});
        Reply::Json(400, "", error)
    });
    let run = stress(&server.url, "--protocol openai --model m --requests 2");
    assert_eq!(run.output.status.code(), Some(1));
    let rows = run.rows();
    assert_eq!(rows[0].text("error"), "'=cmd|'/c calc'!A0 [2J   ");
    assert_eq!(rows[0].text("reason"), "http_400");
    assert!(!run.said().contains('\u{1b}'), "{}", run.said());
}
