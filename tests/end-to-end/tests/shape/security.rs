//! The claims of docs/security.md: each names tests that exist, and keys that the configuration has.

use end_to_end::root;

/// The cells of the tables of attacks: attack, bound, key, test.
fn claims() -> Vec<[String; 4]> {
    table("| attack | bound | key | test |")
}

/// The cells of the tables with this head.
fn table(head: &str) -> Vec<[String; 4]> {
    let page = std::fs::read_to_string(root().join("docs/security.md")).expect("the page");
    let mut is_within = false;
    let mut rows = Vec::new();
    for line in page.lines() {
        if line == head {
            is_within = true;
        } else if !line.starts_with('|') {
            is_within = false;
        } else if is_within && !line.starts_with("|---") {
            let cells: Vec<String> = line
                .trim_matches('|')
                .split(" | ")
                .map(|cell| cell.trim().to_owned())
                .collect();
            rows.push(cells.try_into().unwrap_or_else(|_| panic!("four cells: {line}")));
        }
    }
    rows
}

/// The words between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn every_claim_on_security_names_a_test_that_exists() {
    let (mut claims, threats) = (claims(), table("| attacker | must not | protection | test |"));
    assert!(claims.len() >= 25 && threats.len() >= 11, "{} claims", claims.len());
    claims.extend(threats);
    for [attack, _, _, tests] in claims {
        let mut named = quoted(&tests).peekable();
        assert!(named.peek().is_some(), "no test is named: {attack}");
        for name in named {
            let folder = if name.contains('/') {
                ""
            } else {
                "tests/end-to-end/tests"
            };
            let path = root().join(folder).join(name);
            assert!(
                path.is_file() || path.join("main.rs").is_file(),
                "{attack}: no test {name}"
            );
        }
    }
}

#[test]
fn every_bound_that_is_said_to_be_configurable_is() {
    let page = std::fs::read_to_string(root().join("docs/configuration.md")).expect("the page");
    for [attack, _, keys, _] in claims() {
        for key in quoted(&keys) {
            let is_known = page.contains(&format!("`{key}`")) || page.contains(&format!(".{key}`"));
            assert!(is_known, "{attack}: no key {key}");
        }
    }
}
