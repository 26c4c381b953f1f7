"""What it is worth: figures on public data, each beside the simple ways of doing the same."""
