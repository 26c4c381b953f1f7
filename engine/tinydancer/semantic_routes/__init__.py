"""Named routes: which of them a text means, by likeness, conditions and words."""
