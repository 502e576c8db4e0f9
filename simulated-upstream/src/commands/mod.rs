//! The program's subcommands.

pub(crate) mod calibrate;
pub(crate) mod fit;
pub(crate) mod plan;
pub(crate) mod serve;
