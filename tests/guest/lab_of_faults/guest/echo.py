"""Answers each line; ends with the status that it is told."""

import json
import sys

for line in sys.stdin:
    message = json.loads(line)
    if "exit" in message:
        print("as you wish", file=sys.stderr)
        sys.exit(message["exit"])
    print(json.dumps({"heard": message}), flush=True)
print(json.dumps({"end": True}), flush=True)
