//! The binary as a local server.

use crate::support::http::{Client, Message, request};
use crate::support::server::Server;
use crate::support::{floats, wait_for};
use serde_json::{Value, json};

const HELLO: &str = r#"{"input":"hello world"}"#;
/// A small limit of request bodies.
const BODY_LIMIT: usize = 1000;
const LIMITED: (&str, &str) = ("TEALIGHT_PAYLOAD_LIMIT", "1000");
const JSON: (&str, &str) = ("content-type", "application/json");
const ONE_REQUEST: (&str, &str) = ("TEALIGHT_MAX_CONCURRENT_REQUESTS", "1");

/// The message of an error, and its code (OpenAI) or its type (TEI).
fn error(response: &Message) -> (String, String) {
    assert_eq!(response.header("content-type"), Some("application/json"), "{}", response.start_line);
    let body = response.json();
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("not an error: {body}")).to_string();
    match body["error"].is_object() {
        true => (text(&body["error"]["message"]), text(&body["error"]["code"])),
        false => (text(&body["error"]), text(&body["error_type"])),
    }
}

/// Checks that a body is rejected with a status and a part of the message, and that the server continues.
#[track_caller]
fn expect_rejected(server: &Server, path: &str, body: impl ToString, status: u16, word: &str) {
    let body = body.to_string();
    let response = server.post(path, &body);
    let excerpt: String = body.chars().take(100).collect();
    assert_eq!(response.status(), status, "{path} {excerpt}: {}", response.text());
    let (message, _) = error(&response);
    assert!(message.contains(word), "{path} {excerpt}: {message}");
    server.assert_serving();
}

#[test]
fn connection_is_reused_after_success_and_error() {
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
fn pipelined_requests_get_responses_in_order() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let one = request("POST", "/v1/embeddings", &[JSON], HELLO);
    client.send([one.clone(), request("GET", "/v1/models", &[], ""), one].concat());
    let (first, models, last) = (client.read_response(), client.read_response(), client.read_response());
    assert_eq!(models.json()["object"], "list");
    assert_eq!(first.json(), last.json());
    assert_eq!(floats(&last.json()["data"][0]["embedding"]).len(), 384);
}

#[test]
fn chunked_body_is_accepted() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send("POST /v1/embeddings HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n");
    for part in [r#"{"input":"#, r#""hello w"#, r#"orld"}"#] {
        client.send(format!("{:x}\r\n{part}\r\n", part.len()));
    }
    client.send("0\r\n\r\n");
    let response = client.read_response();
    assert_eq!(response.status(), 200, "{}", response.text());
    assert_eq!(response.json(), server.expect_success("/v1/embeddings", HELLO));
}

#[test]
fn unknown_path_is_404_and_wrong_method_405() {
    let server = Server::start(&[]);
    for path in ["/nothing", "/v1", "/embed/x", "/v1/embeddings/x"] {
        let response = server.post(path, HELLO);
        assert_eq!(response.status(), 404, "{path}: {}", response.text());
        assert_eq!(error(&response).1, "unknown_url");
    }
    // Trailing slashes are ignored: this is `/`.
    assert_eq!(server.post("//", r#"{"inputs":"a"}"#).status(), 200);
    for (method, path, allow) in [
        ("GET", "/v1/embeddings", "POST"),
        ("DELETE", "/embed", "POST"),
        ("POST", "/v1/models", "GET"),
        ("POST", "/info", "GET"),
        ("PUT", "/", "POST, GET"),
        ("BREW", "/health", "GET"),
    ] {
        let response = server.connect().call(method, path, &[], "");
        assert_eq!(
            (response.status(), response.header("allow")),
            (405, Some(allow)),
            "{method} {path}: {}",
            response.text()
        );
        let (message, _) = error(&response);
        assert!(message.contains(method), "{message}");
    }
    server.assert_serving();
}

#[test]
fn body_over_limit_is_rejected_with_or_without_content_length() {
    let server = Server::start(&[LIMITED]);
    let body = json!({"input": "a".repeat(BODY_LIMIT)}).to_string();
    for path in ["/v1/embeddings", "/embed"] {
        let with_content_length = server.post(path, &body);
        let mut client = server.connect();
        client.send(format!("POST {path} HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n"));
        client.send(format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()));
        for response in [with_content_length, client.read_response()] {
            assert_eq!(response.status(), 413, "{path}: {}", response.text());
            let (message, _) = error(&response);
            assert!(message.contains(&body.len().to_string()) && message.contains("1000"), "{message}");
        }
        server.assert_serving();
    }
    let fits = format!("{:<BODY_LIMIT$}", HELLO);
    assert_eq!(server.post("/v1/embeddings", &fits).status(), 200, "a body of exactly the limit");
    assert_eq!(server.post("/v1/embeddings", fits + " ").status(), 413);
}

#[test]
fn body_far_over_limit_closes_only_its_connection() {
    let server = Server::start(&[LIMITED]);
    let mut client = server.connect();
    client.send(format!("POST /embed HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n", 1000 * BODY_LIMIT));
    // The server stops reading somewhere in the middle, so sending may fail.
    let _ = client.try_send(vec![b' '; 1000 * BODY_LIMIT]);
    server.assert_serving();
}

#[test]
fn unsupported_content_type_is_rejected() {
    let server = Server::start(&[]);
    for content_type in ["text/plain", "multipart/form-data; boundary=x", "application/xml"] {
        for path in ["/v1/embeddings", "/embed", "/decode"] {
            let response = server.post_with(path, &[("content-type", content_type)], HELLO);
            assert_eq!(response.status(), 415, "{content_type}: {}", response.text());
            let (message, _) = error(&response);
            assert!(message.contains(content_type.split(';').next().unwrap()), "{message}");
        }
    }
    for good in ["application/json; charset=utf-8", "application/x-www-form-urlencoded"] {
        assert_eq!(server.post_with("/v1/embeddings", &[("content-type", good)], HELLO).status(), 200, "{good}");
    }
    assert_eq!(server.post_with("/v1/embeddings", &[], HELLO).status(), 200, "no type at all");
}

#[test]
fn invalid_json_is_rejected() {
    let server = Server::start(&[]);
    for (path, field) in [("/v1/embeddings", "input"), ("/embed", "inputs"), ("/tokenize", "inputs")] {
        let good = json!({field: "a"}).to_string();
        server.expect_success(path, &good);
        for body in ["", "{", "nonsense", &good[..good.len() - 2], &format!("{good} {{}}")] {
            expect_rejected(&server, path, body, 400, "JSON");
        }
        let response = server.post(path, [&good.as_bytes()[..good.len() - 2], b"\xff\xfe\"}"].concat());
        assert_eq!(response.status(), 400);
        assert!(error(&response).0.contains("UTF-8"), "{}", response.text());
        server.assert_serving();
    }
}

#[test]
fn invalid_type_names_field() {
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
        expect_rejected(&server, path, body, status, word);
    }
}

#[test]
fn incomplete_body_is_not_accepted() {
    let server = Server::start(&[]);
    for path in ["/v1/embeddings", "/embed"] {
        let mut client = server.connect();
        client.send(format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: 1000\r\n\r\n{{\"input"));
        client.finish_sending();
        // The server may respond or not, but must not wait forever, nor respond with 200.
        if !client.is_closed() {
            assert_eq!(client.read_response().status(), 400);
        }
        server.assert_serving();
    }
}

#[test]
fn invalid_http_closes_only_its_connection() {
    let server = Server::start(&[]);
    for nonsense in ["\x16\x03\x01\x02\x00 hello TLS\r\n\r\n", "GET\r\n\r\n", "POST / HTTP/9.9\r\n\r\n"] {
        let mut client = server.connect();
        client.send(nonsense);
        client.finish_sending();
        if !client.is_closed() {
            let status = client.read_response().status();
            assert!((400..600).contains(&status), "{nonsense:?}: {status}");
        }
        server.assert_serving();
    }
}

#[test]
fn wrong_keys_get_identical_errors() {
    let server = Server::start(&[("TEALIGHT_API_KEY", "sesame")]);
    let keyed = |value: &str| server.post_with("/v1/embeddings", &[JSON, ("authorization", value)], HELLO);
    assert_eq!(keyed("Bearer sesame").status(), 200);
    let wrong: Vec<_> = ["Bearer x", "Bearer sesam", "Bearer sesame2", "Bearer SESAME"].map(keyed).into();
    for response in &wrong {
        assert_eq!((response.status(), response.header("www-authenticate")), (401, Some("Bearer")));
        assert_eq!(response.body, wrong[0].body);
    }
    let missing = server.post("/v1/embeddings", HELLO);
    let all = wrong.iter().chain([&missing]).map(|response| (error(response).1, fields(&response.json())));
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
fn public_routes_need_no_key() {
    let server = Server::start(&[("TEALIGHT_API_KEY", "sesame")]);
    for path in ["/", "/health", "/ping", "/metrics", "/openapi.json"] {
        assert_eq!(server.get(path).status(), 200, "{path}");
    }
    assert!(!server.get("/metrics").text().contains("sesame"));
}

#[test]
fn model_that_is_not_installed_is_404() {
    let server = Server::start(&[]);
    for name in ["nope", "../nope", "/etc/passwd", "models/../../x", ".", "text-embedding-3-small"] {
        let response = server.post("/v1/embeddings", json!({"input": "a", "model": name}).to_string());
        assert_eq!(response.status(), 404, "{name}: {}", response.text());
        assert_eq!(error(&response).1, "model_not_found");
        assert_eq!(response.json()["error"]["param"], "model");
    }
    assert_eq!(server.get("/v1/models/nope").status(), 404);
    for name in ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"] {
        let response = server.expect_success("/v1/embeddings", json!({"input": "a", "model": name}));
        assert_eq!(response["model"], "all-MiniLM-L6-v2");
        assert_eq!(server.get(&format!("/v1/models/{name}")).json()["id"], "all-MiniLM-L6-v2");
    }
}

#[test]
fn ten_thousand_inputs_are_rejected_on_every_route() {
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
        expect_rejected(&server, path, body, status, "10000 items");
    }
}

#[test]
fn five_megabyte_text_is_rejected_unless_truncated() {
    let server = Server::start(&[]);
    let text = "candle ".repeat(5_000_000 / 7);
    expect_rejected(&server, "/v1/embeddings", json!({"input": text}), 400, "256 tokens");
    for (path, field) in [("/embed", "inputs"), ("/embed_all", "inputs"), ("/tokenize", "inputs")] {
        expect_rejected(&server, path, json!({field: text}), 413, "2000000");
    }
    let truncated = server.expect_success("/v1/embeddings", json!({"input": text, "truncate": true}));
    assert_eq!(truncated["usage"]["total_tokens"], 256);
}

#[test]
fn input_over_max_tokens_is_rejected() {
    let server = Server::start(&[]);
    // Two more than the words: the special tokens around them.
    let (fits, long) = ("candle ".repeat(254), "candle ".repeat(255));
    assert_eq!(server.expect_success("/v1/embeddings", json!({"input": fits}))["usage"]["total_tokens"], 256);
    expect_rejected(&server, "/v1/embeddings", json!({"input": ["a", long]}), 400, "input[1] has 257 tokens");
    expect_rejected(&server, "/embed", json!({"inputs": long, "truncate": false}), 422, "inputs[0] has 257 tokens");
    let truncated = server.expect_success("/embed", json!({"inputs": [long, fits]}));
    assert_eq!(truncated[0], truncated[1], "truncated to the same tokens");
}

#[test]
fn dimensions_out_of_range_are_rejected() {
    let server = Server::start(&[]);
    for (value, word) in [(json!(0), "1 to 384"), (json!(385), "1 to 384"), (json!(-1), "-1"), (json!("x"), "x")] {
        expect_rejected(&server, "/v1/embeddings", json!({"input": "a", "dimensions": value}), 400, word);
        expect_rejected(&server, "/embed", json!({"inputs": "a", "dimensions": value}), 422, word);
        let response = server.post("/v1/embeddings", json!({"input": "a", "dimensions": value}).to_string());
        assert_eq!(response.json()["error"]["param"], "dimensions");
    }
    expect_rejected(&server, "/embed", json!({"inputs": "a", "dimensions": 1.5}), 422, "1.5");
    for n in [1, 256, 384] {
        let vector = floats(&server.expect_success("/embed", json!({"inputs": "a", "dimensions": n}))[0]);
        let norm: f32 = vector.iter().map(|v| v * v).sum();
        assert!(vector.len() == n && (norm - 1.0).abs() < 1e-5, "{n}: {} values, {norm}", vector.len());
    }
}

#[test]
fn token_ids_out_of_vocabulary_are_rejected() {
    let server = Server::start(&[]);
    for id in [30_522_u64, 4_294_967_295, 4_294_967_296, u64::MAX] {
        let word = id.to_string();
        expect_rejected(&server, "/v1/embeddings", json!({"input": [1000, id]}), 400, &word);
        expect_rejected(&server, "/embed", json!({"inputs": [[1000], [id]]}), 422, &word);
    }
    expect_rejected(&server, "/decode", json!({"ids": [[1000, 30_522]]}), 422, "30522");
    expect_rejected(&server, "/decode", json!({"ids": [[1000, u64::MAX]]}), 422, "ids");
    expect_rejected(&server, "/v1/embeddings", json!({"input": [-1]}), 400, "-1");
    server.expect_success("/v1/embeddings", json!({"input": [30_521]}));
}

#[test]
fn empty_inputs_are_rejected() {
    let server = Server::start(&[]);
    for input in [json!(""), json!([]), json!([""]), json!(["a", ""]), json!([[]]), json!(["a", []])] {
        expect_rejected(&server, "/v1/embeddings", json!({"input": input}), 400, "empty");
        expect_rejected(&server, "/embed", json!({"inputs": input}), 400, "empty");
        expect_rejected(&server, "/embed_all", json!({"inputs": input}), 400, "empty");
        let response = server.post("/embed", json!({"inputs": input}).to_string());
        assert_eq!(error(&response).1, "Empty");
    }
    let similarity = |a: &str, b: Value| json!({"inputs": {"source_sentence": a, "sentences": b}});
    for body in [similarity("", json!(["a"])), similarity("a", json!([])), similarity("a", json!([""]))] {
        expect_rejected(&server, "/similarity", body, 400, "empty");
    }
    expect_rejected(&server, "/tokenize", json!({"inputs": []}), 400, "empty");
    expect_rejected(&server, "/decode", json!({"ids": []}), 400, "empty");
    // A space is not empty, although it has only special tokens.
    server.expect_success("/v1/embeddings", json!({"input": " "}));
}

#[test]
fn unknown_encoding_or_prompt_lists_supported_ones() {
    let server = Server::start(&[]);
    expect_rejected(&server, "/v1/embeddings", json!({"input": "a", "encoding_format": "int4"}), 400, "ubinary");
    expect_rejected(&server, "/embed", json!({"inputs": "a", "encoding_format": "int4"}), 422, "ubinary");
    expect_rejected(
        &server,
        "/v1/embeddings",
        json!({"input": "a", "prompt_name": "query"}),
        400,
        "prompts of this model: none",
    );
    expect_rejected(
        &server,
        "/embed",
        json!({"inputs": "a", "prompt_name": "query"}),
        422,
        "prompts of this model: none",
    );
    let tiny = Server::start(&[("TEALIGHT_MODEL", crate::support::TINY)]);
    expect_rejected(&tiny, "/embed", json!({"inputs": "a", "prompt_name": "other"}), 422, "passage, query");
}

#[test]
fn concurrent_first_requests_load_model_once() {
    let server = Server::start(&[]);
    let responses: Vec<Value> = std::thread::scope(|scope| {
        let embed = || server.expect_success("/v1/embeddings", HELLO);
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(embed)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(responses.iter().all(|r| *r == responses[0]));
    assert_eq!(server.stop().matches("model loaded").count(), 1);
}

#[test]
fn model_is_not_loaded_before_first_use() {
    let server = Server::start(&[]);
    for path in ["/health", "/metrics", "/openapi.json", "/v1/models"] {
        assert_eq!(server.get(path).status(), 200, "{path}");
    }
    assert_eq!(server.post("/v1/embeddings", r#"{"input":""}"#).status(), 400);
    assert!(!server.stop().contains("model loaded"));
}

#[test]
fn timing_headers_are_integers() {
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
        let response = server.post(path, body);
        for name in names {
            let value = response.header(name).unwrap_or_else(|| panic!("{path}: no {name}"));
            assert!(value.parse::<u64>().is_ok(), "{path}: {name} is {value:?}");
        }
        assert_eq!(response.header("x-compute-tokens"), Some("4"), "{path}");
        assert_eq!(response.header("x-compute-characters"), Some("11"), "{path}");
        assert!(response.header("x-compute-type").unwrap().starts_with("cpu+"), "{path}");
    }
}

#[test]
fn cors_headers_are_sent_for_configured_origin() {
    const ORIGIN: &str = "https://example.org";
    let server = Server::start(&[("TEALIGHT_CORS_ALLOW_ORIGIN", ORIGIN), ("TEALIGHT_API_KEY", "sesame"), LIMITED]);
    let preflight_headers = [("origin", ORIGIN), ("access-control-request-method", "POST")];
    let preflight = server.connect().call("OPTIONS", "/v1/embeddings", &preflight_headers, "");
    assert_eq!(preflight.status(), 204);
    let allowed = |name: &str| preflight.header(name).unwrap().to_string();
    assert!(allowed("access-control-allow-methods").contains("POST"));
    assert!(allowed("access-control-allow-headers").contains("authorization"));
    let key = ("authorization", "Bearer sesame");
    let responses = [
        (204, preflight.clone()),
        (200, server.post_with("/v1/embeddings", &[JSON, key], HELLO)),
        (400, server.post_with("/v1/embeddings", &[JSON, key], "{")),
        (401, server.post("/v1/embeddings", HELLO)),
        (404, server.get("/nothing")),
        // Without this header, browsers hide the response from the page, and with it the error.
        (413, server.post_with("/v1/embeddings", &[JSON, key], vec![b' '; BODY_LIMIT + 1])),
    ];
    for (status, response) in responses {
        assert_eq!(response.status(), status);
        assert_eq!(response.header("access-control-allow-origin"), Some(ORIGIN), "{status}");
    }
}

#[test]
fn cors_is_off_by_default() {
    let server = Server::start(&[]);
    assert_eq!(server.connect().call("OPTIONS", "/v1/embeddings", &[], "").status(), 405);
    assert_eq!(server.post("/v1/embeddings", HELLO).header("access-control-allow-origin"), None);
}

/// A connection whose request occupies a server with a concurrency limit of one.
fn occupy(server: &Server) -> Client {
    server.assert_serving();
    let mut texts = 8;
    wait_for("a request that takes long enough", || {
        let mut client = server.connect();
        let body = json!({"input": vec!["candle ".repeat(250); texts]}).to_string();
        client.send(request("POST", "/v1/embeddings", &[JSON], body));
        if (0..20).any(|_| server.post("/v1/embeddings", r#"{"input":""}"#).status() == 503) {
            return Some(client);
        }
        // Rejected because of the probe, or completed before it: a fast machine needs a longer request.
        texts *= if client.read_response().status() == 503 { 1 } else { 2 };
        None
    })
}

#[test]
fn sigterm_lets_request_in_progress_finish() {
    let mut server = Server::start(&[ONE_REQUEST]);
    let mut client = occupy(&server);
    server.process.terminate();
    let response = client.read_response();
    assert_eq!(response.status(), 200, "{}", response.text());
    let data = response.json();
    assert_eq!(floats(&data["data"][7]["embedding"]).len(), 384);
    assert_eq!(server.process.wait().code(), Some(0), "{}", server.process.stderr());
}

#[test]
fn idle_connection_does_not_delay_shutdown() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    assert_eq!(client.call("GET", "/health", &[], "").status(), 200);
    server.stop();
    assert!(client.is_closed());
}

#[test]
fn requests_over_concurrency_limit_are_rejected_until_others_finish() {
    let server = Server::start(&[ONE_REQUEST]);
    let mut client = occupy(&server);
    let (openai, tei) = (server.post("/v1/embeddings", HELLO), server.post("/embed", r#"{"inputs":"a"}"#));
    for (response, status, word) in [(openai, 503, "overloaded"), (tei, 429, "Overloaded")] {
        assert_eq!(response.status(), status, "{}", response.text());
        assert!(response.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);
        assert_eq!(error(&response).1, word);
    }
    assert_eq!(client.read_response().status(), 200);
    server.assert_serving();
}

/// A load balancer must not take a busy server for a broken one.
#[test]
fn health_checks_succeed_at_concurrency_limit() {
    let server = Server::start(&[ONE_REQUEST]);
    let mut client = occupy(&server);
    for path in ["/health", "/ping", "/metrics"] {
        assert_eq!(server.get(path).status(), 200, "{path}");
    }
    assert_eq!(client.read_response().status(), 200);
}

#[test]
fn expect_continue_with_body_over_limit_is_rejected() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send("POST /embed HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 9999999\r\n\r\n");
    assert_eq!(client.read_response().status(), 413);
    server.assert_serving();
}

#[test]
fn wrong_key_is_rejected_before_body_arrives() {
    let server = Server::start(&[("TEALIGHT_API_KEY", "sesame")]);
    let mut client = server.connect();
    client.send("POST /embed HTTP/1.1\r\nhost: x\r\nauthorization: Bearer wrong\r\ncontent-length: 1000000\r\n\r\n");
    assert_eq!(client.read_response().status(), 401);
}

#[test]
fn head_request_gets_status_of_get() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send("HEAD /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert_eq!(client.read_response().status(), 200);
}

#[test]
fn only_names_of_served_model_are_accepted() {
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
fn error_messages_are_short_and_free_of_rust_types() {
    let server = Server::start(&[]);
    let long = "x".repeat(1_000_000);
    for body in [
        json!({"input": "a", "dimensions": long}),
        json!({"input": "a", "encoding_format": long}),
        json!({"input": "a", "prompt_name": long}),
        json!({"input": "a", "model": long}),
        json!([long]),
    ] {
        let response = server.post("/v1/embeddings", body.to_string());
        assert!(response.status() >= 400 && response.body.len() < 1000, "{}", response.body.len());
        for word in ["usize", "u32", "struct"] {
            assert!(!response.text().contains(word), "{}", response.text());
        }
    }
    for text in [r#"{"input":"\ud800"}"#, r#"{"input":1e999}"#] {
        assert_eq!(server.post("/v1/embeddings", text).json()["error"]["code"], "invalid_json", "{text}");
    }
    let response = server.post("/similarity", r#"{"inputs":{"source_sentence":"a","sentences":["b",""]}}"#);
    assert!(response.text().contains("inputs.sentences[1] is empty"), "{}", response.text());
}

/// Twenty recordings of 25 MiB leave no space for another one in the buffered bodies, regardless of the concurrency limit.
#[cfg(feature = "speech")]
#[test]
fn request_bodies_over_memory_limit_are_rejected() {
    let server = Server::start(&[]);
    let head = "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 26214400\r\n\r\n";
    let mut clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(head));
    let mut one_more = server.connect();
    one_more.send(head);
    let response = one_more.read_response();
    let (message, code) = error(&response);
    assert!(response.status() == 503 && code == "overloaded" && message.contains("bodies"), "{}", response.text());
    drop(clients);
    wait_for("free memory", || (server.post("/v1/audio/transcriptions", "{}").status() == 400).then_some(()));
    server.assert_serving();
}
