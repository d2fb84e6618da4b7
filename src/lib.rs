//! Serverless inference: embeddings, speech-to-text and text generation on the CPU, from one small binary.
//!
//! The same binary is the AWS Lambda function, the local server and the command line. It loads a quantized model at cold start,
//! runs it, and returns embeddings, transcripts or text.
//!
//! # Data flow
//!
//! ```text
//! event ────────► lambda ─┬─► api: route, parse ─┐
//! HTTP request ─► server ─┘                      ├─► Job ─► engine ─► response (api), output (cli)
//! command line ─► cli: parse ────────────────────┘
//!
//! documents ─► pipeline: chunk, embed (engine), format, sink ─► response, file, vector database
//! ```
//!
//! | module | content |
//! |---|---|
//! | [`lambda`] | the function: HTTP events, direct invocations, and events with documents |
//! | [`server`] | the local HTTP server |
//! | [`cli`] | commands |
//! | [`api`] | the HTTP interface without sockets: route table, requests and responses of OpenAI and TEI, authorization |
//! | [`engine`] | jobs, and the models that run them, each loaded when it is first used |
//! | [`pipeline`] | document → chunk → embed → point → format → sink |
//! | [`aws`] | signed requests to AWS services; S3 and Secrets Manager |
//! | [`telemetry`] | logs, metrics and traces |
//! | [`config`] | all environment variables |
//!
//! Models and arithmetic are in separate crates: `tealight-models`, `tealight-audio`, `tealight-index` and `tealight-kernels`;
//! `tealight-core` has the error type and deadlines. Dependencies point one way: `main → lambda, cli → server → api → pipeline →
//! engine → config → aws → telemetry`, and from all of them to the crates.
//!
//! # From an event to an embedding
//!
//! A direct invocation runs through ten files, one per step:
//!
//! 1. `src/lambda/mod.rs` gets the event and returns the response.
//! 2. `src/lambda/event.rs` reads the fields of the event and determines its kind.
//! 3. `src/lambda/direct_invoke.rs` determines method and path (`http_event.rs` does it for HTTP events).
//! 4. `src/api/routes.rs` looks up the route.
//! 5. `src/api/mod.rs` authorizes the request, calls the handler of the route, and logs the outcome.
//! 6. `src/api/openai.rs` parses the body, creates the job, and serializes the result.
//! 7. `src/engine/embed.rs` runs the job: it tokenizes the texts and divides them into batches.
//! 8. `crates/tealight-models/src/tasks/embed.rs` runs the encoder on a batch and pools its output.
//! 9. `crates/tealight-models/src/families/bert/network.rs` is the encoder.
//! 10. `crates/tealight-models/src/layers/encoder_layer.rs` is one of its layers, on the kernels.
//!
//! # Terms
//!
//! A *model* is an entry of the catalog or a file. A *job* is a validated request. A *document* has an id, text and metadata; a
//! *chunk* is part of a document; a *point* is a chunk with its vector. Shapes use `B` texts, `T` tokens of a ragged batch, `H`
//! heads, `D` embedding dimension, `K` inner dimension, `N` output dimension.
//!
//! # Example
//!
//! ```
//! use tealight::config::Config;
//! use tealight::engine::{Embed, EmbedInputs, Engine, Input};
//! use tealight_core::Deadline;
//!
//! let model = concat!(env!("CARGO_MANIFEST_DIR"), "/models/all-MiniLM-L6-v2.gguf");
//! let engine = Engine::new(Config { model: model.into(), ..Config::from_env()? })?;
//! let inputs = EmbedInputs::new(vec![Input::Text("hello world".into())]);
//! let job = Embed { inputs, normalize: true, dimensions: None };
//! let output = engine.run(job, Deadline::NONE)?;
//! assert_eq!(output.vectors[0].len(), 384);
//! # Ok::<(), tealight::Error>(())
//! ```

pub mod api;
pub mod aws;
#[cfg(feature = "cli")]
pub mod cli;
pub mod config;
pub mod engine;
#[cfg(feature = "lambda")]
pub mod lambda;
pub mod pipeline;
#[cfg(feature = "cli")]
pub mod server;
pub mod telemetry;

pub use tealight_core::{Error, ErrorKind, Result};
