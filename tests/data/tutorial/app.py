"""The application of the tutorial: says hello, and counts its visitors in Redis if there is one."""

import os
import socket

from flask import Flask
from redis import Redis, RedisError

redis = Redis(host="redis", db=0, socket_connect_timeout=2, socket_timeout=2)
app = Flask(__name__)


@app.route("/")
def hello() -> str:
    try:
        visits = redis.incr("counter")
    except RedisError:
        visits = "<i>cannot connect to Redis, counter disabled</i>"
    name = os.getenv("NAME", "world")
    return f"<h3>Hello {name}!</h3><b>Hostname:</b> {socket.gethostname()}<br/><b>Visits:</b> {visits}"


if __name__ == "__main__":
    app.run(host="0.0.0.0", port=80)
