"""The multi-agent particle environments: cooperative navigation, predator and prey, and world."""
