"""Multi-agent MuJoCo: robots whose joints are shared out among agents."""
