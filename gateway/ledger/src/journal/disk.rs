//! The disk that a journal is on: the file system, or in tests one that fails.

use nix::fcntl::posix_fallocate;
use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

/// A place for files.
pub(crate) trait Disk: Debug + Send + Sync {
    /// Creates a file, or opens it for appending; `is_synced`: the disk has its name on return.
    fn create(&self, path: &Path, is_synced: bool) -> io::Result<Box<dyn Append>>;
    /// Takes space, with a file that holds nothing else.
    fn reserve(&self, path: &Path, bytes: u64) -> io::Result<()>;
    /// Gives the space back.
    fn release(&self, path: &Path) -> io::Result<()>;
}

/// A file that grows at its end.
pub(crate) trait Append: Debug + Send + Sync {
    /// Appends with one `write`; how much was taken.
    fn append(&self, bytes: &[u8]) -> io::Result<usize>;
    /// Returns when the disk has everything.
    fn sync(&self) -> io::Result<()>;
}

/// The file system.
#[derive(Debug)]
pub(crate) struct FileSystem;

impl Disk for FileSystem {
    fn create(&self, path: &Path, is_synced: bool) -> io::Result<Box<dyn Append>> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        if is_synced {
            file.sync_all()?;
            let parent = path.parent().filter(|parent| *parent != Path::new(""));
            File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
        }
        Ok(Box::new(file))
    }

    fn reserve(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        let length = bytes.try_into().map_err(io::Error::other)?;
        Ok(posix_fallocate(file.as_raw_fd(), 0, length)?)
    }

    fn release(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }
}

impl Append for File {
    fn append(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut file = self;
        file.write(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

#[cfg(test)]
pub(crate) mod faulty {
    //! A disk in the file system with a size, and a switch for failing syncs.

    use super::{Append, Disk, FileSystem};
    use parking_lot::Mutex;
    use std::io;
    use std::path::Path;
    use std::sync::Arc;

    /// The space that is left on the disk.
    #[derive(Debug)]
    pub(crate) struct State {
        pub(crate) free: u64,
        pub(crate) reserved: u64,
        pub(crate) sync_fails: bool,
        pub(crate) syncs: u64,
    }

    /// Shared by a test and its journal.
    #[derive(Debug, Clone)]
    pub(crate) struct FaultyDisk(pub(crate) Arc<Mutex<State>>);

    impl FaultyDisk {
        pub(crate) fn new(free: u64) -> Self {
            Self(Arc::new(Mutex::new(State {
                free,
                reserved: 0,
                sync_fails: false,
                syncs: 0,
            })))
        }
    }

    #[derive(Debug)]
    struct FaultyFile(Box<dyn Append>, FaultyDisk);

    impl Append for FaultyFile {
        /// Takes what fits, as a full file system does, and nothing when it is full.
        fn append(&self, bytes: &[u8]) -> io::Result<usize> {
            let mut state = self.1.0.lock();
            let fits = usize::try_from(state.free).unwrap_or(usize::MAX).min(bytes.len());
            if fits == 0 {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            state.free -= fits as u64;
            self.0.append(&bytes[..fits])
        }

        fn sync(&self) -> io::Result<()> {
            let mut state = self.1.0.lock();
            state.syncs += 1;
            if state.sync_fails {
                return Err(io::Error::other("the disk does not sync"));
            }
            Ok(())
        }
    }

    impl Disk for FaultyDisk {
        fn create(&self, path: &Path, is_synced: bool) -> io::Result<Box<dyn Append>> {
            Ok(Box::new(FaultyFile(FileSystem.create(path, is_synced)?, self.clone())))
        }

        fn reserve(&self, _: &Path, bytes: u64) -> io::Result<()> {
            let mut state = self.0.lock();
            let missing = bytes - state.reserved;
            if state.free < missing {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            state.free -= missing;
            state.reserved = bytes;
            Ok(())
        }

        fn release(&self, _: &Path) -> io::Result<()> {
            let mut state = self.0.lock();
            state.free += state.reserved;
            state.reserved = 0;
            Ok(())
        }
    }
}
