"""Talks to the echo server with libsoup 3, GNOME's HTTP library, which sends an
empty Sec-WebSocket-Protocol for a list without names.
Usage: python3 libsoup_client.py URL"""
import sys

import gi

gi.require_version("Soup", "3.0")
from gi.repository import GLib, Soup

from messages import CODE, MESSAGES, Fault, check, check_code

loop = GLib.MainLoop()
failed = []
seen = 0


def fail(why):
    failed.append(f"{why} after {seen} messages of {len(MESSAGES)}")
    loop.quit()


def send(conn):
    m = MESSAGES[seen]
    kind = Soup.WebsocketDataType.BINARY if isinstance(m, bytes) else Soup.WebsocketDataType.TEXT
    conn.send_message(kind, GLib.Bytes.new(m if isinstance(m, bytes) else m.encode()))


def on_message(conn, kind, data):
    global seen
    got = data.get_data() or b""
    try:
        check(seen, got if kind == Soup.WebsocketDataType.BINARY else got.decode())
    except Fault as e:
        return fail(str(e))
    seen += 1
    if seen < len(MESSAGES):
        send(conn)
    else:
        conn.close(CODE, "bye")


def on_open(session, result):
    try:
        conn = session.websocket_connect_finish(result)
    except GLib.Error as e:
        return fail(f"no upgrade: {e.message}")
    print("agreed on:", message.get_response_headers().get_one("Sec-WebSocket-Extensions") or "nothing")
    keep.append(conn)
    conn.set_max_incoming_payload_size(4 << 20)
    conn.connect("message", on_message)
    conn.connect("error", lambda _, e: fail(f"error: {e.message}"))
    conn.connect("closed", lambda _: loop.quit())
    send(conn)


keep = []
session = Soup.Session()
session.add_feature_by_type(Soup.WebsocketExtensionManager)
message = Soup.Message.new("GET", sys.argv[1])
session.websocket_connect_async(message, None, [], GLib.PRIORITY_DEFAULT, None, on_open)
GLib.timeout_add_seconds(60, lambda: fail("timed out"))
loop.run()
if not failed and seen != len(MESSAGES):
    failed.append(f"closed with {keep[0].get_close_code()} after {seen} messages of {len(MESSAGES)}")
if failed:
    sys.exit(failed[0])
check_code(keep[0].get_close_code())
