//! `tealight models` and `tealight info`.

use super::{json_line, print};
use crate::config::Config;
use crate::engine::catalog::CATALOG;
use crate::engine::{Engine, hub, source};
use crate::error::Result;
use crate::kernels::Isa;
use serde_json::json;

pub(super) fn models(as_json: bool) -> Result<()> {
    let installed = source::list(&Config::from_env()?);
    let place = |name: &str, repository: &str| match () {
        () if installed.iter().any(|n| n == name) => "installed",
        () if hub::cached(repository).is_some() => "in the hub cache",
        () => "",
    };
    let known = CATALOG.iter().map(|e| {
        (
            e.name,
            e.repository,
            e.dimension.to_string(),
            e.max_tokens.to_string(),
            e.license,
            place(e.name, e.repository),
        )
    });
    let others = installed.iter().filter(|n| CATALOG.iter().all(|e| e.name != **n));
    let others = others.map(|n| (n.as_str(), "", String::new(), String::new(), "", "installed"));
    let rows: Vec<_> = known.chain(others).collect();
    print(|out| {
        if as_json {
            for (name, repository, dimension, max_tokens, license, place) in rows {
                let row = json!({"name": name, "repository": repository, "dimension": dimension.parse::<usize>().ok(),
                    "max_tokens": max_tokens.parse::<usize>().ok(), "license": license, "place": place});
                writeln!(out, "{row}")?;
            }
            return Ok(());
        }
        writeln!(out, "{:<20} {:>5} {:>6}  {:<11} {:<17} repository", "name", "dim", "tokens", "licence", "here")?;
        for (name, repository, dimension, max_tokens, license, place) in rows {
            writeln!(out, "{name:<20} {dimension:>5} {max_tokens:>6}  {license:<11} {place:<17} {repository}")?;
        }
        Ok(())
    })
}

pub(super) fn info(engine: &Engine, as_json: bool) -> Result<()> {
    let loaded = engine.preload()?;
    let (model, about) = (&loaded.model, &loaded.model.about);
    let facts: [(&str, serde_json::Value); 15] = [
        ("version", json!(env!("CARGO_PKG_VERSION"))),
        ("isa", json!(engine.cpu.isa.name())),
        ("isas", json!(Isa::available().iter().map(|isa| isa.name()).collect::<Vec<_>>())),
        ("threads", json!(engine.cpu.threads())),
        ("model", json!(loaded.name)),
        ("path", json!(loaded.path)),
        ("architecture", json!(about.architecture)),
        ("format", json!(about.format)),
        ("license", json!(about.license)),
        ("source", json!(about.source)),
        ("dimension", json!(model.dimension())),
        ("max_tokens", json!(model.max_tokens())),
        ("pooling", json!(model.pipeline.pooling.name())),
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
