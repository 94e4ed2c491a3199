"""Networks of R replicas side by side: shapes in and out, no losses."""
