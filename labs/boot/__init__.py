"""The lab boot: a package, so that its files can import each other and mypy sees what."""
