//! The byte vectors of `spec/vectors`: each is decoded and encoded again, and all of them are those that the code makes.
//!
//! `ROVE_WRITE_VECTORS=1 cargo test -p rove-protocol --test vectors the_files` writes them anew; look at the difference
//! before you commit it, since what changes there changes what is on the wire.
#![allow(
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::wildcard_imports,
    clippy::unwrap_used,
    reason = "every message is meant; a test may panic and reads files"
)]

mod carrier;
#[path = "../common/mod.rs"]
mod common;
mod samples;
mod wrong;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use rove_protocol::frame::{FrameDecoder, put_frame};
use rove_protocol::limits;
use rove_protocol::registry::FrameType;
use serde_json::{Value, json};

use carrier::{BODIES, Received, STREAMS, carriers_of, receive, receive_body};
use wrong::Wrong;

fn path(file: &str) -> PathBuf {
    // At run time: a build shared by several clones may have been compiled in another one.
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../spec/vectors").join(file)
}

/// Where a vector's bytes belong and what they are.
fn vector(name: &str, why: &str, place: &Value, bytes: &[u8]) -> Value {
    let mut vector = json!({ "name": name, "why": why, "hex": hex::encode(bytes) });
    for (key, value) in place.as_object().unwrap() {
        vector[key] = value.clone();
    }
    match play(&vector) {
        Ok(received) => {
            vector["messages"] = received.messages.into();
            if received.again != bytes {
                vector["again"] = hex::encode(received.again).into();
            }
        }
        Err(code) => vector["error"] = code.into(),
    }
    vector
}

/// Receives a vector's bytes; the name of the error's code if they are refused.
fn play(vector: &Value) -> Result<Received, String> {
    let text = |key: &str| vector[key].as_str().unwrap_or_else(|| panic!("{key} of {vector}"));
    let bytes = hex::decode(text("hex")).unwrap();
    let received = match text("stream") {
        "body" => receive_body(text("body"), bytes),
        stream => receive(stream, text("direction"), bytes),
    };
    received.map_err(|error| error.code().to_string())
}

fn of_samples() -> Vec<(&'static str, Vec<Value>)> {
    let mut files: Vec<(&'static str, Vec<Value>)> = STREAMS.iter().map(|stream| (*stream, Vec::new())).collect();
    // The samples of the four streams come in the order of the streams; `Closed`, which all carry, tells where one ends.
    let mut stream = 0;
    for (name, why, bytes) in samples::stream_frames() {
        let mut decoder = FrameDecoder::new(limits::FRAME);
        decoder.feed(&bytes);
        let frame_type = decoder.next_frame().unwrap().unwrap().frame_type;
        let carriers = carriers_of(frame_type);
        let (_, direction) = carriers.iter().find(|(name, _)| *name == STREAMS[stream]).unwrap();
        let place = json!({ "stream": STREAMS[stream], "direction": direction });
        files[stream].1.push(vector(name, why, &place, &bytes));
        if frame_type == FrameType::Closed {
            stream += 1;
        }
    }
    for (name, why, bytes) in samples::datagrams() {
        let direction = if name.starts_with("Heartbeat") && name != "HeartbeatAck" { "up" } else { "down" };
        let place = json!({ "stream": "datagram", "direction": direction });
        files[4].1.push(vector(name, why, &place, &bytes));
    }
    let bodies = samples::bodies().into_iter();
    let bodies = bodies.map(|(name, why, bytes)| vector(name, why, &json!({ "stream": "body", "body": name }), &bytes));
    files.push(("bodies", bodies.collect()));
    files
}

fn of_wrong(wrong: &Wrong) -> Value {
    vector(&wrong.name, wrong.why, &json!({ "stream": wrong.stream, "direction": wrong.direction }), &wrong.bytes)
}

/// Each message where it does not belong, cut short, and with an unknown critical extension.
fn of_each_message() -> Vec<Wrong> {
    let mut seen = BTreeSet::new();
    let mut wrongs = Vec::new();
    for (name, _, bytes) in [samples::stream_frames(), samples::datagrams()].concat() {
        let mut decoder = FrameDecoder::new(limits::FRAME);
        decoder.feed(&bytes);
        let frame = decoder.next_frame().unwrap().unwrap();
        if !seen.insert(frame.frame_type) {
            continue;
        }
        let carriers = carriers_of(frame.frame_type);
        let elsewhere = STREAMS.iter().flat_map(|stream| [(*stream, "up"), (*stream, "down")]);
        // On its own stream in the other direction, if that is wrong; else on another one.
        let (stream, direction) = elsewhere
            .filter(|place| !carriers.contains(place))
            .min_by_key(|(stream, _)| *stream != carriers[0].0)
            .unwrap();
        let message = frame.frame_type.name().unwrap();
        assert!(name.starts_with(message));
        wrongs.push(Wrong::of(message, "misplaced", "It is not carried there.", (stream, direction), bytes));
        let framed = |body: &[u8]| {
            let mut bytes = Vec::new();
            put_frame(frame.frame_type, body, &mut bytes);
            bytes
        };
        let cut = framed(&frame.body[..frame.body.len() - 1]);
        wrongs.push(Wrong::of(message, "cut short", "The last byte of its last field is missing.", carriers[0], cut));
        let extended = framed(&[&frame.body[..], &[0x7f, 0x01, 0x00]].concat());
        let why = match frame.frame_type {
            FrameType::Post => "Decoded and kept; the server refuses the post with CriticalExtension.",
            FrameType::Event => "Decoded and kept: it came with the post.",
            _ => "Odd and unknown: critical.",
        };
        wrongs.push(Wrong::of(message, "with an unknown odd extension", why, carriers[0], extended));
    }
    wrongs
}

/// The files and their vectors, as the code makes them.
fn made() -> Vec<(&'static str, Vec<Value>)> {
    let mut files = of_samples();
    let bodies = wrong::bodies();
    let bodies = bodies
        .iter()
        .map(|(body, wrong)| vector(&wrong.name, wrong.why, &json!({ "stream": "body", "body": body }), &wrong.bytes));
    let groups = [wrong::framing(), wrong::values(), wrong::limits_of_fields(), of_each_message()];
    let [framing, values, limits, each] = groups.map(|group| group.iter().map(of_wrong).collect::<Vec<_>>());
    files.push(("refused-framing", framing));
    files.push(("refused-values", values));
    files.push(("refused-limits", [limits, bodies.collect()].concat()));
    files.push(("refused-each", each));
    files
}

/// One vector a paragraph, one field a line.
fn to_text(vectors: &[Value]) -> String {
    let mut out = String::from("[\n");
    for (index, vector) in vectors.iter().enumerate() {
        let line = |out: &mut String, indent: usize, key: &str, value: &Value, last: bool| {
            writeln!(out, "{:indent$}\"{key}\": {value}{}", "", if last { "" } else { "," }).unwrap();
        };
        out.push_str("  {\n");
        for key in ["name", "why", "stream", "direction", "body", "hex", "again", "error"] {
            if let Some(value) = vector.get(key) {
                line(&mut out, 4, key, value, key == "error");
            }
        }
        if let Some(messages) = vector["messages"].as_array() {
            out.push_str("    \"messages\": [\n");
            for (index, message) in messages.iter().enumerate() {
                let end = if index + 1 == messages.len() { "" } else { "," };
                let Some(fields) = message["fields"].as_array() else {
                    writeln!(out, "      {message}{end}").unwrap();
                    continue;
                };
                writeln!(out, "      {{ \"message\": {}, \"fields\": [", message["message"]).unwrap();
                for (index, field) in fields.iter().enumerate() {
                    let end = if index + 1 == fields.len() { "" } else { "," };
                    writeln!(out, "        {field}{end}").unwrap();
                }
                writeln!(out, "      ] }}{end}").unwrap();
            }
            out.push_str("    ]\n");
        }
        out.push_str(if index + 1 == vectors.len() { "  }\n" } else { "  },\n" });
    }
    out.push_str("]\n");
    out
}

fn read(file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn all() -> Vec<Value> {
    made().iter().flat_map(|(file, _)| read(&format!("{file}.json"))).collect()
}

#[test]
fn the_files_are_what_the_code_makes() {
    for (file, vectors) in made() {
        let file = format!("{file}.json");
        let text = to_text(&vectors);
        if std::env::var_os("ROVE_WRITE_VECTORS").is_some() {
            std::fs::create_dir_all(path("")).unwrap();
            std::fs::write(path(&file), &text).unwrap();
        }
        assert_eq!(read(&file), vectors, "{file}");
        assert!(std::fs::read_to_string(path(&file)).unwrap() == text, "{file} is written differently");
    }
    let mut files: BTreeSet<String> = made().iter().map(|(file, _)| format!("{file}.json")).collect();
    for entry in std::fs::read_dir(path("")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name != "README.md" {
            assert!(files.remove(&name), "nobody replays {name}");
        }
    }
}

#[test]
fn every_vector_decodes_to_its_messages_or_is_refused_with_its_code() {
    for vector in all() {
        match play(&vector) {
            Ok(received) => assert_eq!(json!(received.messages), vector["messages"], "{vector}"),
            Err(code) => assert_eq!(json!(code), vector["error"], "{vector}"),
        }
    }
}

#[test]
fn every_message_encodes_to_its_vectors_bytes() {
    for vector in all() {
        let Ok(received) = play(&vector) else { continue };
        let expected = vector.get("again").unwrap_or(&vector["hex"]);
        assert_eq!(json!(hex::encode(received.again)), *expected, "{vector}");
    }
}

#[test]
fn the_bytes_of_the_fields_are_the_bytes_of_the_message() {
    for vector in all() {
        let Some(messages) = vector["messages"].as_array() else { continue };
        let sent = vector.get("again").unwrap_or(&vector["hex"]).as_str().unwrap();
        let mut expected = Vec::new();
        for message in messages {
            let Some(fields) = message["fields"].as_array() else { continue };
            let body: String = fields.iter().map(|field| field["hex"].as_str().unwrap()).collect();
            let body = hex::decode(body).unwrap();
            match FrameType::ALL.iter().find(|(_, name, _)| message["message"] == *name) {
                Some((frame_type, ..)) => put_frame(*frame_type, &body, &mut expected),
                None => expected.extend(body),
            }
        }
        assert_eq!(hex::encode(expected), sent, "{vector}");
    }
}

#[test]
fn every_message_and_every_body_has_a_vector() {
    let mut missing: BTreeSet<&str> =
        FrameType::ALL.iter().map(|(_, name, _)| *name).chain(BODIES.iter().copied()).collect();
    for vector in all() {
        for message in vector["messages"].as_array().into_iter().flatten() {
            if let Some(name) = message["message"].as_str() {
                missing.remove(name);
            }
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_code_that_bytes_can_earn_has_a_vector() {
    let codes: BTreeSet<String> =
        all().iter().filter_map(|vector| vector["error"].as_str().map(str::to_owned)).collect();
    let expected =
        ["CriticalExtension", "FrameTooLarge", "FrameUnexpected", "Malformed", "NotCanonical", "UnknownFrame"];
    assert_eq!(codes, expected.map(str::to_owned).into());
}

#[test]
fn names_are_unique_on_a_stream() {
    let mut seen = BTreeSet::new();
    for vector in all() {
        let key = ["stream", "direction", "body", "name"].map(|key| vector[key].to_string());
        assert!(seen.insert(key), "{vector}");
    }
}
