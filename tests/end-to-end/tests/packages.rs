//! What `make dist` packs: the tarball and the Debian package, read by Debian's own tools, and the programs in them.

use end_to_end::{Ends, program, root, wait_for};
use std::path::Path;
use std::process::{Command, Stdio};

fn ran(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; `tests/setup test` installs it"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    said
}

/// Packs the programs that the tests run; the sums of what was made.
fn packed(into: &Path) -> String {
    let programs = program("sluice");
    ran(Command::new(root().join("deploy/dist"))
        .arg(programs.parent().expect("a directory"))
        .arg(into)
        .env("DEB_COMPRESSION", "none")
        .env("SOURCE_DATE_EPOCH", "1800000000"))
}

fn only(directory: &Path, ending: &str) -> std::path::PathBuf {
    let mut found = std::fs::read_dir(directory)
        .expect("made")
        .map(|entry| entry.expect("an entry").path());
    found
        .find(|path| path.to_string_lossy().ends_with(ending))
        .unwrap_or_else(|| panic!("no {ending}"))
}

#[tokio::test]
async fn packages_hold_working_programs_with_manuals_completions_units_and_the_same_bytes_each_time() {
    let directory = tempfile::tempdir().expect("a directory");
    let (one, other) = (directory.path().join("one"), directory.path().join("other"));
    assert_eq!(packed(&one), packed(&other), "not the same bytes");

    let package = only(&one, ".deb");
    let said = ran(Command::new("dpkg-deb").arg("--info").arg(&package));
    assert!(
        said.contains("Package: sluice") && said.contains("libc6 (>= "),
        "{said}"
    );
    let installed = directory.path().join("root");
    ran(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&installed));
    let unpacked = directory.path().join("unpacked");
    std::fs::create_dir(&unpacked).expect("a directory");
    ran(Command::new("tar")
        .arg("-xzf")
        .arg(only(&one, ".tar.gz"))
        .args(["--strip-components=1", "-C"])
        .arg(&unpacked));
    ran(Command::new("diff").arg("-r").arg(&installed).arg(&unpacked));

    for name in ["sluice", "sluice-stress", "sluice-eval", "simulated-upstream"] {
        let said = ran(Command::new(installed.join("usr/bin").join(name)).arg("--version"));
        assert!(said.contains(env!("CARGO_PKG_VERSION")), "{name}: {said}");
        let page = installed.join(format!("usr/share/man/man1/{name}.1.gz"));
        let text = ran(Command::new("zcat").arg(&page));
        assert!(text.starts_with(".\\\"") && text.contains(".SH NAME"), "{name}: {text}");
    }
    assert!(installed.join("usr/share/man/man1/sluice-keys.1.gz").exists());
    ran(Command::new("bash")
        .arg("-n")
        .arg(installed.join("usr/share/bash-completion/completions/sluice")));
    let unit = std::fs::read_to_string(installed.join("usr/lib/systemd/system/sluice.service")).expect("a unit");
    assert!(
        unit.contains("ExecStart=/usr/bin/sluice serve --config /etc/sluice"),
        "{unit}"
    );

    // The packaged gateway serves the packaged configuration.
    let work = directory.path().join("work");
    std::fs::create_dir(&work).expect("a directory");
    let _gateway = Ends(
        Command::new(installed.join("usr/bin/sluice"))
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--admin-listen",
                "127.0.0.1:0",
                "--config",
            ])
            .arg(installed.join("etc/sluice"))
            .current_dir(&work)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("started"),
    );
    wait_for("the packaged gateway", || async {
        work.join("data/sluice.addr").exists().then_some(())
    })
    .await;
    ran(Command::new(installed.join("usr/bin/sluice"))
        .arg("health")
        .current_dir(&work));
}
