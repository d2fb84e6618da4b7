//! `tealight models` and `tealight info`.

use super::{json_line, print};
use crate::config::Config;
use crate::engine::catalog::{self, CATALOG, SPEECH, TEXT};
use crate::engine::{Engine, hub, model_path};
use serde::Serialize;
use serde_json::json;
use tealight_core::Result;
use tealight_kernels::Isa;

pub(super) fn models(as_json: bool) -> Result<()> {
    let installed = model_path::list(&Config::from_env()?);
    let place = |name: &str, repository: &str| match () {
        () if installed.iter().any(|n| n == name) => "installed",
        () if hub::cached(repository).is_some() => "in the hub cache",
        () => "",
    };
    let vectors = CATALOG.iter().map(|e| Row {
        name: e.name,
        makes: "vectors",
        dimension: Some(e.dimension),
        max_tokens: Some(e.max_tokens),
        license: e.license,
        place: place(e.name, e.repository),
        repository: e.repository,
    });
    let (texts, none) = ("texts of speech", None);
    let speech = SPEECH.iter().map(|s| {
        let (name, repository, license, place) = (s.name, s.repository, s.license, place(s.name, s.repository));
        Row { name, makes: texts, dimension: none, max_tokens: none, license, place, repository }
    });
    let text = TEXT.iter().map(|t| Row {
        name: t.name,
        makes: "text",
        dimension: none,
        max_tokens: Some(t.max_tokens),
        license: t.license,
        place: place(t.name, t.repository),
        repository: t.repository,
    });
    let others = installed.iter().filter(|name| catalog::known(name).is_none()).map(|name| Row {
        name,
        makes: "",
        dimension: none,
        max_tokens: none,
        license: "",
        place: "installed",
        repository: "",
    });
    let rows: Vec<_> = vectors.chain(speech).chain(text).chain(others).collect();
    print(|out| {
        if as_json {
            return rows.iter().try_for_each(|row| writeln!(out, "{}", json_line(row).unwrap_or_default()));
        }
        let head = ["name", "makes", "dim", "tokens", "licence", "here", "repository"].map(String::from);
        let number = |n: Option<usize>| n.map_or_else(String::new, |n| n.to_string());
        let cells = rows.iter().map(|r| {
            let [name, makes, license, place, repository] =
                [r.name, r.makes, r.license, r.place, r.repository].map(String::from);
            [name, makes, number(r.dimension), number(r.max_tokens), license, place, repository]
        });
        for [name, makes, dimension, max_tokens, license, place, repository] in std::iter::once(head).chain(cells) {
            writeln!(
                out,
                "{name:<23} {makes:<15} {dimension:>5} {max_tokens:>6}  {license:<20} {place:<17} {repository}"
            )?;
        }
        Ok(())
    })
}

/// A model that is known or installed.
#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    makes: &'static str,
    dimension: Option<usize>,
    max_tokens: Option<usize>,
    license: &'static str,
    place: &'static str,
    repository: &'static str,
}

pub(super) fn info(engine: &Engine, as_json: bool) -> Result<()> {
    let loaded = engine.preload()?;
    let (model, about) = (&loaded.model, &loaded.model.info);
    let facts: [(&str, serde_json::Value); 15] = [
        ("version", json!(env!("CARGO_PKG_VERSION"))),
        ("isa", json!(engine.cpu.isa.as_str())),
        ("isas", json!(Isa::available().iter().map(|isa| isa.as_str()).collect::<Vec<_>>())),
        ("threads", json!(engine.cpu.threads())),
        ("model", json!(loaded.name)),
        ("path", json!(loaded.path)),
        ("architecture", json!(about.architecture)),
        ("format", json!(about.format)),
        ("license", json!(about.license)),
        ("source", json!(about.source)),
        ("dimension", json!(model.dimension())),
        ("max_tokens", json!(model.max_tokens())),
        ("pooling", json!(model.pipeline.pooling.as_str())),
        ("prompts", json!(model.pipeline.prompts.keys().collect::<Vec<_>>())),
        ("load_ms", json!(loaded.load_time.as_secs_f64() * 1e3)),
    ];
    let text = json_line(&facts.iter().map(|(k, v)| (k.to_string(), v.clone())).collect::<serde_json::Map<_, _>>());
    print(|out| match as_json {
        true => writeln!(out, "{}", text.unwrap_or_default()),
        false => facts.iter().try_for_each(|(name, value)| match value.as_str() {
            Some(text) => writeln!(out, "{name:<13} {text}"),
            None => writeln!(out, "{name:<13} {value}"),
        }),
    })
}
