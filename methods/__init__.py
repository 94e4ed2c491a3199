"""Methods: augmenters, learners and what they share. They see datasets, never an environment."""
