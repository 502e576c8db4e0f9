//! The protocols that clients and models' servers speak: bytes in; what policy needs, translated answers and usage out.
//! Pure: no pingora, no tokio, no SQL.
//!
//! A protocol is one folder and one line of the table in `operation.rs`; what it must know of itself is the trait in
//! `dialect.rs`.

mod anthropic;
mod calls;
pub mod catalogue;
#[cfg(test)]
mod corpus;
mod dialect;
mod duration;
mod embeddings;
pub mod error;
mod form;
pub mod generate;
pub mod hub;
mod images;
pub mod meter;
mod ollama;
mod openai;
mod operation;
pub mod passthrough;
mod prefix;
mod registry;
mod request;
mod rerank;
pub mod responses;
mod route;
mod scan;
mod score;
mod size;
mod speech;
pub mod stream;
pub mod tokens;
mod transcriptions;
pub mod translate;
pub mod unsupported;
mod usage;
mod view;
pub mod whole;
mod wire;

pub use operation::{Operation, Protocol, Work};
pub use prefix::routing_prefix;
pub use registry::{answer_here, parse, parse_with_head, rewrite, rewrite_in_pieces};
pub use request::{HeadFields, LimitRule, Lowered, ModelLoad, ParsedRequest, RequestChanges, Storage};
pub use route::{Background, CleanPath, FilesAndBatches, Route, clean_path, protocol_of, route};
pub use scan::without_byte_order_mark;
pub use size::{ImageTokens, MediaTokens, PromptSize};
pub use tokens::{TextSize, Tokenizer};
