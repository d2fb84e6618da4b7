//! Renders the chat template of a model, which is Jinja, to the prompt that `transformers` would render.

use super::large_stack::on_large_stack;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value as Item, ValueKind};
use minijinja::{Environment, ErrorKind};
use serde::Serialize;
use serde_json::Value;
use std::time::SystemTime;
use tealight_core::{Error, Result};

/// A larger template is rejected.
const MAX_TEMPLATE_BYTES: usize = 256 << 10;
/// Maximum nesting depth of a value in a namespace.
const MAX_DEPTH: usize = 64;
/// A number in a format string with this many digits is too large for a column width.
const LONG_NUMBER_DIGITS: usize = 5;
/// The function that checks values before a template stores them in a namespace.
const GUARD: &str = " tealight_plain";
/// Maximum number of instructions that a template may execute, which ends endless loops.
const FUEL: u64 = 1_000_000;
/// The request field that errors name.
const FIELD: &str = "messages";

/// The variables of a template.
#[derive(Debug, Serialize)]
pub struct ChatInput<'a> {
    /// `[{"role", "content", ...}]`.
    pub messages: &'a [Value],
    /// Descriptions of the functions that the model may call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<&'a Value>,
    /// Whether the start of the assistant's message is appended.
    pub add_generation_prompt: bool,
    /// The name of the token that starts a text.
    pub bos_token: &'a str,
    /// The name of the token that ends a text.
    pub eos_token: &'a str,
}

/// Renders a template. It can read nothing but `input`, and ends after a bounded number of steps.
///
/// # Errors
/// [`ErrorKind::ModelLoad`](tealight_core::ErrorKind): the template is too large or invalid.
/// [`ErrorKind::InvalidValue`](tealight_core::ErrorKind): the template rejects the messages; with its error message, for instance
/// about the order of roles.
pub fn render(template: &str, input: &ChatInput) -> Result<String> {
    if template.len() > MAX_TEMPLATE_BYTES {
        let message = format!("the chat template has {} bytes; the limit is {MAX_TEMPLATE_BYTES}", template.len());
        return Err(Error::invalid_model(message));
    }
    // minijinja recurses into nested values.
    on_large_stack(|| render_here(template, input))
}

fn render_here(template: &str, input: &ChatInput) -> Result<String> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.map_err(|e| Error::internal(format!("template syntax: {e}")))?);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(|state, value, method, arguments| {
        if method == "format" && value.as_str().is_some_and(has_long_number) {
            return Err(minijinja::Error::new(ErrorKind::InvalidOperation, "a width in format is too large"));
        }
        minijinja_contrib::pycompat::unknown_method_callback(state, value, method, arguments)
    });
    environment.add_function(GUARD.trim(), check_plain);
    environment.add_function("raise_exception", |message: String| -> Result<String, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", |format: String| strftime(&format, SystemTime::now()));
    environment.add_filter("tojson", to_json);
    let render_error = |e: minijinja::Error| {
        let message = e.detail().map_or_else(|| e.to_string(), str::to_string);
        Error::invalid_value(FIELD, format!("the chat template rejects {FIELD}: {message}")).truncate_message()
    };
    // `{% generation %}` tags mark the assistant's turns for training and do not affect the prompt.
    let tags = [(" generation", " if true"), (" endgeneration", " endif")];
    let replace_tag = |template: String, (tag, replacement): (&str, &str)| {
        ["{%", "{%-"]
            .iter()
            .fold(template, |t, open| t.replace(&format!("{open}{tag}"), &format!("{open}{replacement}")))
    };
    let template = guard_assignments(&tags.into_iter().fold(template.to_string(), replace_tag));
    let template = environment
        .template_from_str(&template)
        .map_err(|e| Error::invalid_model(format!("the chat template is invalid: {e}")))?;
    template.render(Serde(input)).map_err(render_error)
}

/// Whether a format string has a number that is too large for a column width.
fn has_long_number(text: &str) -> bool {
    text.as_bytes().windows(LONG_NUMBER_DIGITS).any(|w| w.iter().all(u8::is_ascii_digit))
}

/// Checks values before they are stored in a namespace: a namespace that contains itself could not be printed.
fn guard_assignments(template: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(template.len()), template);
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        let end = tag_end(tag);
        out.push_str(before);
        match parse_assignment(&tag[..end]) {
            Some((target, value, close)) => out.extend([target, GUARD, "(", value, ")", close]),
            None => out.push_str(&tag[..end]),
        }
        rest = &tag[end..];
    }
    out + rest
}

/// Length of a tag; `%}` inside a string literal does not end it.
fn tag_end(tag: &str) -> usize {
    let (mut quote, mut last) = (None, ' ');
    for (i, c) in tag.char_indices() {
        match quote {
            Some(q) if c == q && last != '\\' => quote = None,
            Some(_) => {}
            None if c == '\'' || c == '"' => quote = Some(c),
            None if last == '%' && c == '}' => return i + 1,
            None => {}
        }
        last = c;
    }
    tag.len()
}

/// Splits `{% set NAMESPACE.NAME = VALUE %}` before and after the value.
fn parse_assignment(tag: &str) -> Option<(&str, &str, &str)> {
    let body = tag.strip_prefix("{%")?.trim_start_matches(['-', '+']).trim_start();
    let (target, _) = body.strip_prefix("set")?.split_once('=')?;
    let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == '.' || c.is_whitespace();
    if !target.contains('.') || !target.starts_with(char::is_whitespace) || !target.chars().all(is_name) {
        return None;
    }
    let value = tag.find('=')? + 1;
    let close = tag.strip_suffix("%}")?.trim_end_matches(['-', '+']).len();
    (value < close).then(|| (&tag[..value], &tag[value..close], &tag[close..]))
}

/// Rejects a value that contains a namespace or is nested too deeply; otherwise returns it.
fn check_plain(value: Item) -> Result<Item, minijinja::Error> {
    if is_plain(&value, MAX_DEPTH) {
        return Ok(value);
    }
    Err(minijinja::Error::new(
        ErrorKind::InvalidOperation,
        format!("a namespace cannot hold a namespace, or a value nested deeper than {MAX_DEPTH} levels"),
    ))
}

/// Whether a value contains no namespace and is nested at most `depth` levels deep.
fn is_plain(value: &Item, depth: usize) -> bool {
    let inner = |value: &Item| value.try_iter().is_ok_and(|mut items| items.all(|item| is_plain(&item, depth - 1)));
    match value.kind() {
        _ if value.as_object().is_some_and(|object| object.type_name().ends_with("Namespace")) => false,
        ValueKind::Seq | ValueKind::Iterable => depth > 0 && inner(value),
        ValueKind::Map => {
            let entries = |mut keys: minijinja::value::ValueIter| {
                keys.all(|key| value.get_item(&key).is_ok_and(|item| is_plain(&item, depth - 1)))
            };
            depth > 0 && value.try_iter().is_ok_and(entries)
        }
        _ => true,
    }
}

/// Python's `strftime`, in UTC.
fn strftime(format: &str, now: SystemTime) -> Result<String, minijinja::Error> {
    let invalid =
        |e: String| minijinja::Error::new(ErrorKind::InvalidOperation, format!("strftime_now({format:?}): {e}"));
    let items = time::format_description::parse_strftime_borrowed(format).map_err(|e| invalid(e.to_string()))?;
    time::OffsetDateTime::from(now).format(&items).map_err(|e| invalid(e.to_string()))
}

/// Python's `json.dumps(value, ensure_ascii=False)`.
fn to_json(value: &Item, options: Kwargs) -> Result<String, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    let serialize_error = |e: String| minijinja::Error::new(ErrorKind::BadSerialization, e);
    let mut out = vec![];
    let outcome = match indent {
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, PythonFormatter)),
        Some(width) => {
            let indent = " ".repeat(width.min(80)).into_bytes();
            let formatter = serde_json::ser::PrettyFormatter::with_indent(&indent);
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter))
        }
    };
    outcome.map_err(|e| serialize_error(e.to_string()))?;
    String::from_utf8(out).map_err(|e| serialize_error(e.to_string()))
}

/// Python's separators: a space after commas and colons.
struct PythonFormatter;

impl serde_json::ser::Formatter for PythonFormatter {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn chat(template: &str, messages: Value) -> Result<String> {
        let messages = messages.as_array().cloned().unwrap_or_default();
        let input = ChatInput {
            messages: &messages,
            tools: None,
            add_generation_prompt: true,
            bos_token: "<s>",
            eos_token: "</s>",
        };
        render(template, &input)
    }

    #[test]
    fn render_with_functions_of_transformers_equals_transformers() {
        let template = "{{ bos_token }}{% for m in messages %}\n    {% if m.role == 'x' %}{{ raise_exception('no x') }}{% endif %}\n{{ m['content'].strip() | upper }}{{ messages[1:] | length }}{% endfor %}";
        assert_eq!(chat(template, json!([{"role": "user", "content": " a "}])).unwrap(), "<s>A0");
        let error = chat(template, json!([{"role": "x", "content": ""}])).unwrap_err();
        assert!(error.param.as_deref() == Some("messages") && error.message.contains("no x"), "{error:?}");
        let dump = "{{ messages[0] | tojson }} {{ messages[0].c | tojson(indent=1) }}";
        let found = chat(dump, json!([{"a": "<ü>", "c": [1, 2]}])).unwrap();
        assert_eq!(found, "{\"a\": \"<ü>\", \"c\": [1, 2]} [\n 1,\n 2\n]");
    }

    #[test]
    fn render_of_hostile_template_fails() {
        let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{{ a * b }}{% endfor %}{% endfor %}";
        assert!(chat(endless, json!([])).unwrap_err().message.contains("fuel"));
        assert!(chat("{% include '/etc/passwd' %}", json!([])).is_err());
        assert!(chat("{{ range(999999999999) | list }}", json!([])).is_err());
        assert!(chat("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", json!([])).is_err());
        assert!(chat("{% if %}", json!([])).is_err());
        let namespace = "{%- set ns = namespace(x=[], y='%}') -%}";
        for hostile in [
            "{% set ns.x = ns %}{{ ns | tojson }}",
            "{%set ns.x=[{'a': ns}]-%}{{ ns }}",
            "{% for i in range(50000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x | tojson }}",
            "{{ '{:>3000000000}'.format(1) }}",
            "{{ '{:.2000000000f}'.format(1.0) }}",
        ] {
            assert!(chat(&format!("{namespace}{hostile}"), json!([])).is_err(), "{hostile}");
        }
        let harmless = "{% for i in range(3) %}{% set ns.x = ns.x + ['%}', i] -%} {% endfor %}{% set a = ns.x %}{{ a | tojson }} {{ ns.y }} {{ '{:>4}'.format('a') }}";
        let found = chat(&format!("{namespace}{harmless}"), json!([])).unwrap();
        assert_eq!(found, "[\"%}\", 0, \"%}\", 1, \"%}\", 2] %}    a");
        let deep = "{% set x = [] %}".to_string() + &"{% set x = [x] %}".repeat(10_000) + "{{ x | tojson }}";
        assert!(chat(&deep, json!([])).is_ok_and(|text| text.len() == 20_002));
        assert!(chat(&"a".repeat(300_000), json!([])).unwrap_err().message.contains("limit"));
    }

    #[test]
    fn strftime_equals_python() {
        let moment = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_753_600_000);
        assert_eq!(strftime("%d %b %Y, %H:%M", moment).unwrap(), "27 Jul 2025, 07:06");
        assert!(strftime("%", moment).is_err());
    }
}
