//! The commands `tealight index` and the route `/search`.

use crate::support::server::Server;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tealight")).args(arguments).output().unwrap()
}

fn expect_success(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn expect_failure(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

const DOCUMENTS: [(&str, &str, i32); 4] = [
    ("tide", "The tide was coming in, and the boats in the harbour began to float.", 1961),
    ("rates", "Interest rates rose by half a point after the meeting of the central bank.", 1979),
    ("cat", "A cat sat on the warm stones of the wall and slept.", 1985),
    ("bread", "Mix flour, water, salt and yeast, and let the dough rest for an hour.", 2001),
];

fn lines(documents: &[(&str, &str, i32)]) -> String {
    let line = |(id, text, year): &(&str, &str, i32)| {
        json!({"id": id, "text": text, "metadata": {"year": year}}).to_string() + "\n"
    };
    documents.iter().map(line).collect()
}

#[test]
fn index_commands_build_search_add_and_delete() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (input, file) = (path("docs.jsonl"), path("docs.tlx"));
    std::fs::write(&input, lines(&DOCUMENTS[..3])).unwrap();
    assert_eq!(expect_success(&["index", "build", &input, "-o", &file]), format!("{file}: 3 rows\n"));
    let search = |more: &[&str]| -> Vec<Value> {
        let out = expect_success(&[&["index", "search", &file, "--format", "json"], more].concat());
        out.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    };
    let ids =
        |more: &[&str]| search(more).iter().map(|hit| hit["id"].as_str().unwrap().to_string()).collect::<Vec<_>>();
    assert_eq!(ids(&["a pet asleep", "-k", "1"]), ["cat"]);
    assert_eq!(ids(&["inflation and banks", "-k", "1"]), ["rates"]);
    assert_eq!(ids(&["a pet asleep", "--filter", r#"{"year": {"$lt": 1970}}"#]), ["tide"]);
    assert_eq!(ids(&["harbour", "--mode", "words"]), ["tide"]);
    assert_eq!(ids(&["harbour", "--mode", "lexical"]), ["tide"]);
    assert_eq!(ids(&["cat bank", "--mode", "hybrid", "-k", "3"]).len(), 3);
    let first = &search(&["sea"])[0];
    assert!(first["score"].as_f64().unwrap() > 0.1 && first["metadata"] == json!({"year": 1961}), "{first}");
    assert!(expect_success(&["index", "search", &file, "sea", "-k", "1"]).contains("tide  The tide"));
    let before = search(&["sea"]);
    // One document is new and one is replaced; the scores of the others do not change.
    std::fs::write(&input, lines(&[DOCUMENTS[3], ("cat", "A dog barked all night.", 1)])).unwrap();
    assert!(expect_success(&["index", "add", &file, &input]).contains("4 rows"));
    assert_eq!(ids(&["cooking", "-k", "1"]), ["bread"]);
    assert_eq!(ids(&["a hound", "-k", "1"]), ["cat"]);
    assert_eq!(search(&["sea"])[0], before[0]);
    assert!(expect_failure(&["index", "delete", &file, "cat", "none"]).contains("1 of 2 ids"));
    assert!(expect_success(&["index", "delete", &file, "cat", "bread"]).contains("2 rows"));
    assert_eq!(ids(&["a hound", "-k", "5"]).len(), 2);
    let about: Value = serde_json::from_str(&expect_success(&["index", "info", &file])).unwrap();
    assert_eq!(
        about,
        json!({
            "model": "all-MiniLM-L6-v2", "rows": 2, "documents": 2, "dimension": 384, "metric": "cosine",
            "precision": "int8", "graph": false
        })
    );
    // A failed command leaves the index unchanged.
    let model = path("other.gguf");
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/tiny-bert-f32.gguf"), &model)
        .unwrap();
    assert!(
        expect_failure(&["index", "search", &file, "sea", "--model", &model])
            .contains("built with \"all-MiniLM-L6-v2\"")
    );
    for (text, word) in [
        ("{\"id\": [1], \"text\": \"a\"}", "id is [1]"),
        ("{\"id\": 1}", "no text"),
        ("{\"id\": 1, \"text\": \"a\", \"colour\": 1}", "colour"),
        ("not JSON", "line 1"),
        ("{\"id\": 1, \"text\": \"a\"}\n{\"id\": \"1\", \"text\": \"b\"}", "duplicate"),
        ("{\"id\": 1, \"text\": \"a\"}\n{\"id\": 2, \"embedding\": [1.0]}", "some documents have an embedding"),
        ("{\"id\": 1, \"embedding\": [1, 2]}\n{\"id\": 2, \"embedding\": [1, 2, 3]}", "3 dimensions; the index has 2"),
    ] {
        std::fs::write(&input, text).unwrap();
        let message = expect_failure(&["index", "build", &input, "-o", &file]);
        assert!(message.contains(word), "{word}: {message}");
    }
    assert_eq!(ids(&["sea"]).len(), 2);
    assert!(expect_failure(&["index", "search", &file, "sea", "--filter", "{"]).contains("filter is not JSON"));
    // An index of given embeddings names no model.
    let with_embedding = |id: usize, vector: [f32; 2]| json!({"id": id, "text": "x", "embedding": vector}).to_string();
    std::fs::write(&input, [with_embedding(1, [1.0, 0.0]), with_embedding(2, [0.0, 2.0])].join("\n")).unwrap();
    expect_success(&["index", "build", &input, "-o", &file, "--metric", "l2", "--precision", "binary"]);
    assert!(expect_failure(&["index", "search", &file, "x"]).contains("the index names no model"));
    assert_eq!(ids(&["x", "--mode", "words"]), ["1", "2"]);
    // With --model, the embeddings are declared to be that model's, or the first values of them.
    expect_success(&["index", "build", &input, "-o", &file, "--model", "all-MiniLM-L6-v2"]);
    assert_eq!(ids(&["x"]).len(), 2);
    let long = json!({"id": 1, "text": "x", "embedding": vec![0.5; 385]}).to_string();
    std::fs::write(&input, long).unwrap();
    let message = expect_failure(&["index", "build", &input, "-o", &file, "--model", "all-MiniLM-L6-v2"]);
    assert!(message.contains("385 dimensions") && message.contains("384"), "{message}");
}

#[test]
fn folder_and_long_documents_become_rows() {
    let folder = tempfile::tempdir().unwrap();
    let notes = folder.path().join("notes");
    let file = folder.path().join("notes.tlx").display().to_string();
    std::fs::create_dir_all(notes.join("deep/.git")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(notes.join(name), text).unwrap();
    let filler = "Nothing of any interest was said in the meeting. ".repeat(60);
    let long = format!("{filler}\n\nThe library card has to be renewed in spring.\n");
    write("long.md", &long);
    write(
        "deep/table.csv",
        "id,text,year\nsoup,Simmer the lentils for twenty minutes.,1990\n,The engine needs oil.,\n",
    );
    write("deep/lines.jsonl", "\n{\"text\": \"Beans are sown in May.\"}\n");
    write("blank.txt", " \n");
    write("deep/.git/config.md", "hidden");
    write("song.mp3", "no recording");
    write("picture.png", "no text");
    std::os::unix::fs::symlink(&notes, notes.join("deep/again")).unwrap();
    let at = notes.display().to_string();
    let search = |query: &str| -> Vec<Value> {
        let out = expect_success(&["index", "search", &file, query, "--format", "json", "-k", "100"]);
        out.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    };
    expect_success(&["index", "build", &at, "-o", &file, "--chunk-tokens", "64", "--chunk-overlap", "16"]);
    let hits = search("where is the library card renewed?");
    let best = &hits[0];
    let document = format!("{at}/long.md");
    let number = best["metadata"]["chunk"].as_u64().unwrap();
    assert!(number > 5 && best["id"] == format!("{document}#{number}") && best["metadata"]["document_id"] == document);
    // A chunk has its position in the document, in characters.
    let characters: Vec<char> = long.chars().collect();
    for hit in hits.iter().filter(|hit| hit["metadata"]["document_id"] == document) {
        let [start, end] = ["start", "end"].map(|name| hit["metadata"][name].as_u64().unwrap() as usize);
        assert_eq!(hit["text"], characters[start..end].iter().collect::<String>());
    }
    let mut others: Vec<_> = hits.iter().filter(|hit| hit["metadata"]["document_id"].is_null()).collect();
    others.sort_by_key(|hit| hit["id"].to_string());
    let expected = [format!("{at}/deep/lines.jsonl:2"), format!("{at}/deep/table.csv:2"), "soup".into()];
    assert_eq!(others.iter().map(|hit| hit["id"].as_str().unwrap()).collect::<Vec<_>>(), expected);
    assert_eq!(others[2]["metadata"], json!({"year": "1990"}));
    // A document is replaced and deleted with all its chunks.
    write("long.md", "It is short now.");
    let count = hits.len();
    let chunks = count - others.len();
    expect_success(&["index", "add", &file, &document]);
    let hits = search("short");
    assert_eq!((hits.len(), hits[0]["id"].as_str()), (count - chunks + 1, Some(&document[..])));
    write("long.md", &long);
    expect_success(&["index", "add", &file, &document]);
    assert!(search("short").len() > 4);
    expect_success(&["index", "delete", &file, &document, "soup"]);
    assert_eq!(search("anything").len(), 2);
    // A failed command leaves the index unchanged.
    assert!(
        expect_failure(&["index", "build", &format!("{at}/blank.txt"), "-o", &file]).contains("blank.txt: document 1")
    );
    assert!(
        expect_failure(&["index", "build", &format!("{at}/deep/.git"), &at, "-o", &file, "--chunk-tokens", "9999"])
            .contains("9999")
    );
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    assert!(
        expect_failure(&["index", "build", &empty.display().to_string(), "-o", &file])
            .contains("contains no documents")
    );
    let twice = json!({"id": document, "text": long}).to_string();
    write("deep/lines.jsonl", &twice);
    assert!(expect_failure(&["index", "build", &at, "-o", &file]).contains("duplicate"));
    assert_eq!(search("anything").len(), 2);
}

#[test]
fn output_of_embed_builds_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (input, rows, file) = (path("docs.jsonl"), path("rows.jsonl"), path("docs.tlx"));
    let long = "The tide was coming in. ".repeat(40);
    std::fs::write(&input, json!({"id": "sea", "text": long, "metadata": {"year": 1961}}).to_string()).unwrap();
    expect_success(&["embed", "--input", &input, "--format", "jsonl", "--chunk-tokens", "64", "-o", &rows]);
    expect_success(&["index", "build", &rows, "-o", &file, "--model", "all-MiniLM-L6-v2"]);
    let hit: Value =
        serde_json::from_str(&expect_success(&["index", "search", &file, "ebb", "-k", "1", "--format", "json"]))
            .unwrap();
    assert_eq!((&hit["metadata"]["document_id"], &hit["metadata"]["year"]), (&"sea".into(), &1961.into()));
    assert!(hit["metadata"]["end"].as_u64() > hit["metadata"]["start"].as_u64());
}

#[test]
fn add_accepts_embeddings_that_fit_the_index() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (input, rows, file) = (path("docs.jsonl"), path("rows.jsonl"), path("docs.tlx"));
    let embed =
        || expect_success(&["embed", "--input", &input, "--format", "jsonl", "--chunk-tokens", "64", "-o", &rows]);
    std::fs::write(&input, lines(&DOCUMENTS[..2])).unwrap();
    expect_success(&["index", "build", &input, "-o", &file]);
    // An index that was built with a model accepts the embeddings of that model.
    std::fs::write(&input, lines(&DOCUMENTS[2..])).unwrap();
    embed();
    assert!(expect_success(&["index", "add", &file, &rows]).contains("4 rows"));
    let out = expect_success(&["index", "search", &file, "a pet asleep", "-k", "1", "--format", "json"]);
    let hit: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(hit["metadata"]["document_id"], "cat");
    let document = |id: &str, more: Value| {
        let Value::Object(more) = more else { panic!("{more}") };
        let mut line = json!({"id": id, "text": "x"});
        line.as_object_mut().unwrap().extend(more);
        line.to_string() + "\n"
    };
    let vector = vec![0.5; 384];
    let failure = |text: String| {
        std::fs::write(&input, text).unwrap();
        expect_failure(&["index", "add", &file, &input])
    };
    for (text, expected) in [
        (document("a", json!({"embedding": [1.0, 0.0]})), "2 dimensions; the index has 384"),
        (document("a", json!({"embedding": vector})) + &document("b", json!({})), "document \"b\": some documents"),
        (document("a", json!({})) + &document("b", json!({"embedding": vector})), "document \"b\": some documents"),
        (
            document("a", json!({"embedding": vector, "model": "gte-small"})),
            "document \"a\": the embedding is of model \"gte-small\"; the index was built with \"all-MiniLM-L6-v2\"",
        ),
    ] {
        let message = failure(text);
        assert!(message.contains(expected), "{expected}: {message}");
    }
    // An index that names no model needs embeddings.
    std::fs::write(&input, document("a", json!({"embedding": [1.0, 0.0]}))).unwrap();
    expect_success(&["index", "build", &input, "-o", &file]);
    std::fs::write(&input, document("b", json!({"embedding": [0.0, 1.0], "model": "gte-small"}))).unwrap();
    assert!(expect_success(&["index", "add", &file, &input]).contains("2 rows"));
    let message = failure(document("c", json!({})));
    assert!(
        message.contains("document \"c\": the document has no embedding, and the index names no model"),
        "{message}"
    );
    assert!(expect_success(&["index", "info", &file]).contains("\"rows\":2"));
}

#[test]
fn search_route_returns_hits_and_errors() {
    let folder = tempfile::tempdir().unwrap();
    let (input, file) = (folder.path().join("docs.jsonl"), folder.path().join("docs.tlx"));
    std::fs::write(&input, lines(&DOCUMENTS)).unwrap();
    let file = file.display().to_string();
    expect_success(&["index", "build", &input.display().to_string(), "-o", &file]);
    let server = Server::start(&[("TEALIGHT_INDEX", &file)]);
    let response =
        server.expect_success("/search", json!({"query": "a pet asleep", "k": 2, "filter": {"year": {"$gte": 1970}}}));
    assert_eq!(
        (response["model"].as_str(), response["results"].as_array().unwrap().len()),
        (Some("all-MiniLM-L6-v2"), 2)
    );
    assert_eq!(
        (&response["results"][0]["id"], &response["results"][0]["metadata"]),
        (&"cat".into(), &json!({"year": 1985}))
    );
    let vector = &server.expect_success("/v1/embeddings", json!({"input": "a pet asleep"}))["data"][0]["embedding"];
    let same =
        server.expect_success("/search", json!({"vector": vector, "top_k": 2, "filter": {"year": {"$gte": 1970}}}));
    assert_eq!((&same["results"][0]["id"], &same["model"]), (&"cat".into(), &Value::Null));
    let close = |a: &Value, b: &Value| (a["score"].as_f64().unwrap() - b["score"].as_f64().unwrap()).abs() < 1e-5;
    assert!(close(&same["results"][0], &response["results"][0]));
    assert_eq!(
        server.expect_success("/search", json!({"query": "yeast", "mode": "words"}))["results"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    for (body, param, word) in [
        (json!({}), "query", "neither"),
        (json!({"query": "  "}), "query", "neither"),
        (json!({"query": "a", "k": 0}), "k", "1 to 1000"),
        (json!({"query": "a", "mode": "magic"}), "mode", "lexical"),
        (json!({"query": "a", "filter": {"$near": 1}}), "filter", "$near"),
        (json!({"vector": [1.0, 2.0]}), "vector", "384"),
        (json!({"query": 7}), "query", "string"),
    ] {
        let response = server.post("/search", body.to_string());
        let error = &response.json()["error"];
        assert!(response.status() == 400 && error["param"] == param, "{body}: {error}");
        assert!(error["message"].as_str().unwrap().contains(word), "{body}: {error}");
    }
    let none = Server::start(&[]);
    let response = none.post("/search", r#"{"query": "a"}"#);
    assert_eq!((response.status(), response.json()["error"]["code"].as_str()), (404, Some("index_not_found")));
    std::fs::write(&file, "TLINDEX\nand more, but no index at all, as long as a preamble must be......").unwrap();
    let damaged = Server::start(&[("TEALIGHT_INDEX", &file)]);
    let response = damaged.post("/search", r#"{"query": "a"}"#);
    assert_eq!((response.status(), response.json()["error"]["code"].as_str()), (500, Some("index_load_failed")));
}

#[cfg(feature = "graph")]
#[test]
fn index_commands_build_and_keep_the_graph() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (input, file) = (path("docs.jsonl"), path("docs.tlx"));
    let embedding =
        |id: usize| (0..8).map(|i| (id * 31 + i * 17) % 101).map(|v| v as f32 / 50.0 - 1.0).collect::<Vec<_>>();
    let line = |id: usize| json!({"id": id, "text": "x", "embedding": embedding(id)}).to_string();
    let write = |ids: std::ops::Range<usize>| std::fs::write(&input, ids.map(line).collect::<Vec<_>>().join("\n"));
    write(1..601).unwrap();
    expect_success(&["index", "build", &input, "-o", &file, "--graph"]);
    write(601..605).unwrap();
    assert!(expect_success(&["index", "add", &file, &input]).contains("604 rows"));
    assert!(expect_success(&["index", "delete", &file, "7"]).contains("603 rows"));
    assert!(expect_success(&["index", "info", &file]).contains("\"graph\":true"));
    assert!(expect_success(&["index", "search", &file, "x", "--mode", "words", "--exact"]).lines().count() == 10);
    let output = expect_success(&["bench", "index", "--rows", "600", "--dim", "8", "--graph"]);
    assert!(output.contains("graph") && output.contains("recall"), "{output}");
}
