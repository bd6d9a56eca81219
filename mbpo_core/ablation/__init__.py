"""Many settings compared: a grid of cells, each with several seeds, and what came out of it."""
