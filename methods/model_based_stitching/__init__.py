"""Model-based stitching of joint trajectories: neighbours, models, values, walks (MBTS; MADiTS, Sec. 5.1)."""
