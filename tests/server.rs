//! The real binary as a local server, on sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use support::http::{Client, Message, request};
use support::server::Server;
use support::{floats, wait_for};

const HELLO: &str = r#"{"input":"hello world"}"#;
/// The limit of a body where a test needs a small one.
const LIMIT: usize = 1000;
const LIMITED: (&str, &str) = ("TEALIGHT_PAYLOAD_LIMIT", "1000");
const JSON: (&str, &str) = ("content-type", "application/json");
const ONE_PLACE: (&str, &str) = ("TEALIGHT_MAX_CONCURRENT_REQUESTS", "1");

/// An error of either family: its message, and its code or type.
fn error(reply: &Message) -> (String, String) {
    assert_eq!(reply.header("content-type"), Some("application/json"), "{}", reply.start);
    let body = reply.json();
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("not an error: {body}")).to_string();
    match body["error"].is_object() {
        true => (text(&body["error"]["message"]), text(&body["error"]["code"])),
        false => (text(&body["error"]), text(&body["error_type"])),
    }
}

/// Checks that a body is refused by a status and a word of the message, and that the server goes on.
#[track_caller]
fn refused(server: &Server, path: &str, body: impl ToString, status: u16, word: &str) {
    let body = body.to_string();
    let reply = server.post(path, &body);
    let truncate_for_display: String = body.chars().take(100).collect();
    assert_eq!(reply.status(), status, "{path} {truncate_for_display}: {}", reply.text());
    let (message, _) = error(&reply);
    assert!(message.contains(word), "{path} {truncate_for_display}: {message}");
    server.serves();
}

#[test]
fn a_connection_carries_many_requests_of_all_kinds() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let first = client.call("POST", "/v1/embeddings", &[JSON], HELLO);
    assert_eq!(first.status(), 200, "{}", first.text());
    assert_eq!(client.call("GET", "/health", &[], "").body, b"");
    assert_eq!(client.call("POST", "/v1/embeddings", &[JSON], r#"{"input":""}"#).status(), 400);
    assert_eq!(client.call("GET", "/nothing", &[], "").status(), 404);
    assert_eq!(client.call("GET", "/embed", &[], "").status(), 405);
    assert_eq!(client.call("POST", "/v1/embeddings", &[JSON], HELLO).body, first.body);
    let tei = client.call("POST", "/embed", &[JSON], r#"{"inputs":"hello world"}"#);
    assert_eq!(tei.json()[0], first.json()["data"][0]["embedding"]);
}

#[test]
fn requests_may_be_sent_ahead_on_a_connection() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let one = request("POST", "/v1/embeddings", &[JSON], HELLO);
    client.send([one.clone(), request("GET", "/v1/models", &[], ""), one].concat());
    let (first, models, last) = (client.reply(), client.reply(), client.reply());
    assert_eq!(models.json()["object"], "list");
    assert_eq!(first.json(), last.json());
    assert_eq!(floats(&last.json()["data"][0]["embedding"]).len(), 384);
}

#[test]
fn a_body_may_come_in_chunks() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send("POST /v1/embeddings HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n");
    for part in [r#"{"input":"#, r#""hello w"#, r#"orld"}"#] {
        client.send(format!("{:x}\r\n{part}\r\n", part.len()));
    }
    client.send("0\r\n\r\n");
    let reply = client.reply();
    assert_eq!(reply.status(), 200, "{}", reply.text());
    assert_eq!(reply.json(), server.good("/v1/embeddings", HELLO));
}

#[test]
fn unknown_paths_and_wrong_methods_are_told_apart() {
    let server = Server::start(&[]);
    for path in ["/nothing", "/v1", "/embed/x", "/v1/embeddings/x", "//"] {
        let reply = server.post(path, HELLO);
        if path == "//" {
            // Trailing slashes are forgiven, so that this is `/`.
            continue;
        }
        assert_eq!(reply.status(), 404, "{path}: {}", reply.text());
        assert_eq!(error(&reply).1, "unknown_url");
    }
    for (method, path, allow) in [
        ("GET", "/v1/embeddings", "POST"),
        ("DELETE", "/embed", "POST"),
        ("POST", "/v1/models", "GET"),
        ("POST", "/info", "GET"),
        ("PUT", "/", "POST, GET"),
        ("BREW", "/health", "GET"),
    ] {
        let reply = server.connect().call(method, path, &[], "");
        assert_eq!((reply.status(), reply.header("allow")), (405, Some(allow)), "{method} {path}: {}", reply.text());
        let (message, _) = error(&reply);
        assert!(message.contains(method), "{message}");
    }
    server.serves();
}

#[test]
fn a_body_over_the_limit_is_refused_whether_its_length_is_stated_or_not() {
    let server = Server::start(&[LIMITED]);
    let body = json!({"input": "a".repeat(LIMIT)}).to_string();
    for path in ["/v1/embeddings", "/embed"] {
        let stated = server.post(path, &body);
        let mut client = server.connect();
        client.send(format!("POST {path} HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n"));
        client.send(format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()));
        for reply in [stated, client.reply()] {
            assert_eq!(reply.status(), 413, "{path}: {}", reply.text());
            let (message, _) = error(&reply);
            assert!(message.contains(&body.len().to_string()) && message.contains("1000"), "{message}");
        }
        server.serves();
    }
    let fits = format!("{:<LIMIT$}", HELLO);
    assert_eq!(server.post("/v1/embeddings", &fits).status(), 200, "a body of exactly the limit");
    assert_eq!(server.post("/v1/embeddings", fits + " ").status(), 413);
}

#[test]
fn a_body_far_over_the_limit_ends_its_connection_only() {
    let server = Server::start(&[LIMITED]);
    let mut client = server.connect();
    client.send(format!("POST /embed HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n", 1000 * LIMIT));
    // The server stops reading somewhere in the middle, and what happens to the rest is the kernel's business.
    let _ = client.try_send(vec![b' '; 1000 * LIMIT]);
    server.serves();
}

#[test]
fn a_body_of_another_type_than_json_is_refused() {
    let server = Server::start(&[]);
    for content_type in ["text/plain", "multipart/form-data; boundary=x", "application/xml"] {
        for path in ["/v1/embeddings", "/embed", "/decode"] {
            let reply = server.post_with(path, &[("content-type", content_type)], HELLO);
            assert_eq!(reply.status(), 415, "{content_type}: {}", reply.text());
            let (message, _) = error(&reply);
            assert!(message.contains(content_type.split(';').next().unwrap()), "{message}");
        }
    }
    for good in ["application/json; charset=utf-8", "application/x-www-form-urlencoded"] {
        assert_eq!(server.post_with("/v1/embeddings", &[("content-type", good)], HELLO).status(), 200, "{good}");
    }
    assert_eq!(server.post_with("/v1/embeddings", &[], HELLO).status(), 200, "no type at all");
}

#[test]
fn a_body_that_is_not_json_is_refused() {
    let server = Server::start(&[]);
    for (path, field) in [("/v1/embeddings", "input"), ("/embed", "inputs"), ("/tokenize", "inputs")] {
        let good = json!({field: "a"}).to_string();
        server.good(path, &good);
        for body in ["", "{", "nonsense", &good[..good.len() - 2], &format!("{good} {{}}")] {
            refused(&server, path, body, 400, "JSON");
        }
        let reply = server.post(path, [&good.as_bytes()[..good.len() - 2], b"\xff\xfe\"}"].concat());
        assert_eq!(reply.status(), 400);
        assert!(error(&reply).0.contains("UTF-8"), "{}", reply.text());
        server.serves();
    }
}

#[test]
fn json_of_the_wrong_shape_is_refused_by_the_field_that_is_wrong() {
    let server = Server::start(&[]);
    for (path, status, body, word) in [
        ("/v1/embeddings", 400, "{}", "input"),
        ("/v1/embeddings", 400, "[]", "list"),
        ("/v1/embeddings", 400, "null", "null"),
        ("/v1/embeddings", 400, r#"{"input":null}"#, "input"),
        ("/v1/embeddings", 400, r#"{"input":{"a":1}}"#, "input"),
        ("/v1/embeddings", 400, r#"{"input":["a",1]}"#, "input"),
        ("/v1/embeddings", 400, r#"{"input":["a",["b"]]}"#, "input[1][0]"),
        ("/v1/embeddings", 400, r#"{"input":"a","user":5}"#, "user"),
        ("/v1/embeddings", 400, r#"{"input":"a","model":5}"#, "model"),
        ("/embed", 422, r#"{"input":"a"}"#, "inputs"),
        ("/embed", 422, r#"{"inputs":"a","normalize":"yes"}"#, "normalize"),
        ("/embed", 422, r#"{"inputs":"a","truncation_direction":"up"}"#, "truncation_direction"),
        ("/similarity", 422, r#"{"inputs":{"source_sentence":"a"}}"#, "sentences"),
        ("/decode", 422, r#"{"ids":"a"}"#, "ids"),
    ] {
        refused(&server, path, body, status, word);
    }
}

#[test]
fn a_body_that_breaks_off_takes_nobody_with_it() {
    let server = Server::start(&[]);
    for path in ["/v1/embeddings", "/embed"] {
        let mut client = server.connect();
        client.send(format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: 1000\r\n\r\n{{\"input"));
        client.finish_sending();
        // Whether such a client hears a reply is up to the server; it must only not wait for ever, nor answer 200.
        if !client.is_closed() {
            assert_eq!(client.reply().status(), 400);
        }
        server.serves();
    }
}

#[test]
fn what_is_not_http_ends_its_connection_only() {
    let server = Server::start(&[]);
    for nonsense in ["\x16\x03\x01\x02\x00 hello TLS\r\n\r\n", "GET\r\n\r\n", "POST / HTTP/9.9\r\n\r\n"] {
        let mut client = server.connect();
        client.send(nonsense);
        client.finish_sending();
        if !client.is_closed() {
            let status = client.reply().status();
            assert!((400..600).contains(&status), "{nonsense:?}: {status}");
        }
        server.serves();
    }
}

#[test]
fn only_the_right_key_opens_and_all_wrong_ones_look_the_same() {
    let server = Server::start(&[("TEALIGHT_API_KEY", "sesame")]);
    let keyed = |value: &str| server.post_with("/v1/embeddings", &[JSON, ("authorization", value)], HELLO);
    assert_eq!(keyed("Bearer sesame").status(), 200);
    let wrong: Vec<_> = ["Bearer x", "Bearer sesam", "Bearer sesame2", "Bearer SESAME"].map(keyed).into();
    for reply in &wrong {
        assert_eq!((reply.status(), reply.header("www-authenticate")), (401, Some("Bearer")));
        assert_eq!(reply.body, wrong[0].body);
    }
    let missing = server.post("/v1/embeddings", HELLO);
    let all = wrong.iter().chain([&missing]).map(|reply| (error(reply).1, fields(&reply.json())));
    let shapes: std::collections::BTreeSet<_> = all.collect();
    assert_eq!(shapes.len(), 1, "{shapes:?}");
    for (method, path) in [("POST", "/embed"), ("GET", "/info"), ("GET", "/v1/models"), ("POST", "/tokenize")] {
        let body = if method == "POST" { r#"{"inputs":"a"}"# } else { "" };
        assert_eq!(server.connect().call(method, path, &[], body).status(), 401, "{path}");
        let right = [("authorization", "Bearer sesame")];
        assert_eq!(server.connect().call(method, path, &right, body).status(), 200, "{path}");
    }
    assert!(!server.stop().contains("sesame"), "the key is in the log");
}

/// The names of the fields of an error.
fn fields(body: &Value) -> Vec<String> {
    body["error"].as_object().unwrap().keys().cloned().collect()
}

#[test]
fn what_probes_ask_for_needs_no_key() {
    let server = Server::start(&[("TEALIGHT_API_KEY", "sesame")]);
    for path in ["/", "/health", "/ping", "/metrics", "/openapi.json"] {
        assert_eq!(server.get(path).status(), 200, "{path}");
    }
    assert!(!server.get("/metrics").text().contains("sesame"));
}

#[test]
fn a_model_that_is_not_installed_is_not_found() {
    let server = Server::start(&[]);
    for name in ["nope", "../nope", "/etc/passwd", "models/../../x", ".", "text-embedding-3-small"] {
        let reply = server.post("/v1/embeddings", json!({"input": "a", "model": name}).to_string());
        assert_eq!(reply.status(), 404, "{name}: {}", reply.text());
        assert_eq!(error(&reply).1, "model_not_found");
        assert_eq!(reply.json()["error"]["param"], "model");
    }
    assert_eq!(server.get("/v1/models/nope").status(), 404);
    for name in ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"] {
        let reply = server.good("/v1/embeddings", json!({"input": "a", "model": name}));
        assert_eq!(reply["model"], "all-MiniLM-L6-v2");
        assert_eq!(server.get(&format!("/v1/models/{name}")).json()["id"], "all-MiniLM-L6-v2");
    }
}

#[test]
fn ten_thousand_items_are_too_many_on_every_route() {
    let server = Server::start(&[]);
    let many = vec!["a"; 10_000];
    let ids = vec![[1]; 10_000];
    for (path, status, body) in [
        ("/v1/embeddings", 400, json!({"input": many})),
        ("/v1/embeddings", 400, json!({"input": ids})),
        ("/embed", 422, json!({"inputs": many})),
        ("/embed", 422, json!({"inputs": ids})),
        ("/embed_all", 422, json!({"inputs": many})),
        ("/tokenize", 422, json!({"inputs": many})),
        ("/decode", 422, json!({"ids": ids})),
        ("/similarity", 422, json!({"inputs": {"source_sentence": "a", "sentences": many}})),
    ] {
        refused(&server, path, body, status, "10000 items");
    }
}

#[test]
fn a_text_of_five_megabytes_is_refused_unless_it_may_be_cut() {
    let server = Server::start(&[]);
    let text = "candle ".repeat(5_000_000 / 7);
    refused(&server, "/v1/embeddings", json!({"input": text}), 400, "256 tokens");
    for (path, field) in [("/embed", "inputs"), ("/embed_all", "inputs"), ("/tokenize", "inputs")] {
        refused(&server, path, json!({field: text}), 413, "2000000");
    }
    let cut = server.good("/v1/embeddings", json!({"input": text, "truncate": true}));
    assert_eq!(cut["usage"]["total_tokens"], 256);
}

#[test]
fn one_token_too_many_is_one_too_many() {
    let server = Server::start(&[]);
    // Two more than the words: the special tokens around them.
    let (fits, long) = ("candle ".repeat(254), "candle ".repeat(255));
    assert_eq!(server.good("/v1/embeddings", json!({"input": fits}))["usage"]["total_tokens"], 256);
    refused(&server, "/v1/embeddings", json!({"input": ["a", long]}), 400, "input[1] has 257 tokens");
    refused(&server, "/embed", json!({"inputs": long, "truncate": false}), 422, "inputs[0] has 257 tokens");
    let cut = server.good("/embed", json!({"inputs": [long, fits]}));
    assert_eq!(cut[0], cut[1], "cut to the same tokens");
}

#[test]
fn dimensions_outside_the_model_are_refused() {
    let server = Server::start(&[]);
    for (value, word) in [(json!(0), "1 to 384"), (json!(385), "1 to 384"), (json!(-1), "-1"), (json!("x"), "x")] {
        refused(&server, "/v1/embeddings", json!({"input": "a", "dimensions": value}), 400, word);
        refused(&server, "/embed", json!({"inputs": "a", "dimensions": value}), 422, word);
        let reply = server.post("/v1/embeddings", json!({"input": "a", "dimensions": value}).to_string());
        assert_eq!(reply.json()["error"]["param"], "dimensions");
    }
    refused(&server, "/embed", json!({"inputs": "a", "dimensions": 1.5}), 422, "1.5");
    for n in [1, 256, 384] {
        let vector = floats(&server.good("/embed", json!({"inputs": "a", "dimensions": n}))[0]);
        let norm: f32 = vector.iter().map(|v| v * v).sum();
        assert!(vector.len() == n && (norm - 1.0).abs() < 1e-5, "{n}: {} values, {norm}", vector.len());
    }
}

#[test]
fn token_ids_outside_the_vocabulary_are_refused() {
    let server = Server::start(&[]);
    for id in [30_522_u64, 4_294_967_295, 4_294_967_296, u64::MAX] {
        let word = id.to_string();
        refused(&server, "/v1/embeddings", json!({"input": [1000, id]}), 400, &word);
        refused(&server, "/embed", json!({"inputs": [[1000], [id]]}), 422, &word);
    }
    refused(&server, "/decode", json!({"ids": [[1000, 30_522]]}), 422, "30522");
    refused(&server, "/decode", json!({"ids": [[1000, u64::MAX]]}), 422, "ids");
    refused(&server, "/v1/embeddings", json!({"input": [-1]}), 400, "-1");
    server.good("/v1/embeddings", json!({"input": [30_521]}));
}

#[test]
fn empty_inputs_are_refused() {
    let server = Server::start(&[]);
    for input in [json!(""), json!([]), json!([""]), json!(["a", ""]), json!([[]]), json!(["a", []])] {
        refused(&server, "/v1/embeddings", json!({"input": input}), 400, "empty");
        refused(&server, "/embed", json!({"inputs": input}), 400, "empty");
        refused(&server, "/embed_all", json!({"inputs": input}), 400, "empty");
        let reply = server.post("/embed", json!({"inputs": input}).to_string());
        assert_eq!(error(&reply).1, "Empty");
    }
    let similarity = |a: &str, b: Value| json!({"inputs": {"source_sentence": a, "sentences": b}});
    for body in [similarity("", json!(["a"])), similarity("a", json!([])), similarity("a", json!([""]))] {
        refused(&server, "/similarity", body, 400, "empty");
    }
    refused(&server, "/tokenize", json!({"inputs": []}), 400, "empty");
    refused(&server, "/decode", json!({"ids": []}), 400, "empty");
    // A space is a text, of which no token is left.
    server.good("/v1/embeddings", json!({"input": " "}));
}

#[test]
fn unknown_encodings_and_prompts_are_refused_and_the_known_ones_named() {
    let server = Server::start(&[]);
    refused(&server, "/v1/embeddings", json!({"input": "a", "encoding_format": "int4"}), 400, "ubinary");
    refused(&server, "/embed", json!({"inputs": "a", "encoding_format": "int4"}), 422, "ubinary");
    refused(&server, "/v1/embeddings", json!({"input": "a", "prompt_name": "query"}), 400, "prompts: none");
    refused(&server, "/embed", json!({"inputs": "a", "prompt_name": "query"}), 422, "prompts: none");
    let tiny = Server::start(&[("TEALIGHT_MODEL", support::TINY)]);
    refused(&tiny, "/embed", json!({"inputs": "a", "prompt_name": "other"}), 422, "passage, query");
}

#[test]
fn concurrent_first_requests_load_the_model_once() {
    let server = Server::start(&[]);
    let replies: Vec<Value> = std::thread::scope(|scope| {
        let ask = || server.good("/v1/embeddings", HELLO);
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(replies.iter().all(|r| *r == replies[0]));
    assert_eq!(server.stop().matches("model loaded").count(), 1);
}

#[test]
fn nothing_is_loaded_before_it_is_needed() {
    let server = Server::start(&[]);
    for path in ["/health", "/metrics", "/openapi.json", "/v1/models"] {
        assert_eq!(server.get(path).status(), 200, "{path}");
    }
    assert_eq!(server.post("/v1/embeddings", r#"{"input":""}"#).status(), 400);
    assert!(!server.stop().contains("model loaded"));
}

#[test]
fn timing_headers_are_whole_numbers() {
    let server = Server::start(&[]);
    let names = [
        "x-compute-time",
        "x-compute-characters",
        "x-compute-tokens",
        "x-total-time",
        "x-tokenization-time",
        "x-queue-time",
        "x-inference-time",
    ];
    for (path, body) in [
        ("/v1/embeddings", HELLO),
        ("/embed", r#"{"inputs":"hello world"}"#),
        ("/embed_all", r#"{"inputs":"hello world"}"#),
    ] {
        let reply = server.post(path, body);
        for name in names {
            let value = reply.header(name).unwrap_or_else(|| panic!("{path}: no {name}"));
            assert!(value.parse::<u64>().is_ok(), "{path}: {name} is {value:?}");
        }
        assert_eq!(reply.header("x-compute-tokens"), Some("4"), "{path}");
        assert_eq!(reply.header("x-compute-characters"), Some("11"), "{path}");
        assert!(reply.header("x-compute-type").unwrap().starts_with("cpu+"), "{path}");
    }
}

#[test]
fn browsers_may_call_where_an_origin_is_allowed() {
    const ORIGIN: &str = "https://example.org";
    let server = Server::start(&[("TEALIGHT_CORS_ALLOW_ORIGIN", ORIGIN), ("TEALIGHT_API_KEY", "sesame"), LIMITED]);
    let asked = [("origin", ORIGIN), ("access-control-request-method", "POST")];
    let preflight = server.connect().call("OPTIONS", "/v1/embeddings", &asked, "");
    assert_eq!(preflight.status(), 204);
    let allowed = |name: &str| preflight.header(name).unwrap().to_string();
    assert!(allowed("access-control-allow-methods").contains("POST"));
    assert!(allowed("access-control-allow-headers").contains("authorization"));
    let key = ("authorization", "Bearer sesame");
    let replies = [
        (204, preflight.clone()),
        (200, server.post_with("/v1/embeddings", &[JSON, key], HELLO)),
        (400, server.post_with("/v1/embeddings", &[JSON, key], "{")),
        (401, server.post("/v1/embeddings", HELLO)),
        (404, server.get("/nothing")),
        // A browser shows the page no reply without this header, and so not what is wrong.
        (413, server.post_with("/v1/embeddings", &[JSON, key], vec![b' '; LIMIT + 1])),
    ];
    for (status, reply) in replies {
        assert_eq!(reply.status(), status);
        assert_eq!(reply.header("access-control-allow-origin"), Some(ORIGIN), "{status}");
    }
}

#[test]
fn browsers_may_not_call_where_none_is() {
    let server = Server::start(&[]);
    assert_eq!(server.connect().call("OPTIONS", "/v1/embeddings", &[], "").status(), 405);
    assert_eq!(server.post("/v1/embeddings", HELLO).header("access-control-allow-origin"), None);
}

/// A connection whose request the server of one place is working on: another one finds no place beside it.
fn busy(server: &Server) -> Client {
    server.serves();
    let mut texts = 8;
    wait_for("a request that takes long enough", || {
        let mut client = server.connect();
        let body = json!({"input": vec!["candle ".repeat(250); texts]}).to_string();
        client.send(request("POST", "/v1/embeddings", &[JSON], body));
        if (0..20).any(|_| server.post("/v1/embeddings", r#"{"input":""}"#).status() == 503) {
            return Some(client);
        }
        // Turned away by the probe, or done before it: a fast machine gets more to do.
        texts *= if client.reply().status() == 503 { 1 } else { 2 };
        None
    })
}

#[test]
fn a_signal_to_stop_lets_the_request_under_way_finish() {
    let mut server = Server::start(&[ONE_PLACE]);
    let mut client = busy(&server);
    server.process.terminate();
    let reply = client.reply();
    assert_eq!(reply.status(), 200, "{}", reply.text());
    let data = reply.json();
    assert_eq!(floats(&data["data"][7]["embedding"]).len(), 384);
    assert_eq!(server.process.wait().code(), Some(0), "{}", server.process.stderr());
}

#[test]
fn an_idle_connection_does_not_hold_up_the_end() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    assert_eq!(client.call("GET", "/health", &[], "").status(), 200);
    server.stop();
    assert!(client.is_closed());
}

#[test]
fn too_many_requests_at_once_are_turned_away_and_welcome_later() {
    let server = Server::start(&[ONE_PLACE]);
    let mut client = busy(&server);
    let (openai, tei) = (server.post("/v1/embeddings", HELLO), server.post("/embed", r#"{"inputs":"a"}"#));
    for (reply, status, word) in [(openai, 503, "overloaded"), (tei, 429, "Overloaded")] {
        assert_eq!(reply.status(), status, "{}", reply.text());
        assert!(reply.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);
        assert_eq!(error(&reply).1, word);
    }
    assert_eq!(client.reply().status(), 200);
    server.serves();
}

/// Who asks for a server's health stops or bypasses one that does not answer, and busy is not ill.
#[test]
fn probes_are_answered_while_every_place_is_taken() {
    let server = Server::start(&[ONE_PLACE]);
    let mut client = busy(&server);
    for path in ["/health", "/ping", "/metrics"] {
        assert_eq!(server.get(path).status(), 200, "{path}");
    }
    assert_eq!(client.reply().status(), 200);
}

#[test]
fn a_stated_body_that_is_too_long_is_not_asked_for() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send("POST /embed HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 9999999\r\n\r\n");
    assert_eq!(client.reply().status(), 413);
    server.serves();
}

#[test]
fn a_wrong_key_is_refused_before_the_body_comes() {
    let server = Server::start(&[("TEALIGHT_API_KEY", "sesame")]);
    let mut client = server.connect();
    client.send("POST /embed HTTP/1.1\r\nhost: x\r\nauthorization: Bearer wrong\r\ncontent-length: 1000000\r\n\r\n");
    assert_eq!(client.reply().status(), 401);
}

#[test]
fn head_is_get_without_its_body() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send("HEAD /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert_eq!(client.reply().status(), 200);
}

#[test]
fn another_models_name_is_another_model() {
    let server = Server::start(&[("TEALIGHT_SERVED_NAMES", "text-embedding-3-small, mine")]);
    let with = |model: &str| server.post("/v1/embeddings", json!({"input": "a", "model": model}).to_string());
    for model in ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2", "text-embedding-3-small", "mine"] {
        assert_eq!(with(model).status(), 200, "{model}");
    }
    for model in ["evil/all-MiniLM-L6-v2", "all-MiniLM-L6-v2.gguf", "../all-MiniLM-L6-v2", "README.md", "fetch", ""] {
        assert_eq!(with(model).status(), 404, "{model}");
    }
}

#[test]
fn errors_are_short_and_in_plain_words() {
    let server = Server::start(&[]);
    let long = "x".repeat(1_000_000);
    for body in [
        json!({"input": "a", "dimensions": long}),
        json!({"input": "a", "encoding_format": long}),
        json!({"input": "a", "prompt_name": long}),
        json!({"input": "a", "model": long}),
        json!([long]),
    ] {
        let reply = server.post("/v1/embeddings", body.to_string());
        assert!(reply.status() >= 400 && reply.body.len() < 1000, "{}", reply.body.len());
        for word in ["usize", "u32", "struct"] {
            assert!(!reply.text().contains(word), "{}", reply.text());
        }
    }
    for text in [r#"{"input":"\ud800"}"#, r#"{"input":1e999}"#] {
        assert_eq!(server.post("/v1/embeddings", text).json()["error"]["code"], "invalid_json", "{text}");
    }
    let reply = server.post("/similarity", r#"{"inputs":{"source_sentence":"a","sentences":["b",""]}}"#);
    assert!(reply.text().contains("inputs.sentences[1] is empty"), "{}", reply.text());
}

/// Twenty recordings of 26 MB are more than the server keeps in memory at once, whatever the places.
#[test]
fn bodies_fill_no_more_than_the_memory_for_them() {
    let server = Server::start(&[]);
    let head = "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 26214400\r\n\r\n";
    let mut clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(head));
    let mut one_more = server.connect();
    one_more.send(head);
    let reply = one_more.reply();
    let (message, code) = error(&reply);
    assert!(reply.status() == 503 && code == "overloaded" && message.contains("bodies"), "{}", reply.text());
    drop(clients);
    wait_for("room", || (server.post("/v1/audio/transcriptions", "{}").status() == 400).then_some(()));
    server.serves();
}
