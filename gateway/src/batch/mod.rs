//! OpenAI's Batch API: a file of requests, done in the background as batch class through the same admission as all
//! others, so interactive traffic always comes first; a file of answers at the end. A stop or a crash loses nothing: what
//! has an answer in the output file is done, and the rest is taken up by the next start.

mod lines;
pub(crate) mod shapes;
mod worker;

pub(crate) use lines::endpoint;
pub(crate) use worker::{Unfinished, start, take_over};

use crate::proxy::Gateway;
use ledger::files::File;
use std::path::PathBuf;

/// Where a file's contents lie.
pub(crate) fn path(gateway: &Gateway, file: &File) -> PathBuf {
    path_of(gateway, &file.id)
}

fn path_of(gateway: &Gateway, id: &str) -> PathBuf {
    gateway.current.get().config.gateway.data_dir.join("files").join(id)
}
