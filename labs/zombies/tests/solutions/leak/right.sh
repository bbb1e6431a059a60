#!/bin/sh
# Right: the program waits for whoever has ended, and reads itself again without ending.
set -eu
python3 - <<'PY'
path = "/usr/local/sbin/printshop"
text = open(path).read()
text = text.replace(
    "        started(job)\n",
    "        started(job)\n        while os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG):\n            pass\n",
)
open(path, "w").write(text)
PY
systemctl reload printshop
sleep 0.5
