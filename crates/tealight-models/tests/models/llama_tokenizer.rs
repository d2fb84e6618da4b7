//! Token ids and chat templates of Llama models.

use crate::support::{ids, llama_fixture, read_json, text_downloads};
use tealight_kernels::{CpuContext, Isa};
use tealight_models::families::llama::Llama;
use tealight_models::formats::gguf::Gguf;
use tealight_models::tasks::generate::chat_template::{self, ChatInput};
use tealight_models::tokenizer::LlamaTokenizer;

/// Chat templates that must be rendered like the reference.
const MIN_EQUAL_TEMPLATES: usize = 340;

#[test]
fn token_ids_equal_llama2c() {
    let cpu = CpuContext::new(Isa::detect(), 1);
    let tokens = Llama::load(&cpu, &llama_fixture("version-0.bin")).unwrap().tokenizer;
    for pair in read_json(&llama_fixture("goldens.json"))["tokens"].as_array().unwrap() {
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

/// llama.cpp has the vocabularies of many models, with texts and the token ids of the models' own tokenizers.
#[test]
#[ignore = "needs files that tests/check_text makes"]
fn token_ids_of_many_models_equal_their_own_tokenizers() {
    let folder = text_downloads().join("vocabularies");
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
            // SentencePiece adds a space before a text.
            let space = if matches!(name, "llama-spm" | "phi-3") && !text.is_empty() { " " } else { "" };
            assert_eq!(String::from_utf8(bytes).unwrap(), format!("{space}{text}"), "{name}");
        }
    }
}

/// The reference is transformers (tests/chat_templates.py).
#[test]
#[ignore = "needs files that tests/check_text makes"]
fn chat_templates_of_many_models_equal_transformers() {
    let rows = read_json(&text_downloads().join("templates.json"));
    let (mut equal, mut others) = (0, vec![]);
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
        if found.as_deref() == row["expected"].as_str() {
            equal += 1;
        } else {
            others.push((row["name"].as_str().unwrap(), found, row["expected"].as_str()));
        }
    }
    for (name, found, expected) in &others {
        println!("{name}: {:?} instead of {:?}", found.as_deref().map(truncated), expected.map(truncated));
    }
    println!("{equal} equal, {} different", others.len());
    assert!(equal >= MIN_EQUAL_TEMPLATES);
}

fn truncated(text: &str) -> String {
    text.chars().take(300).collect()
}
