//! `docs/configuration.md` lists exactly the environment variables that `src/config.rs` reads, with their defaults.

use std::collections::BTreeSet;
use std::path::Path;
use tealight::config::{Config, VARIABLES};

const DOCUMENT: &str = "docs/configuration.md";
const SOURCE: &str = "src/config.rs";

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn is_variable(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    text.contains('_') && text.starts_with(|c: char| c.is_ascii_uppercase()) && text.chars().all(allowed)
}

fn variables_in_source() -> BTreeSet<String> {
    VARIABLES.iter().map(|variable| variable.name.to_string()).collect()
}

/// Cells of each row of each table, without headers.
fn rows() -> Vec<Vec<String>> {
    let document = read(DOCUMENT);
    let rows = document.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    rows.map(|row| row.split(" | ").map(String::from).collect()).collect()
}

fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

fn variables_in_document() -> BTreeSet<String> {
    rows().iter().flat_map(|row| quoted(&row[0])).filter(|name| is_variable(name)).map(String::from).collect()
}

#[test]
fn variables_of_source_and_document_are_equal() {
    let (source, document) = (variables_in_source(), variables_in_document());
    assert!(source.len() > 25, "{SOURCE} was read as {source:?}");
    let undocumented: Vec<_> = source.difference(&document).collect();
    assert!(undocumented.is_empty(), "{DOCUMENT} lacks {undocumented:?}");
    // Other modules read variables of AWS and of other tools, but no TEALIGHT_ variables.
    let unknown: Vec<_> = document.difference(&source).filter(|name| name.starts_with("TEALIGHT_")).collect();
    assert!(unknown.is_empty(), "{SOURCE} does not read {unknown:?}, which {DOCUMENT} lists");
}

#[test]
fn documented_default_equals_unset_variable() {
    let config = |name: &str, value: &str| {
        Config::from_lookup(|variable| (variable == name).then(|| value.to_string()))
            .map(|config| format!("{config:?}"))
    };
    let unset = config("", "").unwrap();
    let mut checked = 0;
    for row in rows().iter().filter(|row| row.len() == 3) {
        let default: Vec<_> = quoted(&row[2]).collect();
        // A default in words is one that no value of the variable has.
        if let ([name], [value]) = (&quoted(&row[0]).collect::<Vec<_>>()[..], &default[..])
            && row[2] == format!("`{value}`")
        {
            assert_eq!(config(name, value).unwrap(), unset, "{name}={value}");
            let variable = VARIABLES.iter().find(|variable| variable.name == *name);
            assert!(variable.is_none_or(|variable| variable.default == *value), "{name}={value}: {variable:?}");
            checked += 1;
        }
    }
    assert!(checked >= 10, "only {checked} defaults were checked");
}
