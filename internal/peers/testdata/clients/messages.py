"""What each client in Python sends, in its order, to have it back."""
import asyncio
import sys

TEXT = "Grüße, 漢字, 😀; " * 100
CODE = 4321


def pattern(n):
    return bytes(i % 251 for i in range(n))


MESSAGES = [TEXT, TEXT, pattern(5000), "", b"", pattern(1 << 20), TEXT]


class Fault(Exception):
    """Something that isn't as it must be."""


def run(main):
    """Runs the coroutine of a client with the URL."""
    try:
        asyncio.run(asyncio.wait_for(main(sys.argv[1]), 60))
    except Fault as e:
        sys.exit(str(e))


def check(i, got):
    want = MESSAGES[i]
    if type(got) is not type(want) or got != want:
        raise Fault(f"message {i}: {type(got).__name__} of {len(got or '')} came back, "
                    f"want {type(want).__name__} of {len(want)}")


def check_code(code):
    if code != CODE:
        raise Fault(f"closed with {code}, want {CODE}")
    print(f"{len(MESSAGES)} messages, closed with {code}")
