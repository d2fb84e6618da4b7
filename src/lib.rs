//! A serverless inference function: vectors of texts, texts of speech, and texts that go on, from one small binary.
//!
//! The same binary is the AWS Lambda function, the local server and the command line. It loads a quantised model at
//! cold start, runs it on the CPU, and answers in JSON that a vector index takes as it is.
//!
//! # From an event to a vector
//!
//! ```text
//! Lambda event ─► event ─┐
//! HTTP ─────────► server ─┼─► api: body → Job ─► engine ─► tokenizer or audio ─► models ─► format ─► reply
//! command line ─► cli ────┘                      (lazy registry)       (nn on kernels)
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`event`] | Lambda: direct invocations, API Gateway, function URL, load balancer; SQS, S3, EventBridge, SNS, Step Functions |
//! | [`server`] | HTTP on a local socket |
//! | [`cli`] | commands |
//! | [`api`] | routes of OpenAI and text-embeddings-inference: a request in, a reply out, no sockets |
//! | [`aws`] | signed requests: objects of S3, secrets |
//! | [`documents`] | documents of lines, tables, columns and texts, and the points that become of them |
//! | [`mod@ingest`] | documents into a sink: read, embedded and written side by side, until there is no time for more |
//! | [`engine`] | what can be asked: jobs, the registry of loaded models, where models come from. Read this first |
//! | [`mod@audio`] | recordings: any file to samples at 16 kHz |
//! | [`models`] | files to networks: GGUF, safetensors, tokenizers, BERT, sentence-transformers' pipelines, Whisper, Llama |
//! | [`nn`] | operations of a network on candle tensors |
//! | [`kernels`] | arithmetic on slices, one file an idea; the only unsafe code but for mapping a file |
//! | [`mod@format`] | what vectors and transcripts look like outside |
//! | [`sinks`] | points written straight into an index, or to S3 |
//! | [`config`], [`error`] | every environment variable; every error and its status |
//! | [`log`], [`trace`] | a line of JSON for each request, with CloudWatch's metrics; what a request is part of, carried on |
//!
//! Dependencies point one way: `main → {event, server, cli} → {api, ingest} → engine → models → nn → kernels`.
//!
//! # Shapes
//!
//! `B` texts, `T` tokens of all texts of a batch, `H` heads, `D` values of a row or vector, `K` inner dimension of a
//! product, `N` its outputs. A *model* is a row of the catalog or a file; a *job* is a validated request; a *document*
//! has an id, a text and metadata.
//!
//! # Example
//!
//! ```
//! use tealight::config::Config;
//! use tealight::engine::{Embed, Engine, Input, Truncation, EmbedInputs};
//! use tealight_core::Deadline;
//!
//! let model = concat!(env!("CARGO_MANIFEST_DIR"), "/models/all-MiniLM-L6-v2.gguf");
//! let engine = Engine::new(Config { model: model.into(), ..Config::from_env()? })?;
//! let texts = EmbedInputs {
//!     model: None,
//!     inputs: vec![Input::Text("hello world".into())],
//!     prompt: None,
//!     truncation: Truncation::Error,
//!     field: "input",
//!     first_index: 0,
//! };
//! let job = Embed { texts, normalize: true, dimensions: None };
//! let output = engine.run(job, Deadline::NONE)?;
//! assert_eq!(output.vectors[0].len(), 384);
//! # Ok::<(), tealight::Error>(())
//! ```

pub mod api;
pub mod aws;
pub mod cli;
pub mod config;
pub mod engine;
pub mod lambda;
pub mod pipeline;
pub mod server;
pub mod telemetry;

pub use tealight_core::{Error, ErrorKind, Result};
