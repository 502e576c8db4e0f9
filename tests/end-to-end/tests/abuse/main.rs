//! Abuse of the gateway from both sides: servers that break every rule, and requests that are mutated at random. Whatever
//! comes, no request is handled by a panic, `/health` answers, memory stays bounded, and everything is given back.

mod evil;
mod http2;
mod mutated;
mod upstreams;
mod watch;
