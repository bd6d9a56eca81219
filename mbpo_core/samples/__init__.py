"""Import: the demo's scenes or anybody's rows in, checked and normalised samples out."""
