//! Writes a model folder as one quantised GGUF file, with everything that is needed to use it.

use super::gguf::{self, Entry};
use super::weights::Precision;
use super::{Folder, bert, unsupported};
use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::io::{BufWriter, Write};
use std::path::Path;

/// What a file cannot know about itself.
#[derive(Debug, Clone, Default)]
pub struct Labels {
    /// `general.name`.
    pub name: Option<String>,
    /// `general.license`, as an SPDX name.
    pub license: Option<String>,
    /// `general.source.url`.
    pub source: Option<String>,
}

/// GGUF's number for "mostly Q8_0".
const FILE_TYPE_Q8_0: u32 = 7;

/// Packs the model of a folder into `output`: matrices in Q8_0, the rest in f32, tensors in the order of use.
///
/// Equal input gives equal bytes. The file is written under a temporary name and renamed.
///
/// # Errors
/// The folder cannot be loaded, or the file not written.
pub fn pack(folder: &Path, labels: &Labels, output: &Path) -> Result<()> {
    let parts =
        Folder::open(folder, Precision::Q8_0).map_err(|e| e.context(format_args!("model {}", folder.display())))?;
    if parts.architecture != bert::ARCHITECTURE {
        return Err(unsupported(&parts.architecture));
    }
    let config = bert::Config::from_json(&parts.config)?;
    let mut metadata = general(&parts.architecture, labels, &sha256(&folder.join("model.safetensors"))?);
    metadata.extend(config.entries());
    metadata.extend(parts.pipeline.entries(&parts.architecture));
    metadata.extend(parts.source.entries());
    let mut tensors = bert::tensors(&config, &parts.weights)?;
    tensors.extend(parts.pipeline.tensors());
    replace(output, |out| gguf::write(out, &metadata, &tensors))
}

fn general(architecture: &str, labels: &Labels, weights_sha256: &str) -> Vec<(String, Entry)> {
    let mut entries = vec![("general.architecture".to_string(), Entry::String(architecture.into()))];
    let texts = [("name", &labels.name), ("license", &labels.license), ("source.url", &labels.source)];
    for (key, value) in texts {
        if let Some(value) = value {
            entries.push((format!("general.{key}"), Entry::String(value.clone())));
        }
    }
    entries.push(("general.quantization_version".into(), Entry::Uint(2)));
    entries.push(("general.file_type".into(), Entry::Uint(FILE_TYPE_Q8_0)));
    entries.push(("tealight.source.sha256".into(), Entry::String(weights_sha256.into())));
    entries
}

/// The sha256 of a file, in hexadecimal.
pub fn sha256(path: &Path) -> Result<String> {
    let bytes = super::map::map(path)?;
    Ok(Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect())
}

/// Writes a file under a temporary name in the same folder, then renames it, keeping the mode of what was there. What is
/// there and no file, such as a pipe or a device, is written to as it is.
pub fn replace(path: &Path, write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    // The target of a link, so that the link stays one.
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let there = path.metadata().ok();
    let written = match there {
        Some(there) if !there.is_file() => std::fs::OpenOptions::new().write(true).open(path).and_then(|file| {
            let mut out = BufWriter::new(file);
            write(&mut out)?;
            out.flush()
        }),
        there => write_and_rename(path, there.map(|t| t.permissions()), write),
    };
    written.map_err(|e| Error::io("write", path, e))
}

fn write_and_rename(
    path: &Path,
    mode: Option<std::fs::Permissions>,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let temporary = path.with_added_extension(format!("part-{}", std::process::id()));
    let written = std::fs::File::create(&temporary).and_then(|file| {
        if let Some(mode) = mode {
            file.set_permissions(mode)?;
        }
        let mut out = BufWriter::new(file);
        write(&mut out)?;
        out.into_inner()?.sync_all()?;
        std::fs::rename(&temporary, path)
    });
    written.inspect_err(|_| drop(std::fs::remove_file(&temporary)))
}
