#!/bin/sh
# Wrong: no new ones come, and nobody waits for those that are there.
set -eu
sed -i 's/^        started(job)$/        os.waitpid(started(job), 0)/' /usr/local/sbin/printshop
systemctl reload printshop
sleep 0.5
