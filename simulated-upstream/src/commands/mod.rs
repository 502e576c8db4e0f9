//! What the program's subcommands do.

pub(crate) mod calibrate;
pub(crate) mod fit;
pub(crate) mod plan;
pub(crate) mod serve;
