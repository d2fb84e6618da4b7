//! Builds request bodies from points, each as large as the vector database accepts.

use super::encoding::VectorEncoding;
use super::formats::Format;
use super::stores::BodyTemplate;
use crate::pipeline::point::Point;
use std::collections::HashSet;
use tealight_core::{Error, Result};
use uuid::Uuid;

/// A point in the format of a body: one part for each of its lists.
#[derive(Debug, Clone)]
pub struct EncodedPoint {
    id: Uuid,
    parts: Vec<String>,
}

/// Collects points into request bodies.
pub struct BodyBuilder {
    format: Format,
    encoding: VectorEncoding,
    collection: String,
    template: BodyTemplate,
    lists: Vec<String>,
    ids: HashSet<Uuid>,
    points: usize,
}

impl std::fmt::Debug for BodyBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BodyBuilder of {}, {} points", self.format.as_str(), self.points)
    }
}

impl BodyBuilder {
    /// A builder without points; `collection` is what Weaviate calls a class and PostgreSQL a table.
    ///
    /// # Errors
    /// [`tealight_core::ErrorKind::InvalidValue`]: the format does not support the encoding, or the collection has an invalid name.
    pub fn new(format: Format, encoding: VectorEncoding, collection: Option<&str>) -> Result<Self> {
        format.check_encoding(encoding)?;
        let collection = collection.unwrap_or(format.default_collection());
        let template = format.template(collection)?;
        let lists = vec![String::new(); template.frame.len() - 1];
        Ok(Self { format, encoding, collection: collection.into(), template, lists, ids: HashSet::new(), points: 0 })
    }

    /// The format that was passed to [`BodyBuilder::new`].
    pub fn format(&self) -> Format {
        self.format
    }

    /// Encodes a point; [`BodyBuilder::push`] adds it.
    ///
    /// # Errors
    /// [`tealight_core::ErrorKind::InvalidValue`] for the field that the format does not accept.
    pub fn encode(&self, point: &Point) -> Result<EncodedPoint> {
        let parts = self.format.encode_point(point, self.encoding, &self.collection)?;
        let bytes = self.frame_bytes() + parts.iter().map(String::len).sum::<usize>();
        if bytes > self.template.max_bytes {
            return Err(Error::invalid_value(
                "text",
                format!(
                    "point is {bytes} bytes; the vector database accepts {} per request. Use smaller chunks",
                    self.template.max_bytes
                ),
            ));
        }
        Ok(EncodedPoint { id: point.id, parts })
    }

    /// Adds a point to the current body. If it does not fit, returns that body and starts the next one.
    pub fn push(&mut self, point: EncodedPoint) -> Option<Vec<u8>> {
        let separators = self.template.separator.len() * self.lists.len();
        let bytes = self.bytes() + point.parts.iter().map(String::len).sum::<usize>() + separators;
        let is_duplicate = self.template.unique_ids && self.ids.contains(&point.id);
        let is_full = self.points == self.template.max_points || bytes > self.template.max_bytes || is_duplicate;
        let body = (is_full && self.points > 0).then(|| self.take_body());
        for (list, text) in self.lists.iter_mut().zip(&point.parts) {
            if self.points > 0 {
                list.push_str(self.template.separator);
            }
            list.push_str(text);
        }
        if self.template.unique_ids {
            self.ids.insert(point.id);
        }
        self.points += 1;
        body
    }

    /// Number of points in the current body.
    pub fn points(&self) -> usize {
        self.points
    }

    /// Size of the current body.
    pub fn bytes(&self) -> usize {
        self.frame_bytes() + self.lists.iter().map(String::len).sum::<usize>()
    }

    /// The last body, or `None` if it would have no points.
    pub fn finish(&mut self) -> Option<Vec<u8>> {
        (self.points > 0).then(|| self.take_body())
    }

    fn frame_bytes(&self) -> usize {
        self.template.frame.iter().map(String::len).sum()
    }

    fn take_body(&mut self) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.bytes());
        for (i, part) in self.template.frame.iter().enumerate() {
            body.extend_from_slice(part.as_bytes());
            body.extend_from_slice(self.lists.get(i).map_or(&[], |list| list.as_bytes()));
        }
        self.lists.iter_mut().for_each(String::clear);
        self.ids.clear();
        self.points = 0;
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::document::Document;
    use crate::pipeline::point::DocumentFields;
    use std::sync::Arc;
    use tealight_core::ErrorKind;

    fn point(id: &str, metadata: &str, vector: Vec<f32>) -> Point {
        let document = format!("{{\"id\": \"{id}\", \"text\": \"a \\\"b\\\"\\n\\\\c\", \"metadata\": {metadata}}}");
        let document = Document::parse(document.as_bytes()).unwrap();
        let fields = Arc::new(DocumentFields::new(&document, "m").unwrap());
        let (id, end) = (fields.point_id(0), document.text.chars().count());
        Point { id, document: fields, chunk_index: 0, text: document.text, start: 0, end, vector }
    }

    fn bodies(format: Format, encoding: VectorEncoding, points: &[Point]) -> Result<Vec<String>> {
        let mut builder = BodyBuilder::new(format, encoding, None)?;
        let mut bodies = vec![];
        for point in points {
            bodies.extend(builder.push(builder.encode(point)?));
        }
        bodies.extend(builder.finish());
        Ok(bodies.into_iter().map(|body| String::from_utf8(body).unwrap()).collect())
    }

    #[test]
    fn bodies_are_complete_and_not_empty() {
        let points = [point("a", "{\"x\": 1}", vec![0.5, -1.0]), point("b", "{}", vec![1.0, 2.0])];
        for format in Format::ALL.into_iter().filter(|format| !format.is_file()) {
            let output = bodies(format, VectorEncoding::Float, &points).unwrap();
            assert!(output.len() == 1 && output[0].ends_with('\n'), "{format:?}: {output:?}");
            assert!(points.iter().all(|p| output[0].contains(&p.id.to_string())), "{output:?}");
            assert!(bodies(format, VectorEncoding::Float, &[]).unwrap().is_empty());
            let is_json = !matches!(format, Format::Pgvector | Format::PgvectorSql);
            let mut values = serde_json::Deserializer::from_str(&output[0]).into_iter::<serde_json::Value>();
            assert!(!is_json || values.all(|value| value.is_ok()), "{output:?}");
        }
    }

    #[test]
    fn body_ends_at_limit_and_before_duplicate_id() {
        let many: Vec<_> = (0..1001).map(|n| point(&n.to_string(), "{}", vec![1.0])).collect();
        let count = |format| bodies(format, VectorEncoding::Float, &many).unwrap().len();
        assert_eq!([count(Format::Pinecone), count(Format::S3Vectors), count(Format::Chroma)], [2, 3, 4]);
        let twice = [point("a", "{}", vec![1.0]), point("a", "{}", vec![2.0])];
        let statements = bodies(Format::PgvectorSql, VectorEncoding::Float, &twice).unwrap();
        assert!(statements.len() == 2 && statements[1].contains("[2.0]"), "{statements:?}");
        let large = format!("{{\"x\": \"{}\"}}", "x".repeat(30_000));
        let large: Vec<_> = (0..100).map(|n| point(&n.to_string(), &large, vec![1.0])).collect();
        let output = bodies(Format::Pinecone, VectorEncoding::Float, &large).unwrap();
        assert!(output.len() == 2 && output.iter().all(|body| body.len() <= 2_000_000), "{}", output.len());
    }

    #[test]
    fn zero_and_non_finite_vectors_are_rejected() {
        let zero = [point("a", "{}", vec![0.0; 8])];
        for format in [Format::Pinecone, Format::S3Vectors, Format::OpenSearch, Format::Elasticsearch] {
            assert!(bodies(format, VectorEncoding::Float, &zero).unwrap_err().message.contains("zero"));
        }
        assert!(bodies(Format::Qdrant, VectorEncoding::Float, &zero).is_ok());
        for value in [f32::NAN, f32::INFINITY] {
            for format in [Format::Qdrant, Format::Pgvector, Format::Jsonl] {
                let error = bodies(format, VectorEncoding::Float, &[point("a", "{}", vec![1.0, value])]).unwrap_err();
                assert!(error.message.contains("value 1"), "{error}");
            }
        }
    }

    #[test]
    fn oversized_metadata_is_rejected_with_limit() {
        let metadata = format!("{{\"x\": \"{}\"}}", "x".repeat(41_000));
        for format in [Format::Pinecone, Format::S3Vectors] {
            let error = bodies(format, VectorEncoding::Float, &[point("a", &metadata, vec![1.0])]).unwrap_err();
            assert!(error.kind == ErrorKind::InvalidValue && error.message.contains("40960"), "{error}");
        }
        let metadata = format!("{{\"x\": \"{}\"}}", "x".repeat(11 << 20));
        let error = bodies(Format::OpenSearch, VectorEncoding::Float, &[point("a", &metadata, vec![1.0])]).unwrap_err();
        assert!(error.message.contains("10485760"), "{error}");
    }

    #[test]
    fn encodings_follow_the_store() {
        let vector = vec![0.5, -0.25, 0.0, 1.0, 0.1, 0.1, 0.1, -0.1];
        let output =
            |format, encoding| bodies(format, encoding, &[point("a", "{}", vector.clone())]).unwrap().remove(0);
        // numpy.packbits returns 158; 158 − 128 = 30.
        assert!(output(Format::Pgvector, VectorEncoding::Binary).ends_with("\t10011110\n"));
        assert!(output(Format::OpenSearch, VectorEncoding::Binary).contains("\"vector\":[30]"));
        assert!(output(Format::Milvus, VectorEncoding::Binary).contains("\"vector\":\"ng==\""));
        assert!(output(Format::OpenSearch, VectorEncoding::Int8).contains("\"vector\":[64,-32,0,127,"));
        let error = bodies(Format::Pinecone, VectorEncoding::Int8, &[]).unwrap_err();
        assert!(error.message.contains("int8") && error.message.contains("float"), "{error}");
    }

    #[test]
    fn copy_rows_and_sql_literals_are_escaped() {
        let points = [point("it's", "{\"k\": \"a\\\\nb\"}", vec![1.0])];
        let row = bodies(Format::Pgvector, VectorEncoding::Float, &points).unwrap().remove(0);
        assert!(row.contains("\ta \"b\"\\n\\\\c\t"), "{row}");
        assert_eq!(row.trim_end().split('\t').count(), 9);
        let statement = bodies(Format::PgvectorSql, VectorEncoding::Float, &points).unwrap().remove(0);
        assert!(statement.contains("'it''s'") && statement.contains("E'a \"b\"\\n\\\\c'"), "{statement}");
        assert_eq!(statement.trim_end().lines().count(), 1);
        let nul = point("a", "{\"k\": \"\\u0000\"}", vec![1.0]);
        let error = bodies(Format::Pgvector, VectorEncoding::Float, &[nul]).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("metadata"));
        assert!(
            bodies(Format::Pgvector, VectorEncoding::Float, &[point("a", "{\"k\": \"\\\\u0000\"}", vec![1.0])]).is_ok()
        );
    }

    #[test]
    fn invalid_collection_name_is_rejected() {
        let builder = |format, name| BodyBuilder::new(format, VectorEncoding::Float, Some(name));
        assert!(builder(Format::PgvectorSql, "public.docs").is_ok());
        for (format, name) in [
            (Format::PgvectorSql, "a b"),
            (Format::PgvectorSql, "a;b"),
            (Format::Weaviate, "docs"),
            (Format::Milvus, ""),
        ] {
            assert_eq!(builder(format, name).unwrap_err().param.as_deref(), Some("collection"), "{name}");
        }
    }
}
