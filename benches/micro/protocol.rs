//! What a message costs on its way through the codec: frames of posts and events, with 200 bytes of text.
//!
//! Figures are per message. `decode_64` is what a client does with a full packet of replay.

#![allow(missing_docs, unreachable_pub, reason = "criterion's macros make the functions")]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rove_benches::sample;
use rove_benches::work::decode_all;
use rove_protocol::frame::datagram_frames;
use rove_protocol::message::{Body, ConversationDown, ConversationUp, Event, Heartbeat, Message, Post};

fn posts(c: &mut Criterion) {
    let mut group = c.benchmark_group("post");
    group.throughput(Throughput::Elements(1));
    let post = sample::post(1);
    let frame = post.to_frame();

    group.bench_function("encode", |b| {
        let mut out = Vec::with_capacity(1_024);
        b.iter(|| {
            out.clear();
            black_box(&post).put_frame(&mut out);
            black_box(&out);
        });
    });
    group.bench_function("decode", |b| {
        b.iter(|| decode_all(black_box(&frame), ConversationUp::decode, |message| drop(black_box(message))));
    });
    group.bench_function("decode_body", |b| {
        let body = Bytes::from(post.encode_body());
        b.iter(|| black_box(Post::decode_body(black_box(body.clone()))));
    });
    group.finish();
}

fn events(c: &mut Criterion) {
    let mut group = c.benchmark_group("event");
    let event = sample::event(1);
    let frame = event.to_frame();

    group.throughput(Throughput::Elements(1));
    group.bench_function("encode", |b| {
        let mut out = Vec::with_capacity(1_024);
        b.iter(|| {
            out.clear();
            black_box(&event).put_frame(&mut out);
            black_box(&out);
        });
    });
    group.bench_function("decode", |b| {
        b.iter(|| decode_all(black_box(&frame), ConversationDown::decode, |message| drop(black_box(message))));
    });
    group.bench_function("decode_body", |b| {
        let body = Bytes::from(event.encode_body());
        b.iter(|| black_box(Event::decode_body(black_box(body.clone()))));
    });

    let many = 64;
    group.throughput(Throughput::Elements(many));
    let mut bytes = Vec::new();
    for seq in 1..=many {
        sample::event(seq).put_frame(&mut bytes);
    }
    group.bench_function("decode_64", |b| {
        b.iter(|| decode_all(black_box(&bytes), ConversationDown::decode, |message| drop(black_box(message))));
    });
    group.finish();
}

fn datagrams(c: &mut Criterion) {
    let mut group = c.benchmark_group("datagram");
    group.throughput(Throughput::Elements(1));
    let datagram = Bytes::from(Heartbeat { number: 1_000, inbox_version: 77, presence_version: 12 }.to_frame());
    group.bench_function("decode_heartbeat", |b| {
        b.iter_batched(|| datagram.clone(), |datagram| black_box(datagram_frames(datagram)), BatchSize::SmallInput);
    });
    group.finish();
}

criterion_group!(benches, posts, events, datagrams);
criterion_main!(benches);
