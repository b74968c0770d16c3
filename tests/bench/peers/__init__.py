"""What our durable scheduling is measured beside, each a process of its own: two job queues on PostgreSQL, a floor."""
