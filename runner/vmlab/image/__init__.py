"""Disks to boot from.

store      the images that are kept, fetched or built when they are missing
catalog    what there is to be had
published  images as their publishers made them
download   files, fetched again from where a try ended
signature  what a publisher says of a file, and whether it is the publisher who says so
builder/   images made here, from Debian's packages
cache      directories that appear whole or not at all, shared with templates
"""
