//! Packed Llama models.

use crate::llama_reference::MODELS;
use crate::support::llama_fixture;
use tealight_kernels::{CpuContext, Isa};
use tealight_models::Architecture;
use tealight_models::families::llama::{self, Llama};
use tealight_models::pack::PackMetadata;

#[test]
fn packed_model_equals_source() {
    let folder = tempfile::tempdir().unwrap();
    let (cpu, metadata) = (CpuContext::new(Isa::detect(), 2), PackMetadata::default());
    for name in MODELS {
        let (path, again) = (folder.path().join("model.gguf"), folder.path().join("again.gguf"));
        for path in [&path, &again] {
            llama::pack(&cpu, &llama_fixture(name), &metadata, path).unwrap();
        }
        assert!(std::fs::read(&path).unwrap() == std::fs::read(&again).unwrap(), "equal input, equal bytes");
        assert!(
            [path.as_path(), &llama_fixture(name)]
                .iter()
                .all(|path| Architecture::detect(path).unwrap() == Architecture::Llama)
        );
        let (packed, source) = (Llama::load(&cpu, &path).unwrap(), Llama::load(&cpu, &llama_fixture(name)).unwrap());
        assert_eq!(packed.config, source.config);
        let special_tokens = |m: &Llama| {
            (
                m.tokenizer.bos,
                m.tokenizer.eog_ids.clone(),
                m.tokenizer.prefix.clone(),
                m.tokenizer.chat_template.clone(),
            )
        };
        assert_eq!(special_tokens(&packed), special_tokens(&source), "{name}");
        assert_eq!(packed.tokenizer.encode("hello Größe").unwrap(), source.tokenizer.encode("hello Größe").unwrap());
        let read = |m: &Llama| m.forward(&cpu, &mut m.new_sequence(3), &[1, 2, 3], 3, || Ok(())).unwrap();
        assert!(read(&packed) == read(&source), "{name}");
        assert!(llama::pack(&cpu, &path, &metadata, &again).unwrap_err().message.contains("packed already"));
    }
}
