"""The package behind ./kit. Arrows go one way; see docs/design.md."""
