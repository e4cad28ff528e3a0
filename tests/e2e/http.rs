//! The HTTP API as strangers use it: curl, and an independent HTTP/3 client.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::large_futures,
    reason = "a test fails when what it needs is not there"
)]

use std::process::Command;

use rove_tests::Server;
use rove_tests::people::PASSWORD;
use serde_json::{Value, json};

/// Whether `program` runs here; says that `test` is skipped if not.
fn available(test: &str, program: &str, args: &[&str]) -> bool {
    let there = Command::new(program).args(args).output().is_ok_and(|output| output.status.success());
    if !there {
        rove_tests::skipped(test, &format!("`{program} {}` does not run here", args.join(" ")));
    }
    there
}

/// POSTs with curl and returns the status, the HTTP version and the answer.
fn curl_post(server: &Server, version: &str, path: &str, body: &Value) -> (u16, String, Value) {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--insecure", "--max-time", "30", version])
        .args(["--header", "content-type: application/json", "--data", &body.to_string()])
        .args(["--write-out", "\n%{http_code} %{http_version}"])
        .arg(format!("https://{}{path}", server.https))
        .output()
        .expect("curl runs");
    let text = String::from_utf8(output.stdout).expect("curl prints text");
    let (answer, last) = text.rsplit_once('\n').unwrap_or_else(|| {
        panic!("curl failed: {}", String::from_utf8_lossy(&output.stderr));
    });
    let (status, http) = last.split_once(' ').expect("a status and a version");
    (status.parse().expect("a number"), http.to_owned(), serde_json::from_str(answer).unwrap_or(Value::Null))
}

#[test]
fn curl_signs_up_and_logs_in_over_http_1_1_and_http_2() {
    if !available("curl_signs_up_and_logs_in_over_http_1_1_and_http_2", "curl", &["--version"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    for (version, expected, handle) in [("--http1.1", "1.1", "one"), ("--http2", "2", "two")] {
        let account = json!({ "handle": handle, "password": PASSWORD });
        let (status, http, signed_up) = curl_post(&server, version, "/v1/sign-up", &account);
        assert_eq!((status, http.as_str()), (201, expected), "{signed_up}");
        let (status, _, logged_in) = curl_post(&server, version, "/v1/log-in", &account);
        assert_eq!(status, 200, "{logged_in}");
        assert_eq!(logged_in["account"], signed_up["account"]);
        assert_ne!(logged_in["device"], signed_up["device"], "a log-in is a new device");

        let (status, _, taken) = curl_post(&server, version, "/v1/sign-up", &account);
        assert_eq!((status, taken["error"]["code"].as_str()), (409, Some("NameTaken")));
        let wrong = json!({ "handle": handle, "password": "not the password" });
        let (status, _, refused) = curl_post(&server, version, "/v1/log-in", &wrong);
        assert_eq!((status, refused["error"]["code"].as_str()), (401, Some("Unauthenticated")));
        let nobody = json!({ "handle": "nobody", "password": PASSWORD });
        let (status, _, unknown) = curl_post(&server, version, "/v1/log-in", &nobody);
        assert_eq!((status, &unknown), (401, &refused), "an unknown handle gets the same answer");
        let (status, _, malformed) = curl_post(&server, version, "/v1/sign-up", &json!({ "handle": 7 }));
        assert!((400..=422).contains(&status), "{status} {malformed}");
        assert!(malformed["error"]["code"].is_string(), "{malformed}");
    }
    assert!(!server.log().contains("ERROR"), "{}", server.log());
    assert!(!server.log().contains(PASSWORD), "passwords are not logged");
}

#[test]
fn an_independent_client_speaks_http_3_and_rove_1() {
    // That of scripts/tools.sh, where it was run.
    let python = std::env::var("ROVE_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    if !available("an_independent_client_speaks_http_3_and_rove_1", &python, &["-c", "import aioquic"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let script = rove_tests::folder().join("conformance/http3_check.py");
    let output = Command::new(&python)
        .arg(script)
        .args([server.quic.ip().to_string(), server.quic.port().to_string()])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("Hello was answered with Welcome"), "{text}");
}
