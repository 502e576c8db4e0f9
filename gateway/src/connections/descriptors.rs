//! The process's limit on file descriptors.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// A limit that is assumed where the system does not say one.
const USUAL: usize = 1024;

/// Raises the soft limit on file descriptors to the hard one; the limit in force.
pub(crate) fn raise_limit() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return USUAL;
    };
    let limit = if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() {
        hard
    } else {
        soft
    };
    usize::try_from(limit).unwrap_or(usize::MAX)
}
