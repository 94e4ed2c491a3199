"""What several learners train alike: the loop over updates, and teams of networks with their targets."""
