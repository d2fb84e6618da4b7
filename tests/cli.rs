//! The commands, as a user runs them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use support::process::{CommandOutput, Process, run, run_with_input, tealight};
use support::{TINY, floats, path};

/// A text a line, with a document and an object that is none among them.
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
fn one_text_gives_its_vector_and_several_a_list() {
    let one = run(&mut tealight(["embed", "hello world"])).expect_json();
    assert_eq!(floats(&one).len(), 384);
    let two = run(&mut tealight(["embed", "hello world", "good night"])).expect_json();
    assert_eq!(two.as_array().unwrap().len(), 2);
    assert_eq!(two[0], one, "the same text, the same vector");
    assert_ne!(two[1], one);
}

#[test]
fn lines_give_documents() {
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
fn default_ids_count_on_through_a_long_input() {
    let lines: String = (0..700).map(|i| format!("text {i}\n")).collect();
    let documents = json_lines(&embed_lines(&["--format", "jsonl"], &lines).expect_text());
    assert_eq!(documents.len(), 700);
    for (i, document) in documents.iter().enumerate() {
        assert_eq!((&document["id"], &document["text"]), (&json!(i), &json!(format!("text {i}"))));
    }
    assert_eq!(floats(&documents[699]["embedding"]), vector("text 699"));
}

#[test]
fn a_file_and_stdin_are_read_alike() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("in.jsonl");
    std::fs::write(&file, LINES).unwrap();
    let expected = embed_lines(&[], LINES).expect_text();
    assert_eq!(embed(&["--input", file.to_str().unwrap()]).expect_text(), expected);
    assert_eq!(embed_lines(&["--input", "-"], LINES).expect_text(), expected);
    assert_eq!(embed_lines(&[], LINES.trim_end()).expect_text(), expected, "the last line may lack its end");
    assert_eq!(embed_lines(&[], &LINES.replace('\n', "\r\n")).expect_text(), expected, "as Windows writes lines");
    let missing = folder.path().join("missing").display().to_string();
    assert!(embed(&["--input", &missing]).expect_failure().contains(&missing));
}

/// The shape, numpy's name of the type, and the bytes of a .npy file.
fn npy(file: &[u8]) -> (String, String, Vec<u8>) {
    assert_eq!(&file[..8], b"\x93NUMPY\x01\x00");
    let length = u16::from_le_bytes([file[8], file[9]]) as usize;
    assert_eq!((10 + length) % 64, 0, "numpy maps files by whole cache lines");
    let header = std::str::from_utf8(&file[10..10 + length]).unwrap();
    assert!(header.ends_with('\n') && header.contains("'fortran_order': False"), "{header}");
    let part = |from: &str, to: &str| header.split_once(from).unwrap().1.split_once(to).unwrap().0.to_string();
    (part("'shape': (", ")"), part("'descr': '", "'"), file[10 + length..].to_vec())
}

#[test]
fn npy_is_the_matrix_of_the_same_vectors() {
    let (shape, kind, bytes) = npy(&embed_lines(&["--format", "npy"], LINES).expect_success());
    assert_eq!((shape.as_str(), kind.as_str()), ("3, 16", "<f4"));
    let values: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let texts = ["hello world", "good night", "{ not json"];
    assert_eq!(values, texts.map(vector).concat());
    let (shape, ..) = npy(&embed_lines(&["--format", "npy"], "").expect_success());
    assert_eq!(shape, "0, 16", "no lines, no rows");
}

#[test]
fn every_encoding_stands_for_the_same_vector() {
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
fn a_document_has_the_scale_of_its_codes() {
    let expected = vector("hello world");
    let document = embed_lines(&["--encoding", "int8"], "hello world\n").expect_json()[0].clone();
    let scale = document["scale"].as_f64().unwrap() as f32;
    for (code, value) in floats(&document["embedding"]).iter().zip(expected) {
        assert!((code * scale - value).abs() <= scale / 2.0 + 1e-6, "{code} × {scale} is not {value}");
    }
    assert_eq!(embed_lines(&[], "hello world\n").expect_json()[0].get("scale"), None);
}

#[test]
fn encodings_have_their_own_types_in_a_matrix() {
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
fn output_goes_to_a_file_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("out.jsonl");
    let to_file = ["--format", "jsonl", "-o", file.to_str().unwrap()];
    let expected = embed_lines(&["--format", "jsonl"], LINES).expect_text();
    assert_eq!(embed_lines(&to_file, LINES).expect_text(), "");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), expected);

    // An error late in the input leaves the old file as it was, and nothing beside it.
    let bad = "fine\n".repeat(600) + "{\"id\":1}\n";
    assert!(embed_lines(&to_file, &bad).expect_failure().contains("line 601"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), expected);
    std::fs::remove_file(&file).unwrap();
    embed_lines(&to_file, &bad).expect_failure();
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);

    let nowhere = folder.path().join("missing/out.json").display().to_string();
    assert!(embed(&["-o", &nowhere, "a"]).expect_failure().contains(&nowhere));
}

#[test]
fn what_is_wrong_with_a_line_is_said_by_its_number() {
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

/// Lines are embedded many at a time; that is nobody's business.
#[test]
fn a_line_that_is_too_long_is_said_by_its_number_too() {
    let input = "fine\n".repeat(299) + &"the river ".repeat(100) + "\n";
    let message = embed_lines(&[], &input).expect_failure();
    assert!(message.contains("300") && message.contains("tokens"), "{message}");
    let message = embed_lines(&[], &("fine\n".repeat(299) + "\n")).expect_failure();
    assert!(message.contains("300") && message.contains("empty"), "{message}");
}

#[test]
fn lines_that_are_not_utf8_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("in.txt");
    std::fs::write(&file, b"fine\n\xff\xfe\n").unwrap();
    let message = embed(&["-i", file.to_str().unwrap()]).expect_failure();
    assert!(message.contains("line 2") && message.contains("UTF-8"), "{message}");
}

#[test]
fn fewer_dimensions_are_the_first_ones_normalised_again() {
    let whole = vector("hello world");
    let short = floats(&embed(&["--dimensions", "5", "hello world"]).expect_json());
    let norm = whole[..5].iter().map(|v| v * v).sum::<f32>().sqrt();
    assert_eq!(short.len(), 5);
    for (found, value) in short.iter().zip(&whole) {
        assert!((found - value / norm).abs() < 1e-6, "{short:?}");
    }
    for n in ["0", "17"] {
        let message = embed(&["--dimensions", n, "a"]).expect_failure();
        assert!(message.contains(n) && message.contains("16"), "{message}");
    }
}

#[test]
fn a_vector_may_keep_its_length() {
    let (unit, raw) = (vector("hello world"), floats(&embed(&["--no-normalize", "hello world"]).expect_json()));
    let norm = raw.iter().map(|v| v * v).sum::<f32>().sqrt();
    assert!((norm - 1.0).abs() > 1e-3, "{norm}: this model's vectors do not come with length 1");
    for (raw, unit) in raw.iter().zip(unit) {
        assert!((raw / norm - unit).abs() < 1e-6);
    }
}

#[test]
fn a_long_text_is_refused_unless_it_may_be_cut() {
    let long = "the river ".repeat(40);
    let message = embed(&[&long]).expect_failure();
    assert!(message.contains("tokens") && message.contains("48"), "{message}");
    // 46 words and the special tokens around them are 48.
    let cut = floats(&embed(&["--truncate", &long]).expect_json());
    assert_eq!(cut, vector(&"the river ".repeat(23)));
}

#[test]
fn a_prompt_is_put_before_the_text() {
    let prompted = floats(&embed(&["--prompt", "query", "hello world"]).expect_json());
    assert_eq!(prompted, vector("query: hello world"));
    assert_ne!(prompted, vector("hello world"));
    let message = embed(&["--prompt", "other", "hello world"]).expect_failure();
    assert!(message.contains("other") && message.contains("passage, query"), "{message}");
}

#[test]
fn threads_and_company_do_not_change_a_vector() {
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
fn the_environment_names_the_model_unless_the_command_does() {
    let by_variable = run(tealight(["embed", "hello world"]).env("TEALIGHT_MODEL", TINY)).expect_json();
    assert_eq!(floats(&by_variable), vector("hello world"));
    let by_both = run(tealight(["embed", "--model", TINY, "hello world"]).env("TEALIGHT_MODEL", "/nonexistent"));
    assert_eq!(by_both.expect_json(), by_variable);
    let folder = run(tealight(["embed", "--model", "tiny-st-old", "hello world"])
        .env("TEALIGHT_MODEL_DIR", path("tests/fixtures/models")));
    assert_eq!(folder.expect_json(), by_variable);
}

/// A slip in a path, or another organisation's model, must not quietly give the vectors of the one that is installed.
#[test]
fn a_model_that_is_missing_is_not_replaced_by_another_of_its_name() {
    for model in ["/nonexistent/all-MiniLM-L6-v2.gguf", "./slip/all-MiniLM-L6-v2", "other/all-MiniLM-L6-v2"] {
        let message = run(&mut tealight(["embed", "--model", model, "a"])).expect_failure();
        assert!(message.contains(model), "{message}");
    }
    for model in ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"] {
        run(&mut tealight(["embed", "--model", model, "a"])).expect_success();
    }
}

#[test]
fn exit_codes_tell_failure_from_misuse() {
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
fn a_bad_variable_is_named() {
    let message = run(tealight(["embed", "a"]).env("TEALIGHT_THREADS", "none")).expect_failure();
    assert!(message.contains("TEALIGHT_THREADS") && message.contains("none"), "{message}");
}

#[test]
fn a_reader_that_stops_early_is_no_error() {
    for args in [&["embed", "--model", TINY, "--format", "jsonl"][..], &["embed", "--model", TINY]] {
        let mut command = tealight(args.iter().copied());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // More than a pipe holds, so that the process is still writing when nobody reads on.
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

#[test]
fn models_lists_what_is_known_and_installed() {
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
    let table = models(&["models"]).expect_text();
    for row in &rows {
        assert!(table.contains(row["name"].as_str().unwrap()), "{table}");
    }
}

#[test]
fn info_shows_the_model_that_would_be_used() {
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
fn bench_prints_what_is_documented() {
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
fn bench_takes_texts_of_different_lengths() {
    let row = run(&mut tealight(["bench", "embed", "--model", TINY, "--shape", "5x3-40", "--json"])).expect_json();
    assert_eq!((&row["shape"], &row["batch"], &row["tokens"]), (&json!("5x3-40"), &json!(5), &json!(40)));
}

#[test]
fn the_phases_of_a_start_make_up_the_whole() {
    let phases = run(&mut tealight(["info", "--model", TINY, "--timing", "--json"])).expect_json();
    let phases = phases.as_object().unwrap();
    for name in ["exec_to_main_ms", "network_ms", "tokens_ms", "forward_pass_ms", "json_ms", "whole_process_ms"] {
        assert!(phases.contains_key(name), "no {name} in {phases:?}");
    }
    assert!(phases.values().all(|ms| ms.as_f64().is_some_and(|ms| (0.0..10_000.0).contains(&ms))), "{phases:?}");
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&mut tealight(["completions", shell])).expect_text();
        for command in commands(&[]) {
            assert!(script.contains(&command), "{shell} does not know {command}");
        }
    }
}

/// The commands that a help text lists.
fn commands(above: &[&str]) -> Vec<String> {
    let help = run(&mut tealight([above, &["--help"]].concat())).expect_text();
    let Some((_, list)) = help.split_once("Commands:\n") else { return vec![] };
    let lines = list.lines().take_while(|l| !l.is_empty()).filter(|l| !l.starts_with("    "));
    lines.filter_map(|l| l.split_whitespace().next()).filter(|c| *c != "help").map(str::to_string).collect()
}

#[test]
fn every_command_and_option_has_a_help_text() {
    let top = commands(&[]);
    for expected in ["embed", "serve", "pack", "pull", "models", "info", "bench", "completions"] {
        assert!(top.contains(&expected.to_string()), "{expected} is missing in {top:?}");
    }
    let below: Vec<Vec<String>> = top.iter().map(|c| commands(&[c.as_str()])).collect();
    let all = top.iter().zip(&below).flat_map(|(c, inner)| {
        std::iter::once(vec![c.as_str()]).chain(inner.iter().map(move |i| vec![c.as_str(), i.as_str()]))
    });
    for command in all {
        has_help(&command);
    }
    assert_eq!(run(&mut tealight(["--version"])).expect_text(), format!("tealight {}\n", env!("CARGO_PKG_VERSION")));
}

fn has_help(command: &[&str]) {
    let help = run(&mut tealight([command, &["--help"]].concat())).expect_text();
    let mut lines = help.lines();
    assert!(lines.next().unwrap().len() > 20, "{help}");
    assert!(help.contains(&format!("Usage: tealight {}", command.join(" "))), "{help}");
    let lines: Vec<_> = lines.collect();
    for (i, line) in lines.iter().enumerate().filter(|(_, l)| l.trim_start().starts_with('-')) {
        // The text stands after two spaces, or on a line of its own.
        let same = line.trim_start().split_once("  ").is_some();
        let next = lines.get(i + 1).is_some_and(|n| n.starts_with("          ") && !n.trim_start().starts_with('-'));
        assert!(same || next, "{line} has no help in {help}");
    }
}

#[test]
fn packing_twice_gives_equal_bytes_and_the_vectors_are_near_the_folders() {
    let folder = tempfile::tempdir().unwrap();
    let pack = |name: &str| {
        let file = folder.path().join(name).display().to_string();
        let labels = ["--name", "tiny", "--license", "MIT", "--source-url", "https://example.org/tiny"];
        let printed = run(&mut tealight([&["pack", TINY, "-o", &file][..], &labels].concat())).expect_text();
        assert_eq!(printed.trim_end(), file);
        file
    };
    let (first, second) = (pack("first.gguf"), pack("second.gguf"));
    assert!(std::fs::read(&first).unwrap() == std::fs::read(&second).unwrap(), "two packings differ");
    assert_eq!(folder.path().read_dir().unwrap().count(), 2, "temporary files are left");

    let texts = ["hello world", "The candle burns.", "中 and 🕯 and я", "a"];
    let with = |model: &str, more: &[&str]| {
        let args = [&["embed", "--model", model], more, &texts].concat();
        let vectors = run(&mut tealight(args)).expect_json();
        vectors.as_array().unwrap().iter().map(floats).collect::<Vec<_>>()
    };
    for more in [&[][..], &["--prompt", "query"], &["--no-normalize"], &["--dimensions", "7"]] {
        for (a, b) in with(TINY, more).iter().zip(&with(&first, more)) {
            let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f32>();
            // Rows of 32 values, so that roundings average out less than in a real model.
            assert!(dot(a, b) / (dot(a, a) * dot(b, b)).sqrt() > 0.99, "{more:?}: {a:?} {b:?}");
        }
    }
    let info = run(&mut tealight(["info", "--json", "--model", &first])).expect_json();
    assert_eq!((&info["license"], &info["source"]), (&json!("MIT"), &json!("https://example.org/tiny")));
    assert_eq!((&info["format"], &info["max_tokens"]), (&json!("gguf"), &json!(48)));
}

#[test]
fn packing_what_is_no_model_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().display().to_string();
    let file = folder.path().join("x.gguf").display().to_string();
    let message = run(&mut tealight(["pack", &source, "-o", &file])).expect_failure();
    assert!(message.contains(&source) && message.contains("config.json"), "{message}");
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}

#[test]
fn serve_says_when_its_port_is_taken() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut process = Process::start(tealight(["serve", "--port", &address.port().to_string()]));
    assert_eq!(process.wait().code(), Some(1));
    assert!(process.stderr().contains(&address.to_string()), "{}", process.stderr());
}

#[test]
fn output_goes_into_a_pipe_through_a_link_and_keeps_a_mode() {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let embed = |output: &str| run(&mut tealight(["embed", "a", "-o", output])).expect_success();

    assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    let pipe = at("pipe");
    let reader = std::thread::spawn(move || std::fs::read_to_string(pipe).unwrap());
    embed(&at("pipe"));
    assert!(reader.join().unwrap().starts_with('['));
    assert!(std::fs::metadata(at("pipe")).unwrap().file_type().is_fifo(), "the pipe is still one");

    std::fs::write(at("target"), "old").unwrap();
    std::fs::set_permissions(at("target"), std::fs::Permissions::from_mode(0o600)).unwrap();
    symlink(at("target"), at("link")).unwrap();
    embed(&at("link"));
    assert!(std::fs::symlink_metadata(at("link")).unwrap().is_symlink(), "the link is still one");
    assert!(std::fs::read_to_string(at("target")).unwrap().starts_with('['));
    assert_eq!(std::fs::metadata(at("target")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn ids_and_metadata_keep_every_digit() {
    let line = r#"{"id":12345678901234567890123,"text":"a","metadata":{"price":1.10}}"#;
    let text = embed_lines(&["--format", "jsonl"], line).expect_text();
    assert!(
        text.contains(r#""id":12345678901234567890123,"#) && text.contains(r#""metadata":{"price":1.10}"#),
        "{text}"
    );
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_document() {
    let plain = embed_lines(&["--format", "jsonl"], r#"{"id":1,"text":"a"}"#).expect_text();
    assert_eq!(embed_lines(&["--format", "jsonl"], "\u{feff}{\"id\":1,\"text\":\"a\"}").expect_text(), plain);
}

#[test]
fn a_document_that_is_cut_is_said_to_be_taken_as_a_text() {
    let done = embed_lines(&["--format", "jsonl"], r#"{"text":"a","#);
    assert!(done.stderr.contains("taken as a text"), "{}", done.stderr);
}

#[test]
fn options_are_checked_before_the_first_line() {
    for args in [["--dimensions", "99999999"], ["--dimensions", "0"], ["--prompt", "nope"]] {
        let message = embed_lines(&args, "").expect_failure();
        assert!(message.contains(args[0].trim_start_matches("--")), "{message}");
    }
}

#[test]
fn a_name_that_is_none_of_the_hub_is_not_asked_for() {
    for name in ["nope", "a/b/c", "../../etc/passwd", "a/../b", "/etc/passwd"] {
        let message = run(&mut tealight(["pull", name])).expect_failure();
        assert!(message.contains("ORGANISATION/NAME"), "{name}: {message}");
    }
}
