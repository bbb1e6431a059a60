"""The lab zombies: a package, so that its files can import each other and mypy sees what."""
