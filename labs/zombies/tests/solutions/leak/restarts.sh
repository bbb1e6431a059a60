#!/bin/sh
# Wrong: the program is mended, but a restart takes the printers along.
set -eu
sed -i 's/^        started(job)$/        os.waitpid(started(job), 0)/' /usr/local/sbin/printshop
systemctl restart printshop
sleep 1
