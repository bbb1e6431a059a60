#!/bin/sh
# Wrong: without the service there are no zombies.
systemctl stop printshop
