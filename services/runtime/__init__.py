"""Technical ground of every service: settings, Postgres, JetStream, gRPC, health, lifecycle. Knows no jobs."""
