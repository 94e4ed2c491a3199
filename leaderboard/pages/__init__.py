"""The pages of the site, one file each with a `publish`. Made from run records and published tables alone."""
