"""The harness: command line, matrices, protocols, pipeline, artefacts, executors, records."""
