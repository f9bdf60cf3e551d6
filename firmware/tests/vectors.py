"""Turn tests/vectors/*.json into a C header, and into the seed corpora of the fuzzers. Standard library only.

vectors.py VECTORS_DIR header OUT.h
vectors.py VECTORS_DIR corpus OUT_DIR    one raw input a file, in OUT_DIR/wire, OUT_DIR/mqttsn and OUT_DIR/link
"""

import json
import sys
from pathlib import Path

TOPIC_TYPES = {"normal": 0, "predefined": 1, "short": 2}


def text(value):
    """A C string of any bytes: octal escapes cannot run into what follows them."""
    data = value.encode() if isinstance(value, str) else value
    plain = "".join(chr(b) if 32 <= b < 127 and b not in b'"\\?' else f"\\{b:03o}" for b in data)
    return f'"{plain}"'


def span(data):
    return f"{{(const uint8_t *){text(data)}, {len(data)}}}"


def table(name, kind, rows):
    body = "".join(f"    {row},\n" for row in rows)
    return f"static const {kind} {name}[] = {{\n{body}}};\n"


def spans(datas):
    """A pointer to a list of spans, and its length."""
    if not datas:
        return "NULL, 0"
    return f"(const struct span[]){{{', '.join(span(data) for data in datas)}}}, {len(datas)}"


def wire(vectors):
    reasons = ["too_short", "too_long", "bad_cobs", "bad_crc", "timeout", "unknown_channel"]
    yield table(
        "frame_vectors",
        "struct frame_vector",
        (
            f"{{{text(v['name'])}, {span(bytes.fromhex(v['content_hex']))}, {span(bytes.fromhex(v['frame_hex']))}}}"
            for v in vectors["frames"]
        ),
    )
    rows = []
    for v in vectors["streams"]:
        if not set(v["rejected"]) <= set(reasons):
            raise SystemExit(f"wire.json: {v['name']}: unknown reason in {v['rejected']}")
        frames = spans([bytes.fromhex(h) for h in v["frames_hex"]])
        lines = spans([line.encode() for line in v["text"]])
        smp = spans([bytes.fromhex(h) for h in v["smp_hex"]])
        counts = ", ".join(str(v["rejected"].get(reason, 0)) for reason in reasons)
        stream = span(bytes.fromhex(v["stream_hex"]))
        cap = v.get("content_bytes_max", 2048)
        rows.append(f"{{{text(v['name'])}, {stream}, {cap}, {frames}, {lines}, {smp}, {{{counts}}}}}")
    yield table("stream_vectors", "struct stream_vector", rows)
    rows = [f"{{{text(v['name'])}, {span(bytes.fromhex(v['hex']))}, {link(v['fields'])}}}" for v in vectors["links"]]
    yield table("link_vectors", "struct link_vector", rows)
    yield rejections("link_rejections", vectors["links_rejected"])
    rows = [
        f"{{{text(v['name'])}, {span(bytes.fromhex(v['hex']))}, {v['fields']['boot']}U, {v['fields']['sequence']}U,"
        f" {v['fields']['back']}, {span(bytes.fromhex(v['fields']['message_hex']))}}}"
        for v in vectors["readings"]
    ]
    yield table("reading_vectors", "struct reading_vector", rows)
    yield rejections("reading_rejections", vectors["readings_rejected"])
    rows = [
        f"{{{text(v['name'])}, {span(bytes.fromhex(v['hex']))}, {v['fields']['request_id']},"
        f" {span(bytes.fromhex(v['fields']['message_hex']))}}}"
        for v in vectors["requests"]
    ]
    yield table("request_vectors", "struct request_vector", rows)
    yield rejections("request_rejections", vectors["requests_rejected"])


def rejections(name, vectors):
    rows = (f"{{{text(v['name'])}, {span(bytes.fromhex(v['hex']))}, {text(v['reason'])}}}" for v in vectors)
    return table(name, "struct rejection_vector", rows)


def link(fields):
    kind = fields["type"]
    head = f".type = WIRE_LINK_{kind}"
    if kind == "HELLO":
        names = ("version", "window", "content_bytes_max", "boot", "reset_reason")
        numbers = ", ".join(f".{n} = {fields[n]}U" for n in names)
        texts = ", ".join(f".{n} = {{{text(fields[n])}, {len(fields[n].encode())}}}" for n in ("board_id", "firmware"))
        return f"{{{head}, .as.hello = {{{numbers}, {texts}}}}}"
    if kind == "WELCOME":
        names = ("version", "window", "content_bytes_max", "unix_time_ms")
        return f"{{{head}, .as.welcome = {{{', '.join(f'.{n} = {fields[n]}U' for n in names)}}}}}"
    if kind == "HELLO_REQUEST":
        return f"{{{head}, .as.hello_request_version = {fields['version']}}}"
    if kind == "TIME":
        return f"{{{head}, .as.time_ms = {fields['unix_time_ms']}U}}"
    if kind == "STATS":
        values = ", ".join(f"{{{i}, {value}U}}" for i, value in fields["values"]) or "{0, 0}"
        numbers = ", ".join(f".{n} = {fields[n]}U" for n in ("boot", "uptime_ms", "reset_reason"))
        return f"{{{head}, .as.stats = {{{numbers}, .count = {len(fields['values'])}, .values = {{{values}}}}}}}"
    if kind == "REWIND":
        return f"{{{head}, .as.rewind = {{{fields['boot']}U, {fields['sequence']}U}}}}"
    return f"{{{head}}}"


def message(fields):
    parts = [f".type = MQTTSN_{fields['type']}"]
    for name in ("dup", "retain", "will", "clean_session"):
        if name in fields:
            parts.append(f".{name} = {'true' if fields[name] else 'false'}")
    for name in ("qos", "return_code", "gateway_id", "radius", "topic_id", "msg_id"):
        if name in fields:
            parts.append(f".{name} = {fields[name]}")
    if "topic_type" in fields:
        parts.append(f".topic_type = (enum mqttsn_topic_type){TOPIC_TYPES[fields['topic_type']]}")
    if fields.get("duration_s") is not None:
        parts.append(f".duration_s = {fields['duration_s']}")
        if fields["type"] == "DISCONNECT":
            parts.append(".has_duration = true")
    if fields["type"] == "CONNECT":
        parts.append(".protocol_id = 1")
    data = b""
    if "data_hex" in fields:
        data = bytes.fromhex(fields["data_hex"])
    elif "client_id" in fields:
        data = fields["client_id"].encode()
    elif "topic" in fields and fields.get("topic_type", "normal") == "normal":
        data = fields["topic"].encode()
    if data:
        parts.append(f".data = (const uint8_t *){text(data)}, .data_bytes = {len(data)}")
    return f"{{{', '.join(parts)}}}"


def mqttsn(vectors):
    rows = (
        f"{{{text(v['name'])}, {span(bytes.fromhex(v['hex']))}, {message(v['fields'])},"
        f" {'true' if v.get('encodes_otherwise') else 'false'}}}"
        for v in vectors["messages"]
    )
    yield table("message_vectors", "struct message_vector", rows)
    yield rejections("message_rejections", vectors["rejected"])
    rows = (
        f"{{{text(v['name'])}, {span(bytes.fromhex(v['hex']))}, {v['fields']['radius']},"
        f" {span(bytes.fromhex(v['fields']['node_id_hex']))}, {span(bytes.fromhex(v['fields']['message_hex']))}}}"
        for v in vectors["encapsulated"]
    )
    yield table("encapsulation_vectors", "struct encapsulation_vector", rows)
    yield rejections("encapsulation_rejections", vectors["encapsulated_rejected"])


def inputs(wire_vectors, mqttsn_vectors):
    """(corpus, raw bytes) of every seed."""
    for v in wire_vectors["frames"]:
        yield "wire", v["frame_hex"]
    for v in wire_vectors["streams"]:
        yield "wire", v["stream_hex"]
    for key in ("links", "links_rejected"):
        for v in wire_vectors[key]:
            yield "link", v["hex"]
    for key in ("messages", "rejected", "encapsulated", "encapsulated_rejected"):
        for v in mqttsn_vectors[key]:
            yield "mqttsn", v["hex"]


def main(directory, kind, out):
    wire_vectors, mqttsn_vectors = (
        json.loads((Path(directory) / name).read_text()) for name in ("wire.json", "mqttsn.json")
    )
    if kind == "header":
        parts = ['#include "tests/vectors.h"\n', *wire(wire_vectors), *mqttsn(mqttsn_vectors)]
        Path(out).write_text("\n".join(parts))
        return
    for number, (name, raw) in enumerate(inputs(wire_vectors, mqttsn_vectors)):
        folder = Path(out) / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:04d}").write_bytes(bytes.fromhex(raw))


if __name__ == "__main__":
    main(*sys.argv[1:])
