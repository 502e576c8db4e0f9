//! Several gateways that share one PostgreSQL database.

mod balanced;
mod budget;
mod files;
mod members;
mod work;
