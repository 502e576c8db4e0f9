//! Every command block of README and the guides is run as it stands, beside a gateway on its usual ports, in a network
//! of its own. A block that cannot be run says why, in a comment before it.

use end_to_end::{config_dir, llama, program, root};
use std::path::Path;
use std::process::Command;

/// A block of a page.
struct Block {
    line: usize,
    language: String,
    code: String,
    /// The reason why it is not run.
    excuse: Option<String>,
}

fn blocks(page: &str) -> Vec<Block> {
    let text = std::fs::read_to_string(root().join(page)).expect("the page");
    let (mut all, mut open, mut before) = (Vec::new(), None::<Block>, "");
    for (line, number) in text.lines().zip(1..) {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => {
                let excuse = before
                    .strip_prefix("<!-- not run: ")
                    .and_then(|rest| rest.strip_suffix(" -->"));
                open = Some(Block {
                    line: number,
                    language: language.to_owned(),
                    code: String::new(),
                    excuse: excuse.map(str::to_owned),
                });
            }
            (Some(_), Some(_)) => all.extend(open.take()),
            (Some(block), None) => block.code.extend([line, "\n"]),
            (None, None) => before = line,
        }
    }
    all
}

/// Answers that do not take long; the limits are the repository's own.
fn quick(name: &str, text: String) -> String {
    match name {
        "models.yaml" => text
            .replace("average_latency_seconds: 0.5", "average_latency_seconds: 0.1")
            .replace("average_latency_seconds: 2.0", "average_latency_seconds: 0.2"),
        _ => text,
    }
}

/// Runs a page's blocks in a place like the repository's, beside a gateway on its usual ports; how many.
fn run_page(page: &str) -> usize {
    run_page_after(
        page,
        "sluice serve 2>>sluice.log &\n\
         for _ in $(seq 200); do [ -s data/sluice.addr ] && break; sleep 0.1; done\n\
         end() { kill \"$(grep -o '\"pid\":[0-9]*' data/sluice.addr | cut -d: -f2)\"; wait; exit \"$1\"; }\n",
        &[],
    )
    .0
}

/// Runs a page's blocks after some lines, which define `end`, in further namespaces; how many, and what they print.
fn run_page_after(page: &str, before: &str, namespaces: &[&str]) -> (usize, String) {
    let dir = config_dir(quick);
    let copied = Command::new("cp")
        .args(["-r", "data"])
        .arg(dir.path())
        .current_dir(root())
        .status();
    assert!(copied.expect("cp").success());
    for left in ["usage.db", "sluice.addr", "admin.token", "gateway.id"] {
        let _ = std::fs::remove_file(dir.path().join("data").join(left));
    }
    std::fs::create_dir(dir.path().join("tests")).expect("writable");
    for (name, target) in [("llama", root().join("tests/llama")), (".work", llama::home())] {
        std::os::unix::fs::symlink(target, dir.path().join("tests").join(name)).expect("writable");
    }
    let (mut script, mut count) = (format!("set -u\nip link set lo up\n{before}"), 0);
    for block in blocks(page) {
        let how = match (block.language.as_str(), &block.excuse) {
            ("sh", None) => "bash -e -o pipefail".to_owned(),
            ("python", None) => llama::home().join("clients/bin/python").display().to_string(),
            ("sh" | "python", Some(excuse)) => {
                assert!(excuse.len() > 10, "{page}:{}: why is it not run?", block.line);
                continue;
            }
            // Pictures and configuration.
            _ => continue,
        };
        let file = format!("block-{}", block.line);
        std::fs::write(dir.path().join(&file), &block.code).expect("writable");
        let place = format!("{page}:{}", block.line);
        script.extend([
            format!("echo '=== {place}'\n"),
            format!("timeout 120 {how} {file} || {{ echo 'FAILED {place}'; end 1; }}\n"),
        ]);
        count += 1;
    }
    script += "end 0\n";
    std::fs::write(dir.path().join("page.sh"), script).expect("writable");
    let programs = program("sluice");
    for other in ["sluice-stress", "sluice-eval", "simulated-upstream"] {
        program(other);
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("unshare")
        .args(["--map-root-user", "--net"])
        .args(namespaces)
        .args(["bash", "page.sh"])
        .env(
            "PATH",
            format!("{}:{path}", programs.parent().expect("target/debug").display()),
        )
        .env("SLUICE_LOG", "warn")
        .env_remove("SLUICE_ADMIN_TOKEN")
        .current_dir(dir.path())
        .output()
        .expect("unshare");
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let log = std::fs::read_to_string(dir.path().join("sluice.log")).unwrap_or_default();
    assert!(output.status.success(), "{said}\n{errors}\n{log}");
    if std::env::var_os("SLUICE_SHOW_DOCUMENTS").is_some() {
        println!("{said}");
    }
    judge(page, &said);
    (count, said.into_owned())
}

/// The output that a page promises.
fn judge(page: &str, said: &str) {
    if page.ends_with("testing_strategies_guide.md") {
        let count = |of: &str| -> u32 {
            let lines = said
                .lines()
                .filter_map(|line| line.trim().strip_suffix(of)?.trim().parse::<u32>().ok());
            lines.sum()
        };
        let (taken, refused) = (count(" 200"), count(" 429"));
        assert!(
            (60..=69).contains(&taken) && taken + refused == 70,
            "{taken} taken, {refused} refused: {said}"
        );
        assert!(said.contains("capacity: "), "{said}");
        assert!(said.contains("quota_exceeded"), "{said}");
        assert!(said.contains("\nthe same\n") && said.contains("agree"), "{said}");
        assert!(said.contains("soft_pressure"), "{said}");
    }
}

#[test]
fn every_command_block_of_the_readme_runs() {
    assert!(run_page("README.md") >= 5);
}

#[test]
fn every_experiment_of_the_testing_guide_runs_with_the_promised_output() {
    assert!(run_page("docs/testing_strategies_guide.md") >= 12);
}

#[test]
fn every_command_block_of_the_tools_pages_runs() {
    for page in [
        "docs/quality-evaluator.md",
        "docs/stress-tester.md",
        "docs/simulated-upstream.md",
    ] {
        assert!(run_page(page) >= 1, "{page}");
    }
}

#[test]
fn every_command_block_of_the_pages_for_clients_and_backups_runs() {
    for (page, least) in [("docs/clients.md", 4), ("docs/backup.md", 2)] {
        assert!(run_page(page) >= least, "{page}");
    }
}

#[test]
fn the_first_evening_goes_from_nothing_to_forty_people_in_under_twenty_commands() {
    // In a namespace of processes: the servers that the page starts end with its script.
    let namespaces = ["--pid", "--fork", "--kill-child"];
    let (count, said) = run_page_after("docs/first-evening.md", "end() { exit \"$1\"; }\n", &namespaces);
    assert!(count >= 6, "{count} blocks");
    assert!(said.lines().any(|line| line.trim() == "40 200"), "{said}");
    assert!(said.contains("user_01"), "{said}");
    assert!(!said.contains("warning"), "{said}");
    let commands = blocks("docs/first-evening.md")
        .iter()
        .filter(|block| block.language == "sh")
        .flat_map(|block| block.code.lines().map(str::to_owned).collect::<Vec<_>>())
        // A line that ends with a backslash goes on in the next.
        .fold((0, false), |(commands, goes_on), line| {
            (commands + usize::from(!goes_on), line.ends_with('\\'))
        });
    assert!(commands.0 < 20, "{} commands", commands.0);
}

#[test]
fn no_page_refers_to_a_file_that_is_not_there() {
    let mut pages = vec![
        root().join("README.md"),
        root().join("deploy/README.md"),
        root().join("CONTRIBUTING.md"),
    ];
    for dir in ["docs", "docs/decisions"] {
        let listed = std::fs::read_dir(root().join(dir)).expect("a directory");
        pages.extend(
            listed
                .map(|entry| entry.expect("readable").path())
                .filter(|path| path.extension().is_some_and(|ending| ending == "md")),
        );
    }
    for page in pages {
        let text = std::fs::read_to_string(&page).expect("text");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            let target = page.parent().unwrap_or(Path::new(".")).join(file);
            assert!(target.exists(), "{}: {link}", page.display());
        }
    }
}

#[test]
fn the_pages_become_a_site_without_broken_links_that_loads_nothing_from_a_network() {
    let site = tempfile::tempdir().expect("a directory");
    let built = Command::new(root().join("deploy/docs-site/build"))
        .arg(site.path())
        .output()
        .expect("bash");
    assert!(
        built.status.success(),
        "{}{}",
        String::from_utf8_lossy(&built.stdout),
        String::from_utf8_lossy(&built.stderr)
    );
    let mut pages = 0;
    for folder in ["", "docs", "docs/decisions", "deploy"] {
        for entry in std::fs::read_dir(site.path().join(folder)).expect("built") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|name| name == "html") {
                pages += 1;
                let text = std::fs::read_to_string(&path).expect("a page");
                let loads = text.split('<').filter(|tag| {
                    let loads = [
                        "script ",
                        "img ",
                        "iframe ",
                        "link rel=\"stylesheet\"",
                        "link rel=\"preconnect\"",
                    ];
                    loads.iter().any(|name| tag.starts_with(name)) && tag.contains("//")
                });
                let foreign: Vec<&str> = loads.map(|tag| tag.split('>').next().unwrap_or_default()).collect();
                assert!(foreign.is_empty(), "{}: {foreign:?}", path.display());
            }
        }
    }
    let decisions = std::fs::read_dir(root().join("docs/decisions"))
        .expect("decisions")
        .count();
    assert!(pages > decisions + 20, "{pages} pages");
}
