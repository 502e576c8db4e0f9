//! OpenAI's Batch API: a file of requests, done in the background as batch class through the same admission as all
//! others, so interactive traffic always comes first; a file of answers at the end. A stop or a crash loses nothing: what
//! has an answer in the output file is done, and the rest is taken up by the next start.

mod lines;
pub(crate) mod shapes;
mod worker;

pub(crate) use lines::endpoint;
pub(crate) use worker::{Batches, recover, start};

use crate::services::Services;
use ledger::files::File;
use std::path::PathBuf;

/// Where a file's contents lie.
pub(crate) fn path(services: &Services, file: &File) -> PathBuf {
    path_of(services, &file.id)
}

fn path_of(services: &Services, id: &str) -> PathBuf {
    services
        .current
        .get()
        .config
        .gateway
        .startup
        .data_dir
        .join("files")
        .join(id)
}
