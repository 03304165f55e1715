"""Images and labels: read from their sources, brought to one size, drawn as nested subsets. Never
imports torch."""
