"""Clients of an OpenAI-compatible server, each second one streaming; counts what they saw as JSON.

    python3 clients.py URL USERS SECONDS [HEADER:VALUE ...]

`done`; `cut`: it ended after it had begun to stream; `failed ...`: before. Python 3.9, stdlib.
"""

import collections
import http.client
import json
import sys
import threading
import time
import urllib.parse

URL = urllib.parse.urlsplit(sys.argv[1])
UNTIL = time.monotonic() + float(sys.argv[3])
SEEN = collections.Counter()


def ask(number: int, stream: bool) -> str:
    connection = http.client.HTTPConnection(URL.hostname, URL.port, timeout=120)
    begun = False
    try:
        wanted = {
            "prompt": f"{number} and",
            "max_tokens": 48,
            "stream": stream,
            "ignore_eos": True,
        }
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/completions", json.dumps(wanted), headers)
        answer = connection.getresponse()
        if answer.status != 200:
            return f"failed {answer.status}"
        begun = stream and bool(answer.read(1))
        text = answer.read()
        if stream:
            return "done" if b"[DONE]" in text else "cut"
        return "done" if json.loads(text)["choices"] else "failed empty"
    except (OSError, ValueError, http.client.HTTPException) as error:
        return "cut" if begun else f"failed {type(error).__name__}"
    finally:
        connection.close()


def user(number: int) -> None:
    while time.monotonic() < UNTIL:
        SEEN[ask(number, number % 2 == 0)] += 1


threads = [threading.Thread(target=user, args=(n,)) for n in range(int(sys.argv[2]))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(SEEN))
