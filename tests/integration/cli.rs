//! The command line: runs the real binary.

use crate::support::process::{CommandOutput, Process, run, run_with_input, tealight};
use crate::support::{TINY, floats, path};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

/// Lines of text, among them a document and a JSON object that is not a document.
const LINES: &str = "hello world\n{\"id\":\"b\",\"text\":\"good night\",\"metadata\":{\"n\":1}}\n{ not json\n";

fn embed(args: &[&str]) -> CommandOutput {
    run(&mut tealight([&["embed", "--model", TINY], args].concat()))
}

fn embed_lines(args: &[&str], input: &str) -> CommandOutput {
    run_with_input(&mut tealight([&["embed", "--model", TINY], args].concat()), input)
}

fn vector(text: &str) -> Vec<f32> {
    floats(&embed(&[text]).expect_json())
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn embed_one_text_prints_embedding_and_several_print_list() {
    let one = run(&mut tealight(["embed", "hello world"])).expect_json();
    assert_eq!(floats(&one).len(), 384);
    let two = run(&mut tealight(["embed", "hello world", "good night"])).expect_json();
    assert_eq!(two.as_array().unwrap().len(), 2);
    assert_eq!(two[0], one, "equal texts have equal embeddings");
    assert_ne!(two[1], one);
}

#[test]
fn input_lines_become_documents() {
    let list = embed_lines(&[], LINES).expect_json();
    let lines = embed_lines(&["--format", "jsonl"], LINES).expect_text();
    assert_eq!(list, Value::from(json_lines(&lines)));
    let expected = [(json!(0), "hello world"), (json!("b"), "good night"), (json!(2), "{ not json")];
    for (document, (id, text)) in list.as_array().unwrap().iter().zip(expected) {
        assert_eq!((&document["id"], &document["text"]), (&id, &json!(text)));
        assert_eq!(floats(&document["embedding"]), vector(text));
    }
    assert_eq!(list[1]["metadata"], json!({"n": 1}));
    assert_eq!(list[0].get("metadata"), None);
}

#[test]
fn default_ids_are_consecutive_over_all_batches() {
    let lines: String = (0..700).map(|i| format!("text {i}\n")).collect();
    let documents = json_lines(&embed_lines(&["--format", "jsonl"], &lines).expect_text());
    assert_eq!(documents.len(), 700);
    for (i, document) in documents.iter().enumerate() {
        assert_eq!((&document["id"], &document["text"]), (&json!(i), &json!(format!("text {i}"))));
    }
    assert_eq!(floats(&documents[699]["embedding"]), vector("text 699"));
}

#[test]
fn file_and_stdin_give_equal_output() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("in.jsonl");
    std::fs::write(&file, LINES).unwrap();
    let expected = embed_lines(&[], LINES).expect_text();
    assert_eq!(embed(&["--input", file.to_str().unwrap()]).expect_text(), expected);
    assert_eq!(embed_lines(&["--input", "-"], LINES).expect_text(), expected);
    assert_eq!(embed_lines(&[], LINES.trim_end()).expect_text(), expected, "a final line break is optional");
    assert_eq!(embed_lines(&[], &LINES.replace('\n', "\r\n")).expect_text(), expected, "CRLF line breaks");
    let missing = folder.path().join("missing").display().to_string();
    assert!(embed(&["--input", &missing]).expect_failure().contains(&missing));
}

/// Shape, NumPy type and data of a .npy file.
fn npy(file: &[u8]) -> (String, String, Vec<u8>) {
    assert_eq!(&file[..8], b"\x93NUMPY\x01\x00");
    let length = u16::from_le_bytes([file[8], file[9]]) as usize;
    assert_eq!((10 + length) % 64, 0, "the header is padded to cache lines");
    let header = std::str::from_utf8(&file[10..10 + length]).unwrap();
    assert!(header.ends_with('\n') && header.contains("'fortran_order': False"), "{header}");
    let part = |from: &str, to: &str| header.split_once(from).unwrap().1.split_once(to).unwrap().0.to_string();
    (part("'shape': (", ")"), part("'descr': '", "'"), file[10 + length..].to_vec())
}

#[test]
fn npy_contains_same_embeddings_as_json() {
    let (shape, kind, bytes) = npy(&embed_lines(&["--format", "npy"], LINES).expect_success());
    assert_eq!((shape.as_str(), kind.as_str()), ("3, 16", "<f4"));
    let values: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let texts = ["hello world", "good night", "{ not json"];
    assert_eq!(values, texts.map(vector).concat());
    let (shape, ..) = npy(&embed_lines(&["--format", "npy"], "").expect_success());
    assert_eq!(shape, "0, 16", "empty input gives an empty matrix");
}

#[test]
fn all_encodings_agree_with_float() {
    let expected = vector("hello world");
    let encoded = |name: &str| embed(&["--encoding", name, "hello world"]).expect_json();
    let bytes = STANDARD.decode(encoded("base64").as_str().unwrap()).unwrap();
    assert_eq!(bytes, expected.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
    assert_eq!(floats(&encoded("float")), expected);

    let largest = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let codes: Vec<f32> = expected.iter().map(|v| (v / (largest / 127.0)).round()).collect();
    assert_eq!(floats(&encoded("int8")), codes);
    assert_eq!(floats(&encoded("uint8")), codes.iter().map(|c| c + 128.0).collect::<Vec<_>>());

    let byte = |values: &[f32]| values.iter().fold(0u8, |byte, v| byte << 1 | u8::from(*v > 0.0));
    let bits: Vec<f32> = expected.chunks(8).map(|c| byte(c).into()).collect();
    assert_eq!(floats(&encoded("ubinary")), bits);
    assert_eq!(floats(&encoded("binary")), bits.iter().map(|b| b - 128.0).collect::<Vec<_>>());
}

#[test]
fn int8_record_has_scale_that_restores_values() {
    let expected = vector("hello world");
    let document = embed_lines(&["--encoding", "int8"], "hello world\n").expect_json()[0].clone();
    let scale = document["scale"].as_f64().unwrap() as f32;
    for (code, value) in floats(&document["embedding"]).iter().zip(expected) {
        assert!((code * scale - value).abs() <= scale / 2.0 + 1e-6, "{code} × {scale} is not {value}");
    }
    assert_eq!(embed_lines(&[], "hello world\n").expect_json()[0].get("scale"), None);
}

#[test]
fn npy_type_depends_on_encoding() {
    for (encoding, kind, columns) in
        [("int8", "|i1", 16), ("uint8", "|u1", 16), ("binary", "|i1", 2), ("ubinary", "|u1", 2)]
    {
        let (shape, found, bytes) =
            npy(&embed_lines(&["--format", "npy", "--encoding", encoding], "a\nb\n").expect_success());
        assert_eq!((shape, found.as_str()), (format!("2, {columns}"), kind), "{encoding}");
        let values = embed(&["--encoding", encoding, "a", "b"]).expect_json();
        let expected: Vec<u8> =
            [&values[0], &values[1]].iter().flat_map(|v| floats(v)).map(|v| v as i16 as u8).collect();
        assert_eq!(bytes, expected, "{encoding}");
    }
    let message = embed(&["--format", "npy", "--encoding", "base64", "a"]).expect_failure();
    assert!(message.contains("base64"), "{message}");
}

#[test]
fn output_file_is_written_atomically() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("out.jsonl");
    let to_file = ["--format", "jsonl", "-o", file.to_str().unwrap()];
    let expected = embed_lines(&["--format", "jsonl"], LINES).expect_text();
    assert_eq!(embed_lines(&to_file, LINES).expect_text(), "");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), expected);

    // An error late in the input leaves the old file unchanged and no temporary file.
    let bad = "fine\n".repeat(600) + "{\"id\":1}\n";
    assert!(embed_lines(&to_file, &bad).expect_failure().contains("line 601"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), expected);
    std::fs::remove_file(&file).unwrap();
    embed_lines(&to_file, &bad).expect_failure();
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);

    let missing_path = folder.path().join("missing/out.json").display().to_string();
    assert!(embed(&["-o", &missing_path, "a"]).expect_failure().contains(&missing_path));
}

#[test]
fn invalid_line_is_reported_with_line_number() {
    for (input, number, word) in [
        ("a\n\nb\n", "2", "empty"),
        ("a\nb\n{\"id\":1}\n", "line 3", "text"),
        ("{\"text\":5}\n", "line 1", "string"),
        ("{\"text\":\"\"}\n", "1", "empty"),
    ] {
        let message = embed_lines(&[], input).expect_failure();
        assert!(message.contains(number) && message.contains(word), "{input:?}: {message}");
    }
}

/// Lines are embedded in batches, which must not show in error messages.
#[test]
fn line_over_max_tokens_is_reported_with_line_number() {
    let input = "fine\n".repeat(299) + &"the river ".repeat(100) + "\n";
    let message = embed_lines(&[], &input).expect_failure();
    assert!(message.contains("300") && message.contains("tokens"), "{message}");
    let message = embed_lines(&[], &("fine\n".repeat(299) + "\n")).expect_failure();
    assert!(message.contains("300") && message.contains("empty"), "{message}");
}

#[test]
fn line_with_invalid_utf8_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("in.txt");
    std::fs::write(&file, b"fine\n\xff\xfe\n").unwrap();
    let message = embed(&["-i", file.to_str().unwrap()]).expect_failure();
    assert!(message.contains("line 2") && message.contains("UTF-8"), "{message}");
}

#[test]
fn dimensions_option_truncates_and_normalizes() {
    let full = vector("hello world");
    let short = floats(&embed(&["--dimensions", "5", "hello world"]).expect_json());
    let norm = full[..5].iter().map(|v| v * v).sum::<f32>().sqrt();
    assert_eq!(short.len(), 5);
    for (found, value) in short.iter().zip(&full) {
        assert!((found - value / norm).abs() < 1e-6, "{short:?}");
    }
    for n in ["0", "17"] {
        let message = embed(&["--dimensions", n, "a"]).expect_failure();
        assert!(message.contains(n) && message.contains("16"), "{message}");
    }
}

#[test]
fn no_normalize_keeps_norm() {
    let (unit, raw) = (vector("hello world"), floats(&embed(&["--no-normalize", "hello world"]).expect_json()));
    let norm = raw.iter().map(|v| v * v).sum::<f32>().sqrt();
    assert!((norm - 1.0).abs() > 1e-3, "norm {norm}: this model does not return unit-length embeddings");
    for (raw, unit) in raw.iter().zip(unit) {
        assert!((raw / norm - unit).abs() < 1e-6);
    }
}

#[test]
fn text_over_max_tokens_is_rejected_unless_truncate_is_set() {
    let long = "the river ".repeat(40);
    let message = embed(&[&long]).expect_failure();
    assert!(message.contains("tokens") && message.contains("48"), "{message}");
    // 46 words and 2 special tokens are 48 tokens.
    let truncated = floats(&embed(&["--truncate", &long]).expect_json());
    assert_eq!(truncated, vector(&"the river ".repeat(23)));
}

#[test]
fn prompt_name_option_prepends_named_prompt() {
    let prompted = floats(&embed(&["--prompt-name", "query", "hello world"]).expect_json());
    assert_eq!(prompted, vector("query: hello world"));
    assert_ne!(prompted, vector("hello world"));
    let message = embed(&["--prompt-name", "other", "hello world"]).expect_failure();
    assert!(message.contains("other") && message.contains("passage, query"), "{message}");
    let former_name = floats(&embed(&["--prompt", "query", "hello world"]).expect_json());
    assert_eq!(former_name, prompted);
}

#[test]
fn embedding_is_independent_of_threads_and_batch() {
    let texts = ["hello world", "a", "the river of stone and the garden of glass"];
    let many = [&texts[..], &["filler"; 40], &texts].concat();
    for threads in ["1", "2"] {
        let list = embed(&[&["--threads", threads], &many[..]].concat()).expect_json();
        for (i, text) in texts.iter().enumerate() {
            assert_eq!(floats(&list[i]), vector(text), "{text} on {threads} threads");
            assert_eq!(list[43 + i], list[i]);
        }
    }
}

#[test]
fn model_option_overrides_environment_variable() {
    let by_variable = run(tealight(["embed", "hello world"]).env("TEALIGHT_MODEL", TINY)).expect_json();
    assert_eq!(floats(&by_variable), vector("hello world"));
    let by_both = run(tealight(["embed", "--model", TINY, "hello world"]).env("TEALIGHT_MODEL", "/nonexistent"));
    assert_eq!(by_both.expect_json(), by_variable);
    let folder = run(tealight(["embed", "--model", "tiny-st-old", "hello world"])
        .env("TEALIGHT_MODEL_DIR", path("tests/fixtures/models")));
    assert_eq!(folder.expect_json(), by_variable);
}

/// A typo in a path, or another organization's model, must not silently select the installed model of the same name.
#[test]
fn missing_model_is_not_replaced_by_installed_model_of_same_name() {
    for model in ["/nonexistent/all-MiniLM-L6-v2.gguf", "./slip/all-MiniLM-L6-v2", "other/all-MiniLM-L6-v2"] {
        let message = run(&mut tealight(["embed", "--model", model, "a"])).expect_failure();
        assert!(message.contains(model), "{message}");
    }
    for model in ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"] {
        run(&mut tealight(["embed", "--model", model, "a"])).expect_success();
    }
}

#[test]
fn exit_code_is_1_for_failure_and_2_for_usage_error() {
    for failing in [
        &["embed", "--model", "/nonexistent.gguf", "a"][..],
        &["embed", ""],
        &["info", "--model", "/nonexistent.gguf"],
        &["pack", "/nonexistent", "-o", "/nonexistent/x.gguf"],
        &["bench", "embed", "--shape", "1x257"],
    ] {
        run(&mut tealight(failing.iter().copied())).expect_failure();
    }
    for misuse in [
        &[][..],
        &["nonsense"],
        &["embed", "--nonsense"],
        &["embed", "--format", "xml", "a"],
        &["embed", "--encoding", "int4", "a"],
        &["embed", "--dimensions", "many", "a"],
        &["embed", "--input", "x", "a"],
        &["embed", "--format", "npy", "--chunk-tokens", "64", "a"],
        &["embed", "--threads", "0", "a"],
        &["bench", "embed", "--shape", "1by8"],
        &["bench"],
        &["serve", "--port", "65536"],
        &["pack"],
        &["completions", "csh"],
    ] {
        let done = run(&mut tealight(misuse.iter().copied()));
        assert_eq!(done.code, Some(2), "{misuse:?}: {}", done.stderr);
        assert_eq!(done.text(), "", "{misuse:?}");
        assert!(done.stderr.contains("Usage") || done.stderr.contains("--help"), "{misuse:?}: {}", done.stderr);
    }
}

#[test]
fn invalid_environment_variable_is_named_in_error() {
    let message = run(tealight(["embed", "a"]).env("TEALIGHT_THREADS", "none")).expect_failure();
    assert!(message.contains("TEALIGHT_THREADS") && message.contains("none"), "{message}");
}

#[test]
fn closed_stdout_pipe_is_not_an_error() {
    for args in [&["embed", "--model", TINY, "--format", "jsonl"][..], &["embed", "--model", TINY]] {
        let mut command = tealight(args.iter().copied());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // More than a pipe buffers, so that the process is still writing when the reader closes it.
        let writer = std::thread::spawn(move || drop(stdin.write_all("hello world\n".repeat(5000).as_bytes())));
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("hello world"), "{line}");
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        writer.join().unwrap();
    }
}

#[cfg(all(feature = "speech", feature = "text"))]
#[test]
fn models_command_lists_catalog_and_installed_models() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(path("tests/fixtures/models/tiny-bert-f32.gguf"), folder.path().join("mine.gguf")).unwrap();
    let models = |args: &[&str]| run(tealight(args.iter().copied()).env("TEALIGHT_MODEL_DIR", folder.path()));
    let rows = json_lines(&models(&["models", "--json"]).expect_text());
    let row = |name: &str| rows.iter().find(|r| r["name"] == name).unwrap_or_else(|| panic!("no {name} in {rows:?}"));
    assert_eq!(row("mine")["place"], "installed");
    let default = row("all-MiniLM-L6-v2");
    assert_eq!(
        (&default["place"], &default["dimension"], &default["max_tokens"]),
        (&json!("installed"), &json!(384), &json!(256))
    );
    assert_eq!(row("bge-small-en-v1.5")["place"], "");
    for (name, task, makes) in [
        ("all-MiniLM-L6-v2", "embedding", "vectors"),
        ("whisper-base", "transcription", "texts of speech"),
        ("smollm2-135m-instruct", "text generation", "text"),
        ("mine", "", ""),
    ] {
        // `makes` is the former name of `task`, with its former values.
        assert_eq!((&row(name)["task"], &row(name)["makes"]), (&json!(task), &json!(makes)), "{name}");
    }
    let table = models(&["models"]).expect_text();
    for row in &rows {
        assert!(table.contains(row["name"].as_str().unwrap()), "{table}");
    }
}

#[test]
fn info_command_shows_default_model() {
    let info = run(&mut tealight(["info", "--json"])).expect_json();
    assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&info["model"], &info["dimension"]), (&json!("all-MiniLM-L6-v2"), &json!(384)));
    assert_eq!((&info["pooling"], &info["license"]), (&json!("mean"), &json!("Apache-2.0")));
    let tiny = run(&mut tealight(["info", "--json", "--model", TINY, "--threads", "1"])).expect_json();
    assert_eq!((&tiny["dimension"], &tiny["max_tokens"], &tiny["threads"]), (&json!(16), &json!(48), &json!(1)));
    assert_eq!(tiny["prompts"], json!(["passage", "query"]));
    let table = run(&mut tealight(["info"])).expect_text();
    for name in info.as_object().unwrap().keys() {
        assert!(table.lines().any(|l| l.starts_with(name.as_str())), "no {name} in {table}");
    }
}

#[test]
fn bench_embed_prints_documented_fields() {
    let shapes = ["bench", "embed", "--model", TINY, "--threads", "1", "--shape", "1x8", "--shape", "2x16"];
    let rows = json_lines(&run(&mut tealight([&shapes[..], &["--json"]].concat())).expect_text());
    let keys: BTreeSet<&str> = rows[0].as_object().unwrap().keys().map(String::as_str).collect();
    let counts = ["batch", "isa", "shape", "threads", "tokens"];
    let measures = ["gops", "ms_median", "ms_min", "of_peak", "peak_gops", "tokens_per_s"];
    assert_eq!(keys, BTreeSet::from_iter([&counts[..], &measures[..]].concat()));
    assert_eq!(rows.len(), 2);
    assert_eq!((&rows[1]["batch"], &rows[1]["tokens"], &rows[1]["threads"]), (&json!(2), &json!(16), &json!(1)));
    for row in &rows {
        let number = |name: &str| row[name].as_f64().unwrap();
        assert!(number("ms_min") > 0.0 && number("ms_median") >= number("ms_min"), "{row}");
        let tokens = number("batch") * number("tokens") / (number("ms_median") / 1e3);
        assert!((number("tokens_per_s") / tokens - 1.0).abs() < 1e-6, "{row}");
        assert!((number("of_peak") * number("peak_gops") / number("gops") - 1.0).abs() < 1e-6, "{row}");
    }
    let text = run(&mut tealight(shapes)).expect_text();
    assert!(text.lines().count() == 2 && text.contains("2x16"), "{text}");
}

#[test]
fn bench_embed_accepts_range_of_lengths() {
    let row = run(&mut tealight(["bench", "embed", "--model", TINY, "--shape", "5x3-40", "--json"])).expect_json();
    assert_eq!((&row["shape"], &row["batch"], &row["tokens"]), (&json!("5x3-40"), &json!(5), &json!(40)));
}

#[test]
fn info_timing_prints_all_phases() {
    let phases = run(&mut tealight(["info", "--model", TINY, "--timing", "--json"])).expect_json();
    let phases = phases.as_object().unwrap();
    for name in ["exec_to_main_ms", "network_ms", "tokens_ms", "forward_pass_ms", "json_ms", "whole_process_ms"] {
        assert!(phases.contains_key(name), "no {name} in {phases:?}");
    }
    assert!(phases.values().all(|ms| ms.as_f64().is_some_and(|ms| (0.0..10_000.0).contains(&ms))), "{phases:?}");
}

#[test]
fn completions_contain_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&mut tealight(["completions", shell])).expect_text();
        for command in commands(&[]) {
            assert!(script.contains(&command), "{shell} completions lack {command}");
        }
    }
}

/// The commands that the help of `above` lists.
fn commands(above: &[&str]) -> Vec<String> {
    let help = run(&mut tealight([above, &["--help"]].concat())).expect_text();
    let Some((_, list)) = help.split_once("Commands:\n") else { return vec![] };
    let lines = list.lines().take_while(|l| !l.is_empty()).filter(|l| !l.starts_with("    "));
    lines.filter_map(|l| l.split_whitespace().next()).filter(|c| *c != "help").map(str::to_string).collect()
}

#[test]
fn every_command_and_option_has_help() {
    let top = commands(&[]);
    for expected in ["embed", "serve", "pack", "pull", "models", "info", "bench", "completions"] {
        assert!(top.contains(&expected.to_string()), "{expected} is missing in {top:?}");
    }
    let below: Vec<Vec<String>> = top.iter().map(|c| commands(&[c.as_str()])).collect();
    let all = top.iter().zip(&below).flat_map(|(c, inner)| {
        std::iter::once(vec![c.as_str()]).chain(inner.iter().map(move |i| vec![c.as_str(), i.as_str()]))
    });
    for command in all {
        check_help(&command);
    }
    assert_eq!(run(&mut tealight(["--version"])).expect_text(), format!("tealight {}\n", env!("CARGO_PKG_VERSION")));
}

fn check_help(command: &[&str]) {
    let help = run(&mut tealight([command, &["--help"]].concat())).expect_text();
    let mut lines = help.lines();
    assert!(lines.next().unwrap().len() > 20, "{help}");
    assert!(help.contains(&format!("Usage: tealight {}", command.join(" "))), "{help}");
    let lines: Vec<_> = lines.collect();
    for (i, line) in lines.iter().enumerate().filter(|(_, l)| l.trim_start().starts_with('-')) {
        // The help text follows two spaces, or is on the next line.
        let same = line.trim_start().split_once("  ").is_some();
        let next = lines.get(i + 1).is_some_and(|n| n.starts_with("          ") && !n.trim_start().starts_with('-'));
        assert!(same || next, "{line} has no help in {help}");
    }
}

#[test]
fn pack_is_deterministic_and_close_to_unpacked_model() {
    let folder = tempfile::tempdir().unwrap();
    let pack = |name: &str| {
        let file = folder.path().join(name).display().to_string();
        let labels = ["--name", "tiny", "--license", "MIT", "--source-url", "https://example.org/tiny"];
        let printed = run(&mut tealight([&["pack", TINY, "-o", &file][..], &labels].concat())).expect_text();
        assert_eq!(printed.trim_end(), file);
        file
    };
    let (first, second) = (pack("first.gguf"), pack("second.gguf"));
    assert!(std::fs::read(&first).unwrap() == std::fs::read(&second).unwrap(), "pack is not deterministic");
    assert_eq!(folder.path().read_dir().unwrap().count(), 2, "temporary files are left");

    let texts = ["hello world", "The candle burns.", "中 and 🕯 and я", "a"];
    let with = |model: &str, more: &[&str]| {
        let args = [&["embed", "--model", model], more, &texts].concat();
        let vectors = run(&mut tealight(args)).expect_json();
        vectors.as_array().unwrap().iter().map(floats).collect::<Vec<_>>()
    };
    for more in [&[][..], &["--prompt-name", "query"], &["--no-normalize"], &["--dimensions", "7"]] {
        for (a, b) in with(TINY, more).iter().zip(&with(&first, more)) {
            let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f32>();
            // Hidden states of 32 values, so rounding errors average out less than in a real model.
            assert!(dot(a, b) / (dot(a, a) * dot(b, b)).sqrt() > 0.99, "{more:?}: {a:?} {b:?}");
        }
    }
    let info = run(&mut tealight(["info", "--json", "--model", &first])).expect_json();
    assert_eq!((&info["license"], &info["source"]), (&json!("MIT"), &json!("https://example.org/tiny")));
    assert_eq!((&info["format"], &info["max_tokens"]), (&json!("gguf"), &json!(48)));
}

#[test]
fn pack_of_invalid_model_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().display().to_string();
    let file = folder.path().join("x.gguf").display().to_string();
    let message = run(&mut tealight(["pack", &source, "-o", &file])).expect_failure();
    assert!(message.contains(&source) && message.contains("config.json"), "{message}");
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}

#[test]
fn serve_on_used_port_fails_with_address() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut process = Process::start(tealight(["serve", "--port", &address.port().to_string()]));
    assert_eq!(process.wait().code(), Some(1));
    assert!(process.stderr().contains(&address.to_string()), "{}", process.stderr());
}

#[test]
fn output_keeps_pipe_symlink_and_permissions() {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let embed = |output: &str| run(&mut tealight(["embed", "a", "-o", output])).expect_success();

    assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    let pipe = at("pipe");
    let reader = std::thread::spawn(move || std::fs::read_to_string(pipe).unwrap());
    embed(&at("pipe"));
    assert!(reader.join().unwrap().starts_with('['));
    assert!(std::fs::metadata(at("pipe")).unwrap().file_type().is_fifo(), "the pipe was replaced");

    std::fs::write(at("target"), "old").unwrap();
    std::fs::set_permissions(at("target"), std::fs::Permissions::from_mode(0o600)).unwrap();
    symlink(at("target"), at("link")).unwrap();
    embed(&at("link"));
    assert!(std::fs::symlink_metadata(at("link")).unwrap().is_symlink(), "the link was replaced");
    assert!(std::fs::read_to_string(at("target")).unwrap().starts_with('['));
    assert_eq!(std::fs::metadata(at("target")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn large_numbers_in_ids_and_metadata_are_unchanged() {
    let line = r#"{"id":12345678901234567890123,"text":"a","metadata":{"price":1.10}}"#;
    let text = embed_lines(&["--format", "jsonl"], line).expect_text();
    assert!(
        text.contains(r#""id":12345678901234567890123,"#) && text.contains(r#""metadata":{"price":1.10}"#),
        "{text}"
    );
}

#[test]
fn byte_order_mark_is_ignored() {
    let plain = embed_lines(&["--format", "jsonl"], r#"{"id":1,"text":"a"}"#).expect_text();
    assert_eq!(embed_lines(&["--format", "jsonl"], "\u{feff}{\"id\":1,\"text\":\"a\"}").expect_text(), plain);
}

#[test]
fn truncated_json_line_is_embedded_as_text_with_warning() {
    let done = embed_lines(&["--format", "jsonl"], r#"{"text":"a","#);
    assert!(done.stderr.contains("is read as text"), "{}", done.stderr);
}

#[test]
fn invalid_options_fail_before_input_is_read() {
    for args in [["--dimensions", "99999999"], ["--dimensions", "0"], ["--prompt-name", "nope"]] {
        let message = embed_lines(&args, "").expect_failure();
        let field = args[0].trim_start_matches("--").replace('-', "_");
        assert!(message.contains(&field), "{message}");
    }
}

#[test]
fn invalid_repository_name_is_rejected_without_request() {
    for name in ["nope", "a/b/c", "../../etc/passwd", "a/../b", "/etc/passwd"] {
        let message = run(&mut tealight(["pull", name])).expect_failure();
        assert!(message.contains("ORG/NAME"), "{name}: {message}");
    }
}
