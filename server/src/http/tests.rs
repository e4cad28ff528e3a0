//! The API on a real node, without a network.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::{Api, ApiConfig, HashLimits, Lifetimes, router};
use crate::edge::EdgeStats;
use crate::leaving::Leaving;
use crate::node::{Node, NodeConfig, NodeRunner, Sinks};
use crate::nodes::{About, Nodes};

const PASSWORD: &str = "correct horse battery";

/// A node and its API, in a directory of its own.
struct Server {
    router: Router,
    leaving: Arc<Leaving>,
    _runner: NodeRunner,
    _dir: tempfile::TempDir,
}

/// An answer.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    retry_after: Option<String>,
    text: String,
    body: Value,
}

impl Answer {
    /// The status and the name of the error.
    fn error(&self) -> (u16, &str) {
        (self.status.as_u16(), self.body["error"]["code"].as_str().unwrap_or("no error"))
    }

    fn secret(&self, field: &str) -> &str {
        self.body[field].as_str().unwrap_or_else(|| panic!("no {field} in {}", self.text))
    }
}

/// One request.
struct Call {
    request: http::request::Builder,
    body: Body,
    from: [u8; 4],
}

fn call(method: &Method, path: &str) -> Call {
    Call { request: Request::builder().method(method).uri(path), body: Body::empty(), from: [192, 0, 2, 1] }
}

fn post(path: &str, body: &Value) -> Call {
    let call = call(&Method::POST, path).with("content-type", "application/json");
    Call { body: Body::from(body.to_string()), ..call }
}

impl Call {
    fn with(self, name: &str, value: &str) -> Self {
        Self { request: self.request.header(name, value), ..self }
    }

    fn bearer(self, token: &str) -> Self {
        self.with("authorization", &format!("Bearer {token}"))
    }
}

impl Server {
    async fn start() -> Self {
        Self::limited(false).await
    }

    async fn limited(rate_limits: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (node, runner) =
            Node::start(NodeConfig::new(dir.path(), rove_protocol::ids::NodeId(1)), Sinks::none()).unwrap();
        let ready = tokio::time::timeout(Duration::from_secs(30), node.ready()).await;
        assert_eq!(ready, Ok(true), "the node becomes ready");
        let config = ApiConfig { rate_limits, hashes: HashLimits::default(), lifetimes: Lifetimes::default() };
        let about = About {
            address: "chat.example:7683".to_owned(),
            region: "north".to_owned(),
            pins: vec!["pin".to_owned()],
            full_sessions: 100,
            version: "0.1.0",
        };
        let leaving = Arc::new(Leaving::default());
        let nodes = Nodes::new(node, about, Arc::new(EdgeStats::default()), leaving.clone(), None);
        let api = Api::new(nodes, config).unwrap();
        Self { router: router(api), leaving, _runner: runner, _dir: dir }
    }

    async fn answer(&self, call: Call) -> Answer {
        let mut request = call.request.body(call.body).unwrap();
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from((call.from, 5_000))));
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let retry_after = response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status, retry_after, text, body }
    }

    async fn sign_up(&self, handle: &str) -> Answer {
        let answer = self.answer(post("/v1/sign-up", &json!({ "handle": handle, "password": PASSWORD }))).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        answer
    }

    async fn log_in(&self, handle: &str, password: &str) -> Answer {
        self.answer(post("/v1/log-in", &json!({ "handle": handle, "password": password }))).await
    }

    async fn refresh(&self, token: &str) -> Answer {
        self.answer(post("/v1/refresh", &json!({ "refresh_token": token }))).await
    }

    async fn devices(&self, token: &str) -> Answer {
        self.answer(call(&Method::GET, "/v1/devices").bearer(token)).await
    }
}

#[tokio::test]
async fn a_device_signs_up_another_logs_in_and_each_sees_both() {
    let server = Server::start().await;
    let body = json!({ "handle": "Alice", "password": PASSWORD, "name": "Alice A.", "device_name": "phone" });
    let phone = server.answer(post("/v1/sign-up", &body)).await;
    assert_eq!(phone.status, StatusCode::CREATED, "{}", phone.text);
    let laptop = server.log_in("aLiCe", PASSWORD).await;
    assert_eq!(laptop.status, StatusCode::OK, "{}", laptop.text);
    assert_eq!(laptop.body["account"], phone.body["account"]);
    assert_ne!(laptop.body["device"], phone.body["device"]);
    assert_ne!(laptop.secret("device_secret"), phone.secret("device_secret"));
    assert_eq!(laptop.body["access_expires_in_s"], 900);

    let list = server.devices(phone.secret("access_token")).await;
    let devices = list.body["devices"].as_array().unwrap();
    assert_eq!(devices.len(), 2);
    assert_eq!((&devices[0]["name"], &devices[0]["current"]), (&json!("phone"), &json!(true)));
    assert_eq!(devices[1]["current"], false);
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_handle_get_the_same_answer() {
    let server = Server::start().await;
    server.sign_up("alice").await;
    let wrong = server.log_in("alice", "not the password").await;
    assert_eq!(wrong.error(), (401, "Unauthenticated"));
    for handle in ["nobody", "not a handle: @", "", &"x".repeat(1_000)] {
        let unknown = server.log_in(handle, "not the password").await;
        assert_eq!((unknown.status, unknown.text), (wrong.status, wrong.text.clone()), "{handle}");
    }
}

#[tokio::test]
async fn a_handle_is_taken_once_whatever_its_case() {
    let server = Server::start().await;
    server.sign_up("Zoë").await;
    let taken = server.answer(post("/v1/sign-up", &json!({ "handle": "ZOË", "password": PASSWORD }))).await;
    assert_eq!(taken.error(), (409, "NameTaken"));
    assert_eq!(taken.body["error"]["number"], 36);
}

#[tokio::test]
async fn of_many_who_want_a_handle_at_once_one_gets_it() {
    let server = Server::start().await;
    let body = json!({ "handle": "alice", "password": PASSWORD });
    let tries = (0..8).map(|_| server.answer(post("/v1/sign-up", &body)));
    let answers = futures::future::join_all(tries).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == StatusCode::CREATED).count(), 1);
    assert_eq!(answers.iter().filter(|answer| answer.error() == (409, "NameTaken")).count(), 7);
}

#[tokio::test]
async fn a_sign_up_repeated_under_its_key_is_the_same_account_with_new_secrets() {
    let server = Server::start().await;
    let sign_up = |password: &str| {
        post("/v1/sign-up", &json!({ "handle": "alice", "password": password })).with("idempotency-key", "abc")
    };
    let lost = server.answer(sign_up(PASSWORD)).await;
    let again = server.answer(sign_up(PASSWORD)).await;
    assert_eq!(again.status, StatusCode::CREATED, "{}", again.text);
    assert_eq!(
        (&again.body["account"], &again.body["device"]),
        (&lost.body["account"], &lost.body["device"]),
        "nothing was made twice"
    );
    assert_eq!(server.devices(lost.secret("access_token")).await.error(), (401, "Unauthenticated"));
    assert_eq!(server.devices(again.secret("access_token")).await.status, StatusCode::OK);

    let stranger = server.answer(sign_up("a guessed password")).await;
    assert_eq!(stranger.error(), (400, "InvalidArgument"), "a key does not open an account");
    assert_eq!(server.devices(again.secret("access_token")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_log_in_repeated_under_its_key_is_the_same_device() {
    let server = Server::start().await;
    server.sign_up("alice").await;
    let body = json!({ "handle": "alice", "password": PASSWORD });
    let one = server.answer(post("/v1/log-in", &body).with("idempotency-key", "k")).await;
    let same = server.answer(post("/v1/log-in", &body).with("idempotency-key", "k")).await;
    let other = server.answer(post("/v1/log-in", &body).with("idempotency-key", "l")).await;
    assert_eq!(one.body["device"], same.body["device"]);
    assert_ne!(one.body["device"], other.body["device"]);
    let bad = server.answer(post("/v1/log-in", &body).with("idempotency-key", &"k".repeat(129))).await;
    assert_eq!(bad.error(), (400, "InvalidArgument"));
}

#[tokio::test]
async fn refresh_tokens_rotate_and_a_stolen_one_ends_the_family() {
    let server = Server::start().await;
    let signed_up = server.sign_up("alice").await;
    let first = signed_up.secret("refresh_token");
    let second = server.refresh(first).await;
    assert_eq!(second.status, StatusCode::OK, "{}", second.text);
    let third = server.refresh(second.secret("refresh_token")).await;
    assert_eq!(server.devices(third.secret("access_token")).await.status, StatusCode::OK);
    assert_eq!(server.refresh(first).await.error(), (401, "Unauthenticated"));
    assert_eq!(server.refresh(third.secret("refresh_token")).await.error(), (401, "Unauthenticated"));
    assert_eq!(server.devices(third.secret("access_token")).await.error(), (401, "Unauthenticated"));
    for made_up in ["", "x", &"A".repeat(43)] {
        assert_eq!(server.refresh(made_up).await.error(), (401, "Unauthenticated"));
    }
}

#[tokio::test]
async fn a_revoked_device_is_out_and_nobody_revokes_anothers() {
    let server = Server::start().await;
    let phone = server.sign_up("alice").await;
    let laptop = server.log_in("alice", PASSWORD).await;
    let mallory = server.sign_up("mallory").await;
    let revoke = |device: &Value, by: &Answer| {
        call(&Method::DELETE, &format!("/v1/devices/{device}")).bearer(by.secret("access_token"))
    };
    assert_eq!(server.answer(revoke(&laptop.body["device"], &mallory)).await.error(), (404, "NotFound"));
    assert_eq!(server.answer(revoke(&json!(99), &phone)).await.error(), (404, "NotFound"));
    assert_eq!(server.answer(revoke(&json!("x"), &phone)).await.status, StatusCode::NOT_FOUND);
    let revoked = server.answer(revoke(&laptop.body["device"], &phone)).await;
    assert_eq!(revoked.status, StatusCode::NO_CONTENT, "{}", revoked.text);
    assert_eq!(server.devices(laptop.secret("access_token")).await.error(), (401, "Unauthenticated"));
    assert_eq!(server.refresh(laptop.secret("refresh_token")).await.error(), (401, "Unauthenticated"));

    let log_out = || call(&Method::POST, "/v1/log-out").bearer(phone.secret("access_token"));
    assert_eq!(server.answer(log_out()).await.status, StatusCode::NO_CONTENT);
    assert_eq!(server.answer(log_out()).await.error(), (401, "Unauthenticated"));
}

#[tokio::test]
async fn whatever_is_wrong_with_a_request_is_answered_in_json() {
    let server = Server::start().await;
    let password = json!({ "handle": "a", "password": PASSWORD });
    let raw = |body: &str| Call { body: Body::from(body.to_owned()), ..post("/v1/sign-up", &Value::Null) };
    let invalid = |field: &str, value: Value| {
        let mut body = password.clone();
        body[field] = value;
        post("/v1/sign-up", &body)
    };
    for (call, status, code) in [
        (raw("{"), 400, "Malformed"),
        (raw("{\"handle\": 7}"), 400, "InvalidArgument"),
        (raw("{}"), 400, "InvalidArgument"),
        (raw(&" ".repeat(super::BODY + 1)), 413, "BodyTooLarge"),
        (call(&Method::POST, "/v1/sign-up"), 415, "Unsupported"),
        (call(&Method::GET, "/v1/sign-up"), 405, "Unsupported"),
        (call(&Method::GET, "/v2/anything"), 404, "NotFound"),
        (call(&Method::GET, "/v1/devices"), 401, "Unauthenticated"),
        (call(&Method::GET, "/v1/devices").bearer("made up"), 401, "Unauthenticated"),
        (call(&Method::POST, "/v1/log-out"), 401, "Unauthenticated"),
        (invalid("handle", json!("a b")), 400, "InvalidArgument"),
        (invalid("handle", json!("")), 400, "InvalidArgument"),
        (invalid("password", json!("short")), 400, "InvalidArgument"),
        (invalid("password", json!("x".repeat(257))), 400, "InvalidArgument"),
        (invalid("name", json!("x".repeat(257))), 400, "InvalidArgument"),
        (invalid("device_name", json!("a\u{1b}[31m")), 400, "InvalidArgument"),
    ] {
        let answer = server.answer(call).await;
        assert_eq!(answer.error(), (status, code), "{}", answer.text);
        assert!(!answer.body["error"]["message"].as_str().unwrap().is_empty());
    }
}

#[tokio::test]
async fn guessing_is_stopped_before_the_hash_and_says_when_to_come_back() {
    let server = Server::limited(true).await;
    server.sign_up("alice").await;
    let guess = || server.log_in("alice", "not the password");
    while guess().await.error() == (401, "Unauthenticated") {}
    let refused = guess().await;
    assert_eq!(refused.error(), (429, "RateLimited"));
    let wait_ms = refused.body["error"]["retry_after_ms"].as_u64().unwrap();
    assert_eq!(refused.retry_after, Some(wait_ms.div_ceil(1_000).to_string()));
    // From elsewhere the owner still gets in.
    let home =
        Call { from: [198, 51, 100, 7], ..post("/v1/log-in", &json!({ "handle": "alice", "password": PASSWORD })) };
    assert_eq!(server.answer(home).await.status, StatusCode::OK);
}

#[tokio::test]
async fn accounts_from_one_address_are_limited() {
    let server = Server::limited(true).await;
    let mut made = 0;
    let refused = loop {
        let body = json!({ "handle": format!("a{made}"), "password": PASSWORD });
        let answer = server.answer(post("/v1/sign-up", &body)).await;
        if answer.status != StatusCode::CREATED {
            break answer;
        }
        made += 1;
    };
    assert_eq!((refused.error(), made), ((429, "RateLimited"), 10));
}

#[tokio::test]
async fn operators_see_whether_it_lives_whether_it_serves_and_figures() {
    let server = Server::start().await;
    server.sign_up("alice").await;
    let get = |path: &str| call(&Method::GET, path);
    assert_eq!(server.answer(get("/healthz")).await.text, "ok\n");
    assert_eq!(server.answer(get("/readyz")).await.status, StatusCode::OK);
    let metrics = server.answer(get("/metrics")).await.text;
    for line in [
        "rove_http_requests_total{route=\"/v1/sign-up\",status=\"201\"} 1\n",
        "rove_node_ready 1\n",
        "rove_sessions 0\n",
        "rove_directory_entries_applied_total 2\n",
        "rove_partition_leader{partition=\"0\"} 1\n",
        "# TYPE rove_log_sync_time_seconds counter\n",
    ] {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }
    assert!(metrics.ends_with("# EOF\n"));

    let found = server.answer(get("/v1/discovery?region=north")).await.body;
    let expected = json!({
        "node": 1, "address": "chat.example:7683", "region": "north", "load": 0, "healthy": true, "draining": false
    });
    assert_eq!(found, json!({ "nodes": [expected], "pins": ["pin"] }));

    server.leaving.set_draining(true);
    let draining = server.answer(get("/readyz")).await;
    assert_eq!((draining.status, draining.text.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "draining\n"));
    assert_eq!(server.answer(get("/v1/discovery")).await.body["nodes"][0]["draining"], true);
    assert_eq!(server.answer(get("/healthz")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_openapi_document_has_every_route_there_is() {
    let server = Server::start().await;
    let document = server.answer(call(&Method::GET, "/openapi.json")).await.body;
    let paths: Vec<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    for path in &paths {
        let method = document["paths"][path].as_object().unwrap().keys().next().unwrap().to_uppercase();
        let answer = server.answer(call(&method.parse().unwrap(), &path.replace("{id}", "1"))).await;
        assert!(![404, 405].contains(&answer.status.as_u16()), "{method} {path}: {}", answer.text);
    }
    assert_eq!(paths.len(), 10);
    assert!(document["components"]["securitySchemes"]["bearer"].is_object());
}
