//! Several gateways that share one PostgreSQL database, and Valkey or Redis.

mod balanced;
mod budget;
mod faults;
mod files;
mod left;
mod lost_database;
mod members;
mod operators;
mod rates;
mod slots;
mod valkey;
mod valkey_tls;
mod work;
