#!/bin/sh
# Wrong: the parent is killed, so that PID 1 reaps; systemd ends the rest of the service.
systemctl kill --kill-whom=main --signal=KILL printshop
sleep 1
