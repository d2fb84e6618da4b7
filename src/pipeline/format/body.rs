//! Points to the bodies of requests, as many in each as the index takes.

use super::stores::BodyTemplate;
use super::{Encoding, Format};
use crate::pipeline::point::Point;
use std::collections::HashSet;
use tealight_core::{Error, Result};
use uuid::Uuid;

/// A point as a body takes it.
#[derive(Debug, Clone)]
pub struct EncodedPoint {
    id: Uuid,
    parts: Vec<String>,
}

/// Puts points into bodies.
pub struct BodyBuilder {
    format: Format,
    encoding: Encoding,
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
    /// For bodies of an index; `collection` is what Weaviate calls a class and PostgreSQL a table.
    ///
    /// # Errors
    /// [`tealight_core::ErrorKind::InvalidValue`]: the index has no such encoding, or cannot have a collection of this name.
    pub fn new(format: Format, encoding: Encoding, collection: Option<&str>) -> Result<Self> {
        format.check_encoding(encoding)?;
        let collection = collection.unwrap_or(format.default_collection());
        let template = format.template(collection)?;
        let lists = vec![String::new(); template.frame.len() - 1];
        Ok(Self { format, encoding, collection: collection.into(), template, lists, ids: HashSet::new(), points: 0 })
    }

    /// Of its bodies.
    pub fn format(&self) -> Format {
        self.format
    }

    /// A point as the index takes it.
    ///
    /// # Errors
    /// [`tealight_core::ErrorKind::InvalidValue`], with the field that the index has no place for.
    pub fn encode(&self, point: &Point) -> Result<EncodedPoint> {
        let parts = self.format.encode_point(point, self.encoding, &self.collection)?;
        let bytes = self.frame_bytes() + parts.iter().map(String::len).sum::<usize>();
        if bytes > self.template.max_bytes {
            let most = self.template.max_bytes;
            return Err(Error::invalid_value(
                "text",
                format!("the point has {bytes} bytes, a request of the index takes {most}"),
            ));
        }
        Ok(EncodedPoint { id: point.id, parts })
    }

    /// Puts a point into the body; gives the one before, where it does not fit into that.
    pub fn push(&mut self, point: EncodedPoint) -> Option<Vec<u8>> {
        let between = self.template.separator.len() * self.lists.len();
        let bytes = self.bytes() + point.parts.iter().map(String::len).sum::<usize>() + between;
        let is_there = self.template.unique_ids && self.ids.contains(&point.id);
        let is_full = self.points == self.template.max_points || bytes > self.template.max_bytes || is_there;
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

    /// Points in the body that is being filled.
    pub fn points(&self) -> usize {
        self.points
    }

    /// Bytes of the body that is being filled.
    pub fn bytes(&self) -> usize {
        self.frame_bytes() + self.lists.iter().map(String::len).sum::<usize>()
    }

    /// The last body, if there are points for one.
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
    use crate::pipeline::input::Document;
    use crate::pipeline::point::PointSource;
    use std::sync::Arc;
    use tealight_core::ErrorKind;

    fn point(id: &str, metadata: &str, vector: Vec<f32>) -> Point {
        let document = format!("{{\"id\": \"{id}\", \"text\": \"a \\\"b\\\"\\n\\\\c\", \"metadata\": {metadata}}}");
        let document = Document::parse(document.as_bytes()).unwrap();
        let source = Arc::new(PointSource::new(&document, "m").unwrap());
        let (id, end) = (source.point_id(0), document.text.chars().count());
        Point { id, source, chunk_index: 0, text: document.text, start: 0, end, vector }
    }

    fn bodies(format: Format, encoding: Encoding, points: &[Point]) -> Result<Vec<String>> {
        let mut builder = BodyBuilder::new(format, encoding, None)?;
        let mut bodies = vec![];
        for point in points {
            bodies.extend(builder.push(builder.encode(point)?));
        }
        bodies.extend(builder.finish());
        Ok(bodies.into_iter().map(|body| String::from_utf8(body).unwrap()).collect())
    }

    #[test]
    fn bodies_are_whole_and_none_is_empty() {
        let points = [point("a", "{\"x\": 1}", vec![0.5, -1.0]), point("b", "{}", vec![1.0, 2.0])];
        for format in Format::ALL.into_iter().filter(|format| !format.is_file()) {
            let made = bodies(format, Encoding::Float, &points).unwrap();
            assert!(made.len() == 1 && made[0].ends_with('\n'), "{format:?}: {made:?}");
            assert!(points.iter().all(|p| made[0].contains(&p.id.to_string())), "{made:?}");
            assert!(bodies(format, Encoding::Float, &[]).unwrap().is_empty());
            let is_json = !matches!(format, Format::Pgvector | Format::PgvectorSql);
            let mut values = serde_json::Deserializer::from_str(&made[0]).into_iter::<serde_json::Value>();
            assert!(!is_json || values.all(|value| value.is_ok()), "{made:?}");
        }
    }

    #[test]
    fn a_body_ends_where_the_index_has_enough_or_an_id_comes_again() {
        let many: Vec<_> = (0..1001).map(|n| point(&n.to_string(), "{}", vec![1.0])).collect();
        let count = |format| bodies(format, Encoding::Float, &many).unwrap().len();
        assert_eq!([count(Format::Pinecone), count(Format::S3Vectors), count(Format::Chroma)], [2, 3, 4]);
        let twice = [point("a", "{}", vec![1.0]), point("a", "{}", vec![2.0])];
        let statements = bodies(Format::PgvectorSql, Encoding::Float, &twice).unwrap();
        assert!(statements.len() == 2 && statements[1].contains("[2.0]"), "{statements:?}");
        let large = format!("{{\"x\": \"{}\"}}", "x".repeat(30_000));
        let large: Vec<_> = (0..100).map(|n| point(&n.to_string(), &large, vec![1.0])).collect();
        let made = bodies(Format::Pinecone, Encoding::Float, &large).unwrap();
        assert!(made.len() == 2 && made.iter().all(|body| body.len() <= 2_000_000), "{}", made.len());
    }

    #[test]
    fn vectors_that_an_index_cannot_score_are_refused() {
        let zero = [point("a", "{}", vec![0.0; 8])];
        for format in [Format::Pinecone, Format::S3Vectors, Format::OpenSearch, Format::Elasticsearch] {
            assert!(bodies(format, Encoding::Float, &zero).unwrap_err().message.contains("zero"));
        }
        assert!(bodies(Format::Qdrant, Encoding::Float, &zero).is_ok());
        for value in [f32::NAN, f32::INFINITY] {
            for format in [Format::Qdrant, Format::Pgvector, Format::Jsonl] {
                let error = bodies(format, Encoding::Float, &[point("a", "{}", vec![1.0, value])]).unwrap_err();
                assert!(error.message.contains("value 1"), "{error}");
            }
        }
    }

    #[test]
    fn what_is_too_large_is_refused_by_its_field() {
        let metadata = format!("{{\"x\": \"{}\"}}", "x".repeat(41_000));
        for format in [Format::Pinecone, Format::S3Vectors] {
            let error = bodies(format, Encoding::Float, &[point("a", &metadata, vec![1.0])]).unwrap_err();
            assert!(error.kind == ErrorKind::InvalidValue && error.message.contains("40960"), "{error}");
        }
        let metadata = format!("{{\"x\": \"{}\"}}", "x".repeat(11 << 20));
        let error = bodies(Format::OpenSearch, Encoding::Float, &[point("a", &metadata, vec![1.0])]).unwrap_err();
        assert!(error.message.contains("10485760"), "{error}");
    }

    #[test]
    fn encodings_are_those_that_the_index_has() {
        let vector = vec![0.5, -0.25, 0.0, 1.0, 0.1, 0.1, 0.1, -0.1];
        let made = |format, encoding| bodies(format, encoding, &[point("a", "{}", vector.clone())]).unwrap().remove(0);
        // numpy's packbits has 158 of it, which is 30 less 128.
        assert!(made(Format::Pgvector, Encoding::Binary).ends_with("\t10011110\n"));
        assert!(made(Format::OpenSearch, Encoding::Binary).contains("\"vector\":[30]"));
        assert!(made(Format::Milvus, Encoding::Binary).contains("\"vector\":\"ng==\""));
        assert!(made(Format::OpenSearch, Encoding::Int8).contains("\"vector\":[64,-32,0,127,"));
        let error = bodies(Format::Pinecone, Encoding::Int8, &[]).unwrap_err();
        assert!(error.message.contains("int8") && error.message.contains("float"), "{error}");
    }

    #[test]
    fn a_row_of_copy_and_a_literal_escape_what_they_must() {
        let points = [point("it's", "{\"k\": \"a\\\\nb\"}", vec![1.0])];
        let row = bodies(Format::Pgvector, Encoding::Float, &points).unwrap().remove(0);
        assert!(row.contains("\ta \"b\"\\n\\\\c\t"), "{row}");
        assert_eq!(row.trim_end().split('\t').count(), 9);
        let statement = bodies(Format::PgvectorSql, Encoding::Float, &points).unwrap().remove(0);
        assert!(statement.contains("'it''s'") && statement.contains("E'a \"b\"\\n\\\\c'"), "{statement}");
        assert_eq!(statement.trim_end().lines().count(), 1);
        let nul = point("a", "{\"k\": \"\\u0000\"}", vec![1.0]);
        let error = bodies(Format::Pgvector, Encoding::Float, &[nul]).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("metadata"));
        assert!(bodies(Format::Pgvector, Encoding::Float, &[point("a", "{\"k\": \"\\\\u0000\"}", vec![1.0])]).is_ok());
    }

    #[test]
    fn a_table_has_a_name_that_needs_no_quotes() {
        let builder = |format, name| BodyBuilder::new(format, Encoding::Float, Some(name));
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
