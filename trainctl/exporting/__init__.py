"""A trained net as one file for other programs: what goes in, the formats, and the comparison with the run itself."""
