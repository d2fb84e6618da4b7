//! Text generation and embeddings with Llama models, through the engine and the command line.
//!
//! Tests that need downloaded weights are ignored; `tests/check_text` downloads them and runs these tests.

use crate::support::simd_isas;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tealight::config::Config;
use tealight::engine::generate::{Completion, FinishReason, Generate, Prompt, TextDelta};
use tealight::engine::{Embed, EmbedInputs, Engine, Input};
use tealight::{Error, ErrorKind};
use tealight_core::Deadline;
use tealight_kernels::{CpuContext, Isa};
use tealight_models::Pooling;
use tealight_models::families::llama::Llama;
use tealight_models::tasks::generate::{SamplingParams, argmax};
use tealight_models::tokenizer::LlamaTokenizer;

/// Minimum cosine similarity of embeddings to float64, of networks with random weights, which are the hardest to quantize.
const RANDOM_COSINE: f64 = 0.998;
/// Maximum root mean square error of the 20 highest logits at each step of a real model.
const MAX_LOGITS_ERROR: f64 = 0.3;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama").join(name)
}

fn read_json(path: PathBuf) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn goldens() -> Value {
    read_json(fixture("goldens.json"))
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn cosine(a: &[f32], b: &[f64]) -> f64 {
    let dot = a.iter().zip(b).map(|(a, b)| *a as f64 * b).sum::<f64>();
    let norm = |x: f64| x.sqrt();
    dot / (norm(a.iter().map(|v| (*v as f64).powi(2)).sum()) * norm(b.iter().map(|v| v * v).sum()))
}

const MODELS: [&str; 4] = ["version-0.bin", "version-1.bin", "version-2.bin", "scaled"];

#[test]
fn embeddings_of_text_generation_models_equal_reference() {
    let goldens = goldens();
    let tokens = ids(&goldens["ids"]);
    for name in MODELS {
        for (pooling, expected) in goldens["vectors"][name].as_object().unwrap() {
            let engine = |pooling: Option<&str>| {
                let model = fixture(name).display().to_string();
                let pooling = pooling.map(|name| Pooling::from_name(name).unwrap());
                Engine::new(Config { model, pooling, ..Config::from_lookup(|_| None).unwrap() }).unwrap()
            };
            let vectors = |engine: &Engine, inputs| {
                let job = Embed { inputs: EmbedInputs::new(inputs), normalize: true, dimensions: None };
                engine.run(job, Deadline::NONE).unwrap().vectors
            };
            let engine_of = engine(Some(pooling));
            let found = vectors(&engine_of, vec![Input::Ids(tokens.clone())]);
            let similarity = cosine(&found[0], &floats(expected));
            println!("{name}, {pooling}: {similarity:.5}");
            assert!(similarity > RANDOM_COSINE, "{name}, {pooling}: {similarity}");
            let others = ["hello", "the weather and the world"].map(|text| Input::Text(text.into()));
            let batch = vectors(&engine_of, [&[Input::Ids(tokens.clone())], &others[..]].concat());
            assert!(batch[0] == found[0] && batch.len() == 3, "{name}: an embedding depends on its batch");
            if pooling == "lasttoken" {
                assert!(vectors(&engine(None), vec![Input::Ids(tokens.clone())]) == found, "{name}");
            }
        }
    }
}

fn engine(model: &str, isa: Isa) -> Engine {
    let config = Config::from_lookup(|_| None).unwrap();
    Engine::new(Config { isa, threads: 2, text_model: model.into(), ..config }).unwrap()
}

fn generate<'a>(engine: &Engine, prompt: Prompt, change: impl FnOnce(&mut Generate<'a>)) -> Result<Completion, Error> {
    generate_before(engine, prompt, Deadline::NONE, change)
}

fn generate_before<'a>(
    engine: &Engine,
    prompt: Prompt,
    deadline: Deadline,
    change: impl FnOnce(&mut Generate<'a>),
) -> Result<Completion, Error> {
    let mut job = Generate {
        model: None,
        prompt,
        // Greedy, without the end-of-text token.
        sampling: SamplingParams { temperature: 0.0, logit_bias: vec![(2, -100.0)], ..SamplingParams::default() },
        max_tokens: Some(24),
        stop: vec![],
        top_logprobs: None,
        echo: false,
        schema: None,
        check_cancelled: &|| Ok(()),
        on_delta: Box::leak(Box::new(|_: &TextDelta, _: &LlamaTokenizer| Ok(()))),
    };
    change(&mut job);
    engine.run(job, deadline)
}

fn text(text: &str) -> Prompt {
    Prompt::Text(text.into())
}

#[test]
fn prompt_with_cached_prefix_gives_equal_completion() {
    let path = fixture("version-0.bin").display().to_string();
    let fresh = |prompt: &str| generate(&engine(&path, Isa::detect()), text(prompt), |_| ()).unwrap();
    let engine = engine(&path, Isa::detect());
    let first = generate(&engine, text("hello world"), |_| ()).unwrap();
    assert_eq!((first.cached_tokens, first.completion_tokens, first.finish_reason), (0, 24, FinishReason::Length));
    let again = generate(&engine, text("hello world"), |_| ()).unwrap();
    assert_eq!((again.text.as_str(), again.cached_tokens), (first.text.as_str(), first.prompt_tokens - 1));
    let longer = generate(&engine, text("hello world the weather"), |_| ()).unwrap();
    assert!(longer.cached_tokens > 1 && longer.text == fresh("hello world the weather").text);
    let other = generate(&engine, text("a"), |_| ()).unwrap();
    assert_eq!((other.cached_tokens, other.text), (1, fresh("a").text));
}

#[test]
fn prompts_with_common_prefix_are_all_cached() {
    let engine = engine(&fixture("scaled").display().to_string(), Isa::detect());
    let prompt = |by: u32| (0..10).chain((0..40).map(|i| 50 + by + i)).collect::<Vec<u32>>();
    let complete = |by: u32| generate(&engine, Prompt::Tokens(prompt(by)), |job| job.max_tokens = Some(4)).unwrap();
    assert_eq!(complete(0).cached_tokens, 0);
    let second = complete(60);
    assert_eq!(second.cached_tokens, 10);
    for by in [0, 60, 0, 60] {
        assert_eq!(complete(by).cached_tokens, 49);
    }
    assert_eq!(complete(60).text, second.text);
}

/// Also while the prompt is processed, and while the text is held back.
#[test]
fn disconnected_client_cancels_generation() {
    let engine = engine(&fixture("scaled").display().to_string(), Isa::detect());
    for (prompt, max_checks) in [((0..250).collect::<Vec<u32>>(), 1), (vec![1, 2, 3], 5)] {
        let checks = AtomicUsize::new(0);
        let check_cancelled = || match checks.fetch_add(1, Ordering::Relaxed) {
            count if count + 1 >= max_checks => Err(Error::new(ErrorKind::ClientClosedRequest, "gone")),
            _ => Ok(()),
        };
        let cancelled = generate(&engine, Prompt::Tokens(prompt), |job| {
            // The text is held back to the end.
            job.stop = vec!["a".repeat(100_000)];
            job.max_tokens = Some(200);
            job.check_cancelled = &check_cancelled;
        });
        assert_eq!(
            (cancelled.unwrap_err().kind, checks.load(Ordering::Relaxed)),
            (ErrorKind::ClientClosedRequest, max_checks)
        );
    }
}

#[test]
fn prompts_beyond_limits_are_rejected() {
    let path = fixture("version-0.bin").display().to_string();
    let engine = engine(&path, Isa::detect());
    let long = generate(&engine, text(&"the ".repeat(100)), |_| ()).unwrap_err();
    assert!(long.kind == ErrorKind::TooLong && long.message.contains("64"), "{long:?}");
    let full = generate(&engine, text("hello"), |job| job.max_tokens = None).unwrap();
    assert_eq!((full.finish_reason, full.prompt_tokens + full.completion_tokens), (FinishReason::Length, 64));
    assert_eq!(generate(&engine, Prompt::Tokens(vec![]), |_| ()).unwrap_err().kind, ErrorKind::Empty);
    let beyond = generate(&engine, Prompt::Tokens(vec![1, 304]), |_| ()).unwrap_err();
    assert!(beyond.message.contains("304"), "{beyond:?}");
    let chat =
        generate(&engine, Prompt::Chat(vec![json!({"role": "user", "content": "x"})], None), |_| ()).unwrap_err();
    assert!(chat.message.contains("no chat template"), "{chat:?}");
    let none = generate(&engine, text("hello"), |job| job.max_tokens = Some(0)).unwrap();
    assert_eq!((none.text.as_str(), none.completion_tokens), ("", 0));
    // An error of `on_delta` ends the job, and the prompt stays in the prefix cache.
    let mut deltas = 0;
    let mut stop = |_: &TextDelta, _: &LlamaTokenizer| {
        deltas += 1;
        if deltas > 3 { Err(Error::new(ErrorKind::ClientClosedRequest, "gone")) } else { Ok(()) }
    };
    let cancelled = generate(&engine, text("hello world"), |job| job.on_delta = &mut stop).unwrap_err();
    assert_eq!(cancelled.kind, ErrorKind::ClientClosedRequest);
    assert!(generate(&engine, text("hello world"), |_| ()).unwrap().cached_tokens > 1);
}

#[test]
fn deadline_ends_completion_without_losing_text() {
    let path = fixture("version-0.bin").display().to_string();
    let engine = engine(&path, Isa::detect());
    let run = |prompt: &str, deadline| generate_before(&engine, text(prompt), deadline, |_| ());
    let whole = run("hello world", Deadline::NONE).unwrap();
    // Less time remains than is reserved for the response, so one token is generated.
    let shortened = run("hello world", Deadline(Some(Instant::now() + Duration::from_millis(60)))).unwrap();
    assert_eq!((shortened.finish_reason, shortened.completion_tokens), (FinishReason::Length, 1));
    assert!(whole.text.starts_with(&shortened.text));
    assert_eq!(run("the weather", Deadline(Some(Instant::now()))).unwrap_err().kind, ErrorKind::Timeout);
    assert_eq!(run("hello world", Deadline::NONE).unwrap().text, whole.text);
}

#[test]
fn generate_command_prints_completion() {
    let run = |arguments: &[&str], memory: Option<&str>| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tealight"));
        command.arg("generate").args(arguments).stdin(std::process::Stdio::null());
        command.envs(memory.map(|mb| ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", mb))).output().unwrap()
    };
    let (model, chat) = (fixture("version-0.bin").display().to_string(), fixture("scaled").display().to_string());
    let plain = ["--model", &model, "--temperature", "0", "--max-tokens", "8", "hello world"];
    let output = run(&plain, None);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.starts_with("hello world") && text.ends_with('\n') && text.len() > 13, "{text:?}");
    assert_eq!(run(&plain, None).stdout, output.stdout);
    assert!(run(&["--model", &chat, "--chat", "--max-tokens", "4", "hello"], None).status.success());
    let wrong = run(&["--model", &model, "--frequency-penalty", "-3", "x"], None);
    assert!(wrong.stdout.is_empty() && String::from_utf8_lossy(&wrong.stderr).contains("frequency_penalty is -3"));
    // A chat that exceeds the context continues without its oldest messages.
    let mut chat_command = std::process::Command::new(env!("CARGO_BIN_EXE_tealight"));
    chat_command
        .args(["generate", "--model", &chat, "--chat", "--max-tokens", "4"])
        .stdin(std::process::Stdio::piped());
    let mut child = chat_command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let lines = format!("{}\n", "word ".repeat(20)).repeat(8);
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), lines.as_bytes()).unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
    let short = run(&plain, Some("40"));
    let message = String::from_utf8_lossy(&short.stderr).into_owned();
    assert!(
        !short.status.success() && message.contains("MiB") && message.contains("40 MiB are available"),
        "{message}"
    );
    let wrong = run(&["--model", &model, "--temperature", "9", "x"], None);
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("temperature is 9"));
}

#[test]
fn echo_returns_prompt_with_logprobs() {
    let path = fixture("version-0.bin").display().to_string();
    let engine = engine(&path, Isa::detect());
    let plain = generate(&engine, text("hello world"), |job| job.top_logprobs = Some(3)).unwrap();
    assert!(plain.logprobs.len() == 24 && plain.logprobs.iter().all(|c| c.top.len() == 3 && c.logprob.is_some()));
    let echoed = generate(&engine, text("hello world"), |job| {
        job.echo = true;
        job.top_logprobs = Some(0);
    });
    let echoed = echoed.unwrap();
    assert_eq!(echoed.text, format!(" hello world{}", plain.text));
    assert_eq!(echoed.logprobs.len(), plain.prompt_tokens + 24);
    assert!(echoed.logprobs[0].logprob.is_none() && echoed.logprobs[1..].iter().all(|c| c.logprob.unwrap() < 0.0));
    let logs = |a: &Completion| a.logprobs[a.logprobs.len() - 24..].iter().map(|c| c.logprob).collect::<Vec<_>>();
    assert_eq!(logs(&echoed), logs(&plain));
}

#[test]
fn schema_beyond_limits_is_rejected() {
    let engine = engine(&fixture("scaled").display().to_string(), Isa::detect());
    let chain = |count: usize, link: &dyn Fn(Value) -> Value| {
        let next = |i: usize| link(json!({"$ref": format!("#/$defs/d{}", i + 1)}));
        let mut definitions: serde_json::Map<_, _> = (0..count).map(|i| (format!("d{i}"), next(i))).collect();
        definitions.insert(format!("d{count}"), json!({"type": "integer"}));
        json!({"$ref": "#/$defs/d0", "$defs": definitions})
    };
    let complete = |schema: Value| {
        generate(&engine, text("x"), |job| {
            job.schema = Some(schema);
            job.max_tokens = Some(20);
        })
    };
    assert!(
        !complete(chain(300, &|link| json!({"type": "array", "items": link, "minItems": 1}))).unwrap().text.is_empty()
    );
    for (schema, word) in [
        (chain(20_000, &|link| link), "20001 references"),
        (chain(2000, &|link| json!({"allOf": [link]})), "2001 references"),
        (json!({"$ref": "#"}), "unsupported JSON schema"),
        (json!({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}}), "unsupported JSON schema"),
        (
            json!({"anyOf": (0..5000).map(|i| json!({"type": "object", "required": [i.to_string()]})).collect::<Vec<_>>()}),
            "schema",
        ),
        (json!({"enum": [" ".repeat(600_000)]}), "bytes"),
    ] {
        let error = complete(schema).unwrap_err();
        assert!(
            error.kind == ErrorKind::InvalidValue && error.param.as_deref() == Some("response_format"),
            "{word}: {error:?}"
        );
        assert!(error.message.contains(word), "{word}: {error:?}");
    }
}

#[test]
fn completion_with_schema_matches_it() {
    let path = fixture("scaled").display().to_string();
    let engine = engine(&path, Isa::detect());
    let schema = json!({"type": "object", "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 99},
        "kind": {"enum": ["cat", "dog"]}}, "required": ["age", "kind"], "additionalProperties": false});
    for seed in 0..5 {
        let completion = generate(&engine, text("x"), |job| {
            job.schema = Some(schema.clone());
            job.sampling = SamplingParams { seed, ..SamplingParams::default() };
            job.max_tokens = Some(100);
        });
        let completion = completion.unwrap();
        let value: Value =
            serde_json::from_str(&completion.text).unwrap_or_else(|e| panic!("{e}: {:?}", completion.text));
        assert!(value["age"].as_u64().unwrap() < 100 && ["cat", "dog"].contains(&value["kind"].as_str().unwrap()));
        assert_eq!(completion.finish_reason, FinishReason::Stop);
    }
    let wrong = generate(&engine, text("x"), |job| job.schema = Some(json!({"type": "cake"}))).unwrap_err();
    assert!(wrong.kind == ErrorKind::InvalidValue && wrong.param.as_deref() == Some("response_format"), "{wrong:?}");
}

fn smollm2() -> PathBuf {
    tealight::engine::model_path::resolve_any(&Config::from_lookup(|_| None).unwrap(), "smollm2-135m-instruct").unwrap()
}

#[test]
#[ignore = "needs weights that tests/check_text downloads"]
fn logits_of_smollm2_are_close_to_float64() {
    let golden = read_json(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/llama/smollm2.json"));
    let tokens = ids(&golden["tokens"]);
    for isa in simd_isas() {
        let cpu = CpuContext::new(isa, 2);
        let model = Llama::load(&cpu, &smollm2()).unwrap();
        assert_eq!(model.tokenizer.encode(golden["text"].as_str().unwrap()).unwrap(), tokens);
        let logits = model.forward(&cpu, &mut model.new_sequence(0), &tokens, tokens.len(), || Ok(())).unwrap();
        let (mut squares, mut count, mut firsts) = (0.0, 0, 0);
        for (row, step) in logits.chunks_exact(model.config.vocab_size).zip(golden["steps"].as_array().unwrap()) {
            let (ids, values) = (ids(&step["ids"]), floats(&step["values"]));
            squares += ids.iter().zip(&values).map(|(id, v)| (row[*id as usize] as f64 - v).powi(2)).sum::<f64>();
            count += ids.len();
            firsts += usize::from(argmax(row) == ids.first().copied());
        }
        let root = (squares / count as f64).sqrt();
        println!("smollm2 on {}: {root:.4}, {firsts} of {} first", isa.as_str(), tokens.len());
        assert!(root < MAX_LOGITS_ERROR && firsts + 1 >= tokens.len(), "{}: {root} {firsts}", isa.as_str());
    }
}

#[test]
#[ignore = "needs weights that tests/check_text downloads"]
fn token_ids_of_smollm2_decode_to_text() {
    let tokens = Llama::load(&CpuContext::new(Isa::detect(), 1), &smollm2()).unwrap().tokenizer;
    let check = |tokens: &LlamaTokenizer| {
        assert_eq!(tokens.encode("Hello world! 123").unwrap(), [19556, 905, 17, 216, 33, 34, 35]);
        assert_eq!(tokens.encode("<|im_start|>user\n").unwrap()[0], 1);
        assert_eq!((tokens.bos, tokens.prefix.len(), tokens.eog_ids[0]), (Some(1), 0, 2));
        assert!(tokens.is_eog(2) && tokens.is_eog(0) && !tokens.is_eog(5));
        assert!(tokens.chat_template.as_deref().unwrap().contains("<|im_start|>"));
    };
    check(&tokens);
    let texts = std::fs::read_to_string(fixture("../../../crates/tealight-models/src/calibration.txt")).unwrap();
    let others = ["Größe 漢字 🎙️ ½ ٣", "  two  spaces\n\n\tand tabs", "it's WE'RE 1234567"];
    for text in texts.lines().chain(others) {
        let bytes: Vec<u8> =
            tokens.encode(text).unwrap().iter().flat_map(|id| tokens.token_bytes(*id)).copied().collect();
        assert_eq!(String::from_utf8(bytes).unwrap(), text);
    }
}
