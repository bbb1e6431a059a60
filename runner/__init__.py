"""vmlab: labs that make an operating-systems course measurable."""

__version__ = "0.1.0"
