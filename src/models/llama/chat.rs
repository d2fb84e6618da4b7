//! From messages to text, by the Jinja template that a model's file carries, as `transformers` renders it.

use crate::error::{Error, Result};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value as Item};
use minijinja::{Environment, ErrorKind};
use serde::Serialize;
use serde_json::Value;
use std::time::SystemTime;

/// Steps of a template beyond these are a loop without end.
const FUEL: u64 = 1_000_000;
/// The field of requests, for errors.
const FIELD: &str = "messages";

/// A conversation, and what templates ask for besides.
#[derive(Debug, Serialize)]
pub struct Chat<'a> {
    /// `[{"role", "content", ...}]`.
    pub messages: &'a [Value],
    /// Descriptions of functions that may be called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<&'a Value>,
    /// Whether the beginning of an answer follows.
    pub add_generation_prompt: bool,
    /// The token that begins a text.
    pub bos_token: &'a str,
    /// The token that ends one.
    pub eos_token: &'a str,
}

/// The text of a conversation.
///
/// # Errors
/// [`Kind::InvalidValue`](crate::Kind) with what the template says, for instance of roles in a wrong order; it reads nothing but the
/// conversation.
pub fn render(template: &str, chat: &Chat) -> Result<String> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.map_err(|e| Error::internal(format!("the syntax of templates: {e}")))?);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: String| -> Result<String, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", |format: String| strftime(&format, SystemTime::now()));
    environment.add_filter("tojson", to_json);
    let wrong = |e: minijinja::Error| {
        let said = e.detail().map_or_else(|| e.to_string(), str::to_string);
        Error::value(FIELD, format!("the chat template of the model refuses {FIELD}: {said}")).cut()
    };
    // What marks the model's own words for training has no meaning here.
    let marks = [(" generation", " if true"), (" endgeneration", " endif")];
    let plain = |template: String, (tag, instead): (&str, &str)| {
        ["{%", "{%-"].iter().fold(template, |t, open| t.replace(&format!("{open}{tag}"), &format!("{open}{instead}")))
    };
    let template = marks.into_iter().fold(template.to_string(), plain);
    let template = environment
        .template_from_str(&template)
        .map_err(|e| Error::model(format!("the chat template of the model cannot be read: {e}")))?;
    template.render(Serde(chat)).map_err(wrong)
}

/// Python's `strftime` of the present moment, in UTC.
fn strftime(format: &str, now: SystemTime) -> Result<String, minijinja::Error> {
    let wrong =
        |e: String| minijinja::Error::new(ErrorKind::InvalidOperation, format!("strftime_now({format:?}): {e}"));
    let items = time::format_description::parse_strftime_borrowed(format).map_err(|e| wrong(e.to_string()))?;
    time::OffsetDateTime::from(now).format(&items).map_err(|e| wrong(e.to_string()))
}

/// Python's `json.dumps(value, ensure_ascii=False)`.
fn to_json(value: &Item, options: Kwargs) -> Result<String, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    let failed = |e: String| minijinja::Error::new(ErrorKind::BadSerialization, e);
    let mut out = vec![];
    let outcome = match indent {
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, Python)),
        Some(width) => {
            let indent = " ".repeat(width.min(80)).into_bytes();
            let formatter = serde_json::ser::PrettyFormatter::with_indent(&indent);
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter))
        }
    };
    outcome.map_err(|e| failed(e.to_string()))?;
    String::from_utf8(out).map_err(|e| failed(e.to_string()))
}

/// A space behind commas and colons.
struct Python;

impl serde_json::ser::Formatter for Python {
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
        let chat =
            Chat { messages: &messages, tools: None, add_generation_prompt: true, bos_token: "<s>", eos_token: "</s>" };
        render(template, &chat)
    }

    #[test]
    fn templates_do_what_transformers_lets_them() {
        let template = "{{ bos_token }}{% for m in messages %}\n    {% if m.role == 'x' %}{{ raise_exception('no x') }}{% endif %}\n{{ m['content'].strip() | upper }}{{ messages[1:] | length }}{% endfor %}";
        assert_eq!(chat(template, json!([{"role": "user", "content": " a "}])).unwrap(), "<s>A0");
        let error = chat(template, json!([{"role": "x", "content": ""}])).unwrap_err();
        assert!(error.param.as_deref() == Some("messages") && error.message.contains("no x"), "{error:?}");
        let dump = "{{ messages[0] | tojson }} {{ messages[0].c | tojson(indent=1) }}";
        let found = chat(dump, json!([{"a": "<ü>", "c": [1, 2]}])).unwrap();
        assert_eq!(found, "{\"a\": \"<ü>\", \"c\": [1, 2]} [\n 1,\n 2\n]");
    }

    #[test]
    fn templates_cannot_go_on_for_ever_or_read_files() {
        let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{{ a * b }}{% endfor %}{% endfor %}";
        assert!(chat(endless, json!([])).unwrap_err().message.contains("fuel"));
        assert!(chat("{% include '/etc/passwd' %}", json!([])).is_err());
        assert!(chat("{{ range(999999999999) | list }}", json!([])).is_err());
        assert!(chat("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", json!([])).is_err());
        assert!(chat("{% if %}", json!([])).is_err());
    }

    #[test]
    fn moments_are_written_as_python_does() {
        let moment = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_753_600_000);
        assert_eq!(strftime("%d %b %Y, %H:%M", moment).unwrap(), "27 Jul 2025, 07:06");
        assert!(strftime("%", moment).is_err());
    }
}
