"""The gRPC face of vcs: reads requests, asks the parts, turns their errors into statuses. No Git and no forge here."""
