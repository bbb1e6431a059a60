#!/bin/sh
# Wrong: zombies are killed, which are dead already.
ps -eo pid,stat | awk '$2 ~ /^Z/ { print $1 }' | xargs -r kill -KILL
