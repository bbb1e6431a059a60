"""What runs inside guests for the runner itself: Python's standard library only, and nothing of vmlab is imported."""
