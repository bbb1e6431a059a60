"""Disks to boot from.

image      what a guest boots from, and the manifest that says what it is
store      the images by name: found, made when they are missing, verified, removed
catalog    what there is to be had
sources/   where images come from: a recipe, a publisher, a file of the user's own
builder/   the making of an image from Debian's packages
shelf      the images that are kept
cache      directories that appear whole or not at all, shared with templates
download   a file from several addresses, gone on from after a break, and right
curl       one request over HTTP
signature  what a publisher says of a file, and whether it is the publisher who says so
qcow2      a disk that others made, taken once it is safe to open
"""
