//! `tealight models` and `tealight info`.

use super::output::{json_line, print};
use crate::config::Config;
use crate::engine::catalog::{self, EMBEDDING_MODELS, SPEECH_MODELS, TEXT_MODELS};
use crate::engine::{Engine, ModelTask, hub, model_path};
use serde::Serialize;
use serde_json::json;
use tealight_core::Result;
use tealight_kernels::Isa;

pub(super) fn models(as_json: bool) -> Result<()> {
    let installed = model_path::list(&Config::from_env()?);
    let status = |name: &str, repository: &str| {
        if installed.iter().any(|n| n == name) {
            "installed"
        } else if hub::cached(repository).is_some() {
            "in the hub cache"
        } else {
            ""
        }
    };
    let embedding = EMBEDDING_MODELS.iter().map(|m| ModelRow {
        dimension: Some(m.dimension),
        max_tokens: Some(m.max_tokens),
        license: m.license,
        status: status(m.name, m.hub_name),
        repository: m.hub_name,
        ..ModelRow::new(m.name, "embedding", "vectors")
    });
    let speech = SPEECH_MODELS.iter().filter(|_| ModelTask::Speech.is_enabled()).map(|m| ModelRow {
        license: m.license,
        status: status(m.name, m.hub_name),
        repository: m.hub_name,
        ..ModelRow::new(m.name, "transcription", "texts of speech")
    });
    let text = TEXT_MODELS.iter().filter(|_| ModelTask::Text.is_enabled()).map(|m| ModelRow {
        max_tokens: Some(m.max_tokens),
        license: m.license,
        status: status(m.name, m.hub_name),
        repository: m.hub_name,
        ..ModelRow::new(m.name, "text generation", "text")
    });
    let others = installed
        .iter()
        .filter(|name| catalog::names(name).is_none())
        .map(|name| ModelRow { status: "installed", ..ModelRow::new(name, "", "") });
    let rows: Vec<_> = embedding.chain(speech).chain(text).chain(others).collect();
    print(|out| {
        if as_json {
            return rows.iter().try_for_each(|row| writeln!(out, "{}", json_line(row).unwrap_or_default()));
        }
        let head = ["name", "task", "dim", "tokens", "license", "status", "repository"].map(String::from);
        for [name, task, dimension, max_tokens, license, status, repository] in
            std::iter::once(head).chain(rows.iter().map(ModelRow::cells))
        {
            writeln!(
                out,
                "{name:<23} {task:<15} {dimension:>5} {max_tokens:>6}  {license:<20} {status:<17} {repository}"
            )?;
        }
        Ok(())
    })
}

/// A model of the catalog, or an installed one.
#[derive(Serialize)]
struct ModelRow<'a> {
    name: &'a str,
    task: &'static str,
    /// Former name of `task`, with its former values.
    makes: &'static str,
    dimension: Option<usize>,
    max_tokens: Option<usize>,
    license: &'static str,
    /// `installed`, `in the hub cache` or empty. The key `place` is stable.
    #[serde(rename = "place")]
    status: &'static str,
    repository: &'static str,
}

impl<'a> ModelRow<'a> {
    fn new(name: &'a str, task: &'static str, makes: &'static str) -> Self {
        let (dimension, max_tokens, license, status, repository) = (None, None, "", "", "");
        Self { name, task, makes, dimension, max_tokens, license, status, repository }
    }

    /// The columns of the table.
    fn cells(&self) -> [String; 7] {
        let number = |n: Option<usize>| n.map_or_else(String::new, |n| n.to_string());
        let [name, task, license, status, repository] =
            [self.name, self.task, self.license, self.status, self.repository].map(String::from);
        [name, task, number(self.dimension), number(self.max_tokens), license, status, repository]
    }
}

pub(super) fn info(engine: &Engine, as_json: bool) -> Result<()> {
    let loaded = engine.preload()?;
    let (model, info) = (&loaded.model, &loaded.model.info);
    let fields: [(&str, serde_json::Value); 15] = [
        ("version", json!(env!("CARGO_PKG_VERSION"))),
        ("isa", json!(engine.cpu.isa.as_str())),
        ("isas", json!(Isa::available().iter().map(|isa| isa.as_str()).collect::<Vec<_>>())),
        ("threads", json!(engine.cpu.threads())),
        ("model", json!(loaded.name)),
        ("path", json!(loaded.path)),
        ("architecture", json!(info.architecture)),
        ("format", json!(info.format)),
        ("license", json!(info.license)),
        ("source", json!(info.source)),
        ("dimension", json!(model.dimension())),
        ("max_tokens", json!(model.max_tokens())),
        ("pooling", json!(model.pipeline.pooling.as_str())),
        ("prompts", json!(model.pipeline.prompts.keys().collect::<Vec<_>>())),
        ("load_ms", json!(loaded.load_time.as_secs_f64() * 1e3)),
    ];
    let json = json_line(&fields.iter().cloned().collect::<std::collections::BTreeMap<_, _>>())?;
    print(|out| {
        if as_json {
            return writeln!(out, "{json}");
        }
        fields.iter().try_for_each(|(name, value)| match value.as_str() {
            Some(text) => writeln!(out, "{name:<13} {text}"),
            None => writeln!(out, "{name:<13} {value}"),
        })
    })
}
