"""Several methods on the same samples, budget and seeds: their numbers as rows, a table, a picture and a page."""
