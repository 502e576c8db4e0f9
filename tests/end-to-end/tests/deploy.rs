//! The files of `deploy/`, checked by the tools that will read them: promtool, docker-compose, Helm's own library,
//! systemd-analyze where it is there; and the image's entry point in a root of its own, as another user, without an
//! engine.

use end_to_end::{Ends, Gateway, as_admin, metric, program, python, root, sluice, wait_for};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

fn ran(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; `tests/setup test` installs it"));
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

/// A gateway that has had requests of all kinds, and its metrics.
async fn scraped() -> (Gateway, String) {
    let gateway = Gateway::start().await;
    let body = json!({"user_id": "user_vip_01", "model": "simulated-small", "prompt": "x", "max_tokens": 8});
    assert_eq!(gateway.post("/generate", &body).await.status(), 200);
    let streamed = json!({"model": "simulated-small", "stream": true, "max_tokens": 8, "messages": [{"role": "user", "content": "x"}]});
    let answer = gateway
        .http
        .post(format!("{}/v1/chat/completions", gateway.proxy))
        .header("x-sluice-user", "user_vip_01")
        .json(&streamed);
    answer.send().await.expect("an answer").text().await.expect("text");
    let refused = json!({"user_id": "nobody", "model": "simulated-small", "prompt": "x"});
    assert_eq!(gateway.post("/generate", &refused).await.status(), 403);
    as_admin(gateway.http.post(format!("{}/config/reload", gateway.admin))).await;
    gateway.wait_for_records(3).await;
    let text = gateway
        .http
        .get(format!("{}/metrics", gateway.admin))
        .send()
        .await
        .expect("an answer");
    let text = text.text().await.expect("text");
    (gateway, text)
}

/// The names that a scrape has, with those of histograms' parts.
fn names(scrape: &str) -> BTreeSet<String> {
    let lines = scrape.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| Some(line.split(['{', ' ']).next()?.to_owned()))
        .collect()
}

#[tokio::test]
async fn metrics_are_clean_and_dashboards_and_rules_ask_for_what_is_there() {
    let (gateway, scrape) = scraped().await;
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool; `tests/setup test` installs it");
    promtool
        .stdin
        .take()
        .expect("piped")
        .write_all(scrape.as_bytes())
        .expect("written");
    let checked: Output = promtool.wait_with_output().expect("ended");
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(checked.status.success() && said.trim().is_empty(), "{said}");
    assert!((metric(&scrape, "sluice_build_info") - 1.0).abs() < f64::EPSILON);
    for label in ["user=", "key=", "user_id=", "key_id="] {
        assert!(!scrape.contains(label), "{label} is a label");
    }
    let prometheus = root().join("deploy/prometheus");
    ran(Command::new("promtool")
        .args(["check", "config", "prometheus.yml"])
        .current_dir(&prometheus));
    ran(Command::new("promtool")
        .args(["test", "rules", "alerts_test.yaml"])
        .current_dir(&prometheus));
    // Every expression of every dashboard is PromQL, and asks for a metric or a recorded one.
    let recording = std::fs::read_to_string(prometheus.join("rules/recording.yaml")).expect("the rules");
    let alerts = std::fs::read_to_string(prometheus.join("rules/alerts.yaml")).expect("the rules");
    let mut expressions = Vec::new();
    for entry in std::fs::read_dir(root().join("deploy/grafana/dashboards")).expect("dashboards") {
        let text = std::fs::read_to_string(entry.expect("readable").path()).expect("text");
        let dashboard: Value = serde_json::from_str(&text).expect("JSON");
        let panels = dashboard["panels"].as_array().expect("panels").clone();
        let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
        expressions.extend(targets.map(|target| target["expr"].as_str().expect("an expression").to_owned()));
    }
    assert!(expressions.len() > 30);
    let rules: Vec<Value> = expressions
        .iter()
        .enumerate()
        .map(|(at, expression)| json!({"record": format!("dashboard:{at}"), "expr": expression}))
        .collect();
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("dashboards.yaml");
    std::fs::write(
        &file,
        json!({"groups": [{"name": "dashboards", "rules": rules}]}).to_string(),
    )
    .expect("writable");
    ran(Command::new("promtool")
        .args(["check", "rules", "--lint=none"])
        .arg(&file));
    // Events that have not happened are not in a scrape.
    let mut known = names(&scrape);
    let later = [
        "overrun_tokens_total",
        "model_places",
        "allowance_alerts_total",
        "queue_wait_seconds_bucket",
    ];
    known.extend(later.map(|name| format!("sluice_{name}")));
    for text in expressions.iter().chain([&recording, &alerts]) {
        let words = text.split(|each: char| !(each.is_alphanumeric() || each == '_' || each == ':'));
        for word in
            words.filter(|word| word.starts_with("sluice_") && !["sluice_recording", "sluice_alerts"].contains(word))
        {
            assert!(known.contains(word), "{word} is no metric");
        }
    }
    // Each alert has its line for whoever is woken by it.
    let operations = std::fs::read_to_string(root().join("docs/operations.md")).expect("the page");
    let named: Vec<&str> = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(named.len() >= 6);
    for name in named {
        assert!(operations.contains(&format!("### {name}\n")), "{name} has no runbook");
        assert!(
            alerts.contains(&format!("operations.md#{}", name.to_lowercase())),
            "{name} does not say where it is"
        );
    }
    drop(gateway);
}

#[test]
fn compose_files_are_right_and_name_what_is_there() {
    for file in [
        "docker-compose.yaml",
        "docker-compose.simulated.yaml",
        "docker-compose.cluster.yaml",
    ] {
        let path = root().join("deploy").join(file);
        let told = ran(Command::new("docker-compose")
            .arg("-f")
            .arg(&path)
            .arg("config")
            .env("POSTGRES_PASSWORD", "secret")
            .env("SLUICE_ADMIN_TOKEN", "admin-of-the-test"));
        assert!(told.contains("sluice-data"), "{told}");
        let text = std::fs::read_to_string(&path).expect("text");
        for line in text.lines().filter_map(|line| line.trim().strip_prefix("- .")) {
            let source = format!(".{}", line.split(':').next().expect("a path"));
            assert!(root().join("deploy").join(&source).exists(), "{file}: {source}");
        }
    }
    // The configuration of the one with Ollama.
    let dir = TempDir::new().expect("a directory");
    std::fs::create_dir(dir.path().join("config")).expect("writable");
    for entry in std::fs::read_dir(root().join("config")).expect("config/") {
        let path = entry.expect("readable").path();
        std::fs::copy(&path, dir.path().join("config").join(path.file_name().expect("a name"))).expect("copied");
    }
    std::fs::copy(
        root().join("deploy/compose/models.yaml"),
        dir.path().join("config/models.yaml"),
    )
    .expect("copied");
    let checked = sluice(dir.path(), &["check"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[tokio::test]
async fn the_chart_passes_helms_linter_and_what_it_configures_is_right() {
    let dir = TempDir::new().expect("a directory");
    let config = dir.path().join("config");
    std::fs::create_dir(&config).expect("writable");
    let chart = root().join("deploy/helm/sluice");
    let told = python::run("helm_chart.py", &[&chart.to_string_lossy(), &config.to_string_lossy()]).await;
    assert!(told.contains("chart ok"), "{told}");
    let checked = sluice(dir.path(), &["check"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

/// An instruction of the Dockerfile's last stage.
fn instruction(name: &str) -> String {
    let text = std::fs::read_to_string(root().join("deploy/Dockerfile")).expect("the Dockerfile");
    let last = text.rsplit("\nFROM ").next().expect("a stage").to_owned();
    let line = last.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("the Dockerfile has no {name}"))
        .to_owned()
}

fn words(name: &str) -> Vec<String> {
    serde_json::from_str(&instruction(name)).expect("a list")
}

/// A program of the image in its root: its user, its directory, its environment, and nothing else.
fn in_image(image: &Path, arguments: &[String]) -> Command {
    let user = instruction("USER");
    let (user, group) = user.split_once(':').expect("a user and a group");
    let mut command = Command::new("unshare");
    command
        .arg(format!("--root={}", image.display()))
        .arg(format!("--wd={}", instruction("WORKDIR")))
        .args(["--setuid", user, "--setgid", group, "--"])
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null());
    for pair in instruction("ENV").split_whitespace() {
        let (name, value) = pair.split_once('=').expect("a variable");
        command.env(name, value);
    }
    command
}

#[tokio::test]
async fn the_images_entry_point_runs_in_a_bare_root_as_another_user() {
    let image = TempDir::new().expect("a directory");
    Command::new("chmod")
        .arg("755")
        .arg(image.path())
        .status()
        .expect("chmod");
    let built = program("sluice");
    let built = built.parent().expect("target/debug");
    ran(Command::new(root().join("deploy/rootfs")).arg(built).arg(image.path()));
    let entry: Vec<String> = [words("ENTRYPOINT"), words("CMD")].concat();
    // No fixed ports in a test; everything else is the image's own.
    let log = std::fs::File::create(image.path().join("log")).expect("writable");
    let child = in_image(image.path(), &entry)
        .env("SLUICE_LISTEN", "127.0.0.1:0")
        .env("SLUICE_ADMIN_LISTEN", "127.0.0.1:0")
        .stderr(log)
        .spawn()
        .expect("unshare");
    let mut gateway = Ends(child);
    let file = image.path().join("var/lib/sluice/data/sluice.addr");
    let addresses = wait_for("start of the gateway", || async {
        let read = std::fs::read(&file).ok();
        if read.is_none() {
            assert!(
                !image.path().join("log").metadata().is_ok_and(|log| log.len() > 0)
                    || !std::fs::read_to_string(image.path().join("log"))
                        .unwrap_or_default()
                        .contains("sluice: "),
                "{}",
                std::fs::read_to_string(image.path().join("log")).unwrap_or_default()
            );
        }
        serde_json::from_slice::<Value>(&read?).ok()
    })
    .await;
    let health = instruction("HEALTHCHECK");
    let health: Vec<String> = serde_json::from_str(health.split_once("CMD ").expect("a command").1).expect("a list");
    assert_eq!(ran(&mut in_image(image.path(), &health)).trim(), "ready");
    let create = ["/usr/local/bin/sluice", "keys", "create", "--user", "user_vip_01"].map(str::to_owned);
    let key = String::from_utf8_lossy(&in_image(image.path(), &create).output().expect("it runs").stdout)
        .trim()
        .to_owned();
    assert!(key.starts_with("sk-sluice-"), "{key}");
    let url = format!(
        "http://{}/v1/chat/completions",
        addresses["proxy"].as_str().expect("an address")
    );
    let body = json!({"model": "simulated-small", "max_tokens": 4, "messages": [{"role": "user", "content": "x"}]});
    let http = reqwest::Client::new();
    let status = wait_for("the key to be known", || async {
        let answer = http.post(&url).bearer_auth(&key).json(&body).send().await.ok()?;
        (answer.status() == 200).then_some(answer.status())
    })
    .await;
    assert_eq!(status, 200);
    assert_eq!(
        http.post(&url).json(&body).send().await.expect("an answer").status(),
        401
    );
    Command::new("kill")
        .args(["-TERM", &gateway.0.id().to_string()])
        .status()
        .expect("kill");
    let ended = tokio::task::spawn_blocking(move || gateway.0.wait().expect("a child").code()).await;
    assert_eq!(ended.expect("no panic"), Some(0));
}

#[test]
fn systemd_units_are_understood_where_systemd_is() {
    let has_it = Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success());
    for name in ["sluice.service", "sluice@.service"] {
        let unit = std::fs::read_to_string(root().join("deploy/systemd").join(name)).expect("a unit");
        assert!(unit.contains("NoNewPrivileges=yes") && unit.contains("ProtectSystem=strict"));
        if !has_it {
            continue;
        }
        // With a program that is there, since it must be.
        let dir = TempDir::new().expect("a directory");
        let file = dir.path().join(name.replace('@', ""));
        let unit = unit
            .replace("/usr/local/bin/sluice", &program("sluice").to_string_lossy())
            .replace("User=sluice", "User=root");
        std::fs::write(
            &file,
            unit.replace("file:///usr/share/doc/sluice/operations.md", "file:///"),
        )
        .expect("writable");
        let told = ran(Command::new("systemd-analyze").arg("verify").arg(&file));
        assert!(!told.contains(&*file.to_string_lossy()), "{told}");
    }
}
