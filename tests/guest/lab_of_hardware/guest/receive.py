"""Takes one TCP connection on port 7000 and says how much came over it, and from whom.

usage: receive.py
"""

import json
import socket

with socket.create_server(("0.0.0.0", 7000)) as server:
    print(json.dumps({"ready": True}), flush=True)
    connection, (sender, _) = server.accept()
    with connection:
        received = 0
        while data := connection.recv(1 << 16):
            received += len(data)
print(json.dumps({"received": received, "sender": sender}), flush=True)
