#!/bin/sh
# Wrong: a service that does nothing leaks nothing.
set -eu
sed -i 's/^        started(job)$/        signal.signal(signal.SIGCHLD, signal.SIG_IGN)/' /usr/local/sbin/printshop
sed -i 's/^    while True:$/    while os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG):\n        pass\n    while True:/' /usr/local/sbin/printshop
systemctl reload printshop
sleep 0.5
