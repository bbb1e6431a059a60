"""Disks to boot from.

store      the images that are kept, fetched or built when they are missing
catalog    what there is to be had
published  images as their publishers made them: download, signature
builder/   images made here, from Debian's packages
cache      directories that appear whole or not at all, shared with templates
"""
