"""Writes the corpora of the fuzz targets from the byte vectors of the specification."""

import hashlib
import json
import pathlib

FUZZ = pathlib.Path(__file__).resolve().parent
VECTORS = FUZZ.parent / "spec" / "vectors"
# The order in which the targets count streams and bodies; see src/.
STREAMS = ["control", "inbox", "conversation", "fetch", "datagram"]
BODIES = ["CreateDirect", "CreateGroup", "ChangeMembers", "GetConversation", "FindAccounts", "GetAccounts", "Watch",
          "ConversationInfo", "Accounts", "AccountInfo", "Created", "MembersChanged", "SettingsChanged"]
# Which machine of a session target takes a stream's frames.
MACHINES = {"up": ["control", "conversation", "inbox", "fetch"], "down": ["control", "conversation", "inbox", "fetch"]}


def seed(target, data):
    folder = FUZZ / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


def short_frames(data):
    """The frames of one-byte lengths and types, as (type, body)."""
    while len(data) > 1 and data[0] < 0x80 and data[1] < 0x80:
        yield data[1], data[2:1 + data[0]]
        data = data[1 + data[0]:]


def main():
    sessions = {}
    for path in sorted(VECTORS.glob("*.json")):
        for vector in json.loads(path.read_text()):
            data = bytes.fromhex(vector["hex"])
            if vector["stream"] == "body":
                seed("bodies", bytes([BODIES.index(vector["body"])]) + data)
                continue
            stream, direction = vector["stream"], vector["direction"]
            seed("frames", b"\x07" + data)
            carrier = 2 * STREAMS.index(stream) + (direction == "down")
            for frame_type, body in short_frames(data):
                seed("messages", bytes([carrier, frame_type]) + body)
            if stream != "datagram" and len(data) < 0x80 and "error" not in vector:
                sessions.setdefault((stream, direction), []).append(data)
    for (stream, direction), frames in sessions.items():
        target = "server_session" if direction == "up" else "client_session"
        machine = MACHINES[direction].index(stream)
        # Between two frames our own side does something: it welcomes or opens, it answers, it asks.
        for own in (b"", b"\x01", b"\x03", b"\x01\x03\x05"):
            steps = b"".join(b"\x00" + frame + own for frame in frames)
            seed(target, bytes([machine]) + steps)


main()
