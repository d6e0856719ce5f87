"""Talks to the echo server with Python's websockets.
Usage: python3 websockets_client.py URL"""
import websockets

from messages import CODE, MESSAGES, Fault, check, check_code, run


async def main(url):
    async with websockets.connect(url, compression="deflate", max_size=4 << 20) as c:
        print("agreed on:", c.response_headers.get("Sec-WebSocket-Extensions", "nothing"))
        if not c.extensions:
            raise Fault("no compression")
        for i, m in enumerate(MESSAGES):
            await c.send(m)
            check(i, await c.recv())
        # Fragments of its own making, and a ping between two messages.
        await c.send(["in ", "three ", "pieces"])
        await (await c.ping(b"between"))
        if await c.recv() != "in three pieces":
            raise Fault("the pieces came back as something else")
        await c.close(CODE, "bye")
        check_code(c.close_code)


run(main)
