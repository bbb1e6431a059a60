"""One report and its renderings: JSON, HTML, JUnit. Needs no QEMU."""
