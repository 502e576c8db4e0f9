//! Several gateways that share one PostgreSQL database.

mod members;
