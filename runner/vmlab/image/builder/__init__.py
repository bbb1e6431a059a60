"""Building an image from Debian packages, without a loop device and without privilege.

recipe      what is wanted: the recipe folders, checked as they are read
mirror      where packages come from on this machine
namespace   root enough for the job: the one prefix that every privileged step runs behind
bootstrap   packages -> tar                          (mmdebstrap)
dates       the same dates in each build
initrd      tar -> kernel, modules -> initrd         (a newc cpio written here)
rootfs      tar -> ext4 inside the disk              (mke2fs)
bootloader  partition table, boot partition, GRUB    (sfdisk, mtools, grub-mkimage, and two patched sectors)
steps       all of these in their order
workshop    where a build works, and how it runs a tool
"""
