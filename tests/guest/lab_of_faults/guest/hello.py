import json
import sys

print(json.dumps({"hello": " ".join(sys.argv[1:]), "input": sys.stdin.read()}))
