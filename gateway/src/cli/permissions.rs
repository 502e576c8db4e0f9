//! Access to what the gateway writes: its own user's alone. Files that it creates get no rights for others, by the
//! process's umask; files of earlier starts, or of a copy, are narrowed at the start.

use crate::config::checked::Startup;
use nix::sys::stat::{Mode, umask};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The rights of the group and of all others.
const OTHERS: u32 = 0o077;

/// The right of everybody to write.
const WRITE_OF_ALL: u32 = 0o002;

/// The bit of directories that many users share, such as /tmp.
const STICKY: u32 = 0o1000;

/// The result of narrowing.
#[derive(Debug, Default)]
struct Narrowed {
    paths: Vec<PathBuf>,
    failed: Vec<(PathBuf, io::Error)>,
}

/// Takes the rights of others from all files and directories that this process will create.
pub(super) fn restrict_new_files() {
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
}

/// Takes the rights of others from the data directory, the database, the journal, files, answers and the admin token, and
/// writes one line to the log if there were any. Other files in the data directory are left alone. Blocks.
pub(super) fn restrict_existing(startup: &Startup) {
    let mut narrowed = Narrowed::default();
    let data_dir = &startup.data_dir;
    narrowed.narrow(data_dir);
    for name in ["admin.token", "gateway.id", "sluice.addr"] {
        narrowed.narrow(&data_dir.join(name));
    }
    for name in ["answers", "files"] {
        narrowed.narrow_tree(&data_dir.join(name));
    }
    match ledger::paths(&startup.database_url, data_dir) {
        Ok(files) => files.iter().for_each(|file| narrowed.narrow(file)),
        Err(error) => tracing::warn!(%error, "cannot look for files of the database and the journal"),
    }
    narrowed.report(data_dir);
}

impl Narrowed {
    /// Narrows a file or directory; a symbolic link and what it leads to stay as they are.
    fn narrow(&mut self, path: &Path) {
        let Ok(metadata) = fs::symlink_metadata(path) else {
            return;
        };
        let mode = metadata.permissions().mode();
        let is_shared = metadata.is_dir() && mode & STICKY != 0;
        if metadata.is_symlink() || is_shared || mode & OTHERS == 0 {
            return;
        }
        match fs::set_permissions(path, Permissions::from_mode(mode & 0o7777 & !OTHERS)) {
            Ok(()) => self.paths.push(path.to_owned()),
            // A volume's root belongs to another user in a container; who may only look in it finds closed files.
            Err(_) if metadata.is_dir() && mode & WRITE_OF_ALL == 0 => {}
            Err(error) => self.failed.push((path.to_owned(), error)),
        }
    }

    /// Narrows a directory and all that is in it.
    fn narrow_tree(&mut self, dir: &Path) {
        self.narrow(dir);
        let Ok(entries) = fs::read_dir(dir) else { return };
        for entry in entries.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => self.narrow_tree(&entry.path()),
                _ => self.narrow(&entry.path()),
            }
        }
    }

    fn report(&self, data_dir: &Path) {
        if let Some(first) = self.paths.first() {
            let token = data_dir.join("admin.token");
            let advice = if self.paths.contains(&token) {
                "; others could read the admin token: delete its file and restart, if they must not have it"
            } else {
                ""
            };
            tracing::warn!(
                count = self.paths.len(),
                first = %first.display(),
                "other users of this machine had access to the gateway's data; it was taken from them{advice}"
            );
        }
        for (path, error) in &self.failed {
            tracing::warn!(
                %error,
                path = %path.display(),
                "other users of this machine have access to the gateway's data, and it cannot be taken from them: run \
                 `chmod go= PATH` as its owner"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
    }

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("ours");
    }

    #[test]
    fn all_of_a_tree_is_narrowed_and_nothing_that_a_link_leads_to() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let (tree, outside) = (dir.path().join("files"), dir.path().join("outside"));
        fs::create_dir_all(tree.join("below")).expect("writable");
        fs::write(tree.join("below/file"), "").expect("writable");
        fs::write(&outside, "").expect("writable");
        symlink(&outside, tree.join("link")).expect("writable");
        for path in [&tree, &tree.join("below"), &tree.join("below/file"), &outside] {
            set(path, 0o777);
        }
        let mut narrowed = Narrowed::default();
        narrowed.narrow_tree(&tree);
        assert_eq!(narrowed.paths.len(), 3);
        assert_eq!(
            [mode(&tree), mode(&tree.join("below/file")), mode(&outside)],
            [0o700, 0o700, 0o777]
        );
    }

    #[test]
    fn a_directory_that_many_users_share_is_left_alone() {
        let dir = tempfile::TempDir::new().expect("a directory");
        set(dir.path(), 0o1777);
        let mut narrowed = Narrowed::default();
        narrowed.narrow(dir.path());
        assert_eq!((narrowed.paths.len(), mode(dir.path())), (0, 0o1777));
    }
}
