//! Which names vector databases accept for collections and metadata fields. The functions for metadata fields return why a name is
//! rejected, to be appended to `metadata field "x"`.

use super::formats::Format;
use tealight_core::{Error, Result, truncate_for_display};

/// Maximum length of the name of a table, class or collection, in bytes.
const MAX_COLLECTION_LEN: usize = 63;

/// Fails if a store cannot have a collection, class or table with this name.
///
/// # Errors
/// [`tealight_core::ErrorKind::InvalidValue`] for `collection`.
pub(super) fn check_collection(format: Format, name: &str) -> Result<()> {
    let is_valid = match format {
        Format::Weaviate => is_word(name) && name.starts_with(|c: char| c.is_ascii_uppercase()),
        Format::Milvus => is_word(name),
        Format::Pgvector | Format::PgvectorSql => name.split('.').count() <= 2 && name.split('.').all(is_word),
        _ => return Ok(()),
    };
    if is_valid && name.len() <= MAX_COLLECTION_LEN {
        return Ok(());
    }
    let expected = match format {
        Format::Weaviate => "a capital letter, then letters, digits and _",
        Format::Milvus => "letters, digits and _",
        _ => "TABLE or SCHEMA.TABLE of letters, digits and _",
    };
    Err(Error::invalid_value(
        "collection",
        format!("collection is {:?}; expected {expected}", truncate_for_display(name)),
    ))
}

fn is_word(name: &str) -> bool {
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

pub(super) fn not_empty(name: &str) -> Option<&'static str> {
    name.is_empty().then_some("has no name")
}

/// <https://docs.pinecone.io/guides/index-data/indexing-overview#metadata-format>
pub(super) fn pinecone(name: &str) -> Option<&'static str> {
    not_empty(name)
        .or_else(|| name.starts_with('$').then_some("starts with $, which the vector database does not accept"))
}

/// <https://turbopuffer.com/docs/write>.
pub(super) fn turbopuffer(name: &str) -> Option<&'static str> {
    pinecone(name)
        .or_else(|| (name.len() > 128).then_some("has a name of more than 128 bytes, the limit of the vector database"))
}

/// <https://docs.trychroma.com/docs/collections/add-data>
pub(super) fn chroma(name: &str) -> Option<&'static str> {
    pinecone(name)
        .or_else(|| name.starts_with('#').then_some("starts with #, which the vector database does not accept"))
}

/// <https://docs.weaviate.io/weaviate/config-refs/collections>
pub(super) fn weaviate(name: &str) -> Option<&'static str> {
    let is_reserved = ["_id", "_additional"].contains(&name);
    (!is_word(name) || is_reserved)
        .then_some("is not a valid property name; expected letters, digits and _, and not _id or _additional")
}

pub(super) fn milvus(name: &str) -> Option<&'static str> {
    (name == "$meta").then_some("is reserved by Milvus")
}

/// OpenSearch and Elasticsearch reserve some names, and read dots as paths.
pub(super) fn lucene(name: &str) -> Option<&'static str> {
    const RESERVED: [&str; 12] = [
        "_id",
        "_index",
        "_routing",
        "_source",
        "_ignored",
        "_field_names",
        "_seq_no",
        "_version",
        "_type",
        "_nested_path",
        "_tier",
        "_doc_count",
    ];
    let reserved = RESERVED.contains(&name).then_some("is reserved by the vector database");
    let has_empty_part = name.split('.').any(|part| part.trim().is_empty());
    reserved.or_else(|| {
        has_empty_part.then_some("has an empty part between dots, which the vector database does not accept")
    })
}
