//! Llama against what tests/llama_reference.py makes of the same files in float64, and what llama.cpp makes of them.
//!
//! What needs weights is left out by `cargo test`; `tests/run` gets them and asks for it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tealight::config::Config;
use tealight::engine::generate::{Completion, FinishReason, Generate, Prompt, TextDelta};
use tealight::engine::{Embed, EmbedInputs, Engine, Input, Truncation};
use tealight::{Error, ErrorKind};
use tealight_core::Deadline;
use tealight_kernels::CpuContext;
use tealight_kernels::Isa;
use tealight_models::families::llama::{self, Llama};
use tealight_models::formats::gguf::Gguf;
use tealight_models::pack::PackMetadata;
use tealight_models::tasks::generate::chat_template::{self, ChatInput};
use tealight_models::tasks::generate::{SamplingParams, argmax};
use tealight_models::tokenizer::LlamaTokenizer;
use tealight_models::{ModelKind, Pooling};

/// The least cosine of logits to those in float64, of networks of random numbers, which are the hardest to quantise.
const RANDOM_COSINE: f64 = 0.998;
/// The same on AVX2, whose codes have 7 bits.
const RANDOM_COSINE_AVX2: f64 = 0.994;
/// The largest root mean square difference of logits of a real model to those in float64, of the 20 highest at each step.
const LOGITS_ERROR: f64 = 0.3;

/// Conversations that must be the same.
const TEMPLATES: usize = 340;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama").join(name)
}

fn json_of(path: PathBuf) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn goldens() -> Value {
    json_of(fixture("goldens.json"))
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

fn sets() -> Vec<Isa> {
    Isa::available().into_iter().filter(|isa| isa.as_str() != "scalar").collect()
}

const MODELS: [&str; 4] = ["version-0.bin", "version-1.bin", "version-2.bin", "scaled"];

/// Tied and untied products, grouped heads, rotary positions of neighbours, of halves, and stretched.
#[test]
fn logits_are_those_of_the_equations() {
    let goldens = goldens();
    let tokens = ids(&goldens["ids"]);
    for name in MODELS {
        for isa in sets() {
            let cpu = CpuContext::new(isa, 2);
            logits_are(&Llama::load(&cpu, &fixture(name)).unwrap(), &cpu, &tokens, &goldens[name], name);
        }
    }
}

/// The logits after the first, the second and the last token.
fn logits_are(model: &Llama, cpu: &CpuContext, tokens: &[u32], expected: &Value, name: &str) {
    let logits = model.forward(cpu, &mut model.new_sequence(tokens.len()), tokens, tokens.len(), || Ok(())).unwrap();
    let rows: Vec<&[f32]> = logits.chunks_exact(model.config.vocab_size).collect();
    assert_eq!(rows.len(), tokens.len());
    let set = cpu.isa.as_str();
    let least = if set == "avx2" { RANDOM_COSINE_AVX2 } else { RANDOM_COSINE };
    let expected = expected.as_array().unwrap();
    assert_eq!(expected.len(), 3);
    for (row, expected) in [rows[0], rows[1], rows[tokens.len() - 1]].iter().zip(expected) {
        let found = cosine(row, &floats(expected));
        println!("{name} on {set}: {found:.5}");
        assert!(found > least, "{name} on {set}: {found}");
    }
}

/// A model that writes makes vectors, too: of the last token, or the mean.
#[test]
fn vectors_are_those_of_the_equations() {
    let goldens = goldens();
    let tokens = ids(&goldens["ids"]);
    let texts = |inputs: Vec<Input>| EmbedInputs {
        model: None,
        inputs,
        prompt: None,
        truncation: Truncation::Error,
        field: "input",
        first_index: 0,
    };
    for name in MODELS {
        for (pooling, expected) in goldens["vectors"][name].as_object().unwrap() {
            let engine = |pooling: Option<&str>| {
                let model = fixture(name).display().to_string();
                let pooling = pooling.map(|name| Pooling::from_name(name).unwrap());
                Engine::new(Config { model, pooling, ..Config::from_lookup(|_| None).unwrap() }).unwrap()
            };
            let vectors = |engine: &Engine, inputs| {
                let job = Embed { texts: texts(inputs), normalize: true, dimensions: None };
                engine.run(job, Deadline::NONE).unwrap().vectors
            };
            let engine_of = engine(Some(pooling));
            let found = vectors(&engine_of, vec![Input::Ids(tokens.clone())]);
            let likeness = cosine(&found[0], &floats(expected));
            println!("{name}, {pooling}: {likeness:.5}");
            assert!(likeness > RANDOM_COSINE, "{name}, {pooling}: {likeness}");
            let others = ["hello", "the weather and the world"].map(|text| Input::Text(text.into()));
            let batch = vectors(&engine_of, [&[Input::Ids(tokens.clone())], &others[..]].concat());
            assert!(batch[0] == found[0] && batch.len() == 3, "{name}: a vector depends on its batch");
            if pooling == "lasttoken" {
                assert!(vectors(&engine(None), vec![Input::Ids(tokens.clone())]) == found, "{name}");
            }
        }
    }
}

#[test]
fn weights_in_several_files_are_those_of_one() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(fixture("scaled").join(name), folder.path().join(name)).unwrap();
    }
    let whole = std::fs::read(fixture("scaled").join("model.safetensors")).unwrap();
    let whole = safetensors::SafeTensors::deserialize(&whole).unwrap();
    let part = |i: usize| format!("model-0000{}-of-00002.safetensors", i + 1);
    let mut map = serde_json::Map::new();
    for i in 0..2 {
        let tensors: Vec<_> =
            whole.tensors().into_iter().enumerate().filter(|(n, _)| n % 2 == i).map(|(_, t)| t).collect();
        map.extend(tensors.iter().map(|(name, _)| (name.clone(), part(i).into())));
        safetensors::serialize_to_file(tensors, None, &folder.path().join(part(i))).unwrap();
    }
    let index = folder.path().join("model.safetensors.index.json");
    std::fs::write(&index, json!({"metadata": {}, "weight_map": map}).to_string()).unwrap();
    let cpu = CpuContext::new(Isa::detect(), 2);
    let read = |path: &Path| {
        Llama::load(&cpu, path).map(|m| m.forward(&cpu, &mut m.new_sequence(3), &[1, 2, 3], 3, || Ok(())).unwrap())
    };
    let expected = read(&fixture("scaled")).unwrap();
    assert!(read(folder.path()).unwrap() == expected);
    let packed = folder.path().join("packed.gguf");
    llama::pack(&cpu, folder.path(), &PackMetadata::default(), &packed).unwrap();
    assert!(read(&packed).unwrap() == expected);
    std::fs::remove_file(folder.path().join(part(1))).unwrap();
    assert!(read(folder.path()).unwrap_err().message.contains(&part(1)));
    std::fs::write(&index, r#"{"weight_map": {"a": "../../etc/passwd"}}"#).unwrap();
    let error = read(folder.path()).unwrap_err();
    assert!(error.message.contains("passwd") && !error.message.contains("etc"), "{error:?}");
    std::fs::remove_file(&index).unwrap();
    assert!(read(folder.path()).unwrap_err().message.contains("index.json"));
}

/// Every format of GGUF, in files of random numbers by the gguf package, which also says what they stand for.
#[test]
#[ignore = "needs what tests/run gets"]
fn every_format_gives_the_logits_of_the_equations() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/text/formats");
    let goldens = json_of(folder.join("expected.json"));
    let tokens = ids(&goldens["ids"]);
    let formats: Vec<_> = goldens.as_object().unwrap().iter().filter(|(name, _)| *name != "ids").collect();
    assert_eq!(formats.len(), 11);
    for (name, expected) in formats {
        for isa in sets() {
            let cpu = CpuContext::new(isa, 2);
            let model = Llama::load(&cpu, &folder.join(format!("{name}.gguf"))).unwrap();
            logits_are(&model, &cpu, &tokens, expected, name);
            // A file of Llama 3 begins texts with a token of its own, though it may not say so.
            assert_eq!(model.tokenizer.prefix, [0]);
        }
    }
}

/// A file whose numbers make no sense is refused when it is loaded, not when it is used.
#[test]
#[ignore = "needs what tests/run gets"]
fn numbers_that_make_no_sense_are_refused() {
    let whole = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("target/text/formats/F16.gguf")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let place = |name: &str| whole.windows(name.len()).position(|w| w == name.as_bytes()).unwrap();
    // Behind a key stand four bytes of its type.
    let behind = |key: &str, value: &[u8]| {
        let at = place(key) + key.len() + 4;
        [&whole[..at], value, &whole[at + value.len()..]].concat()
    };
    let divisor = {
        let at = whole.len() - 4;
        let bytes: Vec<u8> = whole[..at].iter().chain(&f32::NAN.to_le_bytes()).copied().collect();
        bytes
    };
    let (old, new) = ("blk.0.attn_q.weight", "blk.0.attn_qqq.bias");
    let at = place(old);
    let bias = [&whole[..at], new.as_bytes(), &whole[at + old.len()..]].concat();
    for (bytes, word) in [
        (behind("llama.attention.layer_norm_rms_epsilon", &f32::NAN.to_le_bytes()), "eps"),
        (behind("llama.attention.layer_norm_rms_epsilon", &(-1.0f32).to_le_bytes()), "eps"),
        (behind("llama.rope.freq_base", &0.0f32.to_le_bytes()), "rope_theta"),
        (behind("llama.block_count", &(1u32 << 24).to_le_bytes()), "num_hidden_layers is 16777216"),
        (behind("llama.block_count", &900u32.to_le_bytes()), "blk.899"),
        (bias, "is a bias"),
        (divisor, ""),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let start = Instant::now();
        let error = Llama::load(&CpuContext::new(Isa::detect(), 1), &path).unwrap_err();
        assert!(error.kind == ErrorKind::ModelLoad && error.message.contains(word), "{word}: {error:?}");
        assert!(start.elapsed() < Duration::from_secs(20), "{word}");
    }
    // JSON, and no tokenizer.
    for name in ["config.json", "model.safetensors", "tokenizer_config.json"] {
        std::fs::copy(fixture("scaled").join(name), folder.path().join(name)).unwrap();
    }
    let good = std::fs::read_to_string(fixture("scaled").join("tokenizer.json")).unwrap();
    for bad in [good.replace("ByteLevel", "ByteLevem"), "{}".into(), good[..good.len() / 2].into()] {
        std::fs::write(folder.path().join("tokenizer.json"), bad).unwrap();
        assert_eq!(
            Llama::load(&CpuContext::new(Isa::detect(), 1), folder.path()).unwrap_err().kind,
            ErrorKind::ModelLoad
        );
    }
}

/// However a text is cut into parts, and by however many threads it is read: the same bits.
#[test]
fn parts_and_threads_change_no_bit() {
    let tokens: Vec<u32> = (0..60).map(|i| (i * 37 + 5) % 300).collect();
    for isa in sets() {
        let read = |threads: usize, cuts: &[usize]| {
            let cpu = CpuContext::new(isa, threads);
            let model = Llama::load(&cpu, &fixture("scaled")).unwrap();
            let (mut state, mut logits, mut from) = (model.new_sequence(0), vec![], 0);
            for to in cuts {
                logits.extend(model.forward(&cpu, &mut state, &tokens[from..*to], to - from, || Ok(())).unwrap());
                from = *to;
            }
            logits
        };
        let expected = read(1, &[60]);
        assert!(read(2, &[60]) == expected, "{}", isa.as_str());
        assert!(read(1, &[1, 2, 3, 20, 59, 60]) == expected, "{}", isa.as_str());
        assert!(read(3, &(1..=60).collect::<Vec<_>>()) == expected, "{}", isa.as_str());
    }
}

#[test]
fn a_packed_model_is_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    let (cpu, labels) = (CpuContext::new(Isa::detect(), 2), PackMetadata::default());
    for name in MODELS {
        let (path, again) = (folder.path().join("model.gguf"), folder.path().join("again.gguf"));
        for path in [&path, &again] {
            llama::pack(&cpu, &fixture(name), &labels, path).unwrap();
        }
        assert!(std::fs::read(&path).unwrap() == std::fs::read(&again).unwrap(), "equal input, equal bytes");
        assert!(
            [path.as_path(), &fixture(name)].iter().all(|path| ModelKind::detect(path).unwrap() == ModelKind::Llama)
        );
        let (packed, source) = (Llama::load(&cpu, &path).unwrap(), Llama::load(&cpu, &fixture(name)).unwrap());
        assert_eq!(packed.config, source.config);
        let about = |m: &Llama| {
            (
                m.tokenizer.bos,
                m.tokenizer.eog_ids.clone(),
                m.tokenizer.prefix.clone(),
                m.tokenizer.chat_template.clone(),
            )
        };
        assert_eq!(about(&packed), about(&source), "{name}");
        assert_eq!(packed.tokenizer.encode("hello Größe").unwrap(), source.tokenizer.encode("hello Größe").unwrap());
        let read = |m: &Llama| m.forward(&cpu, &mut m.new_sequence(3), &[1, 2, 3], 3, || Ok(())).unwrap();
        assert!(read(&packed) == read(&source), "{name}");
        assert!(llama::pack(&cpu, &path, &labels, &again).unwrap_err().message.contains("packed already"));
    }
}

#[test]
fn tokens_are_those_of_llama2_c() {
    let cpu = CpuContext::new(Isa::detect(), 1);
    let tokens = Llama::load(&cpu, &fixture("version-0.bin")).unwrap().tokenizer;
    for pair in goldens()["tokens"].as_array().unwrap() {
        let (text, expected) = (pair[0].as_str().unwrap(), ids(&pair[1]));
        assert_eq!(tokens.encode(text).unwrap(), expected, "{text:?}");
        let bytes: Vec<u8> = expected.iter().flat_map(|id| tokens.token_bytes(*id)).copied().collect();
        let back = String::from_utf8(bytes).unwrap();
        assert_eq!(back.strip_prefix(' ').unwrap_or(&back), text);
    }
    assert_eq!((tokens.bos, tokens.eog_ids.as_slice(), tokens.prefix.as_slice()), (Some(1), &[2][..], &[1][..]));
    assert_eq!(
        (tokens.token_bytes(1), tokens.special_token(1), tokens.token_bytes(9999)),
        (&b""[..], Some("<s>"), &b""[..])
    );
}

#[test]
fn damaged_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.bin");
    std::fs::copy(fixture("tokenizer.bin"), folder.path().join("tokenizer.bin")).unwrap();
    let cpu = CpuContext::new(Isa::detect(), 1);
    let refused = |bytes: &[u8], word: &str| {
        std::fs::write(&path, bytes).unwrap();
        let error = Llama::load(&cpu, &path).unwrap_err();
        assert!(error.kind == ErrorKind::ModelLoad && error.message.contains(word), "{word}: {error:?}");
    };
    for name in ["version-0.bin", "version-1.bin", "version-2.bin"] {
        let bytes = std::fs::read(fixture(name)).unwrap();
        for length in [1, 20, 100, 300, bytes.len() / 2, bytes.len() - 1] {
            refused(&bytes[..length], "");
        }
        refused(&[&bytes[..], &[0; 4]].concat(), "bytes");
        let first = if name == "version-0.bin" { 0 } else { 8 };
        for (i, value) in [(0, 33), (2, 0), (3, 0), (4, 3), (5, i32::MIN), (1, i32::MAX)] {
            let mut bytes = bytes.clone();
            bytes[first + 4 * i..first + 4 * i + 4].copy_from_slice(&i32::to_le_bytes(value));
            refused(&bytes, "");
        }
    }
    let good = std::fs::read(fixture("version-1.bin")).unwrap();
    refused(&[&good[..4], &3i32.to_le_bytes(), &good[8..]].concat(), "version 3");
    std::fs::write(folder.path().join("tokenizer.bin"), [0; 40]).unwrap();
    refused(&good, "tokenizer.bin");
    std::fs::remove_file(folder.path().join("tokenizer.bin")).unwrap();
    std::fs::write(&path, &good).unwrap();
    assert_eq!(Llama::load(&cpu, &path).unwrap_err().kind, ErrorKind::Io);
}

fn engine(model: &str, isa: Isa) -> Engine {
    let config = Config::from_lookup(|_| None).unwrap();
    Engine::new(Config { isa, threads: 2, text_model: model.into(), ..config }).unwrap()
}

fn write<'a>(engine: &Engine, prompt: Prompt, change: impl FnOnce(&mut Generate<'a>)) -> Result<Completion, Error> {
    write_before(engine, prompt, Deadline::NONE, change)
}

fn write_before<'a>(
    engine: &Engine,
    prompt: Prompt,
    deadline: Deadline,
    change: impl FnOnce(&mut Generate<'a>),
) -> Result<Completion, Error> {
    let mut job = Generate {
        model: None,
        prompt,
        // The likeliest, but not the end.
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

/// A text that goes on from another reads only what is new, and says the same.
#[test]
fn what_was_read_is_not_read_again() {
    let path = fixture("version-0.bin").display().to_string();
    let fresh = |prompt: &str| write(&engine(&path, Isa::detect()), text(prompt), |_| ()).unwrap();
    let engine = engine(&path, Isa::detect());
    let first = write(&engine, text("hello world"), |_| ()).unwrap();
    assert_eq!((first.cached_tokens, first.completion_tokens, first.finish_reason), (0, 24, FinishReason::Length));
    let again = write(&engine, text("hello world"), |_| ()).unwrap();
    assert_eq!((again.text.as_str(), again.cached_tokens), (first.text.as_str(), first.prompt_tokens - 1));
    let longer = write(&engine, text("hello world the weather"), |_| ()).unwrap();
    assert!(longer.cached_tokens > 1 && longer.text == fresh("hello world the weather").text);
    let other = write(&engine, text("a"), |_| ()).unwrap();
    assert_eq!((other.cached_tokens, other.text), (1, fresh("a").text));
}

/// Conversations that begin alike and go on differently are all kept.
#[test]
fn texts_with_one_beginning_do_not_drive_each_other_out() {
    let engine = engine(&fixture("scaled").display().to_string(), Isa::detect());
    let prompt = |by: u32| (0..10).chain((0..40).map(|i| 50 + by + i)).collect::<Vec<u32>>();
    let ask = |by: u32| write(&engine, Prompt::Tokens(prompt(by)), |job| job.max_tokens = Some(4)).unwrap();
    assert_eq!(ask(0).cached_tokens, 0);
    let second = ask(60);
    assert_eq!(second.cached_tokens, 10);
    for by in [0, 60, 0, 60] {
        assert_eq!(ask(by).cached_tokens, 49);
    }
    assert_eq!(ask(60).text, second.text);
}

/// Who hangs up while the prompt is read, or while nothing can be sent, ends the work all the same.
#[test]
fn nobody_who_waits_ends_the_work() {
    let engine = engine(&fixture("scaled").display().to_string(), Isa::detect());
    for (prompt, most) in [((0..250).collect::<Vec<u32>>(), 1), (vec![1, 2, 3], 5)] {
        let asked = AtomicUsize::new(0);
        let check_cancelled = || match asked.fetch_add(1, Ordering::Relaxed) {
            count if count + 1 >= most => Err(Error::new(ErrorKind::ClientClosedRequest, "gone")),
            _ => Ok(()),
        };
        let gone = write(&engine, Prompt::Tokens(prompt), |job| {
            // Held back to the end.
            job.stop = vec!["a".repeat(100_000)];
            job.max_tokens = Some(200);
            job.check_cancelled = &check_cancelled;
        });
        assert_eq!((gone.unwrap_err().kind, asked.load(Ordering::Relaxed)), (ErrorKind::ClientClosedRequest, most));
    }
}

#[test]
fn limits_are_kept_and_named() {
    let path = fixture("version-0.bin").display().to_string();
    let engine = engine(&path, Isa::detect());
    let long = write(&engine, text(&"the ".repeat(100)), |_| ()).unwrap_err();
    assert!(long.kind == ErrorKind::TooLong && long.message.contains("64"), "{long:?}");
    let full = write(&engine, text("hello"), |job| job.max_tokens = None).unwrap();
    assert_eq!((full.finish_reason, full.prompt_tokens + full.completion_tokens), (FinishReason::Length, 64));
    assert_eq!(write(&engine, Prompt::Tokens(vec![]), |_| ()).unwrap_err().kind, ErrorKind::Empty);
    let beyond = write(&engine, Prompt::Tokens(vec![1, 304]), |_| ()).unwrap_err();
    assert!(beyond.message.contains("304"), "{beyond:?}");
    let chat = write(&engine, Prompt::Chat(vec![json!({"role": "user", "content": "x"})], None), |_| ()).unwrap_err();
    assert!(chat.message.contains("no chat template"), "{chat:?}");
    let none = write(&engine, text("hello"), |job| job.max_tokens = Some(0)).unwrap();
    assert_eq!((none.text.as_str(), none.completion_tokens), ("", 0));
    // An error from who listens ends it, and what was read stays of use.
    let mut pieces = 0;
    let mut stop = |_: &TextDelta, _: &LlamaTokenizer| {
        pieces += 1;
        if pieces > 3 { Err(Error::new(ErrorKind::ClientClosedRequest, "gone")) } else { Ok(()) }
    };
    let gone = write(&engine, text("hello world"), |job| job.on_delta = &mut stop).unwrap_err();
    assert_eq!(gone.kind, ErrorKind::ClientClosedRequest);
    assert!(write(&engine, text("hello world"), |_| ()).unwrap().cached_tokens > 1);
}

/// When the time is over, what is written is the answer.
#[test]
fn a_deadline_ends_a_text_and_loses_none() {
    let path = fixture("version-0.bin").display().to_string();
    let engine = engine(&path, Isa::detect());
    let run = |prompt: &str, deadline| write_before(&engine, text(prompt), deadline, |_| ());
    let whole = run("hello world", Deadline::NONE).unwrap();
    // Less than what sending a reply takes is left, so that one token is written.
    let cut = run("hello world", Deadline(Some(Instant::now() + Duration::from_millis(60)))).unwrap();
    assert_eq!((cut.finish_reason, cut.completion_tokens), (FinishReason::Length, 1));
    assert!(whole.text.starts_with(&cut.text));
    assert_eq!(run("the weather", Deadline(Some(Instant::now()))).unwrap_err().kind, ErrorKind::Timeout);
    assert_eq!(run("hello world", Deadline::NONE).unwrap().text, whole.text);
}

#[test]
fn the_command_line_writes() {
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
    // A conversation that outgrows the context goes on without its beginning.
    let mut talk = std::process::Command::new(env!("CARGO_BIN_EXE_tealight"));
    talk.args(["generate", "--model", &chat, "--chat", "--max-tokens", "4"]).stdin(std::process::Stdio::piped());
    let mut talk = talk.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let lines = format!("{}\n", "word ".repeat(20)).repeat(8);
    std::io::Write::write_all(&mut talk.stdin.take().unwrap(), lines.as_bytes()).unwrap();
    assert!(talk.wait_with_output().unwrap().status.success());
    let short = run(&plain, Some("40"));
    let said = String::from_utf8_lossy(&short.stderr).into_owned();
    assert!(!short.status.success() && said.contains("MiB") && said.contains("40 MiB are available"), "{said}");
    let wrong = run(&["--model", &model, "--temperature", "9", "x"], None);
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("temperature is 9"));
}

#[test]
fn echo_has_the_prompt_and_its_probabilities() {
    let path = fixture("version-0.bin").display().to_string();
    let engine = engine(&path, Isa::detect());
    let plain = write(&engine, text("hello world"), |job| job.top_logprobs = Some(3)).unwrap();
    assert!(plain.logprobs.len() == 24 && plain.logprobs.iter().all(|c| c.top.len() == 3 && c.logprob.is_some()));
    let echoed = write(&engine, text("hello world"), |job| {
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
fn schemas_that_are_too_much_are_refused() {
    let engine = engine(&fixture("scaled").display().to_string(), Isa::detect());
    let chain = |count: usize, link: &dyn Fn(Value) -> Value| {
        let next = |i: usize| link(json!({"$ref": format!("#/$defs/d{}", i + 1)}));
        let mut definitions: serde_json::Map<_, _> = (0..count).map(|i| (format!("d{i}"), next(i))).collect();
        definitions.insert(format!("d{count}"), json!({"type": "integer"}));
        json!({"$ref": "#/$defs/d0", "$defs": definitions})
    };
    let ask = |schema: Value| {
        write(&engine, text("x"), |job| {
            job.schema = Some(schema);
            job.max_tokens = Some(20);
        })
    };
    assert!(!ask(chain(300, &|link| json!({"type": "array", "items": link, "minItems": 1}))).unwrap().text.is_empty());
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
        let error = ask(schema).unwrap_err();
        assert!(
            error.kind == ErrorKind::InvalidValue && error.param.as_deref() == Some("response_format"),
            "{word}: {error:?}"
        );
        assert!(error.message.contains(word), "{word}: {error:?}");
    }
}

#[test]
fn a_schema_is_kept_to_whatever_the_model_likes() {
    let path = fixture("scaled").display().to_string();
    let engine = engine(&path, Isa::detect());
    let schema = json!({"type": "object", "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 99},
        "kind": {"enum": ["cat", "dog"]}}, "required": ["age", "kind"], "additionalProperties": false});
    for seed in 0..5 {
        let answer = write(&engine, text("x"), |job| {
            job.schema = Some(schema.clone());
            job.sampling = SamplingParams { seed, ..SamplingParams::default() };
            job.max_tokens = Some(100);
        });
        let answer = answer.unwrap();
        let value: Value = serde_json::from_str(&answer.text).unwrap_or_else(|e| panic!("{e}: {:?}", answer.text));
        assert!(value["age"].as_u64().unwrap() < 100 && ["cat", "dog"].contains(&value["kind"].as_str().unwrap()));
        assert_eq!(answer.finish_reason, FinishReason::Stop);
    }
    let wrong = write(&engine, text("x"), |job| job.schema = Some(json!({"type": "cake"}))).unwrap_err();
    assert!(wrong.kind == ErrorKind::InvalidValue && wrong.param.as_deref() == Some("response_format"), "{wrong:?}");
}

fn smollm2() -> PathBuf {
    tealight::engine::model_path::resolve_any(&Config::from_lookup(|_| None).unwrap(), "smollm2-135m-instruct").unwrap()
}

#[test]
#[ignore = "needs the weights that tests/run gets"]
fn logits_of_a_real_model_are_those_of_the_equations() {
    let golden = json_of(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/llama/smollm2.json"));
    let tokens = ids(&golden["tokens"]);
    for isa in sets() {
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
        assert!(root < LOGITS_ERROR && firsts + 1 >= tokens.len(), "{}: {root} {firsts}", isa.as_str());
    }
}

#[test]
#[ignore = "needs the weights that tests/run gets"]
fn tokens_of_a_real_model() {
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

/// Chat templates of many makers as `transformers` renders them (tests/chat_templates.py).
/// Tokenizers of many makers, and what their own code makes of the texts beside them: llama.cpp keeps both.
#[test]
#[ignore = "needs what tests/run gets"]
fn tokens_are_those_of_the_makers() {
    let folder = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("target/text/vocabularies");
    let names = [
        "llama-spm",
        "llama-bpe",
        "phi-3",
        "gpt-2",
        "starcoder",
        "refact",
        "command-r",
        "qwen2",
        "mpt",
        "falcon",
        "deepseek-llm",
        "deepseek-coder",
    ];
    for name in names {
        let path = folder.join(format!("ggml-vocab-{name}.gguf"));
        let file = Gguf::parse(std::fs::read(&path).unwrap().into()).unwrap();
        let tokens = LlamaTokenizer::from_gguf(&file).unwrap_or_else(|e| panic!("{name}: {e}"));
        let read = |kind: &str| std::fs::read_to_string(folder.join(format!("ggml-vocab-{name}.gguf.{kind}"))).unwrap();
        if name == "llama-bpe" {
            let unknown = std::fs::read(&path).unwrap();
            let at = |word: &str, from: usize| {
                from + unknown[from..].windows(word.len()).position(|w| w == word.as_bytes()).unwrap()
            };
            let at = at(name, at("tokenizer.ggml.pre", 0));
            let unknown = [&unknown[..at], b"llama-bpx", &unknown[at + name.len()..]].concat();
            let error = LlamaTokenizer::from_gguf(&Gguf::parse(unknown.into()).unwrap()).unwrap_err();
            assert!(error.message.contains("tokenizer.ggml.pre") && error.message.contains("llama-bpx"), "{error:?}");
        }
        let (texts, ids) = (read("inp"), read("out"));
        let texts: Vec<_> = texts.split_terminator("\n__ggml_vocab_test__\n").collect();
        let ids: Vec<Vec<u32>> =
            ids.lines().map(|l| l.split_whitespace().map(|id| id.parse().unwrap()).collect()).collect();
        assert!(texts.len() > 40 && texts.len() == ids.len(), "{name}: {} {}", texts.len(), ids.len());
        for (text, expected) in texts.iter().zip(&ids) {
            let found = tokens.encode(text).unwrap();
            assert_eq!(&found, expected, "{name}: {text:?}");
            let bytes: Vec<u8> = found.iter().flat_map(|id| tokens.token_bytes(*id).to_vec()).collect();
            // SentencePiece puts a space before a text.
            let space = if matches!(name, "llama-spm" | "phi-3") && !text.is_empty() { " " } else { "" };
            assert_eq!(String::from_utf8(bytes).unwrap(), format!("{space}{text}"), "{name}");
        }
    }
}

#[test]
#[ignore = "needs what tests/run gets"]
fn templates_are_rendered_as_transformers_does() {
    let rows = json_of(fixture("../../../target/text/templates.json"));
    let (mut same, mut others) = (0, vec![]);
    for row in rows.as_array().unwrap() {
        let messages = row["chat"]["messages"].as_array().unwrap();
        let input = ChatInput {
            messages,
            tools: row["chat"].get("tools"),
            add_generation_prompt: true,
            bos_token: "<s>",
            eos_token: "</s>",
        };
        let found = chat_template::render(row["template"].as_str().unwrap(), &input).ok();
        match found.as_deref() == row["expected"].as_str() {
            true => same += 1,
            false => others.push((row["name"].as_str().unwrap(), found, row["expected"].as_str())),
        }
    }
    for (name, found, expected) in &others {
        println!("{name}: {:?} instead of {:?}", found.as_deref().map(shortened), expected.map(shortened));
    }
    println!("{same} the same, {} not", others.len());
    assert!(same >= TEMPLATES);
}

fn shortened(text: &str) -> String {
    text.chars().take(300).collect()
}
