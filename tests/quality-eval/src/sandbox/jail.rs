//! The steps of a child before it becomes Python: the outer one takes new namespaces, the inner one, the first
//! process in them, a new root, limits, landlock and seccomp. Each step that fails is reported, not passed over.

use super::layers::{Layer, Layers};
use super::seccomp;
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    Scope, path_beneath_rules,
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{Gid, Uid, chdir, chown, close, geteuid, pivot_root, setgroups, setresgid, setresuid};
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, ExitCode};

/// The arguments by which the program starts as a child.
pub(crate) const OUTER: &str = "--sandbox-outer";
pub(crate) const INNER: &str = "--sandbox-inner";
/// The user and group of the sandbox.
const NOBODY: u32 = 65_534;
/// The directory that a program may write to, where there is a new root.
const WORK: &str = "/work";

/// A command, and the conditions under which it runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Spec {
    /// Python, and what of the machine's files it needs.
    pub(crate) python: PathBuf,
    pub(crate) files: Vec<PathBuf>,
    /// A private, empty directory; with a mount namespace the new root is built on it.
    pub(crate) dir: PathBuf,
    /// Python's own program.
    pub(crate) program: String,
    pub(crate) memory_bytes: u64,
    pub(crate) cpu_seconds: u64,
    /// Refuse to run if the layers are not enough.
    pub(crate) is_required: bool,
    /// The outer child's findings.
    pub(crate) layers: Layers,
}

/// The first line on a child's standard error.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SetUp {
    pub(crate) layers: Layers,
    /// The reason why Python is not started.
    pub(crate) refused: Option<String>,
}

/// If this process is a child of the sandbox, what it does until its end.
pub(crate) fn child(arguments: &[String]) -> Option<ExitCode> {
    let [_, stage, spec] = arguments else { return None };
    let run = match stage.as_str() {
        OUTER => outer,
        INNER => inner,
        _ => return None,
    };
    let done = serde_json::from_str(spec)
        .map_err(|error| error.to_string())
        .and_then(run);
    Some(done.unwrap_or_else(|why| {
        report(Layers::default(), Some(why));
        ExitCode::FAILURE
    }))
}

fn outer(mut spec: Spec) -> Result<ExitCode, String> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| error.to_string())?;
    spec.layers.note(Layer::Files, close_inherited());
    if !can_become_nobody() {
        // Gives the right to take the others; it is given up again when the new root is mounted.
        spec.layers.note(Layer::User, new_user(0));
    }
    for (layer, flag) in [
        (Layer::Pid, CloneFlags::CLONE_NEWPID),
        (Layer::Network, CloneFlags::CLONE_NEWNET),
        (Layer::Ipc, CloneFlags::CLONE_NEWIPC),
        (Layer::Mount, CloneFlags::CLONE_NEWNS),
    ] {
        spec.layers.note(layer, unshare(flag).map_err(unshare_error));
    }
    let spec = serde_json::to_string(&spec).map_err(|error| error.to_string())?;
    let status = Command::new("/proc/self/exe")
        .args([INNER, &spec])
        .env_clear()
        .status()
        .map_err(|error| format!("the sandbox's inner process: {error}"))?;
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    Ok(ExitCode::from(
        code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1),
    ))
}

/// The reason why there is no namespace, with the setting that forbids it.
fn unshare_error(error: nix::Error) -> String {
    let hint = match error {
        nix::Error::ENOSPC => " (a limit in /proc/sys/user/max_*_namespaces)",
        nix::Error::EPERM => " (forbidden by the container, or by kernel.unprivileged_userns_clone or AppArmor)",
        _ => "",
    };
    format!("unshare: {}{hint}", error.desc())
}

fn inner(mut spec: Spec) -> Result<ExitCode, String> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| error.to_string())?;
    // In a user namespace of the outer one's it looks so, too.
    let is_own = spec.layers.holds(Layer::User);
    let is_root = geteuid().is_root() && !is_own;
    let mut dir = spec.dir.clone();
    if spec.layers.holds(Layer::Mount) {
        match new_root(&spec.dir, &spec.files, is_own) {
            Ok(()) => dir = PathBuf::from(WORK),
            // The machine's files stay in sight; whether the other layers are enough is found below.
            Err(why) => spec.layers.does_not_hold(Layer::Mount, why),
        }
    }
    if is_root {
        let owned = if dir == spec.dir {
            chown(&dir, Some(Uid::from_raw(NOBODY)), Some(Gid::from_raw(NOBODY)))
        } else {
            Ok(())
        };
        let done = owned.and_then(|()| become_nobody());
        let done = done.map_err(|error| format!("changing the user to nobody: {error}"));
        spec.layers.note(Layer::User, done.and_then(|()| new_user(NOBODY)));
    } else if is_own && let Err(why) = new_user(NOBODY) {
        let why = format!("it keeps its rights inside: {why}");
        spec.layers.does_not_hold(Layer::User, why);
    }
    chdir(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    spec.layers.note(Layer::Limits, limit(&spec));
    let landlocked = lock(&spec.files, &dir);
    spec.layers.note(Layer::Landlock, landlocked);
    spec.layers.note(Layer::Seccomp, seccomp::apply());
    // The evaluator's own doing, outside of this process.
    spec.layers.note(Layer::Clock, Ok(()));
    spec.layers.note(Layer::Directory, Ok(()));
    if spec.is_required && !spec.layers.are_enough() {
        report(
            spec.layers,
            Some(
                "a program could learn of this machine's files; to run all the same, use --sandbox best-effort"
                    .to_owned(),
            ),
        );
        return Ok(ExitCode::FAILURE);
    }
    report(spec.layers, None);
    let error = Command::new(&spec.python)
        .args(["-I", "-B", "-X", "utf8", "-c", &spec.program])
        .env_clear()
        .exec();
    Err(format!("{}: {error}", spec.python.display()))
}

fn report(layers: Layers, refused: Option<String>) {
    if let Ok(line) = serde_json::to_string(&SetUp { layers, refused }) {
        eprintln!("{line}");
    }
}

/// Closes whatever is open beside the three standard files.
fn close_inherited() -> Result<(), String> {
    let open = fs::read_dir("/proc/self/fd").map_err(|error| format!("/proc/self/fd: {error}"))?;
    let numbers: Vec<i32> = open
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number > 2)
        .collect();
    for number in numbers {
        // The directory that was read is closed already.
        let _ = close(number);
    }
    Ok(())
}

/// Returns whether this is root, and the user `nobody` exists: not so in a user namespace of root
/// alone.
fn can_become_nobody() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let has_nobody = map.lines().any(|line| {
        let numbers: Vec<u64> = line
            .split_whitespace()
            .filter_map(|number| number.parse().ok())
            .collect();
        matches!(numbers[..], [first, _, count] if (first..first + count).contains(&u64::from(NOBODY)))
    });
    geteuid().is_root() && has_nobody
}

/// A user namespace in which this process is someone else, and has every right until it becomes another program (but
/// root, who keeps them).
fn new_user(inside: u32) -> Result<(), String> {
    let (uid, gid) = (geteuid(), nix::unistd::getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(unshare_error)?;
    let write = |file: &str, text: String| {
        fs::write(format!("/proc/self/{file}"), text).map_err(|error| format!("{file}: {error}"))
    };
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("{inside} {uid} 1"))?;
    write("gid_map", format!("{inside} {gid} 1"))
}

fn become_nobody() -> nix::Result<()> {
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    setgroups(&[])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    // Its own files in /proc are root's until then, and the death of its parent is forgotten.
    prctl::set_dumpable(true)?;
    prctl::set_pdeathsig(Signal::SIGKILL)
}

/// A root in memory with the files that are needed, read-only, and a directory to work in.
fn new_root(root: &Path, files: &[PathBuf], is_mapped: bool) -> Result<(), String> {
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: nix::Error| format!("{what}: {error}")
    };
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).map_err(failed("private mounts"))?;
    let memory = Some("tmpfs");
    mount(memory, root, memory, quiet, Some("size=1m,mode=755")).map_err(failed("tmpfs"))?;
    let mut files: Vec<&PathBuf> = files.iter().collect();
    files.sort_by_key(|path| path.as_os_str().len());
    for file in files.iter().filter(|path| path.exists()) {
        provide(root, file, 0)?;
    }
    let inside = |path: &str| root.join(path.trim_start_matches('/'));
    for dir in [WORK, "/old", "/proc"] {
        fs::create_dir_all(inside(dir)).map_err(|error| format!("{dir}: {error}"))?;
    }
    // The user outside, or `nobody` if that is root.
    let (uid, gid) = match geteuid().as_raw() {
        0 if !is_mapped => (NOBODY, NOBODY),
        uid => (uid, nix::unistd::getegid().as_raw()),
    };
    let options = format!("size=64m,nr_inodes=4096,mode=700,uid={uid},gid={gid}");
    mount(memory, &inside(WORK), memory, quiet, Some(options.as_str())).map_err(failed("the work directory"))?;
    // Needed to become nobody in a user namespace; landlock keeps it shut. Where it cannot be had, that layer is
    // reported.
    let _ = mount(Some("proc"), &inside("/proc"), Some("proc"), quiet, nothing);
    pivot_root(root, &inside("/old")).map_err(failed("pivot_root"))?;
    chdir("/").map_err(failed("chdir"))?;
    umount2("/old", MntFlags::MNT_DETACH).map_err(failed("the old root"))?;
    let _ = fs::remove_dir("/old");
    let sealed = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | quiet;
    mount(nothing, "/", nothing, sealed, nothing).map_err(failed("sealing the root"))
}

/// Binds a file or a directory into a new root, and makes the symbolic links on its way again.
fn provide(root: &Path, path: &Path, depth: u32) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    if depth > 16 {
        return Err(failed(&"a loop of symbolic links"));
    }
    let inside = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    let mut at = PathBuf::from("/");
    let mut parts = path.components().filter(|part| matches!(part, Component::Normal(_)));
    while let Some(part) = parts.next() {
        let parent = at.clone();
        at.push(part);
        let kind = fs::symlink_metadata(&at).map_err(|error| failed(&error))?.file_type();
        if kind.is_symlink() {
            let target = fs::read_link(&at).map_err(|error| failed(&error))?;
            if fs::symlink_metadata(inside(&at)).is_err() {
                std::os::unix::fs::symlink(&target, inside(&at)).map_err(|error| failed(&error))?;
            }
            let rest: PathBuf = parts.collect();
            return provide(root, &plain(&parent.join(target).join(rest)), depth + 1);
        }
        if at == *path {
            break;
        }
        fs::create_dir_all(inside(&at)).map_err(|error| failed(&error))?;
    }
    let to = inside(path);
    if to.exists() {
        return Ok(());
    }
    let made = if path.is_dir() {
        fs::create_dir(&to)
    } else {
        fs::write(&to, "")
    };
    made.map_err(|error| failed(&error))?;
    let nothing = None::<&str>;
    mount(Some(path), &to, nothing, MsFlags::MS_BIND | MsFlags::MS_REC, nothing).map_err(|error| failed(&error))?;
    let mut flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID;
    if !path.starts_with("/dev") {
        flags |= MsFlags::MS_NODEV;
    }
    // Restrictions of the existing mount cannot be lifted.
    let kept = statvfs(&to).map_err(|error| failed(&error))?.flags();
    if kept.contains(FsFlags::ST_NOEXEC) {
        flags |= MsFlags::MS_NOEXEC;
    }
    if kept.contains(FsFlags::ST_NODEV) {
        flags |= MsFlags::MS_NODEV;
    }
    mount(nothing, &to, nothing, flags, nothing).map_err(|error| failed(&error))
}

/// A path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

fn limit(spec: &Spec) -> Result<(), String> {
    for (what, soft, hard) in [
        (Resource::RLIMIT_AS, spec.memory_bytes, spec.memory_bytes),
        (Resource::RLIMIT_CPU, spec.cpu_seconds, spec.cpu_seconds + 1),
        (Resource::RLIMIT_FSIZE, 16 << 20, 16 << 20),
        (Resource::RLIMIT_NOFILE, 64, 64),
        (Resource::RLIMIT_NPROC, 64, 64),
        (Resource::RLIMIT_CORE, 0, 0),
        (Resource::RLIMIT_MEMLOCK, 0, 0),
        (Resource::RLIMIT_MSGQUEUE, 0, 0),
    ] {
        setrlimit(what, soft, hard).map_err(|error| format!("{what:?}: {error}"))?;
    }
    Ok(())
}

/// Landlock: reads what is needed, writes to the directory in memory, and no signals or sockets outside.
fn lock(files: &[PathBuf], dir: &Path) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let newest = ABI::V5;
    let read = AccessFs::from_read(newest);
    // Executing is for Python and the loader; a library is only mapped.
    let programs = files.iter().filter(|path| path.is_file());
    let loaders = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"].map(PathBuf::from);
    // Without a new root the directory is the machine's, and nothing bounds what is written to it.
    let own = if dir == Path::new(WORK) {
        AccessFs::from_all(newest) & !(AccessFs::Execute | AccessFs::MakeSock | AccessFs::IoctlDev)
    } else {
        read & !AccessFs::Execute
    };
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(newest))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(newest)))
        .and_then(|rules| rules.scope(Scope::from_all(ABI::V6)))
        .and_then(Ruleset::create)
        .and_then(|rules| rules.add_rules(path_beneath_rules(files, read & !AccessFs::Execute)))
        .and_then(|rules| rules.add_rules(path_beneath_rules(programs.chain(&loaders), read)))
        .and_then(|rules| {
            rules.add_rules(path_beneath_rules(
                [Path::new("/dev/null")],
                AccessFs::from_file(newest),
            ))
        })
        .and_then(|rules| rules.add_rules(path_beneath_rules([dir], own)))
        .and_then(landlock::RulesetCreated::restrict_self)
        .map_err(|error| text(&error))?;
    match status.ruleset {
        RulesetStatus::NotEnforced => Err("the kernel has none".to_owned()),
        RulesetStatus::PartiallyEnforced | RulesetStatus::FullyEnforced => Ok(()),
    }
}
