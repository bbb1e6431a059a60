"""The negative controls of the lab boot."""
