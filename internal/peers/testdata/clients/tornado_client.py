"""Talks to the echo server with Tornado, which keeps its context from message
to message whatever the answer says. Usage: python3 tornado_client.py URL"""
from tornado.websocket import websocket_connect

from messages import CODE, MESSAGES, Fault, check, check_code, run


async def main(url):
    c = await websocket_connect(url, compression_options={}, max_message_size=4 << 20)
    print("agreed on:", c.headers.get("Sec-WebSocket-Extensions", "nothing"))
    for i, m in enumerate(MESSAGES):
        await c.write_message(m, binary=isinstance(m, bytes))
        got = await c.read_message()
        if got is None:
            raise Fault(f"closed with {c.close_code} {c.close_reason!r} after {i} messages of {len(MESSAGES)}")
        check(i, got)
    c.close(CODE, "bye")
    if await c.read_message() is not None:
        raise Fault("a message behind the last")
    check_code(c.close_code)


run(main)
