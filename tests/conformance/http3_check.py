#!/usr/bin/env python3
"""Signs up and logs in over HTTP/3 with an independent client (aioquic), and says hello over rove/1.

    pip install aioquic
    python3 tests/conformance/http3_check.py HOST PORT

The certificate is not checked: this is about the protocol. Exit code 0 only if everything held.
"""

import asyncio
import base64
import json
import os
import ssl
import sys

from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration

TIMEOUT_S = 15


class Http3(QuicConnectionProtocol):
    """One HTTP/3 connection; a request at a time is enough here."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = H3Connection(self._quic)
        self.answers = {}

    async def post(self, path, body):
        """Returns (status, parsed body)."""
        stream = self._quic.get_next_available_stream_id()
        payload = json.dumps(body).encode()
        done = asyncio.get_running_loop().create_future()
        self.answers[stream] = {"status": None, "body": b"", "done": done}
        self.http.send_headers(
            stream,
            [
                (b":method", b"POST"),
                (b":scheme", b"https"),
                (b":authority", b"localhost"),
                (b":path", path.encode()),
                (b"content-type", b"application/json"),
                (b"content-length", str(len(payload)).encode()),
            ],
        )
        self.http.send_data(stream, payload, end_stream=True)
        self.transmit()
        await asyncio.wait_for(done, TIMEOUT_S)
        answer = self.answers.pop(stream)
        return answer["status"], json.loads(answer["body"] or b"null")

    def quic_event_received(self, event):
        for part in self.http.handle_event(event):
            answer = self.answers.get(part.stream_id) if hasattr(part, "stream_id") else None
            if answer is None:
                continue
            if isinstance(part, HeadersReceived):
                answer["status"] = int(dict(part.headers)[b":status"])
            elif isinstance(part, DataReceived):
                answer["body"] += part.data
            if part.stream_ended and not answer["done"].done():
                answer["done"].set_result(None)


def varint(value):
    """LEB128, shortest form."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def blob(data):
    """A length and the bytes."""
    return varint(len(data)) + data


def frame(frame_type, body):
    """length, type, body."""
    inner = varint(frame_type) + body
    return varint(len(inner)) + inner


async def rove_hello(host, port, device, secret):
    """Opens the control stream of rove/1, sends Hello and returns the type of the answer."""
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["rove/1"], verify_mode=ssl.CERT_NONE)
    async with connect(host, port, configuration=configuration) as connection:
        reader, writer = await connection.create_stream()
        state_foreground = 1
        hello = varint(device) + blob(secret) + varint(0) + varint(state_foreground) + blob(b"http3_check")
        stream_type_control, frame_hello = 1, 1
        writer.write(varint(stream_type_control) + frame(frame_hello, hello))
        # The first two bytes of a short frame: its length and its type.
        head = await asyncio.wait_for(reader.readexactly(2), TIMEOUT_S)
        return head[1]


async def main(host, port):
    handle = "h3-" + os.urandom(4).hex()
    account = {"handle": handle, "password": "correct horse battery"}
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE)
    async with connect(host, port, configuration=configuration, create_protocol=Http3) as http:
        status, signed_up = await http.post("/v1/sign-up", account)
        assert status == 201, (status, signed_up)
        status, taken = await http.post("/v1/sign-up", account)
        assert status == 409 and taken["error"]["code"] == "NameTaken", (status, taken)
        status, logged_in = await http.post("/v1/log-in", account)
        assert status == 200 and logged_in["account"] == signed_up["account"], (status, logged_in)
        status, refused = await http.post("/v1/log-in", {**account, "password": "not the password"})
        assert status == 401, (status, refused)
    print(f"HTTP/3: {handle} signed up as account {signed_up['account']} and logged in")

    secret = base64.urlsafe_b64decode(logged_in["device_secret"] + "==")
    frame_type = await rove_hello(host, port, int(logged_in["device"]), secret)
    frame_welcome = 2
    assert frame_type == frame_welcome, f"Hello was answered with a frame of type {frame_type:#x}"
    print("rove/1: Hello was answered with Welcome")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
