"""A tree's JSON, byte for byte as stock restic writes it (see FORMAT: key order, omissions, escapes).

Always there: name, type, mtime, atime, ctime, uid, gid, content. Every other key is left out when zero or empty.
`device_id` is written when the node has it: who makes nodes leaves it 0 for directories and where links < 2, or trees
would change with the device's number. What a `Node` cannot hold (a zone, a null, a key we do not know) is kept in its
`extra`, so that a tree that is decoded and encoded again keeps its id.
"""

import base64
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, cast

import orjson

from pra_agent.errors import DamagedError
from pra_agent.model import gojson
from pra_agent.model.modes import go_mode, unix_mode
from pra_agent.model.nodes import Node, NodeType
from pra_agent.model.quoting import go_quote, go_unquote
from pra_agent.model.times import format_ns, parse_ns

# fmt: off
_KNOWN = frozenset((
    "name", "type", "mode", "mtime", "atime", "ctime", "uid", "gid", "user", "group", "inode", "device_id", "size",
    "links", "linktarget", "linktarget_raw", "extended_attributes", "device", "content", "subtree", "error",
))
# fmt: on
#: So many nodes become JSON at a time.
_PIECE = 1000
_TYPES = {kind.value: kind for kind in NodeType}
_GENERIC = "generic_attributes"
_NO_XATTRS: Mapping[bytes, bytes] = {}
_NO_EXTRA: Mapping[str, object] = {}


def encode_tree(nodes: Sequence[Node]) -> bytes:
    """Encode a directory's listing.

    Raises ValueError when names are not strictly ascending by their raw bytes, or not single path components.
    """
    for before, after in itertools.pairwise(nodes):
        if before.name >= after.name:
            raise ValueError(f"nodes are not in order: {before.name!r}, {after.name!r}")
    for node in nodes:
        if not is_component(node.name):
            raise ValueError(f"not a file name: {node.name!r}")
    # Pieces of a large directory, since what JSON is made from is larger than the JSON.
    pieces = [
        gojson.dumps([_to_json(node) for node in nodes[start : start + _PIECE]])[1:-1]
        for start in range(0, len(nodes), _PIECE)
    ]
    return b'{"nodes":[' + b",".join(pieces) + b"]}\n"


def is_component(name: bytes) -> bool:
    """Tell whether a name is one component of a path, and so cannot lead out of its directory."""
    return name not in {b"", b".", b".."} and b"/" not in name and b"\0" not in name


def decode_tree(data: bytes) -> list[Node]:
    """Decode a directory's listing, in the order in which it is written; names are not checked.

    Raises DamagedError when it is not a tree.
    """
    try:
        nodes = orjson.loads(data)["nodes"]
        return [_from_json(item) for item in nodes or ()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"not a tree: {error}") from error


def _to_json(node: Node) -> dict[str, Any]:
    mtime = format_ns(node.mtime)
    json: dict[str, Any] = {"name": go_quote(node.name), "type": node.type.value}
    if mode := go_mode(node.type, node.mode):
        json["mode"] = mode
    json["mtime"] = mtime
    json["atime"] = mtime if node.atime == node.mtime else format_ns(node.atime)
    json["ctime"] = mtime if node.ctime == node.mtime else format_ns(node.ctime)
    json["uid"] = node.uid
    json["gid"] = node.gid
    if node.user:
        json["user"] = _text(node.user)
    if node.group:
        json["group"] = _text(node.group)
    _put_numbers(json, node)
    if node.linktarget or node.xattrs or node.extra or node.device:
        _put_rare(json, node)
    json["content"] = None if node.content is None else [blob.hex() for blob in node.content]
    if node.subtree is not None:
        json["subtree"] = node.subtree.hex()
    if node.error:
        json["error"] = _text(node.error)
    if node.extra:
        _put_extra(json, node)
    return json


def _put_numbers(json: dict[str, Any], node: Node) -> None:
    if node.inode:
        json["inode"] = node.inode
    if node.device_id:
        json["device_id"] = node.device_id
    if node.size:
        json["size"] = node.size
    if node.links:
        json["links"] = node.links


def _put_rare(json: dict[str, Any], node: Node) -> None:
    if node.linktarget:
        text = gojson.lossy(node.linktarget)
        json["linktarget"] = text
        if not isinstance(text, str):
            json["linktarget_raw"] = base64.b64encode(node.linktarget).decode()
    if node.xattrs:
        json["extended_attributes"] = [
            {"name": gojson.lossy(name), "value": base64.b64encode(value).decode()}
            for name, value in node.xattrs.items()
        ]
    if _GENERIC in node.extra:
        json[_GENERIC] = node.extra[_GENERIC]
    if node.device:
        json["device"] = node.device


def _text(text: str) -> object:
    return text if text.isascii() else gojson.lossy(text.encode("utf-8", "surrogateescape"))


def _put_extra(json: dict[str, Any], node: Node) -> None:
    """Put back how a value was spelt, if it is still that value, and all keys that are not ours."""
    for key, kept in node.extra.items():
        if key not in _KNOWN:
            json[key] = kept
        elif key in {"mtime", "atime", "ctime"}:
            if parse_ns(str(kept)) == getattr(node, key):
                json[key] = kept
        elif key == "mode" and isinstance(kept, int):
            if unix_mode(kept) == node.mode:
                json[key] = kept
        elif key == "extended_attributes" and _xattrs(cast("list[dict[str, str]]", kept)) == node.xattrs:
            json[key] = kept


def _xattrs(items: list[dict[str, str]]) -> dict[bytes, bytes]:
    return {item["name"].encode(): base64.b64decode(item["value"] or "", validate=True) for item in items}


def _from_json(item: dict[str, Any]) -> Node:
    get = item.get
    kind = _TYPES.get(item["type"], NodeType.IRREGULAR)
    mode: int = get("mode", 0)
    mtime, atime, ctime = item["mtime"], item["atime"], item["ctime"]
    content: list[str] | None = get("content")
    subtree: str | None = get("subtree")
    raw_target: str | None = get("linktarget_raw")
    xattrs = get("extended_attributes")
    mtime_ns = parse_ns(mtime)
    node = Node(
        go_unquote(item["name"]),
        kind,
        unix_mode(mode),
        mtime_ns,
        mtime_ns if atime == mtime else parse_ns(atime),
        mtime_ns if ctime == mtime else parse_ns(ctime),
        item["uid"],
        item["gid"],
        get("user", ""),
        get("group", ""),
        get("inode", 0),
        get("device_id", 0),
        get("size", 0),
        get("links", 0),
        get("linktarget", "").encode() if raw_target is None else base64.b64decode(raw_target, validate=True),
        _xattrs(xattrs) if xattrs else _NO_XATTRS,
        get("device", 0),
        None if content is None else [_id(blob) for blob in content],
        None if subtree is None else _id(subtree),
        get("error", ""),
        _extra(item, kind, mode) if _is_special(item, kind, mode) else _NO_EXTRA,
    )
    _check(node)
    return node


def _id(text: str) -> bytes:
    raw = bytes.fromhex(text)
    if len(raw) != 32:
        raise ValueError(f"not an id: {text!r}")
    return raw


def _check(node: Node) -> None:
    """Refuse values of other types: who reads nodes relies on them, and a tree may come from anybody."""
    # A bitwise "or" of everything is an integer only if all are, and negative only if one is.
    every = node.uid | node.gid | node.inode | node.device_id | node.size | node.links | node.device | node.mode
    if every < 0:
        raise ValueError(f"a negative number in {node.name!r}")
    _ = node.user + node.group + node.error + ""


def _is_special(item: Mapping[str, Any], kind: NodeType, mode: int) -> bool:
    """Tell whether a node holds, or spells, what our fields cannot."""
    return (
        not item.keys() <= _KNOWN
        or mode != go_mode(kind, unix_mode(mode))
        or not item["mtime"].endswith("Z")
        or not item["ctime"].endswith("Z")
        or not item["atime"].endswith("Z")
        or ("extended_attributes" in item and any(each["value"] is None for each in item["extended_attributes"]))
    )


def _extra(item: Mapping[str, Any], kind: NodeType, mode: int) -> dict[str, object]:
    extra: dict[str, object] = {key: value for key, value in item.items() if key not in _KNOWN}
    for key in ("mtime", "atime", "ctime"):
        if not item[key].endswith("Z"):
            extra[key] = item[key]
    if mode != go_mode(kind, unix_mode(mode)):
        extra["mode"] = mode
    xattrs: Any = item.get("extended_attributes") or []
    if any(each["value"] is None for each in xattrs):
        extra["extended_attributes"] = xattrs
    return extra
